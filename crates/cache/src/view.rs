//! Snapshots as directory trees: to read, and to write the next layer.
//!
//! A [`View`] shows a snapshot. An [`ActiveLayer`] is a snapshot that is being changed: what is written through
//! its root collects in a new layer directory, which [`ActiveLayer::commit`] puts into the store. Both are
//! descriptors of mounts that are in no mount table; dropping them, or dying, unmounts.
//!
//! Where overlays are refused ([`Overlay::copying`]) both are directories below the store's `tmp/`, deleted when dropped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rbuild_solver::{LayerId, Snapshot};
use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use thiserror::Error;

use crate::copied::{self, CopyError, Marks, Merged};
use crate::layer::{OverlayXattrs, xattrs};
use crate::overlay::{Overlay, OverlayError, Upper};
use crate::tree::is_kept_xattr;
use crate::{Layers, LayersError, PendingLayer};

/// A snapshot's files, as the next step would see them. Read only; gone when dropped.
#[derive(Debug)]
pub struct View {
    root: OwnedFd,
    /// What the root is of, where it is no mount.
    _files: Option<PendingLayer>,
}

impl View {
    /// Merges the layers of a snapshot.
    pub fn open(
        overlay: &Overlay,
        layers: &Layers,
        snapshot: &Snapshot,
    ) -> Result<Self, ViewError> {
        let directories = open_all(layers, snapshot)?;
        let directories: Vec<_> = directories.iter().map(AsFd::as_fd).collect();
        Self::of_directories(overlay, &directories)
    }

    /// Merges layer directories, bottom first. No layers: an empty directory, without a mount.
    pub fn of_directories(overlay: &Overlay, layers: &[BorrowedFd<'_>]) -> Result<Self, ViewError> {
        if overlay.copies() && !layers.is_empty() {
            let files = overlay.layers().begin()?;
            let merged = Merged::root(layers, overlay.xattrs()).map_err(ViewError::Root)?;
            copied::make_readable(&merged, overlay.xattrs(), files.dir())?;
            return Ok(Self { root: attachable(files.dir())?, _files: Some(files) });
        }
        let root = if layers.is_empty() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(overlay.empty()?, ".", flags, Mode::empty())
                .map_err(|error| OverlayError::Open { source: error.into() })?
        } else {
            overlay.mount(layers, None)?
        };
        Ok(Self { root, _files: None })
    }

    /// The root directory, to be used with `openat2` and `RESOLVE_IN_ROOT`.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl AsFd for View {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root()
    }
}

/// A layer that is being written on top of a snapshot. Dropping it discards what was written.
#[derive(Debug)]
pub struct ActiveLayer {
    /// Before the directory, so that it is unmounted first. `None` on top of no layers: nothing needs merging.
    merged: Option<OwnedFd>,
    /// What `merged` is of, where it is no overlay.
    copy: Option<Box<Copy>>,
    pending: PendingLayer,
}

/// A copy of all the files of a snapshot.
#[derive(Debug)]
struct Copy {
    files: PendingLayer,
    marks: Marks,
    below: Merged,
    xattrs: OverlayXattrs,
}

impl ActiveLayer {
    /// Starts a layer on top of `base`.
    pub fn begin(overlay: &Overlay, layers: &Layers, base: &Snapshot) -> Result<Self, ViewError> {
        let below = open_all(layers, base)?;
        Self::begin_on(overlay, layers, &below)
    }

    /// Starts a layer on top of directories, bottom first, which stay as they are meanwhile.
    pub fn begin_on(
        overlay: &Overlay,
        layers: &Layers,
        below: &[OwnedFd],
    ) -> Result<Self, ViewError> {
        let mut pending = layers.begin()?;
        let Some(top) = below.last() else { return Ok(Self { merged: None, copy: None, pending }) };
        if overlay.copies() {
            let below: Vec<_> = below.iter().map(AsFd::as_fd).collect();
            let (files, xattrs) = (layers.begin()?, overlay.xattrs());
            let below = Merged::root(&below, xattrs).map_err(ViewError::Root)?;
            let marks = copied::make_writable(&below, xattrs, files.dir())?;
            let merged = Some(attachable(files.dir())?);
            return Ok(Self {
                merged,
                copy: Some(Box::new(Copy { files, marks, below, xattrs })),
                pending,
            });
        }
        // The merged root is the root of the topmost directory, so the new one has to look like the last.
        copy_root(top.as_fd(), pending.dir()).map_err(ViewError::Root)?;
        let work = pending.work_dir()?.try_clone_to_owned().map_err(ViewError::Root)?;
        let below: Vec<_> = below.iter().map(AsFd::as_fd).collect();
        let upper = Upper { dir: pending.dir(), work: work.as_fd() };
        let merged = overlay.mount(&below, Some(upper))?;
        Ok(Self { merged: Some(merged), copy: None, pending })
    }

    /// The root directory of the snapshot with the changes so far: to be read, written through, or made the
    /// root of a step.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.merged.as_ref().map_or_else(|| self.pending.dir(), AsFd::as_fd)
    }

    /// Puts the changes into the store as a layer.
    ///
    /// Nobody may use the root any more: a step's processes and mounts are gone. If the layer is there already,
    /// it stays and this one is discarded.
    pub fn commit(self, id: &LayerId) -> Result<(), LayersError> {
        drop(self.merged);
        if let Some(copy) = &self.copy {
            let Copy { files, marks, below, xattrs } = &**copy;
            copied::collect(files.dir(), below, marks, self.pending.dir(), *xattrs)?;
        }
        self.pending.commit(id)
    }
}

/// A directory as a mount that a step can have, if this process may make one; else the directory.
fn attachable(dir: BorrowedFd<'_>) -> Result<OwnedFd, ViewError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    match rustix::mount::open_tree(dir, c"", flags) {
        Err(Errno::PERM | Errno::NOSYS) => dir.try_clone_to_owned().map_err(ViewError::Root),
        mount => mount.map_err(|errno| ViewError::Root(errno.into())),
    }
}

fn open_all(layers: &Layers, snapshot: &Snapshot) -> Result<Vec<OwnedFd>, LayersError> {
    snapshot.layers().iter().map(|id| layers.open(id)).collect()
}

/// Gives the new layer's root the owner, mode, attributes and time of the root below.
pub(crate) fn copy_root(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from = rustix::fs::openat(from, ".", flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for xattr in xattrs(&from)?.iter().filter(|xattr| is_kept_xattr(&xattr.name)) {
        rustix::fs::fsetxattr(to, &*xattr.name, &xattr.value, XattrFlags::empty())?;
    }
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    Ok(rustix::fs::futimens(to, &Timestamps { last_access: time, last_modification: time })?)
}

/// A snapshot that could not be shown.
#[derive(Debug, Error)]
pub enum ViewError {
    /// One of its layers could not be had, or a new one not be made.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// They could not be merged.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// They could not be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The new layer's root could not be prepared.
    #[error("cannot prepare the root directory of a new layer")]
    Root(#[source] io::Error),
}
