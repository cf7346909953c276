//! All files copied before the dependencies are installed: any change of any file installs them again.

use super::commands::{commands, text};
use super::{ContextFiles, Stage, from_context, is_everything};
use crate::check::{Rule, warning};
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Instruction, Statement};
use crate::source::Span;

/// How dependencies are installed, and what says which.
struct Tool {
    programs: &'static [&'static str],
    /// Any of these as the first word that is no option; none for a program that installs when it is given nothing.
    actions: &'static [&'static str],
    manifests: &'static [&'static str],
}

const TOOLS: [Tool; 13] = [
    Tool {
        programs: &["npm"],
        actions: &["ci", "install", "i"],
        manifests: &["package.json", "package-lock.json"],
    },
    Tool { programs: &["yarn"], actions: &["install"], manifests: &["package.json", "yarn.lock"] },
    Tool {
        programs: &["pnpm"],
        actions: &["install", "i"],
        manifests: &["package.json", "pnpm-lock.yaml"],
    },
    Tool {
        programs: &["bun"],
        actions: &["install", "i"],
        manifests: &["package.json", "bun.lock"],
    },
    Tool { programs: &["pip", "pip3"], actions: &["install"], manifests: &["requirements.txt"] },
    Tool {
        programs: &["poetry"],
        actions: &["install"],
        manifests: &["pyproject.toml", "poetry.lock"],
    },
    Tool {
        programs: &["pipenv"],
        actions: &["install", "sync"],
        manifests: &["Pipfile", "Pipfile.lock"],
    },
    Tool { programs: &["uv"], actions: &["sync"], manifests: &["pyproject.toml", "uv.lock"] },
    Tool {
        programs: &["bundle", "bundler"],
        actions: &["install"],
        manifests: &["Gemfile", "Gemfile.lock"],
    },
    Tool {
        programs: &["composer"],
        actions: &["install"],
        manifests: &["composer.json", "composer.lock"],
    },
    Tool { programs: &["go"], actions: &["mod"], manifests: &["go.mod", "go.sum"] },
    Tool { programs: &["cargo"], actions: &["fetch"], manifests: &["Cargo.toml", "Cargo.lock"] },
    Tool { programs: &["dotnet"], actions: &["restore"], manifests: &[] },
];

pub(super) fn check(stage: &Stage<'_>, files: &ContextFiles, found: &mut Vec<Diagnostic>) {
    let mut copied: Option<Span> = None;
    // Tools that were run before everything was copied have their dependencies.
    let mut done: Vec<&'static str> = Vec::new();
    for statement in stage.statements {
        if let Some(transfer) = from_context(statement) {
            let everything = transfer.sources.iter().find(|source| is_everything(source.text()));
            copied = copied.or(everything.map(|source| source.span()));
            continue;
        }
        let Some((tool, command)) = install(statement) else { continue };
        let name = tool.programs[0];
        let Some(copy) = copied else {
            done.push(name);
            continue;
        };
        let there: Vec<&str> = tool
            .manifests
            .iter()
            .copied()
            .filter(|manifest| {
                files.top.is_empty() || files.top.iter().any(|file| file == manifest)
            })
            .collect();
        if done.contains(&name) || (there.is_empty() && !tool.manifests.is_empty()) {
            continue;
        }
        let message = format!(
            "All files are copied before `{command}`, so that a change of any of them runs it again"
        );
        let first = match there.as_slice() {
            [] => "the project files".to_owned(),
            [only] => (*only).to_owned(),
            [first, second, ..] => format!("{first} and {second}"),
        };
        let help = format!("COPY {first} first, then RUN {command}, and COPY the rest after it");
        found.push(
            warning(Rule::CopyBeforeInstall, copy, message)
                .with_other(statement.original.span(), "runs again whenever a file has changed")
                .with_help(help),
        );
        // Once is enough.
        return;
    }
}

/// The tool that a RUN installs dependencies with, and how. One that keeps them in a cache was thought about.
fn install(statement: &Statement) -> Option<(&'static Tool, String)> {
    let Instruction::Run(run) = &statement.instruction else { return None };
    if !run.mounts.is_empty() {
        return None;
    }
    let text = text(statement, run);
    commands(&text).into_iter().find_map(|words| {
        let program = words[0].rsplit('/').next().unwrap_or_default();
        let tool = TOOLS.iter().find(|tool| tool.programs.contains(&program))?;
        let rest = &words[1..];
        let action = rest.iter().position(|word| !word.starts_with('-'))?;
        let named = rest[action + 1..].iter().find(|word| !word.starts_with('-'));
        let is_install = tool.actions.contains(&rest[action])
            && match program {
                // Only what a file lists: single packages do not depend on the context.
                "pip" | "pip3" => rest
                    .iter()
                    .any(|word| matches!(*word, "-r" | "--requirement") || word.starts_with("-r")),
                "go" => named == Some(&"download"),
                "npm" | "yarn" | "pnpm" | "bun" => named.is_none(),
                _ => true,
            };
        is_install.then(|| {
            (tool, format!("{program} {}", rest[action..].first().copied().unwrap_or_default()))
        })
    })
}
