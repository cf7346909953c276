//! Bodies that follow an instruction.

use super::{check, check_error, check_one, read};

#[test]
fn of_run() {
    check_one("RUN <<EOF\na\nb\nEOF\nUSER c", "RUN sh <<EOF <<EOF \"a\\nb\\n\"\nUSER c");
    check_one("RUN <<EOF\nEOF", "RUN sh <<EOF <<EOF \"\"");
    check_one("RUN <<'EOF' bash\n$x\nEOF", "RUN sh <<'EOF' bash <<'EOF' \"$x\\n\"");
    check_one("RUN <<-EOF\n\ta\n\t b\n\tEOF", "RUN sh <<-EOF <<-EOF \"a\\n b\\n\"");
    check_one("RUN cat <<A 3<<B\na\nA\nb\nB", "RUN sh cat <<A 3<<B <<A \"a\\n\" 3<<B \"b\\n\"");
    check_one("run --network=none <<EOF\na\nEOF", "RUN --network=None sh <<EOF <<EOF \"a\\n\"");
    check_one("RUN a \\\n <<EOF \\\n b\nx\nEOF", "RUN sh a  <<EOF  b <<EOF \"x\\n\"");
    check_one("RUN <<EOF\r\na\r\nEOF\r", "RUN sh <<EOF <<EOF \"a\\r\\n\"");
}

#[test]
fn bodies_are_taken_as_they_are() {
    check_one(
        "RUN <<EOF\n# comment\n\nFROM scratch\na \\\nEOF \n EOF\nEOF\nUSER b",
        "RUN sh <<EOF <<EOF \"# comment\\n\\nFROM scratch\\na \\\\\\nEOF \\n EOF\\n\"\nUSER b",
    );
}

#[test]
fn of_copy_and_add() {
    check_one("COPY <<a.txt /x\nhi $y\na.txt", "COPY <<a.txt \"hi $y\\n\" -> [/x]");
    check_one("COPY <<a <<'b' c /x/\n1\na\n2\nb", "COPY [c] <<a \"1\\n\" <<'b' \"2\\n\" -> [/x/]");
    check_one("ADD --chmod=1 <<a /x\n1\na", "ADD --chmod=1 <<a \"1\\n\" -> [/x]");
    check_error("COPY a <<b\nb", "COPY cannot accept a heredoc as a destination");
}

#[test]
fn of_onbuild() {
    check_one(
        "ONBUILD RUN <<EOF\na\nEOF",
        "ONBUILD \"RUN <<EOF\\na\\nEOF\" -> RUN sh <<EOF <<EOF \"a\\n\"",
    );
    check_one(
        "ONBUILD COPY <<-x /y\n\t1\nx",
        "ONBUILD \"COPY <<-x /y\\n\\t1\\nx\" -> COPY <<-x \"1\\n\" -> [/y] <<-x \"1\\n\"",
    );
}

#[test]
fn other_instructions_and_the_json_form_have_none() {
    check_one("CMD cat <<EOF\nUSER a", "CMD sh cat <<EOF\nUSER a");
    check_one("RUN [\"cat\", \"<<EOF\"]\nUSER a", "RUN exec [cat] [<<EOF]\nUSER a");
    check_one("COPY [\"<<a\", \"/b\"]", "COPY [<<a] -> [/b]");
    check_one("ONBUILD USER <<EOF", "ONBUILD \"USER <<EOF\" -> USER <<EOF");
    check_one("RUN ['cat'] <<EOF\na\nEOF", "RUN sh ['cat'] <<EOF <<EOF \"a\\n\"");
}

#[test]
fn a_missing_terminator() {
    check(
        "FROM a\nRUN <<EOF\nUSER b\n EOF\n",
        &["FROM a", "RUN sh <<EOF <<EOF \"USER b\\n EOF\\n\"", "unterminated heredoc"],
    );
    check_error("RUN <<A <<B\nA", "unterminated heredoc");
}

#[test]
fn places() {
    let (source, dockerfile) = read("FROM a\nRUN <<-EOF\n\ta\n\tEOF\nUSER b\n");
    let run = &dockerfile.statements[1];
    assert_eq!((run.line, run.end_line), (2, 4));
    assert_eq!(source.slice(run.span), "RUN <<-EOF\n\ta\n\tEOF");
    assert_eq!(run.original.text(), "RUN <<-EOF");
    let content = run.heredocs[0].content();
    assert_eq!(source.slice(content.span_of(0..1)), "a");
    assert_eq!(source.slice(run.heredocs[0].word.span()), "<<-EOF");
}
