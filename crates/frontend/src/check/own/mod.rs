//! Rules that BuildKit does not have, about what costs people most: time, space and secrets.
//!
//! They guess what commands do, so that each is silent wherever a good reason is likely. `docs/checks.md` says of each
//! why it is there and how it is answered.

mod apt_lists;
mod commands;
mod copy_order;
mod early_argument;
mod secret_file;
mod secret_text;

use std::collections::HashSet;

use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Dockerfile, From, Instruction, Statement, Transfer};
use crate::source::Source;

/// What is known of the build context.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContextFiles {
    /// The names at its top that the build sees, or nothing if that is not known.
    pub top: Vec<String>,
}

/// The warnings of our own rules, all of them: see [`Checks::filter`](crate::Checks::filter).
pub fn check_own(
    source: &Source,
    dockerfile: &Dockerfile,
    files: &ContextFiles,
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for stage in stages(dockerfile) {
        early_argument::check(source, &stage, &mut found);
        copy_order::check(&stage, files, &mut found);
        if stage.is_shipped {
            apt_lists::check(&stage, &mut found);
            secret_file::check(&stage, files, &mut found);
        }
    }
    secret_text::check(source, dockerfile, &mut found);
    found.sort_by_key(|diagnostic| diagnostic.span);
    found
}

/// The instructions of a stage.
struct Stage<'a> {
    statements: &'a [Statement],
    /// Whether its layers are those of the last stage, too: what is in others never leaves the machine.
    is_shipped: bool,
}

fn stages(dockerfile: &Dockerfile) -> Vec<Stage<'_>> {
    let statements = &dockerfile.statements;
    let froms: Vec<(usize, &From)> = statements
        .iter()
        .enumerate()
        .filter_map(|(index, statement)| match &statement.instruction {
            Instruction::From(from) => Some((index, from)),
            _ => None,
        })
        .collect();
    // From the last one down: whatever it stands on comes before it.
    let mut wanted: Option<&str> = None;
    let mut shipped = HashSet::new();
    for (number, (_, from)) in froms.iter().enumerate().rev() {
        let name = from.alias.as_ref().map(|alias| alias.name.as_str());
        if number + 1 == froms.len() || (wanted.is_some() && name == wanted) {
            shipped.insert(number);
            wanted = Some(from.image.text());
        }
    }
    let ends = froms.iter().skip(1).map(|(index, _)| *index).chain([statements.len()]);
    froms
        .iter()
        .zip(ends)
        .enumerate()
        .map(|(number, ((index, _), end))| Stage {
            statements: &statements[index + 1..end],
            is_shipped: shipped.contains(&number),
        })
        .collect()
}

/// What a COPY or an ADD takes from the build context.
fn from_context(statement: &Statement) -> Option<&Transfer> {
    match &statement.instruction {
        Instruction::Copy(copy) if copy.from.is_none() => Some(&copy.transfer),
        Instruction::Add(add) => Some(&add.transfer),
        _ => None,
    }
}

/// Whether a source is the whole context.
fn is_everything(source: &str) -> bool {
    matches!(source, "." | "./" | "/" | "*" | "./*")
}
