//! Finding the first thing that differs from an earlier build.

use rbuild_cache::{BuildId, StepRecord, StepState};
use rbuild_solver::Op;
use serde::Serialize;

use super::changes::{self, Change, FileChange};
use super::history::{History, Of};

/// How many inputs are followed to the first that differs.
const DEEPEST: usize = 256;

/// Why one step ran.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    /// Its number.
    pub(super) number: Option<u32>,
    /// Its name.
    pub(super) name: String,
    /// Why.
    pub(super) cause: Cause,
    /// The build that it was compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) compared_with: Option<BuildId>,
}

/// Why a step ran.
#[derive(Debug, Serialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub(super) enum Cause {
    /// It did not.
    Cached,
    /// It did not, and nobody asked the cache.
    Waiting,
    /// Exports and the like.
    NoStep,
    /// The user said so.
    NoCache,
    /// There is nothing to compare with.
    NeverBuilt,
    /// It was known once.
    Pruned {
        /// By whom.
        build: BuildId,
    },
    /// It is a copy that was known once, or only checked because nobody needed its files.
    NotKept {
        /// By whom.
        build: BuildId,
    },
    /// The same failed.
    FailedBefore {
        /// When.
        build: BuildId,
    },
    /// It does something else.
    Changed {
        /// What, the first that counts first.
        changes: Vec<Change>,
    },
    /// It reads other files of a folder.
    Files {
        /// The folder's name.
        folder: String,
        /// Which.
        files: Vec<FileChange>,
        /// Whether that is recorded.
        known: bool,
    },
    /// It builds on something else.
    Parent {
        /// On which step.
        number: Option<u32>,
        /// The same.
        name: String,
        /// Why that is something else.
        cause: Box<Self>,
    },
    /// Nothing that is recorded.
    Unknown,
}

/// Explains a step of the build.
pub(super) fn explain(history: &History, step: &StepRecord) -> Explanation {
    let (cause, compared_with) = match (step.state, &step.key) {
        (StepState::Cached, _) => (Cause::Cached, None),
        (StepState::Waiting, _) => (Cause::Waiting, None),
        (_, None) => (Cause::NoStep, None),
        _ => match history.this.find(step) {
            None => (Cause::NoStep, None),
            Some(of) => cause(history, of, None, DEEPEST),
        },
    };
    Explanation { number: step.number, name: step.name.clone(), cause, compared_with }
}

/// The first cause, and the build in which it was different. `against` is what stood in the place of an input: one that
/// came from the cache is only another one than that, whatever made it.
fn cause(
    history: &History,
    of: Of<'_>,
    against: Option<Of<'_>>,
    depth: usize,
) -> (Cause, Option<BuildId>) {
    let old = if of.step.state == StepState::Cached {
        against
    } else {
        if of.step.ignored_cache {
            return (Cause::NoCache, None);
        }
        if let Some(old) = history.same_key(of.step) {
            let build = old.build.record.id.clone();
            let cause = match old.step.state {
                StepState::Failed => Cause::FailedBefore { build },
                _ if matches!(of.vertex.op, Op::File(_)) => Cause::NotKept { build },
                _ => Cause::Pruned { build },
            };
            return (cause, None);
        }
        history.counterpart(of)
    };
    let Some(old) = old else { return (Cause::NeverBuilt, None) };
    let compared_with = Some(old.build.record.id.clone());
    let changes = changes::of_operations(old.vertex, of.vertex, (&old.step.name, &of.step.name));
    if !changes.is_empty() {
        return (Cause::Changed { changes }, compared_with);
    }
    for position in 0..of.vertex.inputs.len() {
        match (of.step.folders.get(&position), old.step.folders.get(&position)) {
            (Some(new), Some(old_digest)) if new != old_digest => {
                let list =
                    |project: &str, digest| history.builds.files(project, digest).ok().flatten();
                let before = list(&old.build.project, old_digest);
                let after = list(&history.this.project, new);
                let known = before.is_some() && after.is_some();
                let files = match (before, after) {
                    (Some(before), Some(after)) => changes::of_files(&before, &after),
                    _ => Vec::new(),
                };
                let folder = of.input(position).map_or_else(String::new, folder_name);
                return (Cause::Files { folder, files, known }, compared_with);
            }
            (Some(_), Some(_)) => {}
            _ => {
                let (Some(new), Some(old)) = (of.input(position), old.input(position)) else {
                    continue;
                };
                if new.step.key == old.step.key || depth == 0 {
                    continue;
                }
                let (number, name) = (new.step.number, new.step.name.clone());
                let (inner, inner_with) = self::cause(history, new, Some(old), depth - 1);
                let cause = Box::new(inner);
                return (Cause::Parent { number, name, cause }, inner_with.or(compared_with));
            }
        }
    }
    (Cause::Unknown, compared_with)
}

fn folder_name(of: Of<'_>) -> String {
    match &of.vertex.op {
        Op::Source(source) => source.local_name().unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}
