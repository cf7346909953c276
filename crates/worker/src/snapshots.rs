//! Snapshots as directories: to look into, and to change.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_cache::{
    ActiveLayer, Below, Layers, LayersError, Overlay, PendingLayer, Tree, TreeError, View,
    ViewError,
};
use rbuild_solver::{LayerId, Snapshot};

/// How many trees are kept for the next one who wants to look into the same snapshot: several copies from one stage
/// usually come one after the other.
const TREES_KEPT: usize = 8;

/// A snapshot could not be opened, or what was made of it not stored.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The mount.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A layer.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// The root directory.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A descriptor.
    #[error("cannot open the root directory of a snapshot")]
    Root {
        /// Why.
        source: std::io::Error,
    },
}

/// Opens snapshots whose layers are all in the store.
#[derive(Debug)]
pub(crate) struct Snapshots {
    layers: Layers,
    overlay: Arc<Overlay>,
    /// The latest last.
    trees: Mutex<VecDeque<(Snapshot, Arc<Tree>)>>,
}

impl Snapshots {
    pub(crate) fn new(layers: Layers, overlay: Arc<Overlay>) -> Self {
        Self { layers, overlay, trees: Mutex::default() }
    }

    /// Whether views and layers are copies, because nothing is mounted.
    pub(crate) fn are_copies(&self) -> bool {
        self.overlay.copies()
    }

    /// A mount of its own with the files of a snapshot, read only.
    pub(crate) fn view(&self, snapshot: &Snapshot) -> Result<View, SnapshotError> {
        Ok(View::open(&self.overlay, &self.layers, snapshot)?)
    }

    /// The files of a snapshot, to select from.
    pub(crate) fn tree(&self, snapshot: &Snapshot) -> Result<Arc<Tree>, SnapshotError> {
        let trees = || self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, tree)) = trees().iter().find(|(of, _)| of == snapshot) {
            return Ok(Arc::clone(tree));
        }
        let tree = Arc::new(Tree::of_view(self.view(snapshot)?)?);
        let mut trees = trees();
        if trees.len() == TREES_KEPT {
            trees.pop_front();
        }
        trees.push_back((snapshot.clone(), Arc::clone(&tree)));
        Ok(tree)
    }

    /// The files of a snapshot, to look up what is at a few paths.
    pub(crate) fn below(&self, snapshot: &Snapshot) -> Result<Below, SnapshotError> {
        Ok(Below::open(&self.overlay, &self.layers, snapshot)?)
    }

    /// Begins a layer on top of what is below, to be written as overlayfs would write it.
    pub(crate) fn begin_beside(&self, below: &Below) -> Result<PendingLayer, SnapshotError> {
        Ok(below.begin_layer(&self.layers)?)
    }

    /// Begins a layer on top of a snapshot.
    pub(crate) fn begin(&self, base: &Snapshot) -> Result<ActiveLayer, SnapshotError> {
        Ok(ActiveLayer::begin(&self.overlay, &self.layers, base)?)
    }

    /// A mount with the files of directories that are not in the store, bottom first, read only.
    pub(crate) fn view_of(&self, directories: &[BorrowedFd<'_>]) -> Result<View, SnapshotError> {
        Ok(View::of_directories(&self.overlay, directories)?)
    }

    /// Begins a layer on top of directories that are not in the store, bottom first.
    pub(crate) fn begin_on(
        &self,
        directories: &[BorrowedFd<'_>],
    ) -> Result<ActiveLayer, SnapshotError> {
        let below: Vec<OwnedFd> = directories
            .iter()
            .map(BorrowedFd::try_clone_to_owned)
            .collect::<Result<_, _>>()
            .map_err(|source| SnapshotError::Root { source })?;
        Ok(ActiveLayer::begin_on(&self.overlay, &self.layers, &below)?)
    }

    /// A directory of the build's own, gone when dropped.
    pub(crate) fn scratch(&self) -> Result<PendingLayer, SnapshotError> {
        Ok(self.layers.begin()?)
    }

    /// Ends a layer on top of `base`, which gets the identity `id`. Returns the snapshot with it.
    pub(crate) fn commit(
        &self,
        layer: ActiveLayer,
        base: &Snapshot,
        id: LayerId,
    ) -> Result<Snapshot, SnapshotError> {
        layer.commit(&id)?;
        Ok(base.with(id))
    }
}
