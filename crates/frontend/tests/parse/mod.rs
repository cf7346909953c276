//! Parsing, checking and drawing.

mod checks;
mod differential;
mod directives;
mod flags;
mod heredocs;
mod hostile;
mod instructions;
mod lines;
mod mounts;
mod own_checks;
mod rendering;
mod show;
mod spans;

use rbuild_frontend::{Dockerfile, Source, parse};

use show::show;

/// Parses text.
pub(crate) fn read(text: &str) -> (Source, Dockerfile) {
    let source = Source::new("Dockerfile", text).unwrap();
    let dockerfile = parse(&source);
    (source, dockerfile)
}

/// The file's instructions after `FROM a`, each as a line; then its messages.
pub(crate) fn shown(text: &str) -> String {
    let (source, dockerfile) = read(text);
    let statements = dockerfile.statements.iter().map(show);
    let messages = dockerfile
        .diagnostics
        .iter()
        .map(|diagnostic| dockerfile.compat_message(&source, diagnostic));
    statements.chain(messages).collect::<Vec<_>>().join("\n")
}

/// Asserts what a file says, line by line.
#[track_caller]
pub(crate) fn check(text: &str, expected: &[&str]) {
    assert_eq!(shown(text).lines().collect::<Vec<_>>(), expected, "{text}");
}

/// Asserts what one instruction says in a stage.
#[track_caller]
pub(crate) fn check_one(instruction: &str, expected: &str) {
    let all = shown(&format!("FROM a\n{instruction}\n"));
    assert_eq!(all.strip_prefix("FROM a\n").unwrap_or(&all), expected, "{instruction}");
}

/// Asserts the only error of one instruction in a stage.
#[track_caller]
pub(crate) fn check_error(instruction: &str, expected: &str) {
    let text = format!("FROM a\n{instruction}\n");
    let (_, dockerfile) = read(&text);
    let messages: Vec<_> =
        dockerfile.diagnostics.iter().map(|diagnostic| &*diagnostic.message).collect();
    assert_eq!(messages, [expected], "{instruction}");
    assert!(dockerfile.has_errors(), "{instruction}");
}
