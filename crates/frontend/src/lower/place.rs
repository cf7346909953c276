//! Where the lowering is: an instruction, and the stage so far.

use std::collections::BTreeMap;

use super::state::State;
use super::step_name::StepNames;
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use crate::stage::{Plan, Stage, Step};

/// What an instruction's lowering gives.
pub(super) type Fallible<T> = Result<T, Box<Diagnostic>>;

/// An instruction and the stage that it is in.
#[derive(Debug)]
pub(super) struct Place<'s, 'p> {
    pub(super) step: &'s Step<'p>,
    pub(super) stage: &'s Stage<'p>,
    /// What messages call the stage.
    pub(super) label: &'s str,
    pub(super) plan: &'s Plan<'p>,
    pub(super) ignore_cache: bool,
}

impl Place<'_, '_> {
    /// An error at a part of the instruction.
    pub(super) fn error(
        &self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
    ) -> Box<Diagnostic> {
        Box::new(Diagnostic::error(code, self.step.place(span), message.into()))
    }

    /// An error at a part of the instruction that is understood but cannot be built yet.
    pub(super) fn unsupported(
        &self,
        span: Span,
        what: &str,
        help: &'static str,
    ) -> Box<Diagnostic> {
        Box::new(
            self.error("unsupported", span, format!("{what} is not supported yet")).with_help(help),
        )
    }
}

/// What changes while a stage is lowered.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) state: State,
    pub(super) names: StepNames,
    /// Where this stage had its last CMD, ENTRYPOINT and HEALTHCHECK.
    pub(super) last: BTreeMap<&'static str, Span>,
}
