//! Rules 19 to 21, 34 and 41: the language.

use serde_json::json;

use super::world::{build, config, history, listing, rebuild, refusal, run, text, with_base};

#[test]
fn privileged_rule_19_continuations() {
    let fixture = with_base(
        "FROM busybox\n\
         RUN echo one && \\\n\
         # a comment\n\
         \x20   # another, indented\n\
         \n\
         \x20   echo two \\\n\
         \t  # and a last one\n\
         \x20   > /seen # not a comment of Dockerfile's\n\
         CMD a \\\\\n\
         LABEL k=v\n",
    );
    let image = build(&fixture, &[]);
    assert_eq!(text(&image, "seen"), "two\n");
    assert_eq!(
        history(&image, 1),
        [
            "+ RUN /bin/sh -c echo one &&     echo two     > /seen # not a comment of Dockerfile's # buildkit",
            r#"- CMD ["/bin/sh" "-c" "a \\\\"]"#,
            "- LABEL k=v",
        ]
    );
    let warnings = run(&fixture, "store", &["-o", "type=cacheonly"]).ok().stderr;
    assert!(warnings.contains("NoEmptyContinuation"), "{warnings}");
    // At the end of the file an instruction just ends.
    let image = rebuild(&fixture, "FROM base\nLABEL a=b \\\n", &[]);
    assert_eq!(config(&image, "Labels"), &json!({"a": "b"}));
    // Another escape character, and Windows line ends.
    let image = rebuild(&fixture, "# escape=`\r\nFROM base\r\nENV A=c:\\x `\r\n  B=`\"\r\n", &[]);
    assert_eq!(config(&image, "Env"), &json!(["PATH=/bin", "A=c:\\x", "B=\""]));
}

#[test]
fn privileged_rule_20_heredocs() {
    let fixture = with_base(
        "FROM busybox\n\
         ENV V=value\n\
         COPY <<A <<'B' <<\\C <<-D /docs/\n\
         $V ${V:-x} \\$V \"quoted\" 'single $V'\n\
         A\n\
         $V\n\
         B\n\
         $V\n\
         C\n\
         \tone\n\
         \t\ttwo $V\n\
         \t three\n\
         \tD\n\
         COPY --chmod=755 --chown=5 <<EOF /named\n\
         EOF\n\
         RUN <<EOF\n\
         V=shell\n\
         echo $V \\$V > /plain\n\
         EOF\n\
         RUN <<-EOF\n\
         \techo '\ttab' > /chomped\n\
         \tEOF\n\
         RUN <<EOF cat > /piped\n\
         $V # kept\n\
         EOF\n\
         RUN cat <<ONE <<'TWO' > /both; cat <<THREE >> /both\n\
         one\n\
         ONE\n\
         $two\n\
         TWO\n\
         $V\n\
         THREE\n\
         RUN <<EOF\n\
         #!/bin/busybox ash\n\
         echo \"$0 $V\" > /script\n\
         EOF\n\
         RUN 3<<EOF cat <&3 > /third\n\
         three\n\
         EOF\n\
         RUN echo \"<<EOF\" > /quoted\n",
    );
    let image = build(&fixture, &[]);
    assert_eq!(text(&image, "docs/A"), "value value $V \"quoted\" 'single value'\n");
    assert_eq!(text(&image, "docs/B"), "$V\n");
    assert_eq!(text(&image, "docs/C"), "value\n");
    assert_eq!(text(&image, "docs/D"), "one\ntwo value\n three\n");
    assert_eq!(listing(&image.layers[2]), ["-0755 5:5 0 named"]);
    assert_eq!(text(&image, "plain"), "shell $V\n");
    assert_eq!(text(&image, "chomped"), "\ttab\n");
    assert_eq!(text(&image, "piped"), "value # kept\n");
    assert_eq!(text(&image, "both"), "$two\nvalue\n");
    assert_eq!(text(&image, "script"), "/dev/pipes/EOF value\n");
    assert_eq!(text(&image, "third"), "three\n");
    assert_eq!(text(&image, "quoted"), "<<EOF\n");
    let history = history(&image, 1);
    assert_eq!(
        history[3..],
        [
            "+ RUN /bin/sh -c V=shell\necho $V \\$V > /plain\n # buildkit",
            "+ RUN /bin/sh -c echo '\ttab' > /chomped\n # buildkit",
            "+ RUN /bin/sh -c <<EOF cat > /piped\n$V # kept\nEOF # buildkit",
            "+ RUN /bin/sh -c cat <<ONE <<'TWO' > /both; cat <<THREE >> /both\none\nONE\n$two\nTWO\n$V\nTHREE # buildkit",
            "+ RUN /bin/sh -c /dev/pipes/EOF # buildkit",
            "+ RUN /bin/sh -c 3<<EOF cat <&3 > /third\nthree\nEOF # buildkit",
            "+ RUN /bin/sh -c echo \"<<EOF\" > /quoted # buildkit",
        ]
    );
    // Nothing of /dev/pipes stays.
    let script = image.layers.iter().find(|layer| layer.entry("script").is_some());
    assert_eq!(script.map(|layer| layer.paths()), Some(vec!["script"]));
    for (dockerfile, words) in [
        ("FROM base\nRUN <<EOF\nx\n", "unterminated heredoc"),
        ("FROM base\nCOPY a <<EOF\nx\nEOF\n", "heredoc"),
    ] {
        let error = refusal(&fixture, dockerfile);
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn privileged_rule_21_dockerignore() {
    let fixture = with_base(
        "FROM base AS files\nCOPY sub /from/sub\nFROM base\nCOPY . /all/\nCOPY --from=files /from /from/\n",
    );
    for name in
        ["a", "b.log", "sub/c", "sub/d.log", "deep/er/x", "deep/er/y", "keep/only/this", "#hash"]
    {
        fixture.write(name, name);
    }
    let all = |fixture: &crate::fixture::Fixture| -> String {
        let image = build(fixture, &[]);
        image.layers[1]
            .paths()
            .iter()
            .filter(|path| !path.ends_with('/'))
            .copied()
            .collect::<Vec<_>>()
            .join(" ")
    };
    fixture.write(
        ".dockerignore",
        "\u{feff}# comment\n  /b.log  \n#hash\n \\#hash\n**/d.log\ndeep/*/x\nkeep\n!keep/only/this\n\nDockerfile\n.dockerignore\n",
    );
    assert_eq!(all(&fixture), "all/a all/deep/er/y all/keep/only/this all/sub/c");
    // The last match counts, a folder takes its contents with it.
    fixture.write(".dockerignore", "*\n!sub\nsub/d.log\n!a\n");
    assert_eq!(all(&fixture), "all/a all/sub/c");
    // A file of the Dockerfile's own replaces that of the folder.
    fixture.write("Dockerfile.dockerignore", "*\n!b.log\n!sub\n");
    assert_eq!(all(&fixture), "all/b.log all/sub/c all/sub/d.log");
    fixture.write("Dockerfile", "FROM base\nCOPY a /\n");
    let error = run(&fixture, "store", &["-o", "type=cacheonly"]).fails(1);
    assert!(error.contains("\"/a\": not found"), "{error}");
}

#[test]
fn rule_34_names_of_stages() {
    let fixture = with_base(
        "FROM base AS Build\nLABEL a=b\nFROM scratch\nCOPY --from=BUILD /file /0\nCOPY --from=0 /file /1\nFROM build AS again\n",
    );
    let image = build(&fixture, &[]);
    assert_eq!(config(&image, "Labels"), &json!({"a": "b"}));
    let image = build(&fixture, &["--target", "BUILD"]);
    assert_eq!(config(&image, "Labels"), &json!({"a": "b"}));
    let error = refusal(&fixture, "FROM base AS Build\nFROM Build\n");
    assert!(
        error.contains("failed to parse stage name \"Build\": invalid reference format")
            && error.contains("must be lowercase"),
        "{error}"
    );
    // scratch is for whoever asks.
    let image = rebuild(&fixture, "FROM --platform=linux/s390x scratch\nENV A=b\n", &[]);
    assert_eq!(image.platform, "linux/amd64");
    let image = build(&fixture, &["--platform", "linux/arm64"]);
    assert_eq!(image.platform, "linux/arm64");

    for (dockerfile, words) in [
        (
            "FROM base AS 1x\n",
            "invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
        ),
        ("FROM base\nCOPY --from=3 /a /\n", "invalid stage index 3"),
        (
            "FROM base AS a\nCOPY --from=b /x /\nFROM base AS b\nCOPY --from=a /x /\n",
            "circular dependency detected on stage: ",
        ),
        (
            "FROM base AS a\nCOPY --from=b /x /\nFROM base AS b\nFROM a\n",
            "cannot copy from stage \"b\", it needs to be defined before current stage \"a\"",
        ),
        (
            "FROM base\nARG s=x\nCOPY --from=$s /x /\n",
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
        ),
    ] {
        let error = refusal(&fixture, dockerfile);
        assert!(error.contains(words), "{dockerfile}: {error}");
    }
}

#[test]
fn rule_41_unreachable_stages() {
    let fixture = with_base(
        "FROM nowhere.invalid/x AS unused\nSTOPSIGNAL nonsense\nCOPY missing /\nFROM base AS last\n",
    );
    build(&fixture, &[]);
    let error = refusal(&fixture, "FROM base AS unused\nSTOPSIGNAL nonsense\nFROM unused\n");
    assert!(error.contains("nonsense"), "{error}");
    let error = refusal(&fixture, "FROM base AS unused\nNONSENSE\nFROM base\n");
    assert!(error.contains("unknown instruction: NONSENSE"), "{error}");
}
