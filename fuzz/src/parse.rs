//! Lexer, parser, lints, fixes and drawing: any bytes.

use rbuild_frontend::{
    Checks, ContextFiles, Diagnostic, Dockerfile, Instruction, RenderOptions, Source, apply_fixes,
    check as lint, check_own, parse, parse_trigger, render, targets,
};

use crate::spans::Walk;

/// Texts repeat what is written at most so often: in the original, the instruction, comments and heredocs.
const MOST_COPIES: usize = 8;
/// What messages may add for each statement.
const MESSAGES: usize = 4_096;

/// Our own rules are tried on inputs whose length is a multiple of this.
const OWN_CHECKS: usize = 8;

/// Reads a Dockerfile in all ways that need no options.
pub fn check(data: &[u8]) {
    let Ok(source) = Source::from_bytes("Dockerfile", data) else { return };
    let dockerfile = parse(&source);
    let mut walk = Walk::new(&source);
    walk.file(&dockerfile);
    let most = MOST_COPIES * source.text().len()
        + MESSAGES * (dockerfile.statements.len() + dockerfile.diagnostics.len() + 1);
    assert!(walk.size <= most, "{} bytes of {}", walk.size, source.text().len());
    let not_utf8 = dockerfile.diagnostics.iter().any(|found| found.code == "not-utf8");
    let keeps_bytes =
        dockerfile.statements.iter().any(|one| one.heredocs.iter().any(|body| !body.expand));
    match std::str::from_utf8(data) {
        Ok(_) => assert!(!not_utf8),
        // A document that is written as it is may be anything.
        Err(_) => assert!(not_utf8 || keeps_bytes),
    }

    let mut found = lint(&dockerfile);
    // It compiles regular expressions each time, which takes longer than all else here.
    if data.len().is_multiple_of(OWN_CHECKS) {
        found.extend(check_own(&source, &dockerfile, &ContextFiles::default()));
    }
    walk.diagnostics(&found);
    for diagnostic in found.iter().chain(&dockerfile.diagnostics) {
        let (first, last) = dockerfile.lines(&source, diagnostic);
        assert!(1 <= first && first <= last && last <= source.line_count());
        dockerfile.compat_message(&source, diagnostic);
    }
    if let Ok(checks) = Checks::of(&dockerfile, None) {
        checks.filter(&dockerfile, found.clone());
    }
    let all: Vec<Diagnostic> = found.iter().chain(&dockerfile.diagnostics).cloned().collect();
    for color in [false, true] {
        render(&source, &all, RenderOptions { color, width: data.len() % 200, limit: 4 });
    }
    assert!(targets(&dockerfile).len() <= dockerfile.statements.len());
    check_fixes(&source, &dockerfile, &found);
    check_triggers(&dockerfile);
    check_again(&source, &dockerfile);
}

/// Fixes leave a file that says something, and are at an end after some rounds.
fn check_fixes(source: &Source, dockerfile: &Dockerfile, found: &[Diagnostic]) {
    if dockerfile.has_errors() {
        return;
    }
    let fixed = apply_fixes(source, found);
    assert_eq!(fixed.applied == 0, fixed.text == source.text());
    let again = Source::new("Dockerfile", &fixed.text).expect("fixes hardly lengthen a text");
    let read = parse(&again);
    assert!(!read.has_errors(), "a fix breaks the file: {:?}", fixed.text);
    assert_eq!(read.statements.len(), dockerfile.statements.len(), "{:?}", fixed.text);
}

/// A trigger is read from the image as it was read in the file.
fn check_triggers(dockerfile: &Dockerfile) {
    if dockerfile.has_errors() {
        return;
    }
    for statement in &dockerfile.statements {
        let Instruction::Onbuild(onbuild) = &statement.instruction else { continue };
        // What no image could use is a warning where it is written.
        let is_here = |found: &Diagnostic| {
            statement.span.start <= found.span.start && found.span.start <= statement.span.end
        };
        if dockerfile.diagnostics.iter().any(is_here) {
            continue;
        }
        let source = Source::new("ONBUILD", &onbuild.expression).expect("it is a part of the file");
        let read = parse_trigger(&source);
        assert!(!read.has_errors(), "{:?}: {:?}", onbuild.expression, read.diagnostics);
        assert_eq!(read.statements.len(), 1, "{:?}", onbuild.expression);
    }
}

/// A text that is read twice says the same, and so does one with other line breaks at its end.
fn check_again(source: &Source, dockerfile: &Dockerfile) {
    let again = parse(source);
    assert_eq!(again.statements, dockerfile.statements);
    assert_eq!(again.diagnostics, dockerfile.diagnostics);
    if dockerfile.has_errors() || source.text().ends_with(['\\', '`', '\r']) {
        return;
    }
    let longer = Source::new("Dockerfile", &format!("{}\n", source.text())).expect("one byte more");
    let longer = parse(&longer);
    let originals = |dockerfile: &Dockerfile| -> Vec<String> {
        let texts = dockerfile.statements.iter().map(|one| one.original.text().to_owned());
        texts.collect()
    };
    assert_eq!(originals(&longer), originals(dockerfile));
}
