//! Section 1 of the behaviour reference, by what real Dockerfiles do.

use rbuild_testdata::validate::ValidImage;
use serde_json::json;

use super::world::{
    base, build, build_in, config, history, listing, new_layers, rebuild, refusal, run, symlink,
    text, with_base, with_image,
};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[test]
fn privileged_parents_keep_the_path() {
    let fixture = with_base(
        "FROM base\n\
         COPY --parents a/b/one a/two /p/\n\
         COPY --parents a/./b/one /pivot/\n\
         COPY --parents a/**/*.go /deep/\n\
         COPY --parents --exclude=a/b ./a /rest/\n\
         COPY --parents none*/x /nothing/\n",
    );
    for name in ["a/b/one", "a/two", "a/b/c/x.go", "a/y.go", "other"] {
        fixture.write(name, name);
    }
    super::world::chmod(&fixture, "a/b", 0o711);
    let image = build(&fixture, &[]);
    let found: Vec<String> =
        new_layers(&image).iter().map(|layer| layer.paths().join(" ")).collect();
    assert_eq!(
        found,
        [
            "p/ p/a/ p/a/b/ p/a/b/one p/a/two",
            "pivot/ pivot/b/ pivot/b/one",
            "deep/ deep/a/ deep/a/b/ deep/a/b/c/ deep/a/b/c/x.go deep/a/y.go",
            "rest/ rest/a/ rest/a/two rest/a/y.go",
            "nothing/",
        ]
    );
    assert_eq!(image.layers[1].entry("p/a/b/").map(|entry| entry.mode), Some(0o711));
    assert_eq!(history(&image, 1)[0], "+ COPY --parents a/b/one a/two /p/ # buildkit");
    let error = refusal(&fixture, "FROM base\nCOPY --parents a/missing /\n");
    assert!(error.contains("not found"), "{error}");
}

#[test]
fn privileged_exclude_is_below_the_source() {
    let fixture = with_base(
        "FROM base\n\
         COPY --exclude=*.log --exclude=sub/deep . /all/\n\
         COPY --exclude=** --exclude=!keep dir /some/\n\
         COPY --exclude=one one /single\n\
         COPY --from=base --exclude=passwd /etc /etc2\n",
    );
    for name in ["one", "a.log", "sub/b.log", "sub/deep/x", "sub/y", "dir/keep", "dir/drop"] {
        fixture.write(name, name);
    }
    fixture.write(".dockerignore", "Dockerfile\n.dockerignore\n");
    let image = build(&fixture, &[]);
    let found: Vec<String> =
        new_layers(&image).iter().map(|layer| layer.paths().join(" ")).collect();
    assert_eq!(
        found[0],
        "all/ all/dir/ all/dir/drop all/dir/keep all/one all/sub/ all/sub/b.log all/sub/y"
    );
    assert_eq!(found[1], "some/ some/keep");
    // A file that is named itself is not looked at, as with BuildKit (moby/buildkit issue 5489).
    assert_eq!(found[2], "single");
    assert_eq!(found[3], "etc2/ etc2/group");
}

#[test]
fn rule_forms_of_expansion() {
    let fixture = with_base(
        "FROM scratch\n\
         ENV a=foo.tar.gz e= q=\"double $a\" s='single $a' b=back\\ slash d=\\$a\n\
         LABEL minus=${u:-def} minus2=${e-def} plus=${a:+set} plus2=${u+set} \\\n\
         \x20     prefix=${a#*.} long=${a##*.} suffix=${a%.*} long2=${a%%.*} \\\n\
         \x20     one=${a/o/0} all=${a//o/0} nested=${u:-${e:-$a}} lone=\"$ a\" unset=\"[$u]\" \\\n\
         \x20     multi=\"line \\\n\
         \x20 two\" esc=\"a\\tb \\\" \\\\ \\$a\" $a=key\n",
    );
    let image = build(&fixture, &[]);
    assert_eq!(
        config(&image, "Env"),
        &json!([PATH, "a=foo.tar.gz", "e=", "q=double ", "s=single $a", "b=back slash", "d=$a"])
    );
    assert_eq!(
        config(&image, "Labels"),
        &json!({
            "minus": "def", "minus2": "", "plus": "set", "plus2": "",
            "prefix": "tar.gz", "long": "gz", "suffix": "foo.tar", "long2": "foo",
            "one": "f0o.tar.gz", "all": "f00.tar.gz", "nested": "foo.tar.gz", "lone": "$ a",
            "unset": "[]", "multi": "line   two", "esc": "a\\tb \" \\ $a", "foo.tar.gz": "key",
        })
    );
    for (dockerfile, words) in [
        ("FROM scratch\nLABEL a=\"${u:?is needed}\"\n", "u: is needed"),
        ("FROM scratch\nLABEL a=${}\n", "bad substitution"),
        ("FROM scratch\nLABEL a=${x\n", "syntax error: missing '}'"),
        ("FROM scratch\nENV a\n", "ENV must have two arguments"),
        (
            "FROM scratch\nENV a=b c\n",
            "Syntax error - can't find = in \"c\". Must be of the form: name=value",
        ),
        ("FROM scratch\nLABEL\n", "LABEL requires at least one argument"),
    ] {
        let error = refusal(&fixture, dockerfile);
        assert!(error.contains(words), "{dockerfile}: {error}");
    }
}

#[test]
fn rule_global_arguments() {
    let fixture = with_base(
        "ARG NAME=ba\n\
         ARG IMAGE=${NAME}se UNSEEN=global\n\
         ARG OTHER=$TARGETOS-$BUILDARCH\n\
         FROM --platform=$BUILDPLATFORM $IMAGE AS build-ba\n\
         LABEL unseen=[$UNSEEN]\n\
         ARG UNSEEN\n\
         ARG NAME=own\n\
         ARG OTHER EMPTY TARGETPLATFORM TARGETSTAGE\n\
         LABEL seen=$UNSEEN name=$NAME other=$OTHER empty=[$EMPTY] p=$TARGETPLATFORM s=$TARGETSTAGE\n\
         FROM build-ba\n\
         LABEL inherited=$UNSEEN\n",
    );
    let image = build(&fixture, &["--platform", "linux/amd64"]);
    assert_eq!(
        config(&image, "Labels"),
        &json!({
            "unseen": "[]", "seen": "global", "name": "own", "other": "linux-amd64", "empty": "[]",
            "p": "linux/amd64", "s": "default", "inherited": "global",
        })
    );
    assert_eq!(
        history(&image, 1)[1..4],
        [
            "- ARG UNSEEN=global",
            "- ARG NAME=own",
            "- ARG OTHER=linux-amd64 EMPTY TARGETPLATFORM=linux/amd64 TARGETSTAGE=default",
        ]
    );
    let image = build(&fixture, &["--build-arg", "NAME=ba", "--build-arg", "UNSEEN=x"]);
    assert_eq!(config(&image, "Labels")["name"], "ba");
    assert_eq!(config(&image, "Labels")["seen"], "x");

    let error = refusal(&fixture, "ARG A\nFROM $A\n");
    assert!(error.contains("base name ($A) should not be blank"), "{error}");
}

#[test]
fn privileged_ranges_of_ports_and_other_metadata() {
    let fixture = with_base(
        "FROM base\n\
         ENV PORTS=\"90 91/udp\" S=TERM\n\
         EXPOSE 8080-8082/TCP 127.0.0.1:80:81 $PORTS\n\
         STOPSIGNAL $S\n\
         USER 1000:1001\n\
         HEALTHCHECK --interval=1m --timeout=0 --retries=0 CMD [\"a\", \"b\"]\n",
    );
    let image = build(&fixture, &[]);
    assert_eq!(
        config(&image, "ExposedPorts"),
        &json!({"81/tcp": {}, "90/tcp": {}, "91/udp": {}, "8080/tcp": {}, "8081/tcp": {}, "8082/tcp": {}})
    );
    assert_eq!(
        history(&image, 1)[1..],
        [
            "- EXPOSE [90/tcp 91/udp 81/tcp 8080/tcp 8081/tcp 8082/tcp]",
            "- STOPSIGNAL TERM",
            "- USER 1000:1001",
            "- HEALTHCHECK {Test:[CMD a b] Interval:1m0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
        ]
    );
    assert_eq!(
        config(&image, "Healthcheck"),
        &json!({"Test": ["CMD", "a", "b"], "Interval": 60_000_000_000_u64})
    );
    for signal in ["9", "SIGRTMIN+3", "rtmax-1", "sigusr1", "99"] {
        let image = rebuild(&fixture, &format!("FROM base\nSTOPSIGNAL {signal}\n"), &[]);
        assert_eq!(config(&image, "StopSignal"), signal);
    }
    for (instruction, words) in [
        ("STOPSIGNAL 0", "invalid signal: 0"),
        ("STOPSIGNAL SIGFOO", "invalid signal: SIGFOO"),
        ("EXPOSE 80/icmp", "invalid proto: icmp"),
        ("EXPOSE 70000", "invalid containerPort: 70000"),
        ("HEALTHCHECK --interval=500us CMD x", "Interval \"interval\" cannot be less than 1ms"),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK FOO", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        (
            "COPY a",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("COPY --chown=1 --chown=2 a b", "duplicate flag specified: --chown"),
        ("COPY --form=x a b", "unknown flag: --form (did you mean from?)"),
        ("COPY --link= a b", "missing a value on flag: --link"),
        ("COPY --link=x a b", "expecting boolean value for flag --link, not: x"),
        ("COPY --chown a b", "missing a value on flag: --chown"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("FROM a b c d", "FROM requires either one or three arguments"),
        ("ARG", "ARG requires at least one argument"),
        ("COPY https://x/y /", "source can't be a URL for COPY"),
        ("COPY https://x/y.git /", "source can't be a git ref for COPY"),
    ] {
        let error = refusal(&fixture, &format!("FROM base\n{instruction}\n"));
        assert!(error.contains(words), "{instruction}: {error}");
    }
    for (dockerfile, words) in [
        ("", "the Dockerfile cannot be empty"),
        ("# only a comment\n", "file with no instructions"),
        ("ARG a\n", "dockerfile contains no stages to build"),
        ("RUN x\nFROM base\n", "no build stage in current context"),
        ("# escape=x\nFROM base\n", "invalid escape token 'x' does not match ` or \\"),
        ("# escape=\\\n# escape=`\nFROM base\n", "only one escape parser directive can be used"),
        ("FROM scratch\nFROMM x\n", "unknown instruction: FROMM (did you mean FROM?)"),
    ] {
        let error = refusal(&fixture, dockerfile);
        assert!(error.contains(words), "{dockerfile:?}: {error}");
    }
}

#[test]
fn privileged_scratch_has_a_configuration() {
    let fixture = with_base("FROM scratch\n");
    let image = build(&fixture, &[]);
    assert_eq!(image.layers.len(), 0);
    assert_eq!(
        image.config,
        json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": [PATH], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": []},
        })
    );
    // Both ends of a COPY may be empty.
    let image = rebuild(
        &fixture,
        "FROM scratch AS none\nFROM scratch\nCOPY --from=none / /x/\nCOPY --from=scratch / /y/\n",
        &[],
    );
    assert_eq!(listing(&image.layers[0]), ["d0755 0:0 0 x/"]);
    let error = refusal(&fixture, "FROM scratch\nCOPY --from=scratch /a /\n");
    assert!(error.contains("\"/a\": not found"), "{error}");
}

#[test]
fn privileged_a_base_from_elsewhere_is_kept_as_it_is() {
    let parent = base().configured(|config| {
        config["config"]["User"] = "app".into();
        config["config"]["WorkingDir"] = "srv".into();
        config["config"]["Labels"] = json!({"theirs": "1", "both": "base"});
        config["config"]["ExposedPorts"] = json!({"1/tcp": {}});
        config["config"]["Volumes"] = json!({"/v": {}});
        config["config"]["StopSignal"] = "SIGINT".into();
        config["config"]["Healthcheck"] = json!({"Test": ["CMD", "x"], "Interval": 1_000_000_000});
        config["config"]["Env"] = json!(["PATH=/bin", "A=1", "B=2"]);
    });
    let fixture = with_image(
        "FROM base\nENV B=3 A=$B\nLABEL both=mine\nEXPOSE 2\nVOLUME /w\nCOPY one sub/\n",
        &parent,
    );
    fixture.write("one", "1");
    let image = build(&fixture, &["--label", "flag=set", "--label", "both=flag"]);
    assert_eq!(
        image.config["config"],
        json!({
            "Env": ["PATH=/bin", "A=2", "B=3"],
            "ExposedPorts": {"1/tcp": {}, "2/tcp": {}},
            "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1_000_000_000},
            "Labels": {"theirs": "1", "both": "flag", "flag": "set"},
            "StopSignal": "SIGINT",
            "User": "app",
            "Volumes": {"/v": {}, "/w": {}},
            "WorkingDir": "/srv",
        })
    );
    assert_eq!(
        listing(&image.layers[1]),
        ["d0755 0:0 0 srv/", "d0755 0:0 0 srv/sub/", "-0644 0:0 1 srv/sub/one"]
    );
    assert_eq!(image.layers[0].digest, parent.layers[0].digest());
}

#[test]
fn privileged_copies_from_stages_by_number_and_through_links() {
    let fixture = with_base(
        "FROM scratch\n\
         COPY one /real/one\n\
         COPY links /real/\n\
         FROM scratch AS second\n\
         COPY --from=0 /real/to-one /copied\n\
         COPY --from=0 /real/./absolute /also\n\
         FROM base\n\
         COPY --from=1 /copied /also ./\n\
         COPY --from=SECOND /*ed /wild/\n",
    );
    fixture.write("one", "1");
    std::fs::create_dir(fixture.context().join("links")).expect("a folder");
    symlink(&fixture, "one", "links/to-one");
    symlink(&fixture, "/real/one", "links/absolute");
    let image = build(&fixture, &[]);
    assert_eq!(listing(&image.layers[1]), ["-0644 0:0 1 also", "-0644 0:0 1 copied"]);
    assert_eq!(image.layers[2].paths(), ["wild/", "wild/copied"]);
    // The graph has nothing of the stage that nobody needs, and equal steps of two stages are one.
    let ran = run(&fixture, "store", &["--target", "second", "-o", "type=cacheonly"]).ok();
    assert!(!ran.stderr.contains("FROM base"), "{}", ran.stderr);
    let archive = build_in(&fixture, "other", &["--target", "SECOND"]);
    assert_eq!(text(&archive, "copied"), "1");
}

#[test]
fn words_of_every_instruction() {
    let fixture = with_base("");
    for (instructions, key, expected) in [
        ("ENV a b=c", "Env", json!(["PATH=/bin", "a=b=c"])),
        ("ENV k  some \"quoted\" text  ", "Env", json!(["PATH=/bin", "k=some quoted text"])),
        ("ENV A=1 \\\n# comment\n  B=2", "Env", json!(["PATH=/bin", "A=1", "B=2"])),
        ("ENV A=a$ B=$$ C=$? D=\"$\"", "Env", json!(["PATH=/bin", "A=a$", "B=", "C=", "D=$"])),
        ("ENV A='it'\"'\"'s'", "Env", json!(["PATH=/bin", "A=it's"])),
        ("env lower=1\nEnv Mixed=2", "Env", json!(["PATH=/bin", "lower=1", "Mixed=2"])),
        ("ENV PATH=$PATH:/more", "Env", json!(["PATH=/bin:/more"])),
        ("LABEL k v w", "Labels", json!({"k": "v w"})),
        ("LABEL \"a\"=\"b\" 'c'='d' e=", "Labels", json!({"a": "b", "c": "d", "e": ""})),
        (
            "ARG A=\"quoted value\" B=${A:+x}\nLABEL a=$A b=$B",
            "Labels",
            json!({"a": "quoted value", "b": "x"}),
        ),
        ("STOPSIGNAL \"SIGTERM\"", "StopSignal", json!("SIGTERM")),
        ("USER \"app\":staff", "User", json!("app:staff")),
        ("USER a b", "User", json!("a b")),
        ("EXPOSE $UNSET 80", "ExposedPorts", json!({"80/tcp": {}})),
        ("VOLUME /a \"/b\" '/c'", "Volumes", json!({"/a": {}, "/b": {}, "/c": {}})),
        ("WORKDIR \"/\"", "WorkingDir", json!("/")),
        ("WORKDIR /../..", "WorkingDir", json!("/")),
        ("ENTRYPOINT  spaces   kept ", "Entrypoint", json!(["/bin/sh", "-c", "spaces   kept"])),
        ("CMD []", "Cmd", json!(null)),
        ("HEALTHCHECK CMD [\"a\", \"b\"]", "Healthcheck", json!({"Test": ["CMD", "a", "b"]})),
        ("HEALTHCHECK CMD ['a']", "Healthcheck", json!({"Test": ["CMD-SHELL", "['a']"]})),
    ] {
        let image = rebuild(&fixture, &format!("FROM \"base\"\n{instructions}\n"), &[]);
        assert_eq!(config(&image, key), &expected, "{instructions}");
    }
    for (instruction, words) in [
        ("HEALTHCHECK --interval=$X CMD x", "invalid duration"),
        ("ENV =b", "ENV names can not be blank"),
        ("LABEL =b", "LABEL names can not be blank"),
        ("ARG =b", "ARG names can not be blank"),
        ("ADD --checksum=sha256:0 one /", "checksum requires HTTP(S) or Git sources"),
        ("COPY --checksum=x a b", "unknown flag: --checksum"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("ONBUILD", "ONBUILD requires"),
        ("SHELL []", "SHELL requires at least one argument"),
    ] {
        let error = refusal(&fixture, &format!("FROM base\n{instruction}\n"));
        assert!(error.contains(words), "{instruction}: {error}");
    }
}

#[test]
fn privileged_a_user_made_in_the_build() {
    let fixture = with_base(
        "FROM busybox AS build\n\
         WORKDIR /src\n\
         COPY one .\n\
         RUN mkdir out && cp one out/program && chmod 755 out/program\n\
         FROM busybox\n\
         RUN echo staff:x:300: >> /etc/group && echo app:x:301:300::/home/app:/bin/sh >> /etc/passwd\n\
         WORKDIR /srv\n\
         COPY --from=build --chown=app:staff /src/out/ ./\n\
         COPY --chown=app --chmod=0400 one secret\n\
         USER app\n\
         WORKDIR data\n\
         RUN touch made && id -un > who && id -gn >> who && echo $HOME >> who\n\
         USER app:root\n\
         RUN id -gn >> who\n\
         USER 12:13\n\
         RUN cd /tmp && id > numbers && touch theirs\n",
    );
    fixture.write("one", "1");
    let image = build(&fixture, &[]);
    let find = |name: &str| {
        let found = image.layers.iter().rev().find_map(|layer| layer.entry(name));
        found.map(ToString::to_string).unwrap_or_default()
    };
    for expected in [
        "d0755 0:0 0 srv/",
        "-0755 301:300 1 srv/program",
        "-0400 301:300 1 srv/secret",
        "d0755 301:300 0 srv/data/",
        "-0644 301:300 0 srv/data/made",
        "-0644 12:13 0 tmp/theirs",
    ] {
        assert_eq!(find(expected.rsplit(' ').next().expect("a name")), expected);
    }
    assert_eq!(text(&image, "srv/data/who"), "app\nstaff\n/home/app\nroot\n");
    assert!(
        text(&image, "tmp/numbers").starts_with("uid=12 gid=13"),
        "{}",
        text(&image, "tmp/numbers")
    );
}

#[test]
fn privileged_an_image_of_ours_is_a_base() {
    let fixture = with_base("FROM base\nCOPY one /one\nENV A=1\nWORKDIR /w\nENTRYPOINT [\"x\"]\n");
    fixture.write("one", "1");
    let parent = build(&fixture, &[]);
    run(&fixture, "store", &["-t", "localhost:5000/team/parent:v1"]).ok();
    let child =
        rebuild(&fixture, "FROM localhost:5000/team/parent:v1\nCOPY one two\nENV A=2\n", &[]);
    let digests = |image: &ValidImage| -> Vec<String> {
        image.layers.iter().map(|layer| layer.digest.clone()).collect()
    };
    assert_eq!(digests(&child)[..3], digests(&parent));
    let entries =
        |image: &ValidImage| image.config["history"].as_array().cloned().unwrap_or_default();
    assert_eq!(entries(&child)[..5], entries(&parent));
    assert_eq!(history(&child, 5), ["+ COPY one two # buildkit", "- ENV A=2"]);
    assert_eq!(child.layers[3].paths(), ["w/", "w/two"]);
    assert_eq!(config(&child, "Entrypoint"), &json!(["x"]));
}
