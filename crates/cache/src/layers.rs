//! Layer directories.
//!
//! ```text
//! layers/<hex of the layer id>/     the overlay directory itself
//! ```
//!
//! A layer is made under a temporary name and renamed into place, complete, in one step; nothing in it changes
//! afterwards. Who finds the directory has the layer. There is no `fs/` or `work/` inside: a build of five
//! thousand steps makes five thousand layers, and each costs a handful of system calls.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_solver::LayerId;
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, mkdirat, openat, renameat_with, utimensat,
};
use rustix::io::Errno;

use crate::copied::CopyError;
use crate::disk_error::{DiskError, OnPath};
use crate::gate::{Gate, TOUCHED};
use crate::staging::{Staged, Staging};

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The layer directories of a store. Clones are the same layers.
#[derive(Clone, Debug)]
pub struct Layers {
    dir: Arc<OwnedFd>,
    path: Arc<Path>,
    staging: Arc<Staging>,
    gate: Arc<Gate>,
}

/// Why a layer cannot be opened or made.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    /// There is no such layer.
    #[error("layer `{0}` is not in the store")]
    Missing(LayerId),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What was changed in a copy of a snapshot could not be found.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

impl Layers {
    pub(crate) fn new(
        path: PathBuf,
        staging: Arc<Staging>,
        gate: Arc<Gate>,
    ) -> Result<Self, DiskError> {
        let dir =
            openat(CWD, &path, DIRECTORY | OFlags::PATH, Mode::empty()).on_path("open", &path)?;
        Ok(Self { dir: Arc::new(dir), path: path.into(), staging, gate })
    }

    /// Where a layer is, or would be.
    pub fn path(&self, id: &LayerId) -> PathBuf {
        self.path.join(id.to_string())
    }

    /// Whether a layer is there.
    pub fn contains(&self, id: &LayerId) -> Result<bool, LayersError> {
        match rustix::fs::accessat(
            &*self.dir,
            id.to_string(),
            rustix::fs::Access::EXISTS,
            AtFlags::empty(),
        ) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(DiskError::new("inspect", &self.path(id), error).into()),
        }
    }

    /// Opens a layer's directory, as a place (`O_PATH`): for a lower layer of a mount, or to reach files in.
    pub fn open(&self, id: &LayerId) -> Result<OwnedFd, LayersError> {
        match openat(&*self.dir, id.to_string(), DIRECTORY | OFlags::PATH, Mode::empty()) {
            Ok(dir) => Ok(dir),
            Err(Errno::NOENT) => Err(LayersError::Missing(*id)),
            Err(error) => Err(DiskError::new("open", &self.path(id), error).into()),
        }
    }

    /// Starts a layer: an empty directory of mode 0755, whatever the umask is.
    pub fn begin(&self) -> Result<PendingLayer, LayersError> {
        let staged = self.staging.stage()?;
        let dir = make_directory(&staged, OFlags::RDONLY)?;
        rustix::fs::fchmod(&dir, Mode::from_raw_mode(0o755))
            .on_path("change the mode of", staged.path())?;
        Ok(PendingLayer { layers: self.clone(), dir, staged, work: None })
    }

    /// Deletes a layer. Whether there was one.
    ///
    /// It is renamed away first, so that nobody ever sees a layer with a part of its files.
    pub fn remove(&self, id: &LayerId) -> Result<bool, LayersError> {
        match self.detach(id)? {
            Some(detached) => {
                detached.discard()?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Takes a layer out of the store and leaves it, as something pending, to be deleted.
    pub(crate) fn detach(&self, id: &LayerId) -> Result<Option<Staged>, LayersError> {
        let staged = self.staging.stage()?;
        match rustix::fs::renameat(&*self.dir, id.to_string(), staged.parent(), staged.name()) {
            Ok(()) => Ok(Some(staged)),
            Err(Errno::NOENT) => {
                staged.moved();
                Ok(None)
            }
            Err(error) => Err(DiskError::new("rename", &self.path(id), error).into()),
        }
    }

    /// The layers that are there.
    pub fn list(&self) -> Result<Vec<LayerId>, LayersError> {
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&self.path).on_path("list", &self.path)? {
            let name = entry.on_path("list", &self.path)?.file_name();
            ids.extend(name.to_str().and_then(LayerId::parse));
        }
        Ok(ids)
    }
}

/// Makes a directory at a staged place and opens it.
fn make_directory(staged: &Staged, access: OFlags) -> Result<OwnedFd, DiskError> {
    mkdirat(staged.parent(), staged.name(), Mode::RWXU).on_path("make", staged.path())?;
    openat(staged.parent(), staged.name(), DIRECTORY | access, Mode::empty())
        .on_path("open", staged.path())
}

/// A layer that is being made. Dropping it discards it.
///
/// Its directory is used as the upper directory of an overlay mount, or files are put into it directly. Who
/// mounts it unmounts before [`PendingLayer::commit`].
#[derive(Debug)]
pub struct PendingLayer {
    layers: Layers,
    dir: OwnedFd,
    staged: Staged,
    work: Option<Work>,
}

#[derive(Debug)]
struct Work {
    dir: OwnedFd,
    staged: Staged,
}

impl PendingLayer {
    /// The layer's directory, open for reading.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Where the layer's directory is for now.
    pub fn path(&self) -> &Path {
        self.staged.path()
    }

    /// An empty directory on the same file system for overlayfs to work in, as a place (`O_PATH`). Made at the
    /// first call.
    pub fn work_dir(&mut self) -> Result<BorrowedFd<'_>, LayersError> {
        Ok(self.work()?.dir.as_fd())
    }

    /// Where [`PendingLayer::work_dir`] is.
    pub fn work_path(&mut self) -> Result<&Path, LayersError> {
        Ok(self.work()?.staged.path())
    }

    fn work(&mut self) -> Result<&Work, LayersError> {
        let work = match self.work.take() {
            Some(work) => work,
            None => {
                let staged = self.layers.staging.stage()?.removed_later();
                Work { dir: make_directory(&staged, OFlags::PATH)?, staged }
            }
        };
        Ok(self.work.insert(work))
    }

    /// Makes the layer visible under its id.
    ///
    /// If it is there already, some other process has made the same: ours is discarded.
    pub fn commit(self, id: &LayerId) -> Result<(), LayersError> {
        let Self { layers, staged, .. } = self;
        let to = id.to_string();
        let failed = |action, error| DiskError::new(action, &layers.path(id), error);
        let _passing = layers.gate.pass()?;
        // A file system that lacks `RENAME_NOREPLACE` cannot hold an overlay's upper directory either.
        let flags = RenameFlags::NOREPLACE;
        match renameat_with(staged.parent(), staged.name(), &*layers.dir, &to, flags) {
            Ok(()) => {
                staged.moved();
                Ok(())
            }
            Err(Errno::EXIST) => utimensat(&*layers.dir, &to, &TOUCHED, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| failed("touch", error).into()),
            Err(error) => Err(failed("rename a layer to", error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn layers(dir: &Path) -> Layers {
        std::fs::create_dir(dir.join("tmp")).unwrap();
        std::fs::create_dir(dir.join("layers")).unwrap();
        let staging = Arc::new(Staging::new(dir.join("tmp")));
        let gate = Arc::new(Gate::new(dir.join("gate")));
        Layers::new(dir.join("layers"), staging, gate).unwrap()
    }

    fn pending(dir: &Path) -> usize {
        std::fs::read_dir(dir.join("tmp"))
            .unwrap()
            .map(|own| std::fs::read_dir(own.unwrap().path()).unwrap().count())
            .sum()
    }

    fn id(name: &str) -> LayerId {
        LayerId::derived(name, &[])
    }

    #[test]
    fn a_layer_appears_when_it_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let layers = layers(dir.path());
        let mut layer = layers.begin().unwrap();
        std::fs::write(layer.path().join("file"), "x").unwrap();
        assert!(layer.work_path().unwrap().is_dir());
        layer.work_dir().unwrap();
        assert!(!layers.contains(&id("a")).unwrap());
        assert!(matches!(layers.open(&id("a")), Err(LayersError::Missing(_))));
        layer.commit(&id("a")).unwrap();
        assert!(layers.contains(&id("a")).unwrap());
        layers.open(&id("a")).unwrap();
        assert_eq!(std::fs::read(layers.path(&id("a")).join("file")).unwrap(), b"x");
        let mode = std::fs::metadata(layers.path(&id("a"))).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o755);
        assert_eq!(layers.list().unwrap(), [id("a")]);
        // The work directory goes in the background, at the latest with the store.
        drop(layers);
        assert_eq!(pending(dir.path()), 0);
    }

    #[test]
    fn the_first_of_two_equal_layers_stays() {
        let dir = tempfile::tempdir().unwrap();
        let layers = layers(dir.path());
        for content in ["", "first", "second"] {
            let layer = layers.begin().unwrap();
            if !content.is_empty() {
                std::fs::write(layer.path().join(content), "").unwrap();
            }
            layer.commit(&id("a")).unwrap();
        }
        // Even an empty directory is not replaced.
        assert_eq!(std::fs::read_dir(layers.path(&id("a"))).unwrap().count(), 0);
        assert_eq!(pending(dir.path()), 0);
    }

    #[test]
    fn what_is_dropped_or_removed_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let layers = layers(dir.path());
        let mut dropped = layers.begin().unwrap();
        // As overlayfs leaves it.
        std::fs::create_dir_all(dropped.work_path().unwrap().join("work/#1")).unwrap();
        drop(dropped);
        layers.begin().unwrap().commit(&id("a")).unwrap();
        assert!(layers.remove(&id("a")).unwrap());
        assert!(!layers.remove(&id("a")).unwrap());
        assert!(!layers.contains(&id("a")).unwrap());
        drop(layers);
        assert_eq!(pending(dir.path()), 0);
    }
}
