//! Package lists of apt that stay in a layer: some forty megabytes that are out of date the next day.

use super::Stage;
use super::commands::{commands, text};
use crate::check::{Rule, warning};
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Command, Instruction, Run};
use crate::source::Span;

const LISTS: &str = "/var/lib/apt";

pub(super) fn check(stage: &Stage<'_>, found: &mut Vec<Diagnostic>) {
    for statement in stage.statements {
        let Instruction::Run(run) = &statement.instruction else { continue };
        // A mount of any kind there is no layer.
        if run.mounts.iter().any(|mount| mount.written().text().contains(LISTS)) {
            continue;
        }
        let text = text(statement, run);
        let commands = commands(&text);
        let apt = |actions: &[&str]| {
            commands.iter().any(|words| {
                matches!(words[0], "apt" | "apt-get")
                    && words.iter().any(|word| actions.contains(word))
            })
        };
        // Whatever is done about them there, it was thought of.
        let is_removed = text.contains(LISTS) || apt(&["distclean", "dist-clean"]);
        if !apt(&["update"]) || is_removed {
            continue;
        }
        let message = "The package lists of apt stay in this layer";
        let help = "remove them in the same RUN: && rm -rf /var/lib/apt/lists/*";
        let diagnostic =
            warning(Rule::AptListsLeft, statement.original.span(), message).with_help(help);
        found.push(match end_of_command(run, statement.heredocs.is_empty()) {
            Some(end) => diagnostic.with_fix(end, " && rm -rf /var/lib/apt/lists/*"),
            None => diagnostic,
        });
    }
}

/// Where another command can be put after a list of commands that runs as long as they succeed.
fn end_of_command(run: &Run, is_alone: bool) -> Option<Span> {
    let Command::Shell(command) = &run.command else { return None };
    let text = command.text();
    let is_plain = is_alone
        && !text.contains(['#', '\'', '"', '`', '\n', '<'])
        && !text.contains("||")
        && !text.ends_with(['&', '|', ';', '\\']);
    is_plain.then(|| Span::at(command.span().end))
}
