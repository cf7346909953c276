//! A file's logical lines to typed instructions, whatever is in them.
//!
//! Accepts what BuildKit accepts, and words errors as it does. It differs where that would be of no use:
//! all errors are reported and not only the first; a trigger that no image could use is a warning where it is written;
//! flags of instructions that have none (ARG, STOPSIGNAL, HEALTHCHECK NONE) are warnings rather than ignored; a heredoc
//! is seen though `${..}` before it has a modifier that only a shell knows.

use super::ast::{Dockerfile, Heredoc, Instruction, Statement};
use super::heredoc::{self, Opener};
use super::instruction::{self, Written};
use super::json_form::{self, JsonForm};
use super::keyword::Keyword;
use super::lexer::{Lexer, LogicalLine};
use super::mapped::Mapped;
use super::sink::Sink;
use super::words;
use crate::diagnostic::Diagnostic;
use crate::source::{Source, Span};

/// Reads a Dockerfile. Never fails: see [`Dockerfile::diagnostics`].
pub fn parse(source: &Source) -> Dockerfile {
    let mut sink = Sink::default();
    let dockerfile = read(source, &mut sink);
    check_stages(source, &dockerfile.statements, &mut sink);
    check_encoding(source, &dockerfile.statements, &mut sink);
    Dockerfile { diagnostics: sink.finish(), ..dockerfile }
}

/// Reads what an image config stores of an ONBUILD: a single instruction, without a stage.
///
/// Diagnostics are about the text of `source`, not about the Dockerfile that it once was in.
pub fn parse_trigger(source: &Source) -> Dockerfile {
    let mut sink = Sink::default();
    let dockerfile = read(source, &mut sink);
    if dockerfile.statements.len() != 1 && !sink.has_errors() {
        let span = Span::new(0, source.len());
        sink.push(Diagnostic::error(
            "onbuild-trigger",
            span,
            "onbuild trigger should be a single expression",
        ));
    }
    check_encoding(source, &dockerfile.statements, &mut sink);
    Dockerfile { diagnostics: sink.finish(), ..dockerfile }
}

fn read(source: &Source, sink: &mut Sink) -> Dockerfile {
    let mut lexer = Lexer::new(source, sink);
    let mut statements = Vec::new();
    while let Some(line) = lexer.next_logical(sink) {
        statements.push(statement(&mut lexer, line, sink));
        if sink.is_full() {
            break;
        }
    }
    Dockerfile { directives: lexer.into_directives(), statements, diagnostics: Vec::new() }
}

fn statement(lexer: &mut Lexer<'_>, line: LogicalLine, sink: &mut Sink) -> Statement {
    let LogicalLine { text, line, comments, blank_lines } = line;
    let heredocs: Vec<_> =
        heredocs_of(&text).into_iter().map(|opener| lexer.heredoc(opener, sink)).collect();
    let (keyword, _) = words::split_first(&text);
    let original = text.trim();
    let source = lexer.source();
    // With a heredoc, up to the end of the terminator's line.
    let end = source
        .line_span(lexer.line())
        .map_or(original.span().end, |last| last.end.max(original.span().end));
    let span =
        if heredocs.is_empty() { original.span() } else { Span::new(original.span().start, end) };
    let written = Written { text: &text, heredocs: &heredocs, escape: lexer.escape() };
    let instruction = instruction::build(&written, sink);
    Statement {
        span,
        line,
        end_line: lexer.line(),
        keyword,
        original,
        comments,
        blank_lines,
        heredocs,
        instruction,
    }
}

/// The heredocs that a logical line opens: only RUN, COPY and ADD do, also as triggers, and not in the JSON form.
fn heredocs_of(line: &Mapped) -> Vec<Opener> {
    let openers = heredoc::openers(line);
    if openers.is_empty() {
        return openers;
    }
    let (mut keyword, mut rest) = words::split_first(line);
    if Keyword::parse(keyword.text()) == Some(Keyword::Onbuild) {
        (keyword, rest) = words::split_first(&words::split_flags(&rest).1);
    }
    let is_allowed =
        matches!(Keyword::parse(keyword.text()), Some(Keyword::Run | Keyword::Copy | Keyword::Add));
    match is_allowed
        && !matches!(json_form::parse(&words::split_flags(&rest).1), JsonForm::Strings(_))
    {
        true => openers,
        false => Vec::new(),
    }
}

/// Reports a file without stages, and instructions that are in none.
fn check_stages(source: &Source, statements: &[Statement], sink: &mut Sink) {
    let end = Span::at(source.len());
    if source.is_empty() {
        sink.push(Diagnostic::error("empty-file", end, "the Dockerfile cannot be empty"));
        return;
    }
    if statements.is_empty() {
        if !sink.has_errors() {
            sink.push(Diagnostic::error("empty-file", end, "file with no instructions"));
        }
        return;
    }
    let is =
        |statement: &Statement, keyword| Keyword::parse(statement.keyword.text()) == Some(keyword);
    let first_from = statements.iter().position(|statement| is(statement, Keyword::From));
    let outside = statements[..first_from.unwrap_or(statements.len())].iter().find(|statement| {
        Keyword::parse(statement.keyword.text()).is_some() && !is(statement, Keyword::Arg)
    });
    if let Some(statement) = outside {
        let error = Diagnostic::error(
            "no-stage",
            statement.keyword.span(),
            "no build stage in current context",
        )
        .with_label("only ARG may come before the first FROM");
        sink.push(error);
    } else if first_from.is_none() && !sink.has_errors() {
        let help = "begin a stage with FROM";
        let error = Diagnostic::error("no-stage", end, "dockerfile contains no stages to build");
        sink.push(error.with_help(help));
    }
}

/// Reports what is not UTF-8, once each: an error where it would be run or looked for, a warning in a comment and where
/// it is replaced. What a quoted heredoc holds is copied as it is.
fn check_encoding(source: &Source, statements: &[Statement], sink: &mut Sink) {
    let (mut in_comment, mut is_replaced, mut elsewhere) = (None, None, None);
    let mut current = (0, false);
    for span in source.not_utf8() {
        let line = source.line(span.start);
        if current.0 != line {
            current = (line, is_comment_line(source, line));
        }
        let statement = statement_at(statements, *span);
        let body = statement.and_then(|statement| body_at(statement, *span));
        let first = match (statement.map(|statement| &statement.instruction), body) {
            (_, None) if current.1 => &mut in_comment,
            (Some(Instruction::Copy(_) | Instruction::Add(_)), Some(body)) if !body.expand => {
                continue;
            }
            (Some(Instruction::Copy(_) | Instruction::Add(_)), Some(_)) => &mut is_replaced,
            (Some(instruction), None) if !is_verbatim(instruction) => &mut is_replaced,
            (Some(Instruction::Onbuild(_)), _) => &mut is_replaced,
            _ => &mut elsewhere,
        };
        first.get_or_insert(*span);
        if in_comment.is_some() && is_replaced.is_some() && elsewhere.is_some() {
            break;
        }
    }
    if let Some(span) = in_comment {
        sink.push(Diagnostic::warning("not-utf8", span, "comment is not valid UTF-8"));
    }
    if let Some(span) = is_replaced {
        let message = "text is not valid UTF-8 and becomes U+FFFD";
        sink.push(Diagnostic::warning("not-utf8", span, message));
    }
    if let Some(span) = elsewhere {
        sink.push(Diagnostic::error("not-utf8", span, "Dockerfile is not valid UTF-8"));
    }
}

/// Whether an instruction's text is run or looked for, rather than written into the image's config.
fn is_verbatim(instruction: &Instruction) -> bool {
    matches!(
        instruction,
        Instruction::Run(_)
            | Instruction::Copy(_)
            | Instruction::Add(_)
            | Instruction::From(_)
            | Instruction::Unknown(_)
    )
}

fn is_comment_line(source: &Source, line: u32) -> bool {
    let text = source.line_span(line).map_or("", |span| source.slice(span));
    text.trim_start_matches('\u{feff}').trim_start().starts_with('#')
}

fn statement_at(statements: &[Statement], span: Span) -> Option<&Statement> {
    let after = statements.partition_point(|statement| statement.span.start <= span.start);
    let statement = &statements[after.checked_sub(1)?];
    (span.start < statement.span.end).then_some(statement)
}

fn body_at(statement: &Statement, span: Span) -> Option<&Heredoc> {
    let heredocs = &statement.heredocs;
    let after = heredocs.partition_point(|heredoc| heredoc.body.span().start <= span.start);
    let heredoc = &heredocs[after.checked_sub(1)?];
    (span.end <= heredoc.body.span().end).then_some(heredoc)
}
