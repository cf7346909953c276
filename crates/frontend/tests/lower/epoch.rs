//! `SOURCE_DATE_EPOCH` in all its forms.

use rbuild_frontend::{
    BuildOptions, GitUrl, NamedContext, RemoteContext, Source, epoch_source, parse,
};

use super::build::{Images, build_with, check_errors_with, history, options, with_args};

fn git(url: &str) -> RemoteContext {
    RemoteContext::git(&GitUrl::parse(url).unwrap().unwrap())
}

fn epoch(text: &str, options: &BuildOptions) -> Option<i64> {
    build_with(text, options, &Images::new()).source_date_epoch
}

/// What has to be fetched for its time.
fn asked(text: &str, options: &BuildOptions) -> Option<String> {
    let dockerfile = parse(&Source::new("Dockerfile", text).unwrap());
    let source = epoch_source(&dockerfile, options)?;
    let attrs = source.context.source.attrs.iter().map(|(key, value)| format!(" {key}={value}"));
    Some(format!(
        "{}: {}{}",
        source.name,
        source.context.source.identifier,
        attrs.collect::<String>()
    ))
}

#[test]
fn numbers() {
    let from = |text: &str, args: &[(&str, &str)]| epoch(text, &with_args(args));
    let global = "ARG SOURCE_DATE_EPOCH=7\nFROM scratch\n";
    assert_eq!(from("FROM scratch\n", &[]), None);
    assert_eq!(from("FROM scratch\n", &[("SOURCE_DATE_EPOCH", "3")]), Some(3));
    assert_eq!(from("FROM scratch\n", &[("SOURCE_DATE_EPOCH", "-1")]), Some(-1));
    assert_eq!(from("FROM scratch\n", &[("SOURCE_DATE_EPOCH", "")]), None);
    assert_eq!(from(global, &[]), Some(7));
    assert_eq!(from("ARG A=7\nARG SOURCE_DATE_EPOCH=${A}0\nFROM scratch\n", &[]), Some(70));
    assert_eq!(from(global, &[("SOURCE_DATE_EPOCH", "3")]), Some(3));
    assert_eq!(from(global, &[("SOURCE_DATE_EPOCH", "")]), None, "an empty one takes it away");
    assert_eq!(from("FROM scratch\nARG SOURCE_DATE_EPOCH=7\n", &[]), None, "not a global one");
}

#[test]
fn the_time_of_a_context() {
    let given = |value: &str, time| BuildOptions {
        context: Some(git("git@h:main")),
        contexts: [
            ("lib".to_owned(), NamedContext::Remote(git("git@h:lib"))),
            ("dir".to_owned(), NamedContext::Local { ignore: Vec::new() }),
        ]
        .into(),
        epoch_time: time,
        ..with_args(&[("SOURCE_DATE_EPOCH", value)])
    };
    let text = "FROM scratch\n";
    assert_eq!(
        asked(text, &given("context", None)).unwrap(),
        "context: git://h/main git.fullurl=git@h:main"
    );
    assert_eq!(asked(text, &given("lib", None)).unwrap(), "lib: git://h/lib git.fullurl=git@h:lib");
    for value in ["context", "lib"] {
        assert_eq!(epoch(text, &given(value, Some(5))), Some(5));
        assert_eq!(epoch(text, &given(value, None)), None, "it has no time");
    }
    // A folder has none.
    assert_eq!(asked(text, &given("dir", None)), None);
    assert_eq!(epoch(text, &given("dir", Some(5))), None);
    assert_eq!(epoch(text, &with_args(&[("SOURCE_DATE_EPOCH", "context")])), None);
    // As a default in the file.
    let global = "ARG SOURCE_DATE_EPOCH=lib\nFROM scratch\n";
    let contexts = BuildOptions { build_args: Default::default(), ..given("", Some(5)) };
    assert!(asked(global, &contexts).is_some());
    assert_eq!(epoch(global, &contexts), Some(5));
}

#[test]
fn the_time_of_what_a_stage_adds() {
    let given = BuildOptions {
        epoch_time: Some(5),
        ..with_args(&[("SOURCE_DATE_EPOCH", "Src"), ("V", "2")])
    };
    for (stage, expected) in [
        ("FROM scratch AS src\nADD https://h/a.tar /x\n", "https://h/a.tar http.filename=context"),
        (
            "FROM scratch AS src\nARG V=1 N=a$V\nADD --checksum=sha256:$V https://h/$N.tar /\n",
            "https://h/a2.tar http.checksum=sha256:2 http.filename=context",
        ),
        (
            "FROM scratch AS src\nADD https://h/r.git#v1 /\n",
            "git://h/r.git#v1 git.fullurl=https://h/r.git",
        ),
    ] {
        let text =
            format!("{stage}FROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL t=$SOURCE_DATE_EPOCH\n");
        assert_eq!(asked(&text, &given).unwrap(), format!("Src: {expected}"));
        let build = build_with(&text, &given, &Images::new());
        assert_eq!(build.source_date_epoch, Some(5));
        assert_eq!(history(&build), ["(ARG SOURCE_DATE_EPOCH=5)", "(LABEL t=5)"]);
    }
}

#[test]
fn what_names_no_time_is_refused() {
    let given = with_args(&[("SOURCE_DATE_EPOCH", "src")]);
    let only = "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD";
    for (stage, line, message, marked) in [
        ("FROM base", 1, "invalid SOURCE_DATE_EPOCH: src".to_owned(), ""),
        ("FROM base AS src", 1, "SOURCE_DATE_EPOCH stage must use FROM scratch".to_owned(), "base"),
        ("FROM scratch AS src", 1, only.to_owned(), "FROM scratch AS src"),
        ("FROM scratch AS src\nADD http://h/a /\nADD http://h/b /", 3, only.to_owned(), "ADD http://h/b /"),
        ("FROM scratch AS src\nADD http://h/a http://h/b /", 2, format!("{only} source"), "ADD http://h/a http://h/b /"),
        (
            "FROM scratch AS src\nADD a /",
            2,
            "SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD".to_owned(),
            "a",
        ),
        (
            "FROM scratch AS src\ncopy a /",
            2,
            "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported COPY instruction".to_owned(),
            "copy a /",
        ),
    ] {
        let text = format!("{stage}\nFROM scratch\n");
        let expected = format!("line {line}: {message} <{marked}>");
        check_errors_with(&text, &given, &Images::new(), &[&expected]);
    }
}

#[test]
fn stages_see_the_number() {
    let text = "FROM scratch\nARG SOURCE_DATE_EPOCH\nWORKDIR /w\n";
    let history_of = |options: &BuildOptions| history(&build_with(text, options, &Images::new()));
    assert_eq!(history_of(&options())[0], "(ARG SOURCE_DATE_EPOCH)");
    assert_eq!(history_of(&with_args(&[("SOURCE_DATE_EPOCH", "")]))[0], "(ARG SOURCE_DATE_EPOCH)");
    assert_eq!(
        history_of(&with_args(&[("SOURCE_DATE_EPOCH", "07")]))[0],
        "(ARG SOURCE_DATE_EPOCH=7)"
    );
}
