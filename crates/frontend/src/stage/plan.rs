//! All stages of a file, before any is evaluated.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::ops::Deref;

use rbuild_oci::Platform;

use super::dependency::Dependencies;
use super::from_line::{self, Globals};
use super::global_args;
use super::origin::{Origin, Origins};
use crate::args;
use crate::build::{BuildOptions, Stages};
use crate::diagnostic::{Diagnostic, MAX_SUGGESTIONS};
use crate::dockerfile::ast::{Dockerfile, From, Instruction, Statement};
use crate::dockerfile::mapped::Mapped;
use crate::dockerfile::parser::parse_trigger;
use crate::environment::Environment;
use crate::epoch::{self, Epoch};
use crate::images::{ImageQuery, ImageSet};
use crate::shell::Shell;
use crate::source::{Source, Span};
use crate::suggest::{nearest, suggest};

/// How many ONBUILD instructions a file may bring in: a trigger counts for each stage that stands on it, so that a
/// short file could ask for any number.
const MAX_TRIGGERS: usize = 100_000;
/// How much text they may have.
const MAX_TRIGGER_TEXT: usize = 16 << 20;

/// The stages, and which of them the target needs.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) stages: Vec<Stage<'a>>,
    pub(crate) target: Option<usize>,
    /// What FROM lines see, and ARGs without a default.
    pub(crate) globals: Environment,
    pub(crate) shell: Shell,
    /// `SOURCE_DATE_EPOCH` in seconds.
    pub(crate) epoch: Option<i64>,
    origins: Origins<'a>,
    by_name: BTreeMap<&'a str, usize>,
    options: &'a BuildOptions,
    /// What COPYs and mounts brought in that is no stage, in the order of the file: it has the numbers after those of
    /// the stages.
    implied: Vec<Origin>,
    /// Whether it is a single stage that takes files from nowhere else, whose steps need not say its name.
    is_alone: bool,
    /// How many triggers were read, and how long they are.
    triggers: (usize, usize),
}

/// A stage.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) statement: &'a Statement,
    pub(crate) from: &'a From,
    pub(crate) name: Option<&'a str>,
    /// What it stands on; `None` if that is an error.
    pub(crate) base: Option<Origin>,
    /// Whether a named context stands in for it, so that its instructions do not count.
    pub(crate) is_replaced: bool,
    /// The platform that its FROM asks for.
    pub(crate) platform: Option<Platform>,
    /// Its instructions, those of ONBUILD first.
    pub(crate) steps: Vec<Step<'a>>,
    /// How many of them are of ONBUILD.
    pub(crate) trigger_count: usize,
    has_triggers: bool,
    index: usize,
}

/// An instruction of a stage.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) statement: StepStatement<'a>,
    /// The FROM that brought the instruction in, if it is an ONBUILD trigger: then its own places are in another text.
    pub(crate) trigger_of: Option<Span>,
    /// What its `--from` names; `None` without one, or if it is an error.
    pub(crate) from: Option<Origin>,
    /// What the `from` of each of its mounts names; `None` without one, or if it is an error.
    pub(crate) mounted: Vec<Option<Origin>>,
}

/// Where a step's statement is; a step is small either way.
#[derive(Debug)]
pub(crate) enum StepStatement<'a> {
    /// In the file.
    Written(&'a Statement),
    /// In a trigger of the base.
    Triggered(Box<Statement>),
}

impl Deref for StepStatement<'_> {
    type Target = Statement;

    fn deref(&self) -> &Statement {
        match self {
            Self::Written(statement) => statement,
            Self::Triggered(statement) => statement,
        }
    }
}

impl<'a> Step<'a> {
    fn new(statement: StepStatement<'a>, trigger_of: Option<Span>) -> Self {
        Self { statement, trigger_of, from: None, mounted: Vec::new() }
    }

    /// Everything that it takes files from.
    fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.from.iter().chain(self.mounted.iter().flatten())
    }

    /// Where a part of the instruction's text is in the file.
    pub(crate) fn span_of(&self, text: &Mapped, range: std::ops::Range<usize>) -> Span {
        self.trigger_of.unwrap_or_else(|| text.span_of(range))
    }

    /// Where a part of the instruction is in the file.
    pub(crate) fn place(&self, span: Span) -> Span {
        self.trigger_of.unwrap_or(span)
    }

    /// The `--from` of a COPY.
    fn copied_from(&self) -> Option<&Mapped> {
        match &self.statement.instruction {
            Instruction::Copy(copy) => copy.from.as_ref(),
            _ => None,
        }
    }
}

impl Stage<'_> {
    /// What its steps and messages call it.
    pub(crate) fn label(&self) -> Cow<'_, str> {
        match self.name {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(format!("stage-{}", self.index)),
        }
    }
}

impl<'a> Plan<'a> {
    /// Reads the stages of a file.
    pub(crate) fn new(
        dockerfile: &'a Dockerfile,
        options: &'a BuildOptions,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Self {
        let shell = Shell::new(dockerfile.directives.escape);
        let statements = &dockerfile.statements;
        let target_name = options.target.as_deref().or_else(|| last_stage_name(statements));
        let predefined = args::predefined(options, target_name);
        // An error of a default comes once, from the second evaluation.
        let defaults = global_args::evaluate(
            statements,
            &predefined,
            &Default::default(),
            shell,
            &mut Vec::new(),
        );
        let mut globals =
            global_args::evaluate(statements, &predefined, &options.build_args, shell, diagnostics);
        let epoch = match epoch::read(statements, options, &globals, shell) {
            Ok(Epoch::Seconds(seconds)) => Some(seconds),
            Ok(Epoch::Of(_)) => options.epoch_time,
            Ok(Epoch::None) => None,
            Err(error) => {
                diagnostics.push(*error);
                None
            }
        };
        // Whatever it said, from here on it is a number.
        match epoch {
            Some(seconds) if globals.contains(epoch::NAME) => {
                globals.set(epoch::NAME, &seconds.to_string());
            }
            Some(_) => {}
            None => globals.remove(epoch::NAME),
        }
        let mut plan = Self {
            stages: Vec::new(),
            target: None,
            globals,
            shell,
            epoch,
            origins: Origins::new(options),
            by_name: BTreeMap::new(),
            options,
            implied: Vec::new(),
            is_alone: false,
            triggers: (0, 0),
        };
        plan.read_stages(statements, &defaults, diagnostics);
        plan.find_target(diagnostics);
        plan.resolve_steps(diagnostics);
        plan
    }

    fn read_stages(
        &mut self,
        statements: &'a [Statement],
        defaults: &Environment,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        let declared: HashSet<&str> =
            global_args::declared(statements).map(|argument| argument.name.text()).collect();
        let environment = self.globals.clone();
        let globals = Globals {
            shell: self.shell,
            environment: &environment,
            declared: &declared,
            build_platform: &self.options.build_platform,
        };
        for statement in statements {
            if let Instruction::From(from) = &statement.instruction {
                diagnostics.extend(from_line::lint_default(from, self.shell, defaults));
                let stage = self.read_from(statement, from, &globals, diagnostics);
                if let Some(name) = stage.name {
                    self.by_name.insert(name, self.stages.len());
                }
                self.stages.push(stage);
            } else if let Some(stage) = self.stages.last_mut()
                && !stage.is_replaced
            {
                let statement = StepStatement::Written(statement);
                stage.steps.push(Step::new(statement, None));
            }
        }
    }

    fn read_from(
        &self,
        statement: &'a Statement,
        from: &'a From,
        globals: &Globals<'_>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Stage<'a> {
        let image = globals.image(from, diagnostics);
        let platform = globals.platform(from, diagnostics).unwrap_or_else(|error| {
            diagnostics.push(*error);
            None
        });
        let name = from.alias.as_ref().map(|alias| alias.name.as_str());
        let wanted = platform.as_ref().unwrap_or(self.options.target_platform());
        let span = from.image.span();
        let replacement = name.map_or(Ok(None), |name| self.context(name, wanted, span));
        let is_replaced = matches!(replacement, Ok(Some(_)));
        let base = replacement.and_then(|replacement| match (replacement, image) {
            (Some(replacement), _) => Ok(replacement),
            (None, Ok(image)) => match self.by_name.get(image.as_str()) {
                Some(stage) => Ok(Origin::Stage(*stage)),
                None => self.external(&image, wanted, span),
            },
            (None, Err(error)) => Err(error),
        });
        let base = base.map_err(|error| diagnostics.push(*error)).ok();
        let index = self.stages.len();
        Stage {
            statement,
            from,
            name,
            base,
            is_replaced,
            platform,
            steps: Vec::new(),
            trigger_count: 0,
            has_triggers: false,
            index,
        }
    }

    fn find_target(&mut self, diagnostics: &mut Vec<Diagnostic>) {
        let Some(target) = &self.options.target else {
            self.target = self.stages.len().checked_sub(1);
            return;
        };
        self.target = self.by_name.get(target.to_lowercase().as_str()).copied();
        if self.target.is_none() {
            let message = format!("target stage {target:?} could not be found");
            let labels: Vec<_> = self.stages.iter().map(Stage::label).collect();
            let message = suggest(message, target, labels.iter().map(AsRef::as_ref));
            let span = self.stages.last().map_or(Span::at(0), |stage| stage.statement.span);
            diagnostics.push(Diagnostic::error("unknown-target", span, message));
        }
    }

    /// Says of each `--from` what it names, and whether there are cycles.
    fn resolve_steps(&mut self, diagnostics: &mut Vec<Diagnostic>) {
        let mut stages = std::mem::take(&mut self.stages);
        let count = stages.len();
        for step in stages.iter_mut().flat_map(|stage| &mut stage.steps) {
            if let Err(error) = self.resolve_step(step, count) {
                diagnostics.push(*error);
            }
        }
        self.is_alone = count == 1 && self.implied.is_empty();
        self.stages = stages;
        for cycle in self.dependencies().cycles() {
            diagnostics.push(self.cycle(&cycle));
            for member in &cycle {
                for step in &mut self.stages[*member].steps {
                    // Told, so that nothing more is said of it.
                    for from in std::iter::once(&mut step.from).chain(&mut step.mounted) {
                        from.take_if(|from| is_in(from, &cycle));
                    }
                }
            }
        }
    }

    /// Says of a step what it takes files from.
    fn resolve_step(&mut self, step: &mut Step<'_>, count: usize) -> Result<(), Box<Diagnostic>> {
        if let Some(from) = step.copied_from() {
            let span = step.place(from.span());
            let (origin, is_stage) = self.copied(from.text(), span, count)?;
            if !is_stage {
                self.implied.push(origin.clone());
            }
            step.from = Some(origin);
        }
        if let Instruction::Run(run) = &step.statement.instruction {
            let mut mounted = Vec::with_capacity(run.mounts.len());
            for mount in &run.mounts {
                // One of memory shows no files, whatever it says.
                let from = mount.from().filter(|_| !mount.is_tmpfs());
                let Some(from) = from else {
                    self.implied.push(Origin::Scratch);
                    mounted.push(None);
                    continue;
                };
                let (origin, is_stage) = self.named(from.text(), step.place(from.span()))?;
                if !is_stage {
                    self.implied.push(origin.clone());
                }
                mounted.push(Some(origin));
            }
            step.mounted = mounted;
        }
        Ok(())
    }

    /// What the `--from` of a COPY names, which may be a number; and whether that is a stage by itself.
    fn copied(
        &self,
        name: &str,
        span: Span,
        count: usize,
    ) -> Result<(Origin, bool), Box<Diagnostic>> {
        let error = |code, message: String| Box::new(Diagnostic::error(code, span, message));
        let expanded = self.shell.expand(name, &Environment::default());
        if expanded.map_or(true, |expanded| expanded.value != name) {
            let message = "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround";
            return Err(error("from-variable", message.to_owned()));
        }
        if let Ok(index) = name.parse::<i64>() {
            let index = usize::try_from(index).ok();
            return match index.map(|index| (index, index.checked_sub(count))) {
                Some((index, None)) => Ok((Origin::Stage(index), true)),
                Some((_, Some(later))) if later < self.implied.len() => {
                    Ok((self.implied[later].clone(), false))
                }
                _ => Err(error("stage-index", format!("invalid stage index {name}"))),
            };
        }
        self.named(name, span)
    }

    /// What a name that is no stage's stands for.
    fn external(
        &self,
        name: &str,
        platform: &Platform,
        span: Span,
    ) -> Result<Origin, Box<Diagnostic>> {
        match self.context(name, platform, span)? {
            Some(origin) => Ok(origin),
            None => self.origins.external(name, platform, span),
        }
    }

    /// What a named context puts in the place of a name.
    fn context(
        &self,
        name: &str,
        platform: &Platform,
        span: Span,
    ) -> Result<Option<Origin>, Box<Diagnostic>> {
        let Some(target) = self.origins.target(name, platform) else {
            return Ok(self.origins.context(name, platform, span));
        };
        match self.by_name.get(target.to_lowercase().as_str()) {
            Some(stage) => Ok(Some(Origin::Stage(*stage))),
            None => {
                let message = format!(
                    "named context {name:?} is stage {target:?}, which is not defined here"
                );
                Err(Box::new(Diagnostic::error("unknown-target", span, message)))
            }
        }
    }

    /// What a name stands for: a stage, a named context or an image; and whether it is a stage's.
    fn named(&self, name: &str, span: Span) -> Result<(Origin, bool), Box<Diagnostic>> {
        let lower = name.to_lowercase();
        if let Some(stage) = self.by_name.get(lower.as_str()) {
            return Ok((Origin::Stage(*stage), true));
        }
        let external = self.external(name, self.options.target_platform(), span);
        external.map(|origin| (origin, false)).map_err(|error| {
            match nearest(name, self.by_name.keys().copied().take(MAX_SUGGESTIONS)) {
                Some(near) => Box::new(error.with_help(format!("did you mean stage {near:?}?"))),
                None => error,
            }
        })
    }

    fn dependencies(&self) -> Dependencies {
        Dependencies::new(self.stages.iter().map(|stage| {
            let base = match stage.base {
                Some(Origin::Stage(base)) => Some(base),
                _ => None,
            };
            let copies = stage.steps.iter().flat_map(Step::origins).filter_map(|from| match from {
                Origin::Stage(source) => Some(*source),
                _ => None,
            });
            (base, copies.collect())
        }))
    }

    fn cycle(&self, members: &[usize]) -> Diagnostic {
        let mut places = members.iter().flat_map(|member| {
            let stage = &self.stages[*member];
            let within = move |step: &&Step<'_>| step.origins().any(|from| is_in(from, members));
            let step = stage.steps.iter().find(within);
            let span = step.map(|step| step.place(step.statement.original.span()));
            span.map(|span| (stage.label(), span))
        });
        let first = places.next();
        let (label, span) = first.unwrap_or_else(|| ("".into(), Span::at(0)));
        let message = format!("circular dependency detected on stage: {label}");
        // A cycle may have thousands of members; a few show what it is.
        const MAX_SHOWN: usize = 5;
        places
            .take(MAX_SHOWN)
            .fold(Diagnostic::error("stage-cycle", span, message), |error, (label, span)| {
                error.with_other(span, format!("and stage {label} needs it"))
            })
    }

    /// The stages that are wanted and those that they need, in the file's order, once all triggers that can be known
    /// are in.
    ///
    /// Triggers of a base image may name other stages and images, so that this looks again until nothing is new.
    pub(crate) fn needed(
        &mut self,
        stages: Stages,
        images: &ImageSet,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Vec<usize> {
        let Some(target) = self.target else { return Vec::new() };
        loop {
            let needed = match stages {
                Stages::All => (0..self.stages.len()).collect(),
                Stages::Target => self.dependencies().reachable(target),
            };
            let mut has_new = false;
            for index in &needed {
                has_new |= self.load_triggers(*index, images, diagnostics);
            }
            if !has_new {
                return needed;
            }
        }
    }

    /// Puts the triggers of a stage's base before its own instructions; whether there were new ones.
    fn load_triggers(
        &mut self,
        index: usize,
        images: &ImageSet,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> bool {
        let stage = &self.stages[index];
        if stage.has_triggers || stage.is_replaced {
            return false;
        }
        let expressions: Vec<String> = match &stage.base {
            Some(Origin::Stage(base)) => {
                let onbuild = |step: &Step<'_>| match &step.statement.instruction {
                    Instruction::Onbuild(onbuild) => Some(onbuild.expression.clone()),
                    _ => None,
                };
                self.stages[*base].steps.iter().filter_map(onbuild).collect()
            }
            Some(Origin::Image(image)) => match images.get(&image.query) {
                Some(found) => found.config.config.on_build.clone(),
                None => return false,
            },
            _ => Vec::new(),
        };
        let span = stage.from.image.span();
        let mut steps = Vec::new();
        self.triggers.0 += expressions.len();
        self.triggers.1 += expressions.iter().map(String::len).sum::<usize>();
        if self.triggers.0 > MAX_TRIGGERS || self.triggers.1 > MAX_TRIGGER_TEXT {
            let message = "too many ONBUILD triggers in one build";
            diagnostics.push(Diagnostic::error("onbuild-trigger", span, message));
            self.stages[index].has_triggers = true;
            return false;
        }
        for expression in &expressions {
            match self.read_trigger(expression, span) {
                Ok(step) => steps.push(step),
                Err(error) => diagnostics.push(*error),
            }
        }
        let stage = &mut self.stages[index];
        stage.has_triggers = true;
        stage.trigger_count = steps.len();
        stage.steps.splice(0..0, steps);
        stage.trigger_count > 0
    }

    fn read_trigger(&mut self, expression: &str, span: Span) -> Result<Step<'a>, Box<Diagnostic>> {
        let error = |message: String| {
            let shown: String =
                expression.lines().next().unwrap_or_default().chars().take(80).collect();
            let error = Diagnostic::error("onbuild-trigger", span, message);
            Box::new(error.with_help(format!("the base has the trigger `ONBUILD {shown}`")))
        };
        let source =
            Source::new("trigger", expression).map_err(|source| error(source.to_string()))?;
        let parsed = parse_trigger(&source);
        if let Some(first) = parsed.diagnostics.iter().find(|diagnostic| diagnostic.is_error()) {
            return Err(error(first.message.to_string()));
        }
        let statement = parsed
            .statements
            .into_iter()
            .next()
            .ok_or_else(|| error("onbuild trigger should be a single expression".to_owned()))?;
        let mut step = Step::new(StepStatement::Triggered(Box::new(statement)), Some(span));
        self.resolve_step(&mut step, self.stages.len())?;
        Ok(step)
    }

    /// The images that the stages stand on or copy from and that are not known, each once.
    pub(crate) fn missing_images(&self, needed: &[usize], images: &ImageSet) -> Vec<ImageQuery> {
        let mut seen = HashSet::new();
        let origins = needed
            .iter()
            .map(|index| &self.stages[*index])
            .flat_map(|stage| stage.base.iter().chain(stage.steps.iter().flat_map(Step::origins)));
        let queries = origins.filter_map(|origin| match origin {
            Origin::Image(image) => Some(&image.query),
            _ => None,
        });
        queries
            .filter(|query| images.get(query).is_none())
            .filter(|query| seen.insert((&query.location, &query.platform)))
            .cloned()
            .collect()
    }

    /// The value of a build argument; a `SOURCE_DATE_EPOCH` is a number by now.
    pub(crate) fn given(&self, name: &str) -> Option<String> {
        let given = self.options.build_args.get(name)?;
        match name {
            epoch::NAME => self.epoch.map(|seconds| seconds.to_string()),
            _ => Some(given.clone()),
        }
    }

    /// What the names of a stage's steps begin with: nothing if there is no other stage.
    pub(crate) fn step_label(&self, index: usize) -> String {
        match self.is_alone {
            true => String::new(),
            false => self.stages[index].label().into_owned(),
        }
    }
}

/// Whether it is one of some stages, which are in order.
fn is_in(origin: &Origin, stages: &[usize]) -> bool {
    matches!(origin, Origin::Stage(stage) if stages.binary_search(stage).is_ok())
}

/// The name of the last stage, if it has one.
pub(crate) fn last_stage_name(statements: &[Statement]) -> Option<&str> {
    let last = statements.iter().rev().find_map(|statement| match &statement.instruction {
        Instruction::From(from) => Some(from),
        _ => None,
    });
    last?.alias.as_ref().map(|alias| alias.name.as_str())
}
