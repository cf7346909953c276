//! Properties that hold for any input.

use proptest::prelude::*;
use rbuild_frontend::{
    Checks, Command, Diagnostic, Dockerfile, Instruction, Mapped, RenderOptions, Source, Span,
    check, parse, render,
};

/// Pieces that together reach most of the parser.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "FROM", "RUN", "COPY", "ADD", "ENV", "ARG", "LABEL", "CMD", "ENTRYPOINT", "SHELL", "ONBUILD", "EXPOSE",
            "HEALTHCHECK", "VOLUME", "USER", "WORKDIR", "STOPSIGNAL", "MAINTAINER", "from", "As", "AS", "NONE", "FOO",
        ]).prop_map(str::to_owned),
        8 => prop::sample::select(vec![" ", "\n", "\r\n", "\\\n", "\\", "`", "\t", "\u{b}", "\u{a0}", "\u{feff}"])
            .prop_map(str::to_owned),
        4 => prop::sample::select(vec![
            "<<EOF", "<<-'E'", "EOF\n", "E\n", "\n# c\n", "# escape=`\n", "# check=skip=all\n", "--mount=type=cache,",
            "--mount=\"type=secret,id=$x\"", "--link", "--from=", "--chown=a ", "--interval=1s", "--", "[\"a\", \"\\u00e9\"]",
            "[\"", "]", "[1]", "\"", "'", "${x:-", "}", "$x", "a=b", "é=日本", "80/Tcp", ":",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,4}",
    ]
}

fn check_span(source: &Source, span: Span, what: &str) {
    let text = source.text();
    assert!(span.start <= span.end && span.end <= source.len(), "{what}: {span:?} is outside");
    assert!(
        text.is_char_boundary(span.start as usize),
        "{what}: {span:?} begins inside a character"
    );
    assert!(text.is_char_boundary(span.end as usize), "{what}: {span:?} ends inside a character");
}

fn check_mapped(source: &Source, mapped: &Mapped, what: &str) {
    check_span(source, mapped.span(), what);
    let borders: Vec<usize> =
        mapped.text().char_indices().map(|(at, _)| at).chain([mapped.text().len()]).collect();
    for pair in borders.windows(2) {
        let span = mapped.span_of(pair[0]..pair[1]);
        check_span(source, span, what);
        let written = source.slice(span);
        let shown = &mapped.text()[pair[0]..pair[1]];
        assert!(
            written == shown || written.starts_with('\\'),
            "{what}: {shown:?} is said to be {written:?}"
        );
    }
}

fn check_diagnostics(source: &Source, diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        check_span(source, diagnostic.span, &diagnostic.message);
        diagnostic.labels.iter().for_each(|label| check_span(source, label.span, &label.text));
        diagnostic.fixes.iter().for_each(|edit| check_span(source, edit.span, &edit.replacement));
    }
}

fn check_instruction(source: &Source, instruction: &Instruction) {
    let mapped =
        |words: &[Mapped]| words.iter().for_each(|word| check_mapped(source, word, "word"));
    match instruction {
        Instruction::From(from) => mapped(std::slice::from_ref(&from.image)),
        Instruction::Run(run) => match &run.command {
            Command::Shell(text) => mapped(std::slice::from_ref(text)),
            Command::Exec(words) => mapped(words),
        },
        Instruction::Env(pairs) | Instruction::Label(pairs) => {
            pairs.pairs.iter().for_each(|pair| mapped(&[pair.key.clone(), pair.value.clone()]));
        }
        Instruction::Copy(copy) => {
            mapped(&copy.transfer.sources);
            mapped(copy.chown.as_slice());
        }
        Instruction::Onbuild(onbuild) => check_instruction(source, &onbuild.trigger),
        Instruction::Volume(words) | Instruction::Shell(words) | Instruction::Expose(words) => {
            mapped(words);
        }
        _ => {}
    }
}

fn check_file(source: &Source) -> Dockerfile {
    let dockerfile = parse(source);
    let mut end = 0;
    for statement in &dockerfile.statements {
        check_span(source, statement.span, "statement");
        assert!(end <= statement.span.start, "statements overlap");
        end = statement.span.end;
        assert_eq!(
            statement.line,
            source.line(statement.original.span().start).min(statement.line)
        );
        check_mapped(source, &statement.original, "original");
        check_mapped(source, &statement.keyword, "keyword");
        for heredoc in &statement.heredocs {
            check_mapped(source, &heredoc.word, "heredoc");
            check_mapped(source, &heredoc.content(), "body");
        }
        statement.comments.iter().for_each(|comment| check_mapped(source, comment, "comment"));
        statement.blank_lines.iter().for_each(|line| check_span(source, *line, "blank line"));
        check_instruction(source, &statement.instruction);
    }
    check_diagnostics(source, &dockerfile.diagnostics);
    let mut all = dockerfile.diagnostics.clone();
    if let Ok(checks) = Checks::of(&dockerfile, None) {
        all.extend(checks.filter(&dockerfile, check(&dockerfile)));
    }
    check_diagnostics(source, &all);
    render(source, &all, RenderOptions { color: false, width: 80, limit: 5 });
    dockerfile
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn of_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let source = Source::from_bytes("Dockerfile", &bytes).unwrap();
        let dockerfile = check_file(&source);
        let reported = dockerfile.diagnostics.iter().any(|diagnostic| diagnostic.code == "not-utf8");
        prop_assert!(!reported || std::str::from_utf8(&bytes).is_err());
    }

    #[test]
    fn of_any_text(text in "\\PC{0,200}") {
        check_file(&Source::new("Dockerfile", &text).unwrap());
    }

    #[test]
    fn of_what_looks_like_a_dockerfile(pieces in prop::collection::vec(piece(), 0..40)) {
        check_file(&Source::new("Dockerfile", &pieces.concat()).unwrap());
    }

    /// What has no error is read the same again from its originals.
    #[test]
    fn originals_say_the_same(pieces in prop::collection::vec(piece(), 0..20)) {
        let source = Source::new("Dockerfile", &format!("FROM a\n{}", pieces.concat())).unwrap();
        let dockerfile = parse(&source);
        // Blanks at the end of a trigger are part of it, and not of the original.
        let simple = |text: &str| !text.to_lowercase().starts_with("onbuild") && !text.is_empty() && !text.contains(['\n', '\r', '<', '`', '\\', '\u{feff}']);
        for statement in dockerfile.statements.iter().filter(|statement| simple(statement.original.text())) {
            let again = Source::new("Dockerfile", statement.original.text()).unwrap();
            let again = parse(&again);
            let shown: Vec<_> = again.statements.iter().map(super::show).collect();
            prop_assert_eq!(shown, [super::show(statement)]);
        }
    }
}
