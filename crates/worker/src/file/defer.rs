//! Copies that are not done yet: nobody reads what they make (design D4).

use std::sync::Arc;

use rbuild_cache::DeferredLayer;
use rbuild_solver::{FileActionKind, FileOp, LayerId, Snapshot};

use super::error::FileError;
use super::plan::PlannedOp;
use super::states::Input;
use crate::snapshots::Snapshots;

/// Whether what an operation copies must not be read after it, for an output.
///
/// A folder of the user's may be another one by then, and the outputs of a build may go to where it is read from. A fixed time comes
/// with `SOURCE_DATE_EPOCH`, whose archives are not taken for the layer: it would be archived again by each build.
pub(crate) fn must_be_read_now(op: &FileOp, inputs: &[Input]) -> bool {
    op.actions.iter().any(|action| {
        let source = action.secondary_input.and_then(|source| inputs.get(source as usize));
        let has_time =
            matches!(&action.kind, FileActionKind::Copy(copy) if copy.timestamp.is_some());
        has_time || matches!(source, Some(Input::Context(_)))
    })
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
            self.write(&below, &snapshots, id).map(|_| ()).map_err(FileError::from)
        };
        DeferredLayer::new(copy, make)
    }
}
