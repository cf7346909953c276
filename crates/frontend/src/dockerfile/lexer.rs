//! Physical lines to logical ones: comments, directives, continuations, heredoc bodies.

use super::ast::{Directives, Escape, Heredoc};
use super::heredoc::Opener;
use super::mapped::Mapped;
use super::sink::Sink;
use crate::diagnostic::Diagnostic;
use crate::source::{Source, Span};

/// BuildKit reads lines with a buffer of 64 KiB, so that longer ones are errors everywhere.
const MAX_LINE: usize = 65_535;

/// One instruction's lines, put together.
#[derive(Debug)]
pub(crate) struct LogicalLine {
    /// Without line breaks, continuation characters, comments and blank lines. Blanks at its end, and at the start of
    /// continuation lines, are still there.
    pub(crate) text: Mapped,
    pub(crate) line: u32,
    pub(crate) comments: Vec<Mapped>,
    pub(crate) blank_lines: Vec<Span>,
}

/// A physical line, without its line break.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    text: &'a str,
    span: Span,
    /// Where the next one begins.
    next: u32,
}

impl Line<'_> {
    fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with('#')
    }

    fn is_blank(&self) -> bool {
        self.text.trim_start().is_empty()
    }

    /// The text of a comment.
    fn comment(&self, source: &Source) -> Mapped {
        let hash = self.text.find('#').map_or(0, |at| at + 1);
        Mapped::verbatim(source, Span::new(self.span.start + hash as u32, self.span.end)).trim()
    }
}

/// Reads a source from top to bottom.
#[derive(Debug)]
pub(crate) struct Lexer<'a> {
    source: &'a Source,
    at: u32,
    line: u32,
    directives: Directives,
    comments: Vec<Mapped>,
}

impl<'a> Lexer<'a> {
    /// Begins, and reads the directives.
    pub(crate) fn new(source: &'a Source, sink: &mut Sink) -> Self {
        let directives = Directives { syntax: None, check: None, escape: Escape::default() };
        let at = if source.text().starts_with('\u{feff}') { 3 } else { 0 };
        let mut lexer = Self { source, at, line: 0, directives, comments: Vec::new() };
        lexer.read_directives(sink);
        lexer
    }

    pub(crate) fn source(&self) -> &'a Source {
        self.source
    }

    pub(crate) fn escape(&self) -> Escape {
        self.directives.escape
    }

    /// The number of the line that was read last.
    pub(crate) fn line(&self) -> u32 {
        self.line
    }

    pub(crate) fn into_directives(self) -> Directives {
        self.directives
    }

    /// The next instruction's line; `None` at the end.
    pub(crate) fn next_logical(&mut self, sink: &mut Sink) -> Option<LogicalLine> {
        let (first, line) = loop {
            let line = self.next_line(sink)?;
            if line.is_comment() {
                let comment = line.comment(self.source);
                match comment.is_empty() {
                    true => self.comments.clear(),
                    false => self.comments.push(comment),
                }
            } else if line.is_blank() {
                self.comments.clear();
            } else {
                break (line, self.line);
            }
        };
        let indent = first.text.len() - first.text.trim_start().len();
        let start = first.span.start + indent as u32;
        let mut text = Mapped::empty(start);
        let (content, mut continues) = self.without_continuation(&first.text[indent..]);
        text.push_str(content, start);
        let mut blank_lines = Vec::new();
        while continues {
            let Some(line) = self.next_line(sink) else { break };
            if line.is_comment() {
                continue;
            }
            if line.is_blank() {
                blank_lines.push(Span::new(line.span.start, line.next));
                continue;
            }
            let content;
            (content, continues) = self.without_continuation(line.text);
            text.push_str(content, line.span.start);
        }
        Some(LogicalLine { text, line, comments: std::mem::take(&mut self.comments), blank_lines })
    }

    /// Reads the body that `opener` announced, up to its terminator, which is a whole line.
    pub(crate) fn heredoc(&mut self, opener: Opener, sink: &mut Sink) -> Heredoc {
        let start = self.at;
        let mut almost = None;
        let end = loop {
            let before = self.at;
            let Some(line) = self.next_line(sink) else {
                let error = Diagnostic::error(
                    "unterminated-heredoc",
                    opener.word.span(),
                    "unterminated heredoc",
                )
                .with_label(format!("no line after it is just `{}`", clip(&opener.name)));
                sink.push(match almost {
                    Some(span) => {
                        error.with_other(span, "blanks before or after it make it part of the text")
                    }
                    None => error,
                });
                break self.at;
            };
            let candidate =
                if opener.chomp { line.text.trim_start_matches('\t') } else { line.text };
            if candidate == opener.name {
                break before;
            }
            if almost.is_none() && candidate.trim() == opener.name {
                almost = Some(line.span);
            }
        };
        let body = Mapped::verbatim(self.source, Span::new(start, end));
        let bytes = self.source.replaced_bytes(body.span());
        let Opener { name, word, file_descriptor, expand, chomp } = opener;
        Heredoc { name, word, file_descriptor, expand, chomp, body, bytes }
    }

    fn read_directives(&mut self, sink: &mut Sink) {
        let mut seen: Vec<(&str, Span)> = Vec::new();
        let mut after_shebang = false;
        // An indented line ends what is looked for before the file is parsed.
        let mut is_indented = false;
        loop {
            let before = (self.at, self.line);
            let Some(line) = self.next_line(sink) else { return };
            if self.line == 1 && line.text.starts_with("#!") {
                after_shebang = true;
                continue;
            }
            let Some((name, value)) = directive(&line, self.source) else {
                (self.at, self.line) = before;
                return;
            };
            if let Some((_, earlier)) = seen.iter().find(|(other, _)| *other == name) {
                let message = format!("only one {name} parser directive can be used");
                sink.push(
                    Diagnostic::error("duplicate-directive", line.span, message)
                        .with_other(*earlier, "the first"),
                );
                continue;
            }
            seen.push((name, line.span));
            is_indented |= !line.text.starts_with('#');
            match name {
                "syntax" | "check" if is_indented => {}
                "syntax" => self.directives.syntax = Some(value),
                "check" => self.directives.check = Some(value),
                // A shebang line is skipped only when looking for a syntax or for checks.
                _ if after_shebang => {}
                _ => match value.text() {
                    "\\" => self.directives.escape = Escape::Backslash,
                    "`" => self.directives.escape = Escape::Backtick,
                    other => {
                        let message = format!(
                            "invalid escape token '{}' does not match ` or \\",
                            clip(other)
                        );
                        sink.push(Diagnostic::error("invalid-escape", value.span(), message));
                    }
                },
            }
        }
    }

    /// The text before a continuation character, and whether there is one.
    ///
    /// A doubled escape character does not continue, and neither, oddly, does a tripled one.
    fn without_continuation<'t>(&self, text: &'t str) -> (&'t str, bool) {
        let escape = self.directives.escape.character();
        match text.trim_end_matches([' ', '\t']).strip_suffix(escape) {
            Some(content) if !content.ends_with(escape) => (cut(content), true),
            _ => (cut(text), false),
        }
    }

    fn next_line(&mut self, sink: &mut Sink) -> Option<Line<'a>> {
        let rest = &self.source.text()[self.at as usize..];
        if rest.is_empty() {
            return None;
        }
        let len = rest.find('\n').map_or(rest.len(), |at| at + 1);
        let start = self.at;
        self.at += len as u32;
        self.line += 1;
        // The carriage returns go after the length is known, as BuildKit's limit counts them.
        let text = rest[..len].strip_suffix('\n').unwrap_or(&rest[..len]);
        if text.len() > MAX_LINE {
            let span = Span::new(start, self.source.floor_char_boundary(start + 40));
            let message = format!("dockerfile line greater than max allowed size of {MAX_LINE}");
            let label = format!("this line has {} bytes", text.len());
            sink.push(Diagnostic::error("line-too-long", span, message).with_label(label));
        }
        let text = text.trim_end_matches('\r');
        Some(Line { text, span: Span::new(start, start + text.len() as u32), next: self.at })
    }
}

/// The name, in lower case, and value of a parser directive.
fn directive(line: &Line<'_>, source: &Source) -> Option<(&'static str, Mapped)> {
    if !line.is_comment() {
        return None;
    }
    let comment = line.comment(source);
    let equals = comment.text().find('=')?;
    let key = comment.text()[..equals].trim_end();
    let name =
        ["syntax", "escape", "check"].into_iter().find(|name| name.eq_ignore_ascii_case(key))?;
    let value = comment.slice(equals + 1..comment.text().len()).trim();
    (!value.is_empty()).then_some((name, value))
}

/// What is read of a line that is too long.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_LINE)]
}

/// What of a user's text is shown within a message.
pub(crate) fn clip(text: &str) -> String {
    const MAX_SHOWN: usize = 80;
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
