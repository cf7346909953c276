//! Cutting an instruction's text into words. Every instruction family has rules of its own.

use std::ops::Range;

use super::ast::Escape;
use super::mapped::Mapped;

/// What separates the keyword and simple words; other white space is part of a word.
const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

/// The first word, and the rest without blanks around.
pub(crate) fn split_first(text: &Mapped) -> (Mapped, Mapped) {
    let Range { start, end: stop } = text.trimmed(0..text.text().len());
    let all = &text.text()[..stop];
    let end = all[start..].find(BLANKS).map_or(stop, |at| start + at);
    let rest = stop - all[end..].trim_start_matches(BLANKS).len();
    (text.slice(start..end), text.slice(rest..stop))
}

/// Words with blanks between, for EXPOSE, FROM, and the plain form of ADD, COPY and VOLUME.
pub(crate) fn split_blanks(text: &Mapped) -> Vec<Mapped> {
    let all = text.text();
    let mut words = Vec::new();
    let mut at = 0;
    for part in all.split(BLANKS) {
        if !part.is_empty() {
            words.push(text.slice(at..at + part.len()));
        }
        at += part.len() + 1;
    }
    words
}

/// Words that may be quoted in part, for ENV, LABEL and ARG. Quotes and escapes stay in them.
pub(crate) fn split_quoted(text: &Mapped, escape: Escape) -> Vec<Mapped> {
    let escape = escape.character();
    let all = text.text();
    let mut words = Vec::new();
    let mut start = None;
    let mut end = all.len();
    let mut quote = None;
    let mut chars = all.char_indices();
    while let Some((at, character)) = chars.next() {
        if quote.is_none() && character.is_whitespace() {
            words.extend(start.take().map(|start| text.slice(start..at)));
            continue;
        }
        start.get_or_insert(at);
        if character == escape && quote != Some('\'') {
            if chars.next().is_none() {
                // An escape character with nothing after it is dropped.
                end = at;
            }
        } else if quote == Some(character) {
            quote = None;
        } else if quote.is_none() && matches!(character, '\'' | '"') {
            quote = Some(character);
        }
    }
    words.extend(start.filter(|start| *start < end).map(|start| text.slice(start..end)));
    words
}

/// The `--flags` at the start, with quotes and escapes taken away, and the rest without blanks around.
///
/// The escape is a backslash even where the file says otherwise, as in BuildKit. A bare `--` ends the flags.
pub(crate) fn split_flags(text: &Mapped) -> (Vec<Mapped>, Mapped) {
    let all = text.text();
    let mut flags = Vec::new();
    let mut at = 0;
    loop {
        at = all.len() - all[at..].trim_start().len();
        if !all[at..].starts_with("--") {
            return (flags, text.slice_trimmed(at..all.len()));
        }
        let mut word = text.slice(at..at);
        // What is to be taken in one piece.
        let mut run = at..at;
        let mut quote = None;
        let mut end = all.len();
        let mut chars =
            all[at..].char_indices().map(|(offset, character)| (at + offset, character));
        while let Some((start, character)) = chars.next() {
            let (mut start, mut character) = (start, character);
            match (quote, character) {
                (None, character) if character.is_whitespace() => {
                    end = start;
                    break;
                }
                (None, '\'' | '"') => {
                    quote = Some(character);
                    continue;
                }
                (Some(open), character) if open == character => {
                    quote = None;
                    continue;
                }
                (_, '\\') => match chars.next() {
                    Some(escaped) => (start, character) = escaped,
                    None => continue,
                },
                _ => {}
            }
            if run.end != start {
                word.push_range(text, run);
                run = start..start;
            }
            run.end += character.len_utf8();
        }
        word.push_range(text, run);
        at = end;
        if word.text() == "--" {
            return (flags, text.slice_trimmed(at..all.len()));
        }
        flags.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Source, Span};

    fn mapped(text: &str) -> Mapped {
        let source = Source::new("Dockerfile", text).unwrap();
        Mapped::verbatim(&source, Span::new(0, source.len()))
    }

    fn texts(words: &[Mapped]) -> Vec<&str> {
        words.iter().map(Mapped::text).collect()
    }

    #[test]
    fn quoted_words() {
        for (text, expected) in [
            ("", vec![]),
            ("a=1 b=2", vec!["a=1", "b=2"]),
            (r#"a="x y" b='p q'"#, vec![r#"a="x y""#, "b='p q'"]),
            (r"c=d\ e f=g", vec![r"c=d\ e", "f=g"]),
            (r#"a="x\" y" b"#, vec![r#"a="x\" y""#, "b"]),
            (r"a='x\' b", vec![r"a='x\'", "b"]),
            (r#"a="" b"#, vec![r#"a="""#, "b"]),
            (r#""" b"#, vec![r#""""#, "b"]),
            (r"a b\", vec!["a", "b"]),
            (r#"a="open b"#, vec![r#"a="open b"#]),
            ("a=é\u{a0}b", vec!["a=é", "b"]),
        ] {
            assert_eq!(texts(&split_quoted(&mapped(text), Escape::Backslash)), expected, "{text}");
        }
        assert_eq!(
            texts(&split_quoted(&mapped("a=c:\\ b=x` y"), Escape::Backtick)),
            ["a=c:\\", "b=x` y"]
        );
    }

    #[test]
    fn flags() {
        for (text, flags, rest) in [
            ("a b", vec![], "a b"),
            ("--link a", vec!["--link"], "a"),
            ("--chown=a:b   --chmod=1  x y ", vec!["--chown=a:b", "--chmod=1"], "x y"),
            (r#"--mount="type=bind,target=/a b" x"#, vec!["--mount=type=bind,target=/a b"], "x"),
            (r"--a=b\ c x", vec!["--a=b c"], "x"),
            ("-- --a x", vec![], "--a x"),
            ("--a -- --b", vec!["--a"], "--b"),
            ("--a", vec!["--a"], ""),
            ("--", vec![], ""),
            ("-x --a", vec![], "-x --a"),
            (r"--a\", vec!["--a"], ""),
            ("--a='é' x", vec!["--a=é"], "x"),
        ] {
            let (found, after) = split_flags(&mapped(text));
            assert_eq!((texts(&found), after.text()), (flags, rest), "{text}");
        }
    }

    #[test]
    fn flag_words_know_where_they_are() {
        let (flags, _) = split_flags(&mapped(r#"--a="b c" x"#));
        assert_eq!(flags[0].text(), "--a=b c");
        assert_eq!(flags[0].span_of(4..7), Span::new(5, 8));
    }

    #[test]
    fn first_word() {
        let (first, rest) = split_first(&mapped("  RUN \t echo  hi  "));
        assert_eq!((first.text(), rest.text()), ("RUN", "echo  hi"));
        let (first, rest) = split_first(&mapped("RUN"));
        assert_eq!((first.text(), rest.text()), ("RUN", ""));
        assert_eq!(texts(&split_blanks(&mapped("a  b\tc"))), ["a", "b", "c"]);
    }
}
