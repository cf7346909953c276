//! Lowering for its messages and not for its graph: checks, and what a build can be given.

use std::collections::{HashMap, HashSet};

use super::lowering::Lowering;
use super::place::{Place, Scope};
use crate::args::is_predefined;
use crate::build::{BuildOptions, Stages};
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Argument, Dockerfile, Instruction, Run, Statement};
use crate::dockerfile::mount::Mount;
use crate::environment::Environment;
use crate::images::{ImageQuery, ImageSet};
use crate::outline::{Outline, OutlineMount, description};
use crate::stage::Plan;

/// What there is to say of a file.
#[derive(Debug)]
pub struct Evaluation {
    /// The images that would have to be known to say more, each once.
    pub missing: Vec<ImageQuery>,
    /// Errors and warnings in the order of the text, but for those that [`check`](crate::check()) finds.
    pub diagnostics: Vec<Diagnostic>,
    /// What the stages can be given.
    pub outline: Outline,
}

/// Lowers stages for what there is to say of them.
///
/// Unlike [`lower`](crate::lower()) it goes on where an image is not known: what such an image could define is left
/// unsaid.
pub fn evaluate(
    dockerfile: &Dockerfile,
    options: &BuildOptions,
    images: &ImageSet,
    stages: Stages,
) -> Evaluation {
    if dockerfile.has_errors() {
        return Evaluation {
            missing: Vec::new(),
            diagnostics: dockerfile.diagnostics.clone(),
            outline: Outline::default(),
        };
    }
    let mut diagnostics = Vec::new();
    let mut plan = Plan::new(dockerfile, options, &mut diagnostics);
    let needed = plan.needed(stages, images, &mut diagnostics);
    let mut lowering = Lowering::new(options, images, &plan, diagnostics);
    lowering.outline = Some(Outline::default());
    lowering.stages(&plan, &needed);
    let Lowering { mut diagnostics, outline, .. } = lowering;
    diagnostics.sort_by_key(|diagnostic| diagnostic.span);
    let mut outline = outline.unwrap_or_default();
    if let Some(target) = plan.target.map(|target| &plan.stages[target]) {
        outline.name = target.name.map(str::to_owned);
        outline.description = target.name.and_then(|name| description(target.statement, name));
    }
    add_globals(&mut outline, dockerfile, &plan, &needed);
    Evaluation {
        missing: plan.missing_images(&needed, images),
        diagnostics,
        outline: outline.finish(),
    }
}

/// Adds the global arguments that FROM lines use, directly or through the defaults of others, and what is said of
/// those that stages declare again.
fn add_globals(outline: &mut Outline, dockerfile: &Dockerfile, plan: &Plan<'_>, needed: &[usize]) {
    let globals: Vec<(&Statement, &Argument)> = dockerfile
        .statements
        .iter()
        .take_while(|statement| !matches!(statement.instruction, Instruction::From(_)))
        .filter_map(|statement| match &statement.instruction {
            Instruction::Arg(arguments) => Some(arguments.iter().map(move |one| (statement, one))),
            _ => None,
        })
        .flatten()
        .collect();
    let nothing = Environment::default();
    let named = |text: &str| -> Vec<String> {
        let expansion = plan.shell.expand(text, &nothing);
        let variables = expansion.map_or_else(|_| Vec::new(), |expansion| expansion.variables);
        variables.into_iter().map(|variable| variable.name.to_owned()).collect()
    };
    let mut used: HashSet<String> = HashSet::new();
    for stage in needed.iter().map(|index| &plan.stages[*index]) {
        let texts = std::iter::once(&stage.from.image).chain(&stage.from.platform);
        used.extend(texts.flat_map(|text| named(text.text())));
    }
    // A default sees only arguments before it, so that one pass from the end finds all.
    for (_, argument) in globals.iter().rev() {
        if let Some(default) = argument.default.as_ref()
            && used.contains(argument.name.text())
        {
            used.extend(named(default.text()));
        }
    }
    let mut said: HashMap<&str, String> = HashMap::new();
    for (statement, argument) in globals {
        let name = argument.name.text();
        if let Some(text) = description(statement, name) {
            said.insert(name, text);
        }
        if used.contains(name) {
            outline.add_argument(statement, argument, plan.globals.get(name), statement.span);
        }
    }
    for argument in &mut outline.arguments {
        if argument.description.is_none() {
            argument.description = said.get(argument.name.as_str()).cloned();
        }
    }
}

impl<'a> Lowering<'a> {
    /// Notes an argument of a stage for people who ask.
    pub(super) fn note_argument(
        &mut self,
        place: &Place<'_, 'a>,
        argument: &Argument,
        value: Option<&str>,
    ) {
        let is_given = is_predefined(argument.name.text());
        if let Some(outline) = self.outline.as_mut().filter(|_| !is_given) {
            let statement = &place.step.statement;
            outline.add_argument(statement, argument, value, place.step.place(statement.span));
        }
    }

    /// Notes what a step mounts by name.
    pub(super) fn note_mounts(&mut self, place: &Place<'_, 'a>, scope: &Scope, run: &Run) {
        let Some(outline) = &mut self.outline else { return };
        let span = place.step.place(place.step.statement.span);
        for spec in &run.mounts {
            let expanded = spec.resolve(|value| {
                let expansion = self.shell.expand(value.text(), &scope.state.environment);
                expansion.map(|expansion| expansion.value).map_err(|error| {
                    Diagnostic::error("expansion", value.span(), error.to_string())
                })
            });
            // What is wrong with it is said where the step is lowered.
            let (list, id, required) = match expanded {
                Ok(Mount::Secret { id, required, .. }) => (&mut outline.secrets, id, required),
                Ok(Mount::Ssh { id, required, .. }) => (&mut outline.agents, id, required),
                Ok(Mount::Cache { id, target, .. }) => {
                    let id = id.unwrap_or_else(|| rbuild_solver::clean_path(&target));
                    (&mut outline.caches, id, false)
                }
                _ => continue,
            };
            list.push(OutlineMount { id, required, span });
        }
    }
}
