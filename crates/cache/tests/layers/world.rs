//! A store in a temporary directory, and overlays if this process may mount them.

use std::os::fd::AsFd;

use rbuild_cache::{
    ActiveLayer, AppliedLayer, ApplyError, ApplyForm, ApplyOptions, ArchiveLimits, Layers, Overlay,
    OverlayXattrs, Store, TarWriter, View, apply, diff,
};
use rbuild_solver::{LayerId, Snapshot};

pub(super) struct World {
    pub(super) overlay: Overlay,
    pub(super) layers: Layers,
    _dir: tempfile::TempDir,
}

impl World {
    pub(super) fn new(xattrs: OverlayXattrs) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let overlay = Overlay::new(xattrs, &store.layers);
        Self { overlay, layers: store.layers, _dir: dir }
    }

    /// A world with each way of mounting.
    pub(super) fn both(xattrs: OverlayXattrs) -> [Self; 2] {
        let (new, old) = (Self::new(xattrs), Self::new(xattrs));
        [new, Self { overlay: old.overlay.by_path(), ..old }]
    }

    /// A world with each way of making views and layers.
    pub(super) fn all(xattrs: OverlayXattrs) -> Vec<Self> {
        Self::both(xattrs).into_iter().chain([Self::new(xattrs).copying()]).collect()
    }

    /// The same store, with layers made by copying.
    pub(super) fn copying(self) -> Self {
        Self { overlay: self.overlay.copying(), ..self }
    }

    /// The same store, with layers made by mounting.
    pub(super) fn mounting(self) -> Self {
        let overlay = Overlay::new(self.overlay.xattrs(), &self.layers);
        Self { overlay, ..self }
    }

    /// Writes a layer on top of `base` with `write`, which gets a path to its root.
    pub(super) fn layer(&self, base: &Snapshot, name: &str, write: impl FnOnce(&str)) -> Snapshot {
        let active = ActiveLayer::begin(&self.overlay, &self.layers, base).unwrap();
        write(&path_of(&active.root()));
        let id = LayerId::derived(name, &[]);
        active.commit(&id).unwrap();
        base.with(id)
    }

    pub(super) fn view(&self, snapshot: &Snapshot) -> View {
        View::open(&self.overlay, &self.layers, snapshot).unwrap()
    }

    /// The archive of the topmost layer.
    pub(super) fn diff(&self, snapshot: &Snapshot) -> Vec<u8> {
        let (top, below) = snapshot.layers().split_last().unwrap();
        let below = Snapshot::new(below.to_vec());
        let below = (!below.is_empty()).then(|| self.view(&below));
        self.diff_on(top, below.as_ref())
    }

    pub(super) fn diff_on(&self, layer: &LayerId, below: Option<&View>) -> Vec<u8> {
        let layer = self.layers.open(layer).unwrap();
        let mut archive = TarWriter::new(Vec::new(), None);
        diff(layer.as_fd(), below.map(View::root), self.overlay.xattrs(), &mut archive).unwrap();
        archive.finish().unwrap()
    }

    pub(super) fn options(&self, form: ApplyForm) -> ApplyOptions {
        ApplyOptions {
            form,
            ignore_chown_errors: false,
            owner: None,
            limits: ArchiveLimits::default(),
        }
    }

    /// Makes a layer directory from an archive, as the layers of an image are made.
    pub(super) fn apply(
        &self,
        base: &Snapshot,
        name: &str,
        archive: &[u8],
    ) -> Result<(Snapshot, AppliedLayer), ApplyError> {
        let pending = self.layers.begin().unwrap();
        let form = ApplyForm::Layer(self.overlay.xattrs());
        let applied = apply(archive, pending.dir(), &self.options(form))?;
        let id = LayerId::derived(name, &[]);
        pending.commit(&id).unwrap();
        Ok((base.with(id), applied))
    }

    /// Makes a layer from an archive on top of the layers below.
    pub(super) fn apply_merged(
        &self,
        base: &Snapshot,
        name: &str,
        archive: &[u8],
    ) -> Result<(Snapshot, AppliedLayer), ApplyError> {
        let active = ActiveLayer::begin(&self.overlay, &self.layers, base).unwrap();
        let applied = apply(archive, active.root(), &self.options(ApplyForm::Merged))?;
        let id = LayerId::derived(name, &[]);
        active.commit(&id).unwrap();
        Ok((base.with(id), applied))
    }
}

/// A path to an open directory.
pub(super) fn path_of(dir: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir.as_fd()))
}
