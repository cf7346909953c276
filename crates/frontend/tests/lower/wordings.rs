//! The words of errors that people and scripts search for, as BuildKit prints them after `failed to solve: `.

use rbuild_frontend::{BuildOptions, Source, parse};

use super::build::{Images, options, rounds};

/// The first error as `rbuild build` says it.
fn first_error(text: &str, options: &BuildOptions) -> String {
    let source = Source::new("Dockerfile", text).unwrap();
    let dockerfile = parse(&source);
    let (_, result) = rounds(text, options, &Images::new());
    let errors = result.err().unwrap_or_else(|| panic!("it has no errors:\n{text}"));
    let first = errors.iter().find(|error| error.is_error()).unwrap();
    dockerfile.compat_message(&source, first)
}

#[test]
fn errors_of_the_file() {
    let long = format!("FROM base\nRUN {}\n", "x".repeat(70_000));
    for (text, expected) in [
        ("", "the Dockerfile cannot be empty"),
        ("# nothing\n", "file with no instructions"),
        ("ARG a\n", "dockerfile contains no stages to build"),
        ("RUN x\n", "no build stage in current context"),
        ("# escape=`\n# escape=`\nFROM base\n", "only one escape parser directive can be used"),
        ("FROM base\nRUN <<EOF\n", "unterminated heredoc"),
        (&long, "dockerfile line greater than max allowed size of 65535"),
    ] {
        assert_eq!(first_error(text, &options()), expected, "{text:.80}");
    }
}

#[test]
fn errors_of_instructions() {
    for (instruction, expected) in [
        ("FOO", "unknown instruction: FOO (did you mean FROM?)"),
        ("COPY --link= a b", "missing a value on flag: --link"),
        ("COPY --link=x a b", "expecting boolean value for flag --link, not: x"),
        ("COPY --chown a b", "missing a value on flag: --chown"),
        ("COPY --chown=1 --chown=2 a b", "duplicate flag specified: --chown"),
        ("COPY --form=x a b", "unknown flag: --form (did you mean from?)"),
        ("SHELL bash", "SHELL requires the arguments to be in JSON form"),
        (
            "RUN --mount=type=bind,from=$x,target=/y z",
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
        ("RUN --mount=type=secret z", "invalid secret mount. one of source, target required"),
    ] {
        let found = first_error(&format!("FROM base\n{instruction}\n"), &options());
        assert_eq!(found, format!("dockerfile parse error on line 2: {expected}"));
    }
}

#[test]
fn errors_that_are_found_before_instructions_are_read() {
    for (instruction, expected) in [
        ("CMD [1]", "only string type is allowed in JSON arrays"),
        ("ENV a", "ENV must have two arguments"),
        ("LABEL a=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value"),
    ] {
        assert_eq!(first_error(&format!("FROM base\n{instruction}\n"), &options()), expected);
    }
}

#[test]
fn errors_of_what_is_built() {
    for (instruction, expected) in [
        ("USER ${a:?b}", "a: b"),
        ("USER ${}", "syntax error: bad substitution"),
        ("USER ${a", "syntax error: missing '}'"),
        ("USER ${a:#b}", "unsupported modifier"),
        (
            "COPY --chmod=9 a b",
            "invalid chmod parameter: '9'. it should be octal string and between 0 and 07777",
        ),
        (
            "COPY --from=$x a b",
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
        ),
        ("COPY --from=7 a b", "invalid stage index 7"),
        ("COPY --from=self a b", "circular dependency detected on stage: self"),
        (
            "COPY --from=later a b",
            "cannot copy from stage \"later\", it needs to be defined before current stage \"self\"",
        ),
        ("COPY https://x/y.git b", "source can't be a git ref for COPY"),
        ("COPY --link --chown=me a b", "invalid user index"),
        ("STOPSIGNAL x", "invalid signal: x"),
    ] {
        let text = format!("FROM base AS self\n{instruction}\nFROM self AS later\n");
        let found = first_error(&text, &options());
        assert!(found.contains(expected), "{instruction}: {found}");
        assert!(!found.contains("parse error"), "{instruction}: {found}");
    }
    let target = BuildOptions { target: Some("laser".into()), ..options() };
    assert_eq!(
        first_error("FROM base AS later\n", &target),
        "target stage \"laser\" could not be found (did you mean later?)"
    );
}
