//! Named contexts.

use rbuild_frontend::{BuildOptions, NamedContext};
use rbuild_oci::Reference;

use super::build::{Images, build_with, check_errors_with, check_with, options, rounds};

fn with(contexts: &[(&str, NamedContext)]) -> BuildOptions {
    let contexts = contexts.iter().map(|(name, context)| ((*name).to_owned(), context.clone()));
    BuildOptions { contexts: contexts.collect(), ..options() }
}

fn image(name: &str) -> NamedContext {
    NamedContext::Image(Reference::parse(name).unwrap())
}

#[test]
fn images_are_replaced_by_familiar_name() {
    for (written, context) in [
        ("base", "base"),
        ("base:latest", "base"),
        ("docker.io/library/base", "base"),
        ("base", "docker.io/library/base:latest"),
        ("base", "base::linux/amd64"),
        ("base:1", "base:1"),
    ] {
        let given = with(&[(context, image("other"))]);
        let images = Images::new().with("other", "{}");
        let (asked, _) = rounds(&format!("FROM {written}\nRUN x\n"), &given, &images);
        assert_eq!(asked, [["docker.io/library/other:latest linux/amd64"]], "{written} {context}");
    }
    let given = with(&[("base:1", image("other")), ("base::linux/arm64", image("other"))]);
    let (asked, _) = rounds("FROM base\n", &given, &Images::new());
    assert_eq!(asked, [["docker.io/library/base:latest linux/amd64"]]);
}

#[test]
fn stages_are_replaced_with_their_body() {
    let given = with(&[("a", image("other")), ("scratch", image("never"))]);
    let images = Images::new().with("other", r#"{"config":{"Env":["O=1"]}}"#);
    let text = "FROM base AS a\nRUN never\nCOPY --from=77 never /\nFROM a\nCOPY --from=a /x /\nFROM scratch\nCOPY --from=1 /x /\n";
    let (asked, result) = rounds(text, &given, &images);
    assert_eq!(asked, [["docker.io/library/other:latest linux/amd64"]]);
    let build = result.unwrap();
    let names: Vec<_> = build.graph.vertices().iter().map(|v| v.meta.name.clone()).collect();
    assert_eq!(
        names,
        [
            "[context a] docker.io/library/other:latest@pinned",
            "[stage-1 1/1] COPY --from=a /x /",
            "[stage-2 1/1] COPY --from=1 /x /"
        ]
    );
}

#[test]
fn a_folder_in_the_place_of_a_stage_has_no_configuration() {
    let given =
        with(&[("a", NamedContext::Local { ignore: Vec::new() }), ("b", NamedContext::Scratch)]);
    let config = |text: &str| build_with(text, &given, &Images::new()).config;
    for stage in ["a", "b"] {
        let alone = config(&format!("FROM base AS {stage}\nWORKDIR /never\n"));
        assert_eq!((alone.config.working_dir.as_str(), alone.config.env), ("", Vec::new()));
        assert_eq!((alone.os.as_str(), alone.architecture.as_str()), ("linux", "amd64"));
        let on_it = config(&format!("FROM base AS {stage}\nFROM {stage}\nWORKDIR d\n"));
        assert_eq!((on_it.config.working_dir.as_str(), on_it.config.env.len()), ("/d", 1));
        assert!(on_it.config.env[0].starts_with("PATH=/usr/local/sbin:"));
        // As a base it is an image without configuration.
        let base = config(&format!("FROM {stage}\n"));
        assert_eq!((base.config.working_dir.as_str(), base.config.env.len()), ("/", 1));
    }
}

#[test]
fn stages_are_contexts_by_target() {
    let target = |stage: &str| NamedContext::Stage(stage.to_owned());
    let given =
        with(&[("lib", target("Made")), ("old", target("made")), ("img:1", target("made"))]);
    let wrong = with(&[("lib", target("later"))]);
    check_errors_with(
        "FROM lib\nFROM scratch AS later\nFROM scratch\nCOPY --from=lib /a /\n",
        &wrong,
        &Images::new(),
        &[r#"line 1: named context "lib" is stage "later", which is not defined here <lib>"#],
    );
    let text = "FROM scratch AS made\nCOPY a /\nFROM base AS old\nRUN never\nFROM img:1\nCOPY --from=lib /a /\nCOPY --from=old /b /\n\
                RUN --mount=from=lib,target=/m x\n";
    let (asked, result) = rounds(text, &given, &Images::new());
    assert!(asked.is_empty(), "{asked:?}");
    let build = result.unwrap();
    let names: Vec<_> = build.graph.vertices().iter().map(|v| v.meta.name.clone()).collect();
    assert_eq!(
        names,
        [
            "[internal] load build context",
            "[made 1/1] COPY a /",
            "[stage-2 1/3] COPY --from=lib /a /",
            "[stage-2 2/3] COPY --from=old /b /",
            "[stage-2 3/3] RUN --mount=from=lib,target=/m x"
        ]
    );
}

#[test]
fn folders() {
    let given = with(&[
        ("lib", NamedContext::Local { ignore: vec!["*.o".to_owned()] }),
        ("none", NamedContext::Scratch),
    ]);
    check_with(
        "FROM none\nCOPY --from=lib a.h /\nCOPY --from=lib b/ /b\nCOPY c /\n",
        &given,
        r#"
        0 [context lib] load from client
            local://lib local.excludepatterns=["*.o"] local.followpaths=["a.h","b"]
        1 [stage-0 1/3] COPY --from=lib a.h /
            on - copy 0:/a.h -> /
        2 [stage-0 2/3] COPY --from=lib b/ /b
            on 1 copy 0:/b -> /b
        3 [internal] load build context
            local://context local.followpaths=["c"]
        4 [stage-0 3/3] COPY c /
            on 2 copy 3:/c -> /
        = 4
        "#,
    );
    check_with(
        "FROM lib\nCOPY --from=lib a /\n",
        &given,
        r#"
        0 [context lib] load from client
            local://lib local.excludepatterns=["*.o"]
        1 [stage-0 1/2] COPY --from=lib a /
            on 0 copy 0:/a -> /
        = 1
        "#,
    );
}

#[test]
fn layouts() {
    let given = with(&[("img", NamedContext::OciLayout("store:tag".to_owned()))]);
    let images = Images::new().with("img", "{}");
    let (asked, result) = rounds("FROM img\nRUN x\n", &given, &images);
    assert_eq!(asked, [["img=store:tag"]]);
    assert_eq!(result.unwrap().graph.vertices()[0].meta.name, "[context img] OCI load from client");
    let built = build_with("FROM scratch\nCOPY --from=img /a /\n", &given, &images);
    assert_eq!(built.graph.vertices()[0].meta.name, "[context img] OCI load from client");
}

#[test]
fn a_folder_alone_is_copied() {
    let given = with(&[("lib", NamedContext::Local { ignore: Vec::new() })]);
    check_with(
        "FROM lib\nLABEL a=b\n",
        &given,
        r#"
        0 [context lib] load from client
            local://lib
        1 [internal] copy the context
            on - copy 0:/ -> / contents
        = 1
        "#,
    );
}
