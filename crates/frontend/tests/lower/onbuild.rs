//! ONBUILD, in images and in stages.

use super::build::{Images, build, build_with, check_errors_with, history, options, rounds};

#[test]
fn rule_35_triggers_of_stages() {
    let built = build(
        "FROM scratch AS a\nONBUILD RUN echo hi\nONBUILD ENV A=1\nRUN [\"own\"]\nFROM a AS b\nRUN x\nFROM b\n",
    );
    let names: Vec<_> =
        built.graph.vertices().iter().map(|vertex| vertex.meta.name.clone()).collect();
    assert_eq!(
        names,
        ["[a 1/1] RUN [\"own\"]", "[b 1/3] ONBUILD RUN echo hi", "[b 2/3] RUN x"],
        "once, for the stage right above"
    );
    assert!(built.config.config.on_build.is_empty());
    assert_eq!(
        history(&built),
        [
            "RUN own # buildkit",
            "RUN /bin/sh -c echo hi # buildkit",
            "(ENV A=1)",
            "RUN /bin/sh -c x # buildkit"
        ]
    );
}

#[test]
fn triggers_of_images_ask_for_more() {
    let images = Images::new()
        .with(
            "on",
            r#"{"config":{"OnBuild":["COPY --from=more /x /y","COPY <<F /\n$A\nF","ARG A=1"]}}"#,
        )
        .with("more", r#"{"config":{"OnBuild":["RUN never"]}}"#);
    let (asked, result) = rounds("FROM scratch AS s\nFROM on\nRUN x\n", &options(), &images);
    assert_eq!(
        asked,
        [
            ["docker.io/library/on:latest linux/amd64"],
            ["docker.io/library/more:latest linux/amd64"]
        ]
    );
    let built = result.unwrap();
    assert_eq!(
        history(&built),
        [
            "COPY /x /y # buildkit",
            "COPY <<F / # buildkit",
            "(ARG A=1)",
            "RUN |1 A=1 /bin/sh -c x # buildkit"
        ]
    );
    let vertices = built.graph.vertices();
    let trigger = vertices.iter().find(|vertex| vertex.meta.name.contains("ONBUILD")).unwrap();
    assert_eq!(trigger.meta.name, "[stage-1 2/5] ONBUILD COPY --from=more /x /y");
    assert_eq!(
        trigger.meta.location.as_ref().unwrap().first_line,
        2,
        "the FROM that brought it in"
    );
    // What the file has, a trigger may name.
    let images = images.with("on", r#"{"config":{"OnBuild":["COPY --from=s /x /y"]}}"#);
    let (asked, _) = rounds("FROM base AS s\nFROM on\n", &options(), &images);
    assert_eq!(asked.len(), 2);
}

#[test]
fn wrong_triggers_are_told_at_their_from() {
    let images = Images::new().with(
        "on",
        r#"{"config":{"OnBuild":["NONSENSE","COPY --from=5 a b","EXPOSE x","RUN a\nRUN b","WORKDIR ${"]}}"#,
    );
    check_errors_with(
        "FROM on\n",
        &options(),
        &images,
        &[
            "line 1: unknown instruction: NONSENSE <on>",
            "line 1: invalid stage index 5 <on>",
            "line 1: onbuild trigger should be a single expression <on>",
            "line 1: invalid containerPort: x <on>",
            "line 1: failed to process \"${\": syntax error: missing '}' <on>",
        ],
    );
}

#[test]
fn lints_of_triggers_are_told_at_their_from() {
    let images = Images::new().with("on", r#"{"config":{"OnBuild":["WORKDIR x$U"]}}"#);
    let text = "FROM on\n";
    let built = build_with(text, &options(), &images);
    assert_eq!(
        super::build::messages(text, &built.warnings),
        [
            "UndefinedVar: Usage of undefined variable '$U' (line 1) <on>",
            "WorkdirRelativePath: Relative workdir \"x\" can have unexpected results if the base image changes (line 1) <on>"
        ]
    );
}
