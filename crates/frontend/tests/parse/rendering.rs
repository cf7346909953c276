//! How diagnostics look.

use rbuild_frontend::{Diagnostic, RenderOptions, Source, Span, check, parse, render};

use super::read;

const PLAIN: RenderOptions = RenderOptions { color: false, width: 100, limit: 10 };

fn drawn(text: &str) -> String {
    let (source, dockerfile) = read(text);
    let mut all = dockerfile.diagnostics.clone();
    all.extend(check(&dockerfile));
    render(&source, &all, PLAIN)
}

#[test]
fn errors_and_warnings() {
    insta::assert_snapshot!(drawn("FROM a AS b\nRNU apt-get update\nCOPY --chown=1 --chown=2 x y\nFROM c AS b\n"), @r#"
    warning[DuplicateStageName]: Duplicate stage name "b", stage names should be unique
     --> Dockerfile:4:11
      |
    4 | FROM c AS b
      |           ^
      |
     ::: Dockerfile:1:11
      |
    1 | FROM a AS b
      |           - the first
      |
      = note: https://docs.docker.com/go/dockerfile/rule/duplicate-stage-name/

    error[unknown-instruction]: unknown instruction: RNU (did you mean RUN?)
     --> Dockerfile:2:1
      |
    2 | RNU apt-get update
      | ^^^
      |
    help: try this
      |
    2 - RNU apt-get update
    2 + RUN apt-get update
      |

    error[duplicate-flag]: duplicate flag specified: --chown
     --> Dockerfile:3:16
      |
    3 | COPY --chown=1 --chown=2 x y
      |      --------- ^^^^^^^^^
      |      |
      |      the first
    "#);
}

#[test]
fn other_places_and_several_lines() {
    insta::assert_snapshot!(drawn("FROM a\nRUN <<EOF\necho\n EOF\n"), @r#"
    error[unterminated-heredoc]: unterminated heredoc
     --> Dockerfile:2:5
      |
    2 | RUN <<EOF
      |     ^^^^^ no line after it is just `EOF`
      |
     ::: Dockerfile:4:1
      |
    4 |  EOF
      | ---- blanks before or after it make it part of the text
    "#);
    let (source, _) = read("FROM a\nCMD b \\\n  c\n");
    let message =
        "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals";
    let warning = Diagnostic::warning("JSONArgsRecommended", Span::new(7, 18), message)
        .with_url("https://docs.docker.com/go/dockerfile/rule/json-args-recommended/");
    insta::assert_snapshot!(render(&source, &[warning], PLAIN), @r#"
    warning[JSONArgsRecommended]: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals
     --> Dockerfile:2:1
      |
    2 | / CMD b \
    3 | |   c
      | |___^
      |
      = note: https://docs.docker.com/go/dockerfile/rule/json-args-recommended/
    "#);
}

#[test]
fn text_in_other_scripts_and_control_characters() {
    insta::assert_snapshot!(drawn("FROM a\nENV é=1 \u{1b}[31m日本\n"), @r#"
    error[invalid-pair]: Syntax error - can't find = in "\u{1b}[31m日本". Must be of the form: name=value
     --> Dockerfile:2:9
      |
    2 | ENV é=1 ␛[31m日本
      |         ^^^^^^^^^
    "#);
}

#[test]
fn a_file_without_text() {
    insta::assert_snapshot!(drawn(""), @r#"
    error[empty-file]: the Dockerfile cannot be empty
     --> Dockerfile:1:1
      |
    1 |
      | ^
    "#);
}

#[test]
fn colours() {
    let (source, dockerfile) = read("FOO\n");
    let drawn = render(&source, &dockerfile.diagnostics, RenderOptions { color: true, ..PLAIN });
    assert!(drawn.contains("\u{1b}["), "{drawn}");
    assert_eq!(render(&source, &[], PLAIN), "");
    for width in [0, 1, 20, usize::MAX] {
        let drawn = render(&source, &dockerfile.diagnostics, RenderOptions { width, ..PLAIN });
        assert!(drawn.contains("unknown instruction: FOO"), "{drawn}");
    }
}

#[test]
fn a_long_line_is_cut() {
    let long = "x".repeat(10_000_000);
    let source =
        Source::new("Dockerfile", &format!("FROM a\nUSER {long} \nRUN --{long} {long}")).unwrap();
    let dockerfile = parse(&source);
    assert!(dockerfile.has_errors());
    let drawn = render(&source, &dockerfile.diagnostics, PLAIN);
    assert!(drawn.len() < 20_000, "{}", drawn.len());
    // A place far to the right keeps its column.
    let text = format!("FROM a\nCOPY --link {}--lnk x y\n", "--exclude=z ".repeat(300));
    assert!(self::drawn(&text).contains("Dockerfile:2:3613"), "{}", self::drawn(&text));
}

#[test]
fn many_errors_are_counted() {
    let drawn = drawn(&format!("FROM a\n{}", "FOO\n".repeat(100_000)));
    assert_eq!(drawn.matches("unknown instruction").count(), 10);
    assert!(drawn.ends_with("and 991 more errors\n"), "{drawn}");
}
