//! An argument declared long before its first use: every RUN after it runs again when its value changes.

use super::Stage;
use super::commands::{commands, mentions, text};
use crate::check::{Rule, warning};
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Argument, Instruction, Statement};
use crate::source::{Source, Span};

/// Programs that do not care for the project's arguments.
const INDIFFERENT: [&str; 38] = [
    "[", "addgroup", "adduser", "apk", "apt", "apt-get", "cat", "chmod", "chown", "cp", "curl",
    "dnf", "echo", "false", "find", "groupadd", "gem", "install", "ldconfig", "ln", "ls",
    "microdnf", "mkdir", "mv", "printf", "rm", "sed", "set", "tar", "tdnf", "test", "touch",
    "true", "unzip", "useradd", "wget", "yum", "zypper",
];
/// Arguments that programs read without being told, and those that never change for a platform.
const WELL_KNOWN: [&str; 3] = ["DEBIAN_FRONTEND", "SOURCE_DATE_EPOCH", "TZ"];

pub(super) fn check(source: &Source, stage: &Stage<'_>, found: &mut Vec<Diagnostic>) {
    for (index, statement) in stage.statements.iter().enumerate() {
        if let Instruction::Arg(arguments) = &statement.instruction
            && let [argument] = arguments.as_slice()
        {
            found.extend(early(source, statement, argument, &stage.statements[index + 1..]));
        }
    }
}

fn early(
    source: &Source,
    statement: &Statement,
    argument: &Argument,
    after: &[Statement],
) -> Option<Diagnostic> {
    let name = argument.name.text();
    if is_well_known(name) {
        return None;
    }
    // Looking at every statement after every argument would take long in a file of nothing else.
    const MOST: usize = 500;
    let first_use =
        after.iter().take(MOST).position(|later| mentions(source.slice(later.span), name))?;
    let between: Vec<(&Statement, bool)> = after[..first_use]
        .iter()
        .filter_map(|later| match &later.instruction {
            Instruction::Run(run) => {
                let text = text(later, run);
                let is_indifferent =
                    commands(&text).iter().all(|words| INDIFFERENT.contains(&words[0]));
                Some((later, is_indifferent))
            }
            _ => None,
        })
        .collect();
    let (in_vain, _) = between.iter().find(|(_, is_indifferent)| *is_indifferent)?;
    let user = &after[first_use];
    let message = format!("ARG {name} is declared long before its first use");
    let diagnostic = warning(Rule::ArgDeclaredEarly, statement.original.span(), message)
        .with_label("every RUN below runs again when its value changes")
        .with_other(in_vain.original.span(), "this one does not use it")
        .with_other(user.keyword.span(), "first used here")
        .with_help(format!("declare {name} right before it is used"));
    // What an unknown program does with its environment nobody knows; a default may stand on what comes between; and a
    // comment would lose what it is about.
    let can_move = between.iter().all(|(_, is_indifferent)| *is_indifferent)
        && argument.default.as_ref().is_none_or(|default| !default.text().contains('$'))
        && statement.comments.is_empty()
        && statement.line == statement.end_line;
    if !can_move {
        return Some(diagnostic);
    }
    let first_line = user.comments.first().map_or(user.span, |comment| comment.span());
    let line = source.line_span(source.line(first_line.start))?;
    let written = source.slice(statement.span);
    Some(
        diagnostic
            .with_fix(statement.span, "")
            .with_fix(Span::at(line.start), format!("{written}\n")),
    )
}

fn is_well_known(name: &str) -> bool {
    let is_platform = ["TARGET", "BUILD"].iter().any(|start| {
        let rest = name.strip_prefix(start);
        rest.is_some_and(|rest| {
            ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT", "STAGE"].contains(&rest)
        })
    });
    let is_proxy = name.to_ascii_lowercase().ends_with("_proxy");
    is_platform || is_proxy || WELL_KNOWN.contains(&name)
}
