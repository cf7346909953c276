//! Answers for people, as buildx prints them.

use rbuild_frontend::{Diagnostic, Outline, OutlineMount, Target};
use rbuild_solver::SourceLocation;

use crate::commands::build::failure::excerpt;
use crate::commands::build::frontend::Evaluated;
use crate::commands::images::table;

/// All warnings, each with its lines.
pub(super) fn check(evaluated: &Evaluated) -> String {
    let head = match evaluated.warnings.len() {
        0 if evaluated.errors.is_empty() => "Check complete, no warnings found.\n".to_owned(),
        0 => String::new(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    let warnings = evaluated.warnings.iter().map(|warning| {
        let url = warning.url.map_or_else(String::new, |url| format!(" - {url}"));
        let (code, message) = (warning.code, &warning.message);
        format!("\nWARNING: {code}{url}\n{message}\n{}", excerpt_of(evaluated, warning))
    });
    std::iter::once(head).chain(warnings).collect()
}

/// The marked lines of a message.
pub(super) fn excerpt_of(evaluated: &Evaluated, diagnostic: &Diagnostic) -> String {
    let (first_line, last_line) = evaluated.dockerfile.lines(&evaluated.source, diagnostic);
    let file = evaluated.source.name().to_owned();
    excerpt(&evaluated.source, &SourceLocation { file, first_line, last_line })
}

/// The target and what it can be given.
pub(super) fn outline(outline: &Outline) -> String {
    let mut text = String::new();
    if outline.name.is_some() || outline.description.is_some() {
        text.extend(["TARGET:      ", outline.name.as_deref().unwrap_or("(default)"), "\n"]);
        if let Some(description) = &outline.description {
            text.extend(["DESCRIPTION: ", description, "\n"]);
        }
        text.push('\n');
    }
    if !outline.arguments.is_empty() {
        let rows: Vec<[String; 3]> = outline
            .arguments
            .iter()
            .map(|argument| {
                let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
                [argument.name.clone(), or_empty(&argument.value), or_empty(&argument.description)]
            })
            .collect();
        text.push_str(&table(["BUILD ARG", "VALUE", "DESCRIPTION"], &rows));
        text.push('\n');
    }
    for (head, mounts) in [("SECRET", &outline.secrets), ("SSH", &outline.agents)] {
        if !mounts.is_empty() {
            let row = |mount: &OutlineMount| {
                [mount.id.clone(), if mount.required { "true".to_owned() } else { String::new() }]
            };
            let rows: Vec<_> = mounts.iter().map(row).collect();
            text.push_str(&table([head, "REQUIRED"], &rows));
            text.push('\n');
        }
    }
    if !outline.caches.is_empty() {
        let rows: Vec<_> = outline.caches.iter().map(|mount| [mount.id.clone()]).collect();
        text.push_str(&table(["CACHE MOUNT"], &rows));
        text.push('\n');
    }
    text
}

/// The stages.
pub(super) fn targets(targets: &[Target]) -> String {
    let rows: Vec<[String; 2]> = targets
        .iter()
        .map(|target| {
            let name = match (&target.name, target.is_default) {
                (Some(name), true) => format!("{name} (default)"),
                (Some(name), false) => name.clone(),
                (None, true) => "(default)".to_owned(),
                (None, false) => String::new(),
            };
            [name, target.description.clone().unwrap_or_default()]
        })
        .collect();
    table(["TARGET", "DESCRIPTION"], &rows)
}
