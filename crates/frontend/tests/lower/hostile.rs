//! Files that are made to do harm, and files that make no sense.

use std::fmt::Write;

use proptest::prelude::*;
use rbuild_frontend::{ImageSet, Source, lower, parse};

use super::build::{Images, build, options, rounds};

#[test]
fn ten_thousand_stages() {
    let mut text = String::from("FROM base AS s0\nRUN 0\n");
    for stage in 1..10_000 {
        write!(text, "FROM s{} AS s{stage}\nRUN {stage}\nENV e{stage}=1\n", stage - 1).unwrap();
    }
    let built = build(&text.replace("ENV e", "LABEL e"));
    assert_eq!(built.graph.vertices().len(), 10_001);
    assert_eq!(built.config.history.len(), 1 + 2 * 9_999 + 1);

    let mut text = String::new();
    for stage in 0..10_000 {
        write!(text, "FROM scratch AS s{stage}\nCOPY f{stage} /\n").unwrap();
    }
    text.push_str("FROM scratch\n");
    for stage in 0..10_000 {
        writeln!(text, "COPY --from=s{stage} /f{stage} /").unwrap();
    }
    let built = build(&text);
    assert_eq!(built.graph.vertices().len(), 20_001);
    assert_eq!(built.locals[0].follow_paths.as_ref().unwrap().len(), 10_000);
}

#[test]
fn a_cycle_of_ten_thousand_stages() {
    let mut text = String::new();
    for stage in 0..10_000 {
        write!(text, "FROM scratch AS s{stage}\nCOPY --from=s{} /f /\n", (stage + 1) % 10_000)
            .unwrap();
    }
    let (_, result) = rounds(&text, &options(), &Images::new());
    let errors = result.unwrap_err();
    assert!(
        errors.iter().any(|error| error.message == "circular dependency detected on stage: s0")
    );
}

/// The code of the first error.
fn first_error(text: &str) -> &'static str {
    let (_, result) = rounds(text, &options(), &Images::new());
    result.unwrap_err()[0].code
}

#[test]
fn values_that_double() {
    let mut text = String::from("FROM scratch\nARG a=0123456789\n");
    for _ in 0..64 {
        text.push_str("ARG a=$a$a\n");
    }
    assert_eq!(first_error(&text), "expansion");
    let mut text = String::from("ARG a=0123456789\n");
    for _ in 0..64 {
        text.push_str("ARG a=$a$a\n");
    }
    text.push_str("FROM scratch\n");
    assert_eq!(first_error(&text), "expansion");
}

#[test]
fn text_that_adds_up() {
    let mut large = String::from("FROM scratch\nENV a=0123456789abcdef\n");
    large.push_str(&"ENV a=$a$a\n".repeat(16));
    assert_eq!(first_error(&(large.clone() + &"RUN [\"x\"]\n".repeat(300))), "too-large");
    assert_eq!(first_error(&(large.clone() + &"USER $a\n".repeat(300))), "too-large");
    let mut stages = large.replacen("scratch", "scratch AS a", 1);
    for stage in 0..300 {
        writeln!(stages, "FROM a AS s{stage}").unwrap();
    }
    stages.push_str("FROM scratch\n");
    for stage in 0..300 {
        writeln!(stages, "COPY --from=s{stage} /x /").unwrap();
    }
    assert_eq!(first_error(&stages), "too-large");
    let mut globals = String::from("ARG a=0123456789abcdef\n");
    globals.push_str(&"ARG a=$a$a\n".repeat(16));
    for argument in 0..300 {
        writeln!(globals, "ARG a{argument}=$a").unwrap();
    }
    assert_eq!(first_error(&(globals + "FROM scratch\n")), "too-large");
    let line = format!("COPY {}{}/\n", "--exclude=a ".repeat(2_500), "b ".repeat(16_000));
    assert_eq!(first_error(&format!("FROM scratch\n{line}")), "too-large");
    let ports = "FROM scratch\n".to_owned() + &"EXPOSE 0-65535 0-65535 0-65535\n".repeat(300);
    assert_eq!(first_error(&ports), "too-large");
}

#[test]
fn triggers_that_multiply() {
    let mut text = String::from("FROM scratch AS a\n");
    text.push_str(&"ONBUILD LABEL a=b\n".repeat(1_000));
    for stage in 0..1_000 {
        writeln!(text, "FROM a AS s{stage}").unwrap();
    }
    text.push_str("FROM scratch\n");
    for stage in 0..1_000 {
        writeln!(text, "COPY --from=s{stage} /x /").unwrap();
    }
    assert_eq!(first_error(&text), "onbuild-trigger");
    let long = format!("ONBUILD LABEL a={}\n", "b".repeat(60_000));
    assert_eq!(
        first_error(&text.replace("ONBUILD LABEL a=b\n", "").replacen(
            '\n',
            &format!("\n{long}"),
            1
        )),
        "onbuild-trigger"
    );
}

#[test]
fn messages_without_end() {
    let text = "FROM scratch\n".to_owned() + &"USER $a$b$c$d$e$f$g$h\n".repeat(100_000);
    assert!(build(&text).warnings.len() <= 1_001);
    let text = "FROM scratch\n".to_owned() + &"STOPSIGNAL x\n".repeat(100_000);
    let (_, result) = rounds(&text, &options(), &Images::new());
    assert!(result.unwrap_err().len() <= 10_001);
}

#[test]
fn deep_words() {
    let text = format!("FROM scratch\nUSER {}\n", "${a:-".repeat(10_000));
    assert_eq!(first_error(&text), "expansion");
}

/// Lines that mean something, put together at random.
fn line() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "[a-c]",
        "\\$[a-c]",
        "\\$\\{[a-c](:?[-+?]|[#%/]{1,2})[a-c*/]{0,3}\\}",
        "[/.]{1,3}[a-c]?",
        "\"[a-c $]{0,4}\"",
        "[0-9]{1,4}(-[0-9]{1,4})?(/[a-z]{3})?",
        "https://x/[a-c](\\.git)?",
        ".{0,8}",
    ];
    let keyword = prop::sample::select(vec![
        "FROM",
        "FROM --platform=$a",
        "RUN",
        "RUN --network=none",
        "COPY",
        "COPY --from=a",
        "COPY --from=0 --link",
        "COPY --parents --exclude=a --chown=a:b",
        "COPY --chmod=$a",
        "ADD",
        "ADD --unpack --chown=$b",
        "ARG",
        "ENV",
        "LABEL",
        "EXPOSE",
        "USER",
        "WORKDIR",
        "VOLUME",
        "STOPSIGNAL",
        "CMD",
        "ENTRYPOINT",
        "SHELL",
        "HEALTHCHECK CMD",
        "ONBUILD COPY --from=b",
        "ONBUILD ENV a=",
        "FROM a AS b #",
        "FROM scratch AS a #",
        "COPY <<EOF",
    ]);
    (keyword, prop::collection::vec(word, 0..4))
        .prop_map(|(keyword, words)| format!("{keyword} {}", words.join(" ")).replace(" #", ""))
}

proptest! {
    #[test]
    fn lowering_never_panics(lines in prop::collection::vec(line(), 0..12), given in "[a-c$]{0,3}") {
        let text = format!("ARG a={given}\nFROM scratch AS a\n{}\n", lines.join("\n"));
        let source = Source::new("Dockerfile", &text).unwrap();
        let mut dockerfile = parse(&source);
        let diagnostics = match lower(&dockerfile, &options(), &ImageSet::new()) {
            Err(diagnostics) => diagnostics,
            Ok(_) => Vec::new(),
        };
        for diagnostic in diagnostics {
            prop_assert!(source.text().get(diagnostic.span.range()).is_some(), "{diagnostic:?}");
        }
        // What could be read of a broken file is lowered, too.
        dockerfile.diagnostics.clear();
        if let Err(diagnostics) = lower(&dockerfile, &options(), &ImageSet::new()) {
            for diagnostic in diagnostics {
                prop_assert!(source.text().get(diagnostic.span.range()).is_some(), "{diagnostic:?}");
            }
        }
    }

    #[test]
    fn any_text_is_fine(text in "(.|\\PC|\n){0,200}") {
        let source = Source::new("Dockerfile", &text).unwrap();
        let _outcome = lower(&parse(&source), &options(), &ImageSet::new());
    }
}
