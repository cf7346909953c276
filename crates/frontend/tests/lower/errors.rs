//! Errors: all of a file at once, before any image is asked for.

use super::build::{Images, check_errors, check_errors_with, options, rounds, with_args};

#[test]
fn what_is_not_built_yet_is_refused_with_a_hint() {
    let text = "FROM base\nRUN --device=a/b=c x\nRUN --security=sandbox x\nADD --checksum=sha256:0 a /\nADD --checksum=sha256:0 a b /\nCOPY https://x/y /\nCOPY https://x/y.git /\n";
    check_errors(
        text,
        &[
            "line 2: RUN --device is not supported yet <a/b=c>",
            "line 4: checksum requires HTTP(S) or Git sources <sha256:0>",
            "line 5: checksum can't be specified for multiple sources <sha256:0>",
            "line 6: source can't be a URL for COPY <https://x/y>",
            "line 7: source can't be a git ref for COPY <https://x/y.git>",
        ],
    );
    let (_, result) = rounds(text, &options(), &Images::new());
    assert!(result.unwrap_err()[..1].iter().all(|error| error.help.is_some()));
}

#[test]
fn errors_come_before_images_are_asked_for() {
    let text = "FROM base AS a\nEXPOSE x\nSTOPSIGNAL y\nFROM a\nENV p=${\nCOPY --chmod=9 a b\n";
    let (asked, result) = rounds(text, &options(), &Images::new());
    assert!(asked.is_empty());
    let messages: Vec<_> =
        result.unwrap_err().iter().map(|error| error.message.to_string()).collect();
    assert_eq!(
        messages,
        [
            "invalid containerPort: x",
            "invalid signal: y",
            "failed to process \"${\": syntax error: missing '}'",
            "invalid chmod parameter: '9'. it should be octal string and between 0 and 07777",
        ]
    );
}

#[test]
fn what_an_unknown_base_may_define_is_no_error_yet() {
    let images = Images::new().with("vars", r#"{"config":{"Env":["PORT=80"]}}"#);
    let text = "FROM vars\nENV COPY=$PORT\nEXPOSE $COPY\nARG a=${PORT:?needed}\nUSER ${a}\n";
    let (asked, result) = rounds(text, &options(), &images);
    assert_eq!(asked.len(), 1);
    assert_eq!(result.unwrap().config.config.user, "80");
    check_errors_with(
        &text.replace("vars", "base"),
        &options(),
        &images,
        &["line 4: failed to process \"${PORT:?needed}\": PORT: needed <${PORT:?needed}>"],
    );
}

#[test]
fn syntax_errors_are_those_of_the_parser() {
    check_errors(
        "FROM scratch\nNONSENSE\nEXPOSE x\n",
        &["line 2: unknown instruction: NONSENSE <NONSENSE>"],
    );
}

#[test]
fn options_may_be_wrong_too() {
    check_errors_with(
        "FROM scratch\n",
        &with_args(&[("SOURCE_DATE_EPOCH", "yesterday")]),
        &Images::new(),
        &["line 1: invalid SOURCE_DATE_EPOCH: yesterday <>"],
    );
    for harmless in ["", "context"] {
        let given = with_args(&[("SOURCE_DATE_EPOCH", harmless)]);
        let (_, result) = rounds("FROM scratch\n", &given, &Images::new());
        assert_eq!(result.unwrap().source_date_epoch, None);
    }
    let mut given = options();
    given.context_ignore = vec!["[".to_owned()];
    let (_, result) = rounds("FROM scratch\nCOPY a /\n", &given, &Images::new());
    assert!(result.unwrap_err()[0].message.starts_with("failed parsing .dockerignore: "));
}
