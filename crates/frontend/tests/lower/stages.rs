//! Stages, targets, and which images are asked for.

use rbuild_frontend::{BuildOptions, StageSummary};

use super::build::{
    Images, build, build_with, check, check_errors, check_errors_with, options, rounds, with_args,
};

fn target(name: &str) -> BuildOptions {
    BuildOptions { target: Some(name.to_owned()), ..options() }
}

#[test]
fn rule_41_stages_that_are_not_needed_are_not_looked_into() {
    let text = "FROM nowhere AS a\nRUN x\nEXPOSE nonsense\nFROM base AS b\nFROM scratch AS c\nCOPY --from=b /x /\n";
    let (asked, result) = rounds(text, &options(), &Images::new());
    assert_eq!(asked, [["docker.io/library/base:latest linux/amd64"]]);
    let build = result.unwrap();
    let summary = |name: &str, steps| StageSummary { name: name.to_owned(), steps };
    assert_eq!(build.stages, [summary("b", 1), summary("c", 1)]);
    assert_eq!(build.target_name.as_deref(), Some("c"));
    let (asked, _) = rounds("FROM nowhere AS a\nFROM scratch\n", &options(), &Images::new());
    assert!(asked.is_empty());
}

#[test]
fn each_image_is_asked_for_once() {
    let text = "FROM base AS a\nFROM base:latest AS b\nCOPY --from=base /x /\nCOPY --from=docker.io/library/base /y /\nCOPY --from=a /z /\nFROM --platform=linux/arm64 base AS arm64\nCOPY --from=b /1 /\n";
    let (asked, _) = rounds(text, &options(), &Images::new());
    assert_eq!(
        asked,
        [[
            "docker.io/library/base:latest linux/amd64",
            "docker.io/library/base:latest linux/arm64"
        ]]
    );
}

#[test]
fn targets() {
    let text = "FROM scratch AS Build\nENV a=1\nFROM scratch\n";
    assert_eq!(
        build_with(text, &target("BUILD"), &Images::new()).target_name.as_deref(),
        Some("build")
    );
    assert_eq!(build(text).target_name, None);
    for (name, message) in [
        ("biuld", "target stage \"biuld\" could not be found (did you mean build?)"),
        ("0", "target stage \"0\" could not be found"),
    ] {
        check_errors_with(
            text,
            &target(name),
            &Images::new(),
            &[&format!("line 3: {message} <FROM scratch>")],
        );
    }
}

#[test]
fn rule_34_names_of_bases_are_literal_and_those_of_copies_are_not() {
    let images = Images::new().with("other", "{}");
    let (asked, _) = rounds("FROM scratch AS Other\nFROM Other\n", &options(), &Images::new());
    assert!(asked.is_empty(), "it is no valid image name");
    check_errors(
        "FROM scratch AS Other\nFROM Other\n",
        &[
            "line 2: failed to parse stage name \"Other\": invalid reference format: `Other`: repository name (library/Other) must be lowercase <Other>",
        ],
    );
    let (asked, result) =
        rounds("FROM base AS Other\nFROM scratch\nCOPY --from=OTHER /x /\n", &options(), &images);
    assert_eq!((asked.len(), asked[0].len()), (1, 1));
    assert!(result.is_ok());
    // On scratch the platform is the target's.
    let built = build("FROM --platform=linux/arm64 scratch AS arm64\n");
    assert_eq!(built.config.architecture, "amd64");
}

#[test]
fn copies_by_number_name_and_image() {
    check(
        "FROM base AS a\nFROM scratch\nCOPY --from=0 /x /\nCOPY --from=scratch /y /\nCOPY --from=base /z /\n",
        r#"
        0 [a 1/1] FROM docker.io/library/base:latest@pinned
            docker-image://docker.io/library/base:latest@pinned
        1 [stage-1 1/3] COPY --from=0 /x /
            on - copy 0:/x -> /
        2 [stage-1 2/3] COPY --from=scratch /y /
            on 1 copy -:/y -> /
        3 [stage-1 3/3] COPY --from=base /z /
            on 2 copy 0:/z -> /
        = 3
        "#,
    );
}

#[test]
fn numbers_go_on_with_what_was_named_before() {
    check(
        "FROM scratch\nCOPY --from=base /w /\nCOPY --from=1 /x /\nCOPY --from=2 /y /\n",
        r#"
        0 FROM docker.io/library/base:latest@pinned
            docker-image://docker.io/library/base:latest@pinned
        1 [stage-0 1/3] COPY --from=base /w /
            on - copy 0:/w -> /
        2 [stage-0 2/3] COPY --from=1 /x /
            on 1 copy 0:/x -> /
        3 [stage-0 3/3] COPY --from=2 /y /
            on 2 copy 0:/y -> /
        = 3
        "#,
    );
    // A mount that names nothing counts, too.
    check_errors(
        "FROM scratch\nCOPY --from=1 /x /\nRUN --mount=type=tmpfs,target=/t x\nCOPY --from=1 /x /\nCOPY --from=3 /x /\n",
        &["line 2: invalid stage index 1 <1>", "line 5: invalid stage index 3 <3>"],
    );
}

#[test]
fn a_lone_stage_has_a_name_if_it_copies_from_elsewhere() {
    let name = |text: &str| build(text).graph.vertices().last().unwrap().meta.name.clone();
    assert_eq!(name("FROM scratch AS a\nCOPY a /\n"), "[1/1] COPY a /");
    assert_eq!(name("FROM scratch\nCOPY --from=base a /\n"), "[stage-0 1/1] COPY --from=base a /");
    let mounts = "FROM scratch\nRUN --mount=type=cache,target=/c x\n";
    assert_eq!(
        name(mounts),
        "[stage-0 1/1] RUN --mount=type=cache,target=/c x",
        "as BuildKit has it"
    );
}

#[test]
fn the_same_name_twice() {
    let text = "FROM base AS a\nRUN 1\nFROM a AS a\nRUN 2\nFROM a\nCOPY --from=a /x /\n";
    let names: Vec<_> =
        build(text).graph.vertices().iter().map(|vertex| vertex.meta.name.clone()).collect();
    assert_eq!(
        names,
        [
            "[a 1/2] FROM docker.io/library/base:latest@pinned",
            "[a 2/2] RUN 1",
            "[a 1/1] RUN 2",
            "[stage-2 1/1] COPY --from=a /x /"
        ]
    );
}

#[test]
fn images_without_layers_are_nothing() {
    let images = Images::new().with(
        "empty",
        r#"{"rootfs":{"type":"layers","diff_ids":[]},"history":[{"empty_layer":true}]}"#,
    );
    let built = build_with("FROM empty\nENV a=1\n", &options(), &images);
    assert!(built.target.is_none());
    let built = build_with("FROM empty\nRUN x\n", &options(), &images);
    assert_eq!(built.graph.vertices()[0].meta.name, "[1/2] RUN x");
}

#[test]
fn wrong_uses_of_stages() {
    check_errors(
        "FROM scratch AS a\nCOPY --from=b /x /\nFROM a AS b\nFROM b\nCOPY --from=9 /x /\nCOPY --from=-1 /x /\nCOPY --from=$b /x /\nCOPY --from=a//x /x /\n",
        &[
            "line 2: cannot copy from stage \"b\", it needs to be defined before current stage \"a\" <b>",
            "line 5: invalid stage index 9 <9>",
            "line 6: invalid stage index -1 <-1>",
            "line 7: variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround <$b>",
            "line 8: failed to parse stage name \"a//x\": invalid reference format: `a//x`: a repository is made of lower-case letters and digits, with `.`, `_`, `__` or `-` between them <a//x>",
        ],
    );
}

#[test]
fn cycles() {
    check_errors(
        "FROM scratch AS a\nCOPY --from=a /x /\n",
        &["line 2: circular dependency detected on stage: a <COPY --from=a /x />"],
    );
    let text = "FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\nCOPY --from=c /x /\nFROM scratch AS c\nCOPY --from=a /x /\nFROM scratch\n";
    let (_, result) = rounds(text, &options(), &Images::new());
    let errors = result.unwrap_err();
    assert_eq!(errors.len(), 1, "of stages that nobody needs, too");
    assert_eq!(errors[0].message, "circular dependency detected on stage: a");
    assert_eq!(errors[0].labels.len(), 2);
}

#[test]
fn bases_from_arguments() {
    let text = "ARG IMAGE=base\nARG P=arm64\nFROM --platform=linux/$P $IMAGE:${TAG:-1} AS arm64\n";
    let images = Images::new().with("other:2", "{}").with("base:1", "{}");
    let (asked, _) = rounds(text, &options(), &images);
    assert_eq!(asked, [["docker.io/library/base:1 linux/arm64"]]);
    let given = with_args(&[("IMAGE", "other"), ("P", "amd64"), ("TAG", "2")]);
    // TAG is not declared, so that it is not seen.
    let images = images.with("other:1", "{}");
    let (asked, _) = rounds(text, &given, &images);
    assert_eq!(asked, [["docker.io/library/other:1 linux/amd64"]]);
    check_errors(
        "ARG E\nFROM $E\nFROM --platform=$X scratch\nFROM --platform=a/b/c/d scratch\nFROM ${E\n",
        &[
            "line 2: base name ($E) should not be blank <$E>",
            "line 3: empty platform value from expression $X <$X>",
            "line 4: failed to parse platform a/b/c/d: platform `a/b/c/d` is not of the form os/architecture[/variant] <a/b/c/d>",
            "line 5: failed to process \"${E\": syntax error: missing '}' <${E>",
        ],
    );
}
