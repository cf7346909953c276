//! The `# key=value` lines at the top.

use rbuild_frontend::Escape;

use super::{check, read};

/// What is found of syntax, check and escape.
fn directives(text: &str) -> (Option<String>, Option<String>, Escape) {
    let (_, dockerfile) = read(text);
    let found = dockerfile.directives;
    (
        found.syntax.map(|it| it.text().to_owned()),
        found.check.map(|it| it.text().to_owned()),
        found.escape,
    )
}

#[test]
fn forms() {
    let some = |text: &str| Some(text.to_owned());
    for (text, syntax, check, escape) in [
        ("# syntax=a/b:1\nFROM a", some("a/b:1"), None, Escape::Backslash),
        ("#syntax = a \nFROM a", some("a"), None, Escape::Backslash),
        ("#  SynTax\t=\ta b  \r\nFROM a", some("a b"), None, Escape::Backslash),
        // Syntax and checks are looked for in lines as they are, the escape in what is left of them.
        (" # escape=`\n# check=skip=all\n# syntax=x\nFROM a", None, None, Escape::Backtick),
        (
            "# escape=`\n# check=skip=all\n# syntax=x\nFROM a",
            some("x"),
            some("skip=all"),
            Escape::Backtick,
        ),
        ("# escape=\\\nFROM a", None, None, Escape::Backslash),
        // A blank line, a comment, another key or an instruction ends them.
        ("\n# syntax=x\nFROM a", None, None, Escape::Backslash),
        ("# hello\n# syntax=x\nFROM a", None, None, Escape::Backslash),
        ("# other=y\n# escape=`\nFROM a", None, None, Escape::Backslash),
        ("FROM a\n# escape=`\n", None, None, Escape::Backslash),
        ("# syntax=\n# escape=`\nFROM a", None, None, Escape::Backslash),
        ("# syntax x=y\n# escape=`\nFROM a", None, None, Escape::Backslash),
        // A shebang is skipped when a syntax or checks are looked for.
        ("#!/bin/x\n# syntax=x\n# escape=`\nFROM a", some("x"), None, Escape::Backslash),
    ] {
        assert_eq!(directives(text), (syntax, check, escape), "{text}");
    }
}

#[test]
fn errors() {
    check(
        "# escape=`\n# Escape=\\\nFROM a",
        &["FROM a", "only one escape parser directive can be used"],
    );
    check(
        "# syntax=a\n# escape=x\nFROM a",
        &["FROM a", "invalid escape token 'x' does not match ` or \\"],
    );
    check("# syntax=a\n\n# syntax=b\nFROM a", &["FROM a"]);
}
