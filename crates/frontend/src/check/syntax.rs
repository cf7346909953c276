//! The rules that need only the text.

use std::collections::{HashMap, HashSet};

use super::{Rule, warning};
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Alias, Command, Dockerfile, Instruction, Pairs, Statement};
use crate::dockerfile::keyword::Keyword;
use crate::dockerfile::mapped::Mapped;

/// The warnings that a file's text gives, all of them: see [`Checks::filter`](crate::Checks::filter).
pub fn check(dockerfile: &Dockerfile) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    continuations(dockerfile, &mut found);
    casing(dockerfile, &mut found);
    stages(dockerfile, &mut found);
    for statement in &dockerfile.statements {
        match &statement.instruction {
            Instruction::Maintainer(name) => found.push(maintainer(statement, name)),
            Instruction::Env(pairs) | Instruction::Label(pairs) => {
                found.extend(legacy_pairs(statement, pairs));
            }
            Instruction::Expose(ports) => ports.iter().for_each(|port| exposed(port, &mut found)),
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

/// What a stage's later instructions are compared with.
#[derive(Default)]
struct Stage<'a> {
    /// Whether a SHELL was set, so that a shell form is a choice.
    has_shell: bool,
    last: HashMap<Keyword, &'a Statement>,
}

fn stages(dockerfile: &Dockerfile, found: &mut Vec<Diagnostic>) {
    let mut names: HashMap<&str, &Alias> = HashMap::new();
    let mut with_shell: HashSet<&str> = HashSet::new();
    let mut name = None;
    let mut stage = Stage::default();
    for statement in &dockerfile.statements {
        match &statement.instruction {
            Instruction::From(from) => {
                finish_stage(name.take(), &stage, &mut with_shell);
                stage =
                    Stage { has_shell: with_shell.contains(from.image.text()), ..Stage::default() };
                if let Some(alias) = &from.alias {
                    stage_name(statement, alias, names.insert(&alias.name, alias), found);
                    name = Some(alias.name.as_str());
                }
            }
            Instruction::Shell(_) => stage.has_shell = true,
            Instruction::Cmd(command) => {
                only_once(Keyword::Cmd, statement, &mut stage, found);
                shell_form(statement, command, &stage, found);
            }
            Instruction::Entrypoint(command) => {
                only_once(Keyword::Entrypoint, statement, &mut stage, found);
                shell_form(statement, command, &stage, found);
            }
            Instruction::Healthcheck(_) => {
                only_once(Keyword::Healthcheck, statement, &mut stage, found);
            }
            _ => {}
        }
    }
}

fn finish_stage<'a>(name: Option<&'a str>, stage: &Stage<'_>, with_shell: &mut HashSet<&'a str>) {
    let Some(name) = name else { return };
    match stage.has_shell {
        true => with_shell.insert(name),
        false => with_shell.remove(name),
    };
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

fn only_once<'a>(
    keyword: Keyword,
    statement: &'a Statement,
    stage: &mut Stage<'a>,
    found: &mut Vec<Diagnostic>,
) {
    // The earlier one is marked, because that is the one without effect.
    if let Some(earlier) = stage.last.insert(keyword, statement) {
        let message = format!(
            "Multiple {} instructions should not be used in the same stage because only the last one will be used",
            keyword.name()
        );
        let diagnostic =
            warning(Rule::MultipleInstructionsDisallowed, earlier.original.span(), message);
        found.push(diagnostic.with_other(statement.keyword.span(), "used instead"));
    }
}

fn shell_form(
    statement: &Statement,
    command: &Command,
    stage: &Stage<'_>,
    found: &mut Vec<Diagnostic>,
) {
    if stage.has_shell || matches!(command, Command::Exec(_)) {
        return;
    }
    let message = format!(
        "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
        statement.keyword.text().to_uppercase()
    );
    found.push(warning(Rule::JsonArgsRecommended, statement.original.span(), message));
}

fn maintainer(statement: &Statement, name: &Mapped) -> Diagnostic {
    let message = "Maintainer instruction is deprecated in favor of using label";
    let replacement = format!("LABEL org.opencontainers.image.authors={}", quoted(name.text()));
    warning(Rule::MaintainerDeprecated, statement.original.span(), message)
        .with_fix(statement.original.span(), replacement)
}

fn legacy_pairs(statement: &Statement, pairs: &Pairs) -> Option<Diagnostic> {
    let pair = pairs.pairs.first().filter(|_| pairs.legacy)?;
    let keyword = statement.keyword.text().to_uppercase();
    let message = format!(
        "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
    );
    let diagnostic = warning(Rule::LegacyKeyValueFormat, statement.original.span(), message);
    // A value with quotes or escapes of its own, or over several lines, is better left to people.
    let value = pair.value.text();
    let span = pair.key.span().to(pair.value.span());
    let is_simple = !value.contains(['"', '\'', '\\', '`'])
        && span.range().len() <= statement.original.text().len();
    Some(match is_simple {
        true if value.contains(char::is_whitespace) => {
            diagnostic.with_fix(span, format!("{}=\"{value}\"", pair.key.text()))
        }
        true => diagnostic.with_fix(span, format!("{}={value}", pair.key.text())),
        false => diagnostic,
    })
}

/// Looks at one port as written; what a variable makes of it is not known here.
fn exposed(port: &Mapped, found: &mut Vec<Diagnostic>) {
    let text = port.text();
    if text.contains('$') {
        return;
    }
    let (address, protocol) = text.split_once('/').unwrap_or((text, ""));
    if address.contains(':') {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'"
        );
        found.push(warning(Rule::ExposeInvalidFormat, port.span(), message));
    }
    if protocol != protocol.to_lowercase() {
        let message =
            format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
        let diagnostic = warning(Rule::ExposeProtoCasing, port.span(), message);
        found.push(
            diagnostic.with_fix(port.span(), format!("{address}/{}", protocol.to_lowercase())),
        );
    }
}

fn is_lower(word: &str) -> bool {
    !word.contains(|c: char| c.is_ascii_uppercase())
}

fn is_upper(word: &str) -> bool {
    !word.contains(|c: char| c.is_ascii_lowercase())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$"))
}
