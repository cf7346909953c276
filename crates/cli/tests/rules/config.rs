//! Rules 12, 13, 16 to 18, 31, 32, 35 to 38 and 42: the configuration, the history, and what makes a layer.

use rbuild_testdata::{Entry, Image, Layer};
use serde_json::{Value, json};

use super::world::{
    BASE_CREATED, base, build, config, history, listing, new_layers, rebuild, refusal, run, text,
    with_base, with_image,
};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[test]
fn privileged_rule_12_workdir() {
    let fixture = with_base(
        "FROM base\n\
         WORKDIR /existing\n\
         WORKDIR sub\n\
         WORKDIR /\n\
         USER app:staff\n\
         ENV D=/made/deep\n\
         WORKDIR $D\n\
         USER 5\n\
         WORKDIR numbers/../number\n\
         USER nosuch\n\
         WORKDIR /unknown\n",
    );
    let image = build(&fixture, &[]);
    let found: Vec<String> =
        new_layers(&image).iter().map(|layer| listing(layer).join(", ")).collect();
    assert_eq!(
        found,
        [
            "",
            "",
            "d0755 1000:2000 0 made/, d0755 1000:2000 0 made/deep/",
            "d0755 1000:2000 0 made/, d0755 1000:2000 0 made/deep/, d0755 5:5 0 made/deep/number/",
            "d0755 0:0 0 unknown/",
        ]
    );
    assert_eq!(
        history(&image, 1),
        [
            "+ WORKDIR /existing",
            "+ WORKDIR /existing/sub",
            "- WORKDIR /",
            "- USER app:staff",
            "- ENV D=/made/deep",
            "+ WORKDIR /made/deep",
            "- USER 5",
            "+ WORKDIR /made/deep/number",
            "- USER nosuch",
            "+ WORKDIR /unknown",
        ]
    );
    assert_eq!(config(&image, "WorkingDir"), "/unknown");
    assert_eq!(config(&image, "User"), "nosuch");

    // That of a base image makes nothing.
    let image = base().configured(|config| config["config"]["WorkingDir"] = "/from/base".into());
    let fixture = with_image("FROM base\nENV A=b\nCOPY Dockerfile copied\n", &image);
    let image = build(&fixture, &[]);
    assert_eq!(new_layers(&image).len(), 1);
    assert_eq!(image.layers[1].paths(), ["from/", "from/base/", "from/base/copied"]);
    // Without the cache it is the same layer: nothing of WORKDIR runs again.
    fixture.write("Dockerfile", "FROM base\nWORKDIR /x\n");
    run(&fixture, "store", &["-o", "type=cacheonly"]).ok();
    let again = run(&fixture, "store", &["-o", "type=cacheonly", "--no-cache"]).ok();
    assert_eq!(again.steps_run(), [""; 0], "{}", again.stderr);
}

#[test]
fn rule_13_pairs_of_env_and_arg() {
    let fixture = with_base(
        "FROM scratch\n\
         ENV a=0\n\
         ENV a=1 b=$a c=${a}x\n\
         ARG d=1 e=$d\n\
         LABEL got=\"$b $c $d $e\" other=$got.\n",
    );
    let image = build(&fixture, &[]);
    assert_eq!(config(&image, "Env"), &json!([PATH, "a=1", "b=0", "c=0x"]));
    assert_eq!(config(&image, "Labels"), &json!({"got": "0 0x 1 1", "other": "."}));
    assert_eq!(
        history(&image, 0),
        ["- ENV a=0", "- ENV a=1 b=0 c=0x", "- ARG d=1 e=1", "- LABEL got=0 0x 1 1 other=."]
    );
}

#[test]
fn rule_16_entrypoint_and_inherited_cmd() {
    let image = base().configured(|config| config["config"]["Cmd"] = json!(["inherited"]));
    let fixture = with_image("", &image);
    for (dockerfile, cmd, entrypoint) in [
        ("FROM base\nENV a=b\n", json!(["inherited"]), Value::Null),
        ("FROM base\nENTRYPOINT [\"x\"]\n", Value::Null, json!(["x"])),
        ("FROM base\nCMD [\"a\"]\nENTRYPOINT [\"x\"]\n", json!(["a"]), json!(["x"])),
        ("FROM base\nENTRYPOINT [\"x\"]\nCMD [\"a\"]\n", json!(["a"]), json!(["x"])),
        (
            "FROM base AS one\nCMD [\"a\"]\nFROM one\nENTRYPOINT [\"x\"]\n",
            Value::Null,
            json!(["x"]),
        ),
        ("FROM base\nCMD [\"a\"]\nENTRYPOINT []\n", json!(["a"]), Value::Null),
        ("FROM base\nENTRYPOINT []\n", Value::Null, Value::Null),
        ("FROM base\nCMD []\n", Value::Null, Value::Null),
    ] {
        let image = rebuild(&fixture, dockerfile, &[]);
        assert_eq!(config(&image, "Cmd"), &cmd, "{dockerfile}");
        assert_eq!(config(&image, "Entrypoint"), &entrypoint, "{dockerfile}");
    }
}

#[test]
fn rule_17_shell() {
    let fixture = with_base(
        "FROM base AS one\n\
         SHELL [\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"]\n\
         FROM one\n\
         ENTRYPOINT exec \"$PROGRAM\"\n\
         CMD echo  'two  words'\n",
    );
    let image = build(&fixture, &["-t", "parent"]);
    let shell = ["/bin/bash", "-o", "pipefail", "-c"];
    let with = |command: &str| json!([&shell[..], &[command]].concat());
    assert_eq!(config(&image, "Shell"), &json!(shell));
    assert_eq!(config(&image, "Entrypoint"), &with("exec \"$PROGRAM\""));
    assert_eq!(config(&image, "Cmd"), &with("echo  'two  words'"));
    assert_eq!(config(&image, "ArgsEscaped"), true);
    assert_eq!(
        history(&image, 1),
        [
            "- SHELL [/bin/bash -o pipefail -c]",
            r#"- ENTRYPOINT ["/bin/bash" "-o" "pipefail" "-c" "exec \"$PROGRAM\""]"#,
            r#"- CMD ["/bin/bash" "-o" "pipefail" "-c" "echo  'two  words'"]"#,
        ]
    );
    // Images hand it on too.
    let fixture = with_image(
        "FROM base\nCMD x\nSHELL [\"sh\"]\nENTRYPOINT y\n",
        &base().configured(|config| config["config"]["Shell"] = json!(shell)),
    );
    let image = build(&fixture, &[]);
    assert_eq!(config(&image, "Cmd"), &with("x"));
    assert_eq!(config(&image, "Entrypoint"), &json!(["sh", "y"]));
    let image = rebuild(&fixture, "FROM scratch\nENTRYPOINT y\n", &[]);
    assert_eq!(config(&image, "Entrypoint"), &json!(["/bin/sh", "-c", "y"]));
    assert_eq!(config(&image, "ArgsEscaped"), &Value::Null);
}

#[test]
fn rule_18_what_is_no_json() {
    let fixture = with_base("");
    for (instruction, key, expected) in [
        ("CMD ['a', 'b']", "Cmd", json!(["/bin/sh", "-c", "['a', 'b']"])),
        ("CMD [\"a\", \"b\"", "Cmd", json!(["/bin/sh", "-c", "[\"a\", \"b\""])),
        ("CMD [ \"a\" , \"b\" ]", "Cmd", json!(["a", "b"])),
        ("CMD [\"\\u0041\\n\"]", "Cmd", json!(["A\n"])),
        ("ENTRYPOINT [\"$HOME\"]", "Entrypoint", json!(["$HOME"])),
        ("VOLUME [\"/a\", \"/b c\"]", "Volumes", json!({"/a": {}, "/b c": {}})),
        // What is expanded loses its quotes.
        ("VOLUME ['/a', /b", "Volumes", json!({"[/a,": {}, "/b": {}})),
    ] {
        let image = rebuild(&fixture, &format!("FROM base\n{instruction}\n"), &[]);
        assert_eq!(config(&image, key), &expected, "{instruction}");
    }
    for (instruction, expected) in [
        ("CMD [\"a\", 1]", "only string type is allowed in JSON arrays"),
        ("COPY [\"a\", {}]", "only string type is allowed in JSON arrays"),
        ("SHELL sh -c", "SHELL requires the arguments to be in JSON form"),
    ] {
        let error = refusal(&fixture, &format!("FROM base\n{instruction}\n"));
        assert!(error.contains(expected), "{instruction}: {error}");
    }
}

#[test]
fn privileged_rule_31_history() {
    let fixture = with_base(
        "FROM base\n\
         MAINTAINER Somebody <a@b>\n\
         ARG first\n\
         ARG second=2 third=\"a b\"\n\
         ARG first=again\n\
         ENV second=env k=\"quoted value\" old\\ space=x\n\
         ENV legacy  with  spaces\n\
         LABEL a.b=c \"d e\"='f'\n\
         EXPOSE 80 53/UDP 8000-8002 1\n\
         VOLUME /one /two\n\
         USER app\n\
         STOPSIGNAL SIGTERM\n\
         SHELL [\"sh\", \"-c\"]\n\
         HEALTHCHECK --interval=30s --timeout=1m30s --start-period=1h --start-interval=500ms --retries=3 CMD check it\n\
         HEALTHCHECK NONE\n\
         WORKDIR /work\n\
         COPY --chown=app --chmod=600 --link one two ./\n\
         COPY --from=base --exclude=x /etc/passwd p\n\
         COPY <<EOF <<\"RAW\" one /docs/\nhello\nEOF\nraw\nRAW\n\
         ADD one /added\n\
         CMD [\"a\", \"b c\"]\n\
         ENTRYPOINT echo \"$x\"\n\
         ONBUILD RUN true\n",
    );
    fixture.write("one", "1");
    fixture.write("two", "2");
    let image = build(&fixture, &["--build-arg", "first=given"]);
    assert_eq!(
        history(&image, 1),
        [
            "- MAINTAINER Somebody <a@b>",
            "- ARG first=given",
            "- ARG second=2 third=a b",
            "- ARG first=given",
            "- ENV second=env k=quoted value old space=x",
            "- ENV legacy=with  spaces",
            "- LABEL a.b=c d e=f",
            "- EXPOSE [1/tcp 53/udp 80/tcp 8000/tcp 8001/tcp 8002/tcp]",
            "- VOLUME [/one /two]",
            "- USER app",
            "- STOPSIGNAL SIGTERM",
            "- SHELL [sh -c]",
            "- HEALTHCHECK {Test:[CMD-SHELL check it] Interval:30s Timeout:1m30s StartPeriod:1h0m0s StartInterval:500ms Retries:3}",
            "- HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
            "+ WORKDIR /work",
            "+ COPY --chown=app --chmod=600 one two ./ # buildkit",
            "+ COPY /etc/passwd p # buildkit",
            "+ COPY one <<EOF <<RAW /docs/ # buildkit",
            "+ ADD one /added # buildkit",
            r#"- CMD ["a" "b c"]"#,
            r#"- ENTRYPOINT ["sh" "-c" "echo \"$x\""]"#,
        ]
    );
    let first = &image.config["history"][0];
    assert_eq!(first, &json!({"created": BASE_CREATED, "created_by": "layer 0"}));
    assert_eq!(
        image.config["config"],
        json!({
            "ArgsEscaped": true,
            "Cmd": ["a", "b c"],
            "Entrypoint": ["sh", "-c", "echo \"$x\""],
            "Env": ["PATH=/bin", "second=env", "k=quoted value", "old space=x", "legacy=with  spaces"],
            "ExposedPorts": {
                "1/tcp": {}, "53/udp": {}, "80/tcp": {}, "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {},
            },
            "Healthcheck": {"Test": ["NONE"]},
            "Labels": {"a.b": "c", "d e": "f"},
            "OnBuild": ["RUN true"],
            "Shell": ["sh", "-c"],
            "StopSignal": "SIGTERM",
            "User": "app",
            "Volumes": {"/one": {}, "/two": {}},
            "WorkingDir": "/work",
        })
    );
    assert_eq!(image.config["author"], "Somebody <a@b>");
    assert_eq!(text(&image, "work/p"), text(&image, "etc/passwd"));
}

#[test]
fn rule_32_the_document_of_the_base() {
    let other = Image::new("linux/arm64").layer(Layer::new(&[Entry::file("a", "1")])).configured(
        |config| {
            config["config"]["Env"] = json!(["LANG=C"]);
            config["config"]["Unknown"] = json!({"key": [1, 2]});
            config["moby.extension"] = json!("kept");
            config["created"] = "1999-01-01T00:00:00Z".into();
            config["author"] = "theirs".into();
            config["os.version"] = "9.9".into();
        },
    );
    let fixture = with_image("FROM base\nLABEL mine=1\n", &other);
    let image = build(&fixture, &["--platform", "linux/amd64"]);
    assert_eq!(config(&image, "Unknown"), &json!({"key": [1, 2]}));
    assert_eq!(config(&image, "Env"), &json!(["LANG=C", PATH]));
    assert_eq!(image.config["moby.extension"], "kept");
    assert_eq!(image.config["author"], "theirs");
    assert_eq!(image.platform, "linux/amd64");
    // Not the base's `created`: the time of the last entry, and a LABEL has that of what is below it.
    assert_eq!(image.config["created"], BASE_CREATED);
    assert_eq!(image.config["history"][1]["created"], BASE_CREATED);
}

#[test]
fn privileged_rule_35_triggers() {
    const DOCKERFILE: &str = "FROM base AS one\n\
         ONBUILD COPY one /trigger\n\
         ONBUILD ENV A=b\n\
         ONBUILD ENTRYPOINT [\"x\"]\n\
         FROM one AS two\n\
         LABEL seen=$A\n";
    let fixture = with_base(DOCKERFILE);
    fixture.write("one", "1");
    let ran = run(&fixture, "store", &["-t", "grandparent"]).ok();
    assert!(ran.stderr.contains("[two 1/3] ONBUILD COPY one /trigger"), "{}", ran.stderr);
    let image = build(&fixture, &[]);
    assert_eq!(
        history(&image, 1),
        ["+ COPY one /trigger # buildkit", "- ENV A=b", "- ENTRYPOINT [\"x\"]", "- LABEL seen=b"]
    );
    assert_eq!(config(&image, "OnBuild"), &Value::Null);

    // Across images: they are kept, run once, and are gone in the child.
    let parent = build(&fixture, &["--target", "one", "-t", "parent"]);
    let triggers = json!(["COPY one /trigger", "ENV A=b", "ENTRYPOINT [\"x\"]"]);
    assert_eq!(config(&parent, "OnBuild"), &triggers);
    assert_eq!(history(&parent, 1), [""; 0]);
    run(&fixture, "store", &["--target", "one", "-t", "parent"]).ok();
    fixture.write("Dockerfile", "FROM parent\nONBUILD LABEL more=1\n");
    run(&fixture, "store", &["-t", "child"]).ok();
    let child = build(&fixture, &[]);
    assert_eq!(config(&child, "OnBuild"), &json!(["LABEL more=1"]));
    assert_eq!(new_layers(&child).len(), 1);
    let grandchild = rebuild(&fixture, "FROM child\n", &[]);
    assert_eq!(config(&grandchild, "Labels"), &json!({"more": "1"}));
    assert_eq!(config(&grandchild, "OnBuild"), &Value::Null);

    // They may name stages of the file that they run in.
    let fixture = with_image(
        "FROM scratch AS assets\nCOPY one /logo\nFROM base\n",
        &base().configured(|config| {
            config["config"]["OnBuild"] = json!(["COPY --from=assets /logo /logo"]);
        }),
    );
    fixture.write("one", "1");
    assert_eq!(build(&fixture, &[]).layers[1].paths(), ["logo"]);
    for (forbidden, words) in [
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD MAINTAINER x", "MAINTAINER isn't allowed as an ONBUILD trigger"),
    ] {
        let error = refusal(&fixture, &format!("FROM scratch\n{forbidden}\n"));
        assert!(error.contains(words), "{forbidden}: {error}");
    }
}

#[test]
fn privileged_rule_36_volume() {
    let fixture = with_base("FROM base\nVOLUME /data /data\nCOPY one /data/later\n");
    fixture.write("one", "1");
    let image = build(&fixture, &[]);
    assert_eq!(image.layers[1].paths(), ["data/", "data/later"]);
    assert_eq!(config(&image, "Volumes"), &json!({"/data": {}}));
    let error = refusal(&fixture, "FROM base\nVOLUME [\"\"]\n");
    assert!(error.contains("VOLUME specified can not be an empty string"), "{error}");
}

#[test]
fn privileged_rule_37_user() {
    let fixture =
        with_base("FROM base\nUSER app\nCOPY one /copied\nADD one /added\nWORKDIR /made\n");
    fixture.write("one", "1");
    let image = build(&fixture, &[]);
    let found: Vec<String> =
        new_layers(&image).iter().map(|layer| listing(layer).join(", ")).collect();
    assert_eq!(found, ["-0644 0:0 1 copied", "-0644 0:0 1 added", "d0755 1000:1001 0 made/"]);

    fixture.write("Dockerfile", "FROM busybox\nUSER nosuch:group\n");
    run(&fixture, "store", &["-o", "type=cacheonly"]).ok();
    let error = refusal(&fixture, "FROM busybox\nUSER nosuch\nRUN true\n");
    assert!(
        error.contains("unable to find user nosuch: no matching entries in passwd file"),
        "{error}"
    );
}

#[test]
fn rule_38_the_last_one_counts() {
    let fixture = with_base(
        "FROM base\n\
         CMD [\"one\"]\nENTRYPOINT [\"one\"]\nHEALTHCHECK CMD one\n\
         CMD [\"two\"]\nENTRYPOINT [\"two\"]\nHEALTHCHECK --retries=2 CMD [\"two\", \"x\"]\n",
    );
    let image = build(&fixture, &[]);
    assert_eq!(config(&image, "Cmd"), &json!(["two"]));
    assert_eq!(config(&image, "Entrypoint"), &json!(["two"]));
    assert_eq!(config(&image, "Healthcheck"), &json!({"Test": ["CMD", "two", "x"], "Retries": 2}));
    let warnings = run(&fixture, "store", &["-o", "type=cacheonly"]).ok().stderr;
    for name in ["CMD", "ENTRYPOINT", "HEALTHCHECK"] {
        let message = format!(
            "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
        );
        assert!(warnings.contains(&message), "{warnings}");
    }
}

#[test]
fn privileged_rule_42_env_of_the_base_comes_first() {
    let fixture = with_base(
        "FROM busybox\n\
         ENV KEPT=env\n\
         ARG PATH=/bin:/arg\n\
         ARG KEPT=arg\n\
         RUN echo $PATH $KEPT > /seen\n\
         ENV KEPT=last\n\
         RUN echo $KEPT > /again\n",
    );
    let image = build(&fixture, &[]);
    assert_eq!(text(&image, "seen"), "/bin:/arg arg\n");
    assert_eq!(text(&image, "again"), "last\n");
    assert_eq!(config(&image, "Env"), &json!([PATH, "KEPT=last"]));
    assert_eq!(
        history(&image, 1)[3..],
        [
            "+ RUN |2 PATH=/bin:/arg KEPT=arg /bin/sh -c echo $PATH $KEPT > /seen # buildkit",
            "- ENV KEPT=last",
            "+ RUN |2 PATH=/bin:/arg KEPT=last /bin/sh -c echo $KEPT > /again # buildkit",
        ]
    );
}
