//! The image's config and history.

use rbuild_frontend::BuildOptions;
use rbuild_oci::Platform;
use serde_json::json;

use super::build::{Images, build, build_with, check_config, history, options, rounds};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[test]
fn every_instruction() {
    let text = r#"FROM scratch
MAINTAINER me <me@x>
ENV A=1 B="two words"
LABEL l=1 "k e"=v
EXPOSE 80 53/UDP 8000-8001
USER u:g
VOLUME /a /b
VOLUME ["/c d"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=1m30s --retries=3 CMD curl x
SHELL ["/bash", "-c"]
CMD echo hi
ENTRYPOINT ["/e", "x"]
ONBUILD RUN later
ARG Z
ARG Y=1 X
"#;
    check_config(
        text,
        json!({
            "User": "u:g",
            "ExposedPorts": {"53/udp": {}, "80/tcp": {}, "8000/tcp": {}, "8001/tcp": {}},
            "Env": [PATH, "A=1", "B=two words"],
            "Entrypoint": ["/e", "x"],
            "Cmd": ["/bash", "-c", "echo hi"],
            "Healthcheck": {
                "Test": ["CMD-SHELL", "curl x"], "Interval": 90_000_000_000_i64, "Retries": 3
            },
            "ArgsEscaped": true,
            "Volumes": {"/a": {}, "/b": {}, "/c d": {}},
            "WorkingDir": "/",
            "OnBuild": ["RUN later"],
            "Labels": {"k e": "v", "l": "1"},
            "StopSignal": "SIGTERM",
            "Shell": ["/bash", "-c"],
        }),
    );
    let build = build(text);
    assert_eq!(build.config.author, "me <me@x>");
    assert_eq!(
        history(&build),
        [
            "(MAINTAINER me <me@x>)",
            "(ENV A=1 B=two words)",
            "(LABEL l=1 k e=v)",
            "(EXPOSE [53/udp 80/tcp 8000/tcp 8001/tcp])",
            "(USER u:g)",
            "(VOLUME [/a /b])",
            "(VOLUME [/c d])",
            "(STOPSIGNAL SIGTERM)",
            "(HEALTHCHECK {Test:[CMD-SHELL curl x] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3})",
            "(SHELL [/bash -c])",
            "(CMD [\"/bash\" \"-c\" \"echo hi\"])",
            "(ENTRYPOINT [\"/e\" \"x\"])",
            "(ARG Z)",
            "(ARG Y=1 X)",
        ]
    );
}

#[test]
fn rule_16_entrypoint_clears_an_inherited_cmd() {
    let cmd = |text: &str| build(text).config.config.cmd;
    let words = |word: &str| Some(vec![word.to_owned()]);
    assert_eq!(cmd("FROM base\n"), words("sh"));
    assert_eq!(cmd("FROM base\nENTRYPOINT [\"e\"]\n"), None);
    assert_eq!(cmd("FROM base\nCMD [\"c\"]\nENTRYPOINT [\"e\"]\n"), words("c"));
    assert_eq!(cmd("FROM base\nENTRYPOINT [\"e\"]\nCMD [\"c\"]\n"), words("c"));
    assert_eq!(cmd("FROM base AS a\nCMD [\"c\"]\nFROM a\nENTRYPOINT [\"e\"]\n"), None);
}

#[test]
fn rule_18_bad_json_is_shell_form() {
    assert_eq!(
        build("FROM scratch\nCMD ['a']\n").config.config.cmd.unwrap(),
        ["/bin/sh", "-c", "['a']"]
    );
    let (_, result) = rounds("FROM scratch\nCMD [\"a\", 1]\n", &options(), &Images::new());
    assert_eq!(result.unwrap_err()[0].message, "only string type is allowed in JSON arrays");
}

#[test]
fn rule_32_what_the_base_says_is_kept() {
    let images = Images::new().with(
        "old",
        r#"{"config":{"Labels":{"a":"1"},"Custom":[1]},"created":"2020-01-01T00:00:00Z","mystery":{"x":1},
            "architecture":"arm","variant":"v6"}"#,
    );
    let built = build_with("FROM old\nLABEL b=2\n", &options(), &images);
    let json = serde_json::to_value(&built.config).unwrap();
    assert_eq!(json["mystery"], json!({"x": 1}));
    assert_eq!(json["config"]["Custom"], json!([1]));
    assert_eq!(json["config"]["Labels"], json!({"a": "1", "b": "2"}));
    assert_eq!(json["config"]["Env"], json!([PATH]));
    assert_eq!(json["rootfs"]["diff_ids"], json!([]));
    assert_eq!(json.get("created"), None);
    assert_eq!((&json["architecture"], &json["variant"]), (&json!("arm"), &json!("v6")));
    assert_eq!(built.base_history, 1);
    assert_eq!(built.config.history[0].created_by, "base layer");
    // A platform that was asked for is written over it.
    let asked = BuildOptions { platform: Some(Platform::new("linux", "arm64", "")), ..options() };
    let built = build_with("FROM old\n", &asked, &images);
    assert_eq!((built.config.architecture.as_str(), built.config.variant.as_str()), ("arm64", ""));
}

#[test]
fn rule_36_volumes_change_no_steps() {
    let steps = |text: &str| build(text).graph.vertices().last().unwrap().digest;
    assert_eq!(steps("FROM base\nVOLUME /v\nRUN x\n"), steps("FROM base\nRUN x\n"));
}

#[test]
fn rule_37_users_are_not_looked_up() {
    let built = build("FROM scratch\nUSER nobody-knows:me\n");
    assert_eq!(built.config.config.user, "nobody-knows:me");
}

#[test]
fn rule_38_the_last_one_wins() {
    let built = build(
        "FROM scratch\nCMD [\"1\"]\nCMD [\"2\"]\nENTRYPOINT [\"1\"]\nENTRYPOINT [\"2\"]\nHEALTHCHECK CMD [\"1\"]\nHEALTHCHECK NONE\n",
    );
    let config = built.config.config;
    assert_eq!(config.cmd.unwrap(), ["2"]);
    assert_eq!(config.entrypoint.unwrap(), ["2"]);
    assert_eq!(config.healthcheck.unwrap().test, ["NONE"]);
}

#[test]
fn empty_commands() {
    let config = build("FROM base\nCMD []\nENTRYPOINT []\n").config.config;
    assert_eq!((config.cmd, config.entrypoint), (None, None));
}

#[test]
fn labels_of_the_command_line_come_last() {
    let mut given = options();
    given.labels.insert("a".into(), "cli".into());
    let built = build_with("FROM scratch\nLABEL a=file b=file\n", &given, &Images::new());
    let labels: Vec<_> = built.config.config.labels.values().cloned().collect();
    assert_eq!(labels, ["cli", "file"]);
    assert_eq!(history(&built).len(), 1);
}

#[test]
fn an_empty_checksum_is_none() {
    build("FROM scratch\nARG SUM\nADD --checksum=$SUM a /b\nADD --checksum= a b /c/\n");
}

#[test]
fn ports_of_one_variable() {
    let built = build("FROM scratch\nENV P=\"80 81/udp\"\nEXPOSE $P\n");
    let ports: Vec<_> = built.config.config.exposed_ports.keys().cloned().collect();
    assert_eq!(ports, ["80/tcp", "81/udp"]);
}
