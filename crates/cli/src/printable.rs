//! Text that others have chosen, made fit to print.
//!
//! Names of steps, paths and messages contain what a Dockerfile, an image or a registry says, and a step prints
//! what it likes. None of it may command the terminal: change its title, clear it, write over other lines, or
//! make it answer as if somebody had typed.

use std::borrow::Cow;

/// A text of one or more lines: control characters but for tabs and the ends of lines are shown as escapes.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.is_control() && !matches!(c, '\t' | '\n'))
}

/// A text of one line: the ends of lines are shown as escapes too.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.is_control() && c != '\t')
}

fn escaped(text: &str, is_escaped: fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_escaped(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// A line of a step's output: colours stay and end with the line, all other commands to a terminal go. Of what
/// was written over (`\r`) the last counts, as on a terminal.
pub(crate) fn output(line: &str) -> Cow<'_, str> {
    // Nearly all lines are such.
    if is_plain(line.as_bytes()) {
        return Cow::Borrowed(line);
    }
    let line = line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or_default();
    if !line.contains(|c: char| c.is_control() && c != '\t') {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len() + RESET.len());
    let mut is_coloured = false;
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = match (c, after.chars().next()) {
            (ESCAPE, Some('[')) => {
                let (command, after) = control_sequence(&after[1..]);
                if command.ends_with('m') {
                    is_coloured = true;
                    out.extend(["\u{1b}[", command]);
                }
                after
            }
            // Strings to the terminal (OSC, DCS, SOS, PM, APC), such as its title.
            (ESCAPE, Some(']' | 'P' | 'X' | '^' | '_')) => after_string(&after[1..]),
            _ => {
                if !c.is_control() || c == '\t' {
                    out.push(c);
                }
                after
            }
        };
    }
    if is_coloured {
        out.push_str(RESET);
    }
    Cow::Owned(out)
}

/// Whether all of it is printable ASCII, or tabs.
fn is_plain(line: &[u8]) -> bool {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    // Whole chunks without a way out of the middle, which the compiler makes vectors of.
    line.chunks(32).all(|chunk| chunk.iter().fold(true, |all, byte| all & is_plain(byte)))
}

const ESCAPE: char = '\u{1b}';
const RESET: &str = "\u{1b}[0m";

/// Splits after the parameters and the last character of a control sequence (ECMA-48, 5.4). One that selects
/// colours has digits and separators only; of any other, and of one that does not end, the command is empty.
fn control_sequence(text: &str) -> (&str, &str) {
    let Some(end) = text.find(|c| !matches!(c, ' '..='?')) else { return ("", "") };
    let (parameters, rest) = text.split_at(end);
    if !rest.starts_with(|c| matches!(c, '@'..='~')) {
        return ("", rest);
    }
    let selects_colours =
        rest.starts_with('m') && parameters.chars().all(|c| matches!(c, '0'..='9' | ';' | ':'));
    (if selects_colours { &text[..=end] } else { "" }, &rest[1..])
}

/// What follows a string to the terminal. One that does not end takes the whole line with it, as on a terminal.
fn after_string(text: &str) -> &str {
    match text.find(['\u{7}', '\u{9c}', ESCAPE]) {
        Some(end) if text[end..].starts_with("\u{1b}\\") => &text[end + 2..],
        Some(end) if text[end..].starts_with(ESCAPE) => &text[end..],
        Some(end) => text[end..].split_at(text[end..].chars().next().map_or(0, char::len_utf8)).1,
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_messages_cannot_command_the_terminal() {
        assert_eq!(line("RUN echo \tä"), "RUN echo \tä");
        assert_eq!(line("a\u{1b}]0;t\u{7}\nb\u{9b}2J"), "a\\u{1b}]0;t\\u{7}\\nb\\u{9b}2J");
        assert_eq!(text("a\n\u{1b}[2Jb\r\n"), "a\n\\u{1b}[2Jb\\r\n");
    }

    #[test]
    fn of_output_only_colours_stay() {
        for (from, to) in [
            ("plain\tä", "plain\tä"),
            ("\u{1b}[1;31mred\u{1b}[m", "\u{1b}[1;31mred\u{1b}[m\u{1b}[0m"),
            ("\u{1b}]0;title\u{7}a\u{1b}]52;c;eA==\u{1b}\\b\u{1b}Pq\u{9c}c", "abc"),
            ("\u{1b}[2J\u{1b}[1;1Ha\u{1b}[?25lb\u{1b}[>4;1mc", "abc"),
            ("\u{1b}[6", ""),
            ("\u{1b}[6\u{1b}[2Ka", "a"),
            ("a\u{1b}]0;never ends", "a"),
            ("\u{1b}]0;x\u{1b}[1mbold", "\u{1b}[1mbold\u{1b}[0m"),
            ("\u{1b}cbell\u{7}\u{8}\u{9b}2J\u{1b}", "cbell2J"),
            ("10%\r50%\r100%\r", "100%"),
            ("\r\r", ""),
            ("\u{1b}ä", "ä"),
            ("\u{1b}[ä", "ä"),
        ] {
            assert_eq!(output(from), to, "{from:?}");
        }
    }
}
