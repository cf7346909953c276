//! Copies that are not done yet: nobody reads what they make (design D4).

use std::fmt;
use std::sync::Arc;

use rbuild_cache::{DeferredLayer, PlannedCopy};
use rbuild_solver::{FileActionKind, FileOp, LastLayer, LayerId, Presence, Snapshot};

use super::error::FileError;
use super::plan::PlannedOp;
use super::states::Input;
use crate::snapshots::Snapshots;

/// What is to be made now of the layer of an operation that is a copy.
///
/// What is copied from a folder of the user's must not be read later: it may be another one by then, and the outputs of a build may go to
/// where it is read from. A fixed time comes with `SOURCE_DATE_EPOCH`, whose archives are not taken for the layer: it would be archived
/// again by each build.
pub(crate) fn needed_now(op: &FileOp, inputs: &[Input], need: Presence) -> LastLayer {
    let mut copies = op.actions.iter().filter_map(|action| match &action.kind {
        FileActionKind::Copy(copy) => Some((copy, action.secondary_input)),
        _ => None,
    });
    let is_folder = |source: u32| matches!(inputs.get(source as usize), Some(Input::Context(_)));
    match need {
        Presence::Files => LastLayer::Files,
        Presence::Known => LastLayer::Nothing,
        _ if copies.clone().any(|(copy, _)| copy.timestamp.is_some()) => LastLayer::Files,
        _ if !copies.any(|(_, source)| source.is_some_and(is_folder)) => LastLayer::Nothing,
        Presence::Archive => LastLayer::Archive,
        Presence::Planned => LastLayer::Files,
    }
}

/// Makes the archives of layers that are not made.
pub struct CopyArchiver(Box<ArchiveCopy>);

/// Makes them of the last layer of a state, which a copy will make.
type ArchiveCopy = dyn Fn(&Snapshot, &PlannedCopy) -> Result<(), FileError> + Send + Sync;

impl CopyArchiver {
    /// One that calls `archive` with a state and the copy that makes the last layer of it. The blobs that it makes must be in the index
    /// afterwards.
    pub fn new(
        archive: impl Fn(&Snapshot, &PlannedCopy) -> Result<(), FileError> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(archive))
    }

    pub(crate) fn archive(&self, planned: &PlannedOp, id: LayerId) -> Result<Snapshot, FileError> {
        let state = planned.state(id);
        (self.0)(&state, &planned.copy)?;
        Ok(state)
    }
}

impl fmt::Debug for CopyArchiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyArchiver").finish_non_exhaustive()
    }
}

impl PlannedOp {
    /// The state that it makes when its layer has the identity `id`.
    pub(crate) fn state(&self, id: LayerId) -> Snapshot {
        self.base.with(id)
    }

    /// The last layer of that, not made.
    pub(crate) fn defer(self, snapshots: &Arc<Snapshots>, id: LayerId) -> DeferredLayer {
        let (copy, snapshots) = (Arc::clone(&self.copy), Arc::clone(snapshots));
        let make = move || {
            let below = snapshots.below(&self.base)?;
            self.write(&below, &snapshots, id).map(drop)
        };
        DeferredLayer::new(copy, make)
    }
}
