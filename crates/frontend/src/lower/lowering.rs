//! A build being lowered: stage by stage, and what all instructions share.

use std::collections::BTreeMap;

use rbuild_solver::{PatternMatcher, ProxyEnv, SourceLocation, VertexMeta};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::place::{Fallible, Place, Scope};
use super::state::State;
use super::step_name::StepNames;
use crate::args;
use crate::build::{BuildOptions, NamedContext, NoCache};
use crate::check::{Rule, instruction, warning};
use crate::diagnostic::{Diagnostic, MAX_SUGGESTIONS, MAX_WARNINGS};
use crate::dockerfile::ast::Instruction;
use crate::dockerfile::mapped::Mapped;
use crate::draft::{Draft, Node};
use crate::history;
use crate::images::ImageSet;
use crate::outline::Outline;
use crate::shell::{Expansion, Shell};
use crate::source::Span;
use crate::stage::{Origin, Plan, Stage};
use crate::suggest::nearest;

/// How much text expansion, histories and the environments of steps may come to in one build: a short file can ask
/// for any amount.
const MAX_TEXT: usize = 256 << 20;

/// After how many messages lowering gives up.
const MAX_DIAGNOSTICS: usize = 10_000;

fn too_large(span: Span) -> Diagnostic {
    Diagnostic::error("too-large", span, "the Dockerfile expands to too much text")
}

/// How many steps the names of a stage's steps count.
pub(super) fn step_count(stage: &Stage<'_>) -> usize {
    if stage.is_replaced {
        return 0;
    }
    let has_base = matches!(stage.base, Some(Origin::Image(_) | Origin::Local(_)));
    let own = stage.steps[stage.trigger_count..].iter().filter(|step| {
        matches!(
            step.statement.instruction,
            Instruction::Add(_)
                | Instruction::Copy(_)
                | Instruction::Run(_)
                | Instruction::Workdir(_)
        )
    });
    // All triggers count, whatever they do.
    usize::from(has_base) + stage.trigger_count + own.count()
}

/// A build being lowered.
#[derive(Debug)]
pub(super) struct Lowering<'a> {
    pub(super) options: &'a BuildOptions,
    pub(super) images: &'a ImageSet,
    pub(super) shell: Shell,
    pub(super) draft: Draft,
    /// The contexts that are fetched, by name, as far as they are used.
    pub(super) remotes: BTreeMap<String, Node>,
    /// The files of each stage that is done.
    pub(super) roots: Vec<Option<StageRoot>>,
    /// What is looked into for packages beside the result.
    pub(super) scans: Vec<(String, Node)>,
    /// Of the main context, unless it has exceptions: what those mean for a directory only a walk can tell.
    pub(super) ignored: Option<PatternMatcher>,
    pub(super) proxy: Option<ProxyEnv>,
    /// In seconds, and as histories write it.
    pub(super) epoch: Option<(i64, String)>,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// What is noted for people who ask what the build can be given; `None` if nobody does.
    pub(super) outline: Option<Outline>,
    /// Whether the current instruction named a variable that is not set.
    saw_unset: bool,
    text: usize,
}

/// The files of a stage that is done.
#[derive(Debug, Clone, Copy)]
pub(super) struct StageRoot {
    pub(super) node: Option<Node>,
}

impl<'a> Lowering<'a> {
    pub(super) fn new(
        options: &'a BuildOptions,
        images: &'a ImageSet,
        plan: &Plan<'a>,
        diagnostics: Vec<Diagnostic>,
    ) -> Self {
        let mut lowering = Self {
            options,
            images,
            shell: plan.shell,
            draft: Draft::default(),
            remotes: BTreeMap::new(),
            roots: vec![None; plan.stages.len()],
            scans: Vec::new(),
            ignored: None,
            proxy: args::proxy(&options.build_args),
            epoch: None,
            diagnostics,
            outline: None,
            saw_unset: false,
            text: 0,
        };
        lowering.read_ignored();
        lowering.read_epoch(plan.epoch);
        lowering
    }

    fn read_ignored(&mut self) {
        let options = self.options;
        let patterns = &options.context_ignore;
        let has_exceptions = patterns.iter().any(|pattern| pattern.starts_with('!'));
        let matcher = self.matcher(patterns);
        self.ignored = matcher.filter(|matcher| !has_exceptions && !matcher.is_empty());
        for context in options.contexts.values() {
            if let NamedContext::Local { ignore } = context {
                // Only to hear of errors.
                self.matcher(ignore);
            }
        }
    }

    fn matcher(&mut self, patterns: &[String]) -> Option<PatternMatcher> {
        let matcher = PatternMatcher::new(patterns).map_err(|error| {
            let message = format!("failed parsing .dockerignore: {error}");
            self.diagnostics.push(Diagnostic::error("dockerignore", Span::at(0), message));
        });
        matcher.ok()
    }

    fn read_epoch(&mut self, epoch: Option<i64>) {
        let Some(seconds) = epoch else { return };
        let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
        match time.and_then(|time| time.format(&Rfc3339).ok()) {
            Some(text) => self.epoch = Some((seconds, text)),
            None => {
                let message = format!("invalid SOURCE_DATE_EPOCH: {seconds}");
                let error = Diagnostic::error("source-date-epoch", Span::at(0), message)
                    .with_help("it is out of the range of dates");
                self.diagnostics.push(error);
            }
        }
    }

    /// Lowers the stages that the target needs; gives the state of the target, which is the last of them.
    ///
    /// A stage's state is given up as soon as no other stands on it: only its files are kept.
    pub(super) fn stages(&mut self, plan: &Plan<'a>, needed: &[usize]) -> Option<State> {
        let mut users = vec![0_usize; plan.stages.len()];
        for index in needed {
            if let Some(Origin::Stage(base)) = plan.stages[*index].base {
                users[base] += 1;
            }
        }
        let mut states: Vec<Option<State>> = (0..users.len()).map(|_| None).collect();
        for index in needed {
            let base = match &plan.stages[*index].base {
                Some(Origin::Stage(base)) => {
                    users[*base] -= 1;
                    match users[*base] {
                        0 => states[*base].take(),
                        _ => self.copy_state(&plan.stages[*index], states[*base].as_ref()),
                    }
                }
                _ => None,
            };
            let state = self.stage(plan, *index, base);
            self.note_scans(plan, *index, &state);
            self.roots[*index] = Some(StageRoot { node: state.root });
            if users[*index] > 0 || Some(*index) == plan.target {
                states[*index] = Some(state);
            }
        }
        plan.target.and_then(|target| states[target].take())
    }

    /// The state that a stage begins with when others begin with it, too.
    fn copy_state(&mut self, stage: &Stage<'_>, base: Option<&State>) -> Option<State> {
        let base = base?;
        self.text += base.size();
        if self.text > MAX_TEXT {
            self.diagnostics.push(too_large(stage.from.image.span()));
            return None;
        }
        Some(base.clone())
    }

    fn stage(&mut self, plan: &Plan<'a>, index: usize, base: Option<State>) -> State {
        let stage = &plan.stages[index];
        let mut names = StepNames {
            label: plan.step_label(index),
            total: step_count(stage),
            done: 0,
            with_platform: self.options.multi_platform || self.flag("BUILDKIT_MULTI_PLATFORM"),
        };
        let mut state = self.base(stage, base, &mut names);
        if stage.is_replaced {
            return state;
        }
        state.begin_stage();
        let label = stage.label();
        let ignore_cache = match &self.options.no_cache {
            NoCache::All => true,
            NoCache::Stages(filter) => stage
                .name
                .is_some_and(|name| filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))),
        };
        let mut scope = Scope { state, names, last: BTreeMap::new() };
        for step in &stage.steps {
            self.step(&Place { step, stage, label: &label, plan, ignore_cache }, &mut scope);
        }
        scope.state
    }

    fn step(&mut self, place: &Place<'_, 'a>, scope: &mut Scope) {
        if self.text > MAX_TEXT || self.diagnostics.len() > MAX_DIAGNOSTICS {
            // It was told, or nobody reads on.
            return;
        }
        let before = self.diagnostics.len();
        self.saw_unset = false;
        let result = self.instruction(place, scope);
        let failed = result.is_err();
        self.diagnostics.extend(result.err().map(|error| *error));
        if self.is_guessing(&scope.state) {
            self.diagnostics.truncate(before);
        }
        // What it would have defined is missing now.
        let defines =
            matches!(place.step.statement.instruction, Instruction::Env(_) | Instruction::Arg(_));
        scope.state.is_assumed |= failed && defines;
    }

    /// Whether the current instruction depends on variables that may yet be set.
    pub(super) fn is_guessing(&self, state: &State) -> bool {
        state.is_assumed && self.saw_unset
    }

    fn instruction(&mut self, place: &Place<'_, 'a>, scope: &mut Scope) -> Fallible<()> {
        match &place.step.statement.instruction {
            Instruction::Run(run) => {
                self.note_mounts(place, scope, run);
                self.run(place, scope, run)
            }
            Instruction::Copy(copy) => self.copy(place, scope, copy),
            Instruction::Add(add) => self.add(place, scope, add),
            Instruction::Workdir(path) => self.workdir(place, scope, path),
            Instruction::Env(pairs) => self.env(place, scope, pairs),
            Instruction::Arg(arguments) => self.arg(place, scope, arguments),
            Instruction::Label(pairs) => self.label(place, scope, pairs),
            Instruction::Expose(ports) => self.expose(place, scope, ports),
            Instruction::User(user) => self.user(place, scope, user),
            Instruction::Volume(paths) => self.volume(place, scope, paths),
            Instruction::Stopsignal(signal) => self.stopsignal(place, scope, signal),
            Instruction::Cmd(command) => self.cmd(place, scope, command),
            Instruction::Entrypoint(command) => self.entrypoint(place, scope, command),
            Instruction::Healthcheck(check) => self.healthcheck(place, scope, check),
            Instruction::Shell(words) => self.set_shell(place, scope, words),
            Instruction::Maintainer(name) => self.maintainer(place, scope, name),
            Instruction::Onbuild(onbuild) => {
                scope.state.config.config.on_build.push(onbuild.expression.clone());
                Ok(())
            }
            // The first begins stages, the second is an error of the parser's.
            Instruction::From(_) | Instruction::Unknown(_) => Ok(()),
        }
    }

    /// Expands an argument of an instruction.
    pub(super) fn expand(
        &mut self,
        place: &Place<'_, 'a>,
        state: &State,
        text: &Mapped,
    ) -> Fallible<String> {
        Ok(self.expand_with(self.shell, place, state, text)?.value)
    }

    /// Expands several.
    pub(super) fn expand_all(
        &mut self,
        place: &Place<'_, 'a>,
        state: &State,
        texts: &[Mapped],
    ) -> Fallible<Vec<String>> {
        texts.iter().map(|text| self.expand(place, state, text)).collect()
    }

    /// Expands an argument that may become several words or none. Nothing is said of variables that are not set.
    pub(super) fn expand_words<'t>(
        &mut self,
        place: &Place<'_, 'a>,
        state: &State,
        text: &'t Mapped,
    ) -> Fallible<Expansion<'t>> {
        self.expand_quietly(self.shell.for_words(), place, state, text)
    }

    pub(super) fn expand_with<'t>(
        &mut self,
        shell: Shell,
        place: &Place<'_, 'a>,
        state: &State,
        text: &'t Mapped,
    ) -> Fallible<Expansion<'t>> {
        let expansion = self.expand_quietly(shell, place, state, text)?;
        for variable in expansion.unset() {
            let is_known = state.arguments.contains(variable.name)
                || args::NOT_IN_STEPS.contains(&variable.name);
            if is_known || self.diagnostics.len() > MAX_WARNINGS {
                continue;
            }
            let mut message = format!("Usage of undefined variable '${}'", variable.name);
            if self.diagnostics.len() <= MAX_SUGGESTIONS
                && let Some(near) = nearest(variable.name, state.environment.names())
            {
                message.extend([" (did you mean $", near, "?)"]);
            }
            let span = place.step.span_of(text, variable.range.clone());
            self.diagnostics.push(warning(Rule::UndefinedVar, span, message));
        }
        Ok(expansion)
    }

    fn expand_quietly<'t>(
        &mut self,
        shell: Shell,
        place: &Place<'_, 'a>,
        state: &State,
        text: &'t Mapped,
    ) -> Fallible<Expansion<'t>> {
        let expansion = shell.expand(text.text(), &state.environment).map_err(|error| {
            // What a variable holds is not known while guessing.
            self.saw_unset |= error.is_about_values();
            let span = place.step.span_of(text, error.range.clone());
            Box::new(Diagnostic::error("expansion", span, error.to_string()))
        })?;
        self.spend(expansion.value.len(), place)?;
        self.saw_unset |= expansion.unset().next().is_some();
        Ok(expansion)
    }

    pub(super) fn warn(&mut self, rule: Rule, span: Span, message: String) {
        if self.diagnostics.len() <= MAX_WARNINGS {
            self.diagnostics.push(warning(rule, span, message));
        }
    }

    /// Adds a warning about the current instruction. Of a trigger the text is elsewhere, so that nothing can be mended.
    pub(super) fn warn_of(&mut self, place: &Place<'_, 'a>, mut warning: Diagnostic) {
        if self.diagnostics.len() > MAX_WARNINGS {
            return;
        }
        if let Some(from) = place.step.trigger_of {
            warning.span = from;
            warning.labels.clear();
            warning.fixes.clear();
        }
        self.diagnostics.push(warning);
    }

    /// Warns if an instruction of which only the last counts was there before.
    pub(super) fn only_once(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        name: &'static str,
    ) {
        let span = place.step.place(place.step.statement.original.span());
        if let Some(earlier) = scope.last.insert(name, span)
            && self.diagnostics.len() <= MAX_WARNINGS
        {
            self.diagnostics.push(instruction::only_once(name, earlier, span));
        }
    }

    /// Counts text that the build holds.
    pub(super) fn spend(&mut self, length: usize, place: &Place<'_, 'a>) -> Fallible<()> {
        self.text += length;
        match self.text > MAX_TEXT {
            true => {
                Err(Box::new(too_large(place.step.place(place.step.statement.original.span()))))
            }
            false => Ok(()),
        }
    }

    /// Adds an entry to a history.
    pub(super) fn commit(
        &mut self,
        place: &Place<'_, 'a>,
        state: &mut State,
        created_by: String,
        has_layer: bool,
    ) -> Fallible<()> {
        self.spend(created_by.len(), place)?;
        state.layers += usize::from(has_layer);
        // Said once, though all that follows are too many as well.
        if has_layer && state.layers.checked_sub(1) == Some(self.options.max_layers) {
            let message = format!(
                "too many layers: at most {} can lie on each other",
                self.options.max_layers
            );
            let error =
                place.error("too-many-layers", place.step.statement.original.span(), message);
            return Err(Box::new(
                error.with_help("do more in one RUN, or copy several things with one COPY"),
            ));
        }
        let created = self.epoch.as_ref().map(|(_, text)| text.as_str());
        state.config.history.push(history::entry(created_by, has_layer, created));
        Ok(())
    }

    /// The epoch in nanoseconds.
    pub(super) fn timestamp(&self) -> Option<i64> {
        self.epoch.as_ref().and_then(|(seconds, _)| seconds.checked_mul(1_000_000_000))
    }

    /// What a vertex of an instruction is called and where it comes from.
    pub(super) fn meta(&self, place: &Place<'_, 'a>, name: String) -> VertexMeta {
        VertexMeta { name, ignore_cache: place.ignore_cache, location: Some(self.location(place)) }
    }

    fn location(&self, place: &Place<'_, 'a>) -> SourceLocation {
        let statement = match place.step.trigger_of {
            // A trigger's own lines are in another text.
            Some(_) => place.stage.statement,
            None => &*place.step.statement,
        };
        let (first_line, last_line) = (statement.line, statement.end_line);
        SourceLocation { file: self.options.file_name.clone(), first_line, last_line }
    }

    /// Whether a build argument is a true boolean.
    fn flag(&self, name: &str) -> bool {
        let value = self.options.build_args.get(name).map(String::as_str);
        matches!(value, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    }
}
