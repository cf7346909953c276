//! What a build can be given, and what can be built.

use rbuild_frontend::{
    BuildOptions, ImageSet, Outline, Source, Stages, evaluate, parse, similar_image, similar_stage,
    targets,
};

use super::build::{options, with_args};

fn outline(text: &str, options: &BuildOptions) -> Outline {
    let dockerfile = parse(&Source::new("Dockerfile", text).unwrap());
    evaluate(&dockerfile, options, &ImageSet::new(), Stages::Target).outline
}

fn arguments(outline: &Outline) -> Vec<(&str, &str, &str)> {
    let text = |text: &Option<String>| text.clone().unwrap_or("-".into()).leak() as &str;
    outline
        .arguments
        .iter()
        .map(|argument| (&*argument.name, text(&argument.value), text(&argument.description)))
        .collect()
}

const TEXT: &str = "\
# UNUSED is for nobody
ARG UNUSED=1
# TAG is the version
ARG TAG=${SUFFIX:-9}
ARG IMAGE=base:$TAG
ARG SHARED=both
FROM $IMAGE AS lib
# JOBS how many at once
# more about it
ARG JOBS=2
RUN --mount=type=cache,target=/c/ --mount=type=secret,id=key make
FROM other AS unneeded
ARG NEVER
# app is what runs
FROM lib AS app
# a comment of another form
ARG SHARED
ARG EMPTY
RUN --mount=type=secret,id=key,required=true --mount=type=ssh --mount=type=cache,id=x,target=/y make
";

#[test]
fn what_the_target_can_be_given() {
    let found = outline(TEXT, &with_args(&[("JOBS", "7")]));
    assert_eq!(
        (found.name.as_deref(), found.description.as_deref()),
        (Some("app"), Some("is what runs"))
    );
    assert_eq!(
        arguments(&found),
        [
            ("TAG", "9", "is the version"),
            ("IMAGE", "base:9", "-"),
            ("JOBS", "7", "how many at once"),
            ("SHARED", "both", "-"),
            ("EMPTY", "-", "-"),
        ]
    );
    let mounts = |mounts: &[rbuild_frontend::OutlineMount]| -> Vec<(String, bool)> {
        mounts.iter().map(|mount| (mount.id.clone(), mount.required)).collect()
    };
    assert_eq!(mounts(&found.secrets), [("key".into(), true)]);
    assert_eq!(mounts(&found.agents), [("default".into(), false)]);
    assert_eq!(mounts(&found.caches), [("/c".into(), false), ("x".into(), false)]);
}

#[test]
fn another_target_needs_less() {
    let found = outline(TEXT, &BuildOptions { target: Some("lib".into()), ..options() });
    assert_eq!(found.name.as_deref(), Some("lib"));
    let names: Vec<_> = found.arguments.iter().map(|argument| &*argument.name).collect();
    assert_eq!(names, ["TAG", "IMAGE", "JOBS"]);
    assert!(found.agents.is_empty());
}

#[test]
fn the_targets_of_a_file() {
    let dockerfile = parse(&Source::new("Dockerfile", TEXT).unwrap());
    let found: Vec<_> = targets(&dockerfile)
        .into_iter()
        .map(|target| (target.name.unwrap(), target.base, target.description, target.is_default))
        .collect();
    assert_eq!(
        found,
        [
            ("lib".into(), "$IMAGE".into(), None, false),
            ("unneeded".into(), "other".into(), None, false),
            ("app".into(), "lib".into(), Some("is what runs".into()), true),
        ]
    );
}

#[test]
fn stages_that_were_probably_meant() {
    let dockerfile = parse(&Source::new("Dockerfile", TEXT).unwrap());
    assert_eq!(similar_stage(&dockerfile, "lob"), Some("lib"));
    assert_eq!(similar_stage(&dockerfile, "debian"), None);
    assert_eq!(similar_image("ubunut:24.04"), Some("ubuntu"));
    assert_eq!((similar_image("debian:bad"), similar_image("nginx")), (None, None));
}
