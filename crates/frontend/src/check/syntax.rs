//! The rules that need only the text.

use std::collections::HashMap;

use super::{Rule, config, warning};
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Alias, Dockerfile, Escape, Instruction, Statement};
use crate::dockerfile::keyword::Keyword;
use crate::dockerfile::mapped::Mapped;
use crate::source::Span;

/// The warnings that a file's text gives, all of them: see [`Checks::filter`](crate::Checks::filter).
pub fn check(dockerfile: &Dockerfile) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    continuations(dockerfile, &mut found);
    casing(dockerfile, &mut found);
    let mut names: HashMap<&str, &Alias> = HashMap::new();
    for statement in &dockerfile.statements {
        match &statement.instruction {
            Instruction::From(from) => {
                let Some(alias) = &from.alias else { continue };
                stage_name(statement, alias, names.insert(&alias.name, alias), &mut found);
                found.extend(description("FROM", &[&alias.name], statement));
            }
            Instruction::Arg(arguments) => {
                let names: Vec<&str> =
                    arguments.iter().map(|argument| argument.name.text()).collect();
                found.extend(description("ARG", &names, statement));
            }
            Instruction::Maintainer(name) => {
                found.push(maintainer(statement, name, dockerfile.directives.escape));
            }
            _ => {}
        }
    }
    found.sort_by_key(|diagnostic| diagnostic.span);
    found
}

fn continuations(dockerfile: &Dockerfile, found: &mut Vec<Diagnostic>) {
    for statement in &dockerfile.statements {
        let Some(first) = statement.blank_lines.first() else { continue };
        let mut diagnostic = warning(Rule::NoEmptyContinuation, *first, "Empty continuation line");
        for line in &statement.blank_lines {
            diagnostic = diagnostic.with_fix(*line, "");
        }
        found.push(diagnostic);
    }
}

/// Keywords should be written as most of them are; ARGs before the first FROM have no say.
fn casing(dockerfile: &Dockerfile, found: &mut Vec<Diagnostic>) {
    let in_stages = || {
        let known = dockerfile.statements.iter().map(|statement| &statement.keyword);
        let known = known.filter_map(|keyword| Some((keyword, Keyword::parse(keyword.text())?)));
        known.skip_while(|(_, name)| *name != Keyword::From)
    };
    let lower = in_stages().filter(|(keyword, _)| is_lower(keyword.text())).count();
    let upper = in_stages().filter(|(keyword, _)| is_upper(keyword.text())).count();
    let wants_lower = lower > upper;
    for (keyword, _) in in_stages() {
        let text = keyword.text();
        let (is_right, wanted, replacement) = match wants_lower {
            true => (is_lower(text), "lowercase", text.to_lowercase()),
            false => (is_upper(text), "uppercase", text.to_uppercase()),
        };
        if !is_right {
            let message = format!(
                "Command '{text}' should match the case of the command majority ({wanted})"
            );
            let diagnostic = warning(Rule::ConsistentInstructionCasing, keyword.span(), message);
            found.push(diagnostic.with_fix(keyword.span(), replacement));
        }
    }
}

fn stage_name(
    statement: &Statement,
    alias: &Alias,
    earlier: Option<&Alias>,
    found: &mut Vec<Diagnostic>,
) {
    let (keyword, as_keyword) = (statement.keyword.text(), alias.keyword.text());
    let disagrees = match is_lower(keyword) {
        true => !is_lower(as_keyword),
        false => is_upper(keyword) && !is_upper(as_keyword),
    };
    if disagrees {
        let message = format!("'{as_keyword}' and '{keyword}' keywords' casing do not match");
        let replacement = if is_lower(keyword) { "as" } else { "AS" };
        let span = alias.keyword.span();
        found.push(warning(Rule::FromAsCasing, span, message).with_fix(span, replacement));
    }
    let span = alias.written.span();
    if alias.written.text() != alias.name {
        let message = format!("Stage name '{}' should be lowercase", alias.written.text());
        found.push(warning(Rule::StageNameCasing, span, message).with_fix(span, &*alias.name));
    }
    if ["context", "scratch"].contains(&alias.name.as_str()) {
        let message =
            format!("Stage name should not use the same name as reserved stage {:?}", alias.name);
        found.push(warning(Rule::ReservedStageName, span, message));
    }
    if let Some(earlier) = earlier {
        let message =
            format!("Duplicate stage name {:?}, stage names should be unique", alias.name);
        let diagnostic = warning(Rule::DuplicateStageName, span, message);
        found.push(diagnostic.with_other(earlier.written.span(), "the first"));
    }
}

/// The last comment above a definition is its description; an empty line between them says that it is none.
fn description(instruction: &str, names: &[&str], statement: &Statement) -> Option<Diagnostic> {
    let last = statement.comments.iter().rev().find(|line| config::options(line).is_none())?;
    let first_word = last.text().split(' ').next().unwrap_or_default();
    if names.contains(&first_word) {
        return None;
    }
    let example = match names {
        [name] => name,
        _ => "<arg_key>",
    };
    let message =
        format!("Comment for {instruction} should follow the format: `# {example} <description>`");
    let span = statement.original.span();
    Some(
        warning(Rule::InvalidDefinitionDescription, span, message)
            .with_other(last.span(), "taken for the description")
            .with_help("an empty line in between says that the comment is about something else")
            .with_fix(Span::at(span.start), "\n"),
    )
}

fn maintainer(statement: &Statement, name: &Mapped, escape: Escape) -> Diagnostic {
    let message = "Maintainer instruction is deprecated in favor of using label";
    let replacement =
        format!("LABEL org.opencontainers.image.authors={}", quoted(name.text(), escape));
    warning(Rule::MaintainerDeprecated, statement.original.span(), message)
        .with_fix(statement.original.span(), replacement)
}

fn is_lower(word: &str) -> bool {
    !word.contains(|c: char| c.is_ascii_uppercase())
}

fn is_upper(word: &str) -> bool {
    !word.contains(|c: char| c.is_ascii_lowercase())
}

/// A word of a file with this escape that comes to the text.
fn quoted(text: &str, escape: Escape) -> String {
    let escape = escape.character();
    let mut word = String::from('"');
    for character in text.chars() {
        if ['"', '$', escape].contains(&character) {
            word.push(escape);
        }
        word.push(character);
    }
    word + "\""
}
