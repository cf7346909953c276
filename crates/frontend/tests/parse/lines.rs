//! Physical and logical lines: comments, continuations, blank lines, limits.

use super::{check, check_one, read};

#[test]
fn comments_vanish_and_hashes_elsewhere_are_data() {
    check(
        "# c\nFROM a # b\n  # c\n",
        &[
            "? a # b",
            "dockerfile parse error on line 2: FROM requires either one or three arguments",
        ],
    );
    check_one("RUN echo # not a comment", "RUN sh echo # not a comment");
    check_one("RUN a \\\n# gone\n  # gone too\n b", "RUN sh a  b");
    check_one("RUN a \\\n# the last line", "RUN sh a");
}

#[test]
fn continuations() {
    check_one("RUN a \\\n  b \\\n\tc", "RUN sh a   b \tc");
    check_one("RUN a\\\nb", "RUN sh ab");
    check_one("RUN a \\  \t\n  b", "RUN sh a   b");
    check_one("RUN a \\\r\n  b\r", "RUN sh a   b");
    check_one("RUN a \\\\\nUSER b", "RUN sh a \\\\\nUSER b");
    check_one("RUN a \\\\\\\nUSER b", "RUN sh a \\\\\\\nUSER b");
    check_one("RU\\\nN a", "RUN sh a");
    check_one("\\\n  RUN a", "RUN sh a");
    check_one("   RUN a", "RUN sh a");
    check_one("RUN a \\", "RUN sh a");
    check_one("RUN a` \nUSER b", "RUN sh a`\nUSER b");
}

#[test]
fn the_escape_directive_changes_what_continues() {
    check(
        "# escape=`\nFROM a\nRUN a `\n b\nRUN c:\\\nUSER d",
        &["FROM a", "RUN sh a  b", "RUN sh c:\\", "USER d"],
    );
}

#[test]
fn blank_lines_in_continuations_are_legal() {
    check_one("RUN a \\\n\n   \n b\nUSER c", "RUN sh a  b\nUSER c");
    let (source, dockerfile) = read("FROM a\nRUN a \\\n\n b\n");
    let blank: Vec<_> =
        dockerfile.statements[1].blank_lines.iter().map(|span| source.line(span.start)).collect();
    assert_eq!(blank, [3]);
}

#[test]
fn a_continuation_may_end_with_the_file() {
    check("FROM a\\", &["FROM a"]);
    check("FROM a\nRUN b \\\n", &["FROM a", "RUN sh b"]);
    check(
        "FROM a\n\\\n",
        &["FROM a", "? ", "dockerfile parse error on line 2: unknown instruction: "],
    );
}

#[test]
fn a_byte_order_mark_is_dropped_at_the_start_only() {
    check("\u{feff}FROM a\n", &["FROM a"]);
    check("\u{feff}# escape=`\nFROM a\nRUN b `\nc", &["FROM a", "RUN sh b c"]);
    check(
        "FROM a\n\u{feff}RUN b\n",
        &[
            "FROM a",
            "? b",
            "dockerfile parse error on line 2: unknown instruction: \u{feff}RUN (did you mean RUN?)",
        ],
    );
}

#[test]
fn the_original_is_what_step_names_show() {
    let (_, dockerfile) = read("FROM a\n  run  echo \\\n    b \\\n# c\n\n  d  \n");
    let statement = &dockerfile.statements[1];
    assert_eq!(statement.original.text(), "run  echo     b   d");
    assert_eq!(statement.keyword.text(), "run");
    assert_eq!((statement.line, statement.end_line), (2, 6));
}

#[test]
fn comments_above_belong_to_the_instruction() {
    let comments = |text: &str| {
        let (_, dockerfile) = read(text);
        let last = dockerfile.statements.last().unwrap();
        last.comments.iter().map(|comment| comment.text().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(comments("# one\n  #two  \nFROM a"), ["one", "two"]);
    assert_eq!(comments("# one\n#\n# two\nFROM a"), ["two"]);
    assert_eq!(comments("# one\n\nFROM a"), [""; 0]);
    assert_eq!(comments("# syntax=x\nFROM a"), [""; 0]);
    assert_eq!(comments("# one\nFROM a\nRUN b"), [""; 0]);
    assert_eq!(comments("FROM a\nRUN b \\\n# in\n c\n# above\nUSER d"), ["above"]);
}

#[test]
fn files_without_stages() {
    check("", &["the Dockerfile cannot be empty"]);
    check("\n# c\n\n", &["file with no instructions"]);
    check("\u{feff}", &["file with no instructions"]);
    check("ARG a\n", &["ARG [a]", "dockerfile contains no stages to build"]);
    check(
        "ARG a\nRUN b\nUSER c\nFROM d",
        &["ARG [a]", "RUN sh b", "USER c", "FROM d", "no build stage in current context"],
    );
    check(
        "FOO\nRUN b",
        &[
            "? ",
            "RUN sh b",
            "dockerfile parse error on line 1: unknown instruction: FOO (did you mean FROM?)",
            "no build stage in current context",
        ],
    );
}

#[test]
fn all_errors_come_at_once() {
    check(
        "FROM a b\nFOO\nCOPY x\nRUN --mout=x y\nUSER\n",
        &[
            "? a b",
            "? ",
            "? x",
            "RUN sh y",
            "? ",
            "dockerfile parse error on line 1: FROM requires either one or three arguments",
            "dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)",
            "dockerfile parse error on line 3: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
            "dockerfile parse error on line 4: unknown flag: --mout (did you mean mount?)",
            "dockerfile parse error on line 5: USER requires exactly one argument",
        ],
    );
}

#[test]
fn errors_name_the_first_line_of_the_instruction() {
    check(
        "FROM a\nRUN \\\n --x \\\n b",
        &["FROM a", "RUN sh b", "dockerfile parse error on line 2: unknown flag: --x"],
    );
}

#[test]
fn lines_have_a_limit() {
    let message = "dockerfile line greater than max allowed size of 65535";
    let errors = |text: &str| {
        let (_, dockerfile) = read(text);
        dockerfile
            .diagnostics
            .iter()
            .map(|diagnostic| diagnostic.message.to_string())
            .collect::<Vec<_>>()
    };
    let line = |len: usize| format!("RUN {}", "x".repeat(len - 4));
    assert_eq!(errors(&format!("FROM a\n{}\nUSER b", line(65_535))), [""; 0]);
    assert_eq!(errors(&format!("FROM a\n{}", line(65_535))), [""; 0]);
    assert_eq!(errors(&format!("FROM a\n{}\nUSER b", line(65_536))), [message]);
    assert_eq!(errors(&format!("FROM a\n{}\r\nUSER b", line(65_535))), [message]);
    assert_eq!(errors(&format!("FROM a\n# {}\n", "x".repeat(70_000))), [message]);
    assert_eq!(errors(&format!("FROM a\nRUN <<E\n{}\nE\n", "x".repeat(70_000))), [message]);
    // Many short lines may make a long one.
    let (_, dockerfile) = read(&format!("FROM a\nRUN {}y", "x\\\n".repeat(100_000)));
    assert!(!dockerfile.has_errors());
    assert_eq!(dockerfile.statements[1].original.text().len(), 100_005);
}
