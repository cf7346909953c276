//! What is looked into for packages beside the result: stages, by `BUILDKIT_SBOM_SCAN_STAGE`, and the context, by
//! `BUILDKIT_SBOM_SCAN_CONTEXT`.
//!
//! Both are arguments of the file, before the first FROM for all stages or in one of them, and `--build-arg` gives values only to
//! those that are there. A value is a boolean, or the names of stages.

use super::copy::CONTEXT;
use super::lowering::Lowering;
use super::state::State;
use crate::stage::Plan;

impl<'a> Lowering<'a> {
    /// Notes what the stage asks for, now that it is done.
    pub(super) fn note_scans(&mut self, plan: &Plan<'a>, index: usize, state: &State) {
        if !self.options.scans {
            return;
        }
        let stage = &plan.stages[index];
        let label = stage.label().into_owned();
        let is_asked = |argument: &str| {
            let own = state.arguments.get(argument);
            is_on(own.or_else(|| plan.globals.get(argument)).unwrap_or_default(), &label)
        };
        let (of_stage, of_context) =
            (is_asked("BUILDKIT_SBOM_SCAN_STAGE"), is_asked("BUILDKIT_SBOM_SCAN_CONTEXT"));
        // The target is looked into anyway.
        if of_stage && Some(index) != plan.target {
            self.scans.extend(state.root.map(|root| (label, root)));
        }
        if of_context && self.scans.iter().all(|(name, _)| name != CONTEXT) {
            let context = self.main_context();
            self.draft.follow(CONTEXT, "/");
            self.scans.push((CONTEXT.to_owned(), context));
        }
    }
}

/// Whether a value is `true` in one of Go's spellings, or has the stage among its names.
fn is_on(value: &str, stage: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
        || value.split(',').any(|name| !name.is_empty() && name.trim().eq_ignore_ascii_case(stage))
}
