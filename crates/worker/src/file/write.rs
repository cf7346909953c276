//! The layer of a copy that is known to succeed.
//!
//! It is written as overlayfs would have written it, straight into the layer's directory: without a mount, and without a directory for
//! overlayfs to work in, which would have to be deleted.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rbuild_cache::{Below, PlannedCopy, PlannedDirectory, read_xattrs};
use rbuild_solver::{LayerId, Snapshot};

use super::attributes::{Changes, set_times, set_xattrs};
use super::chmod::ModeChange;
use super::chown::Ownership;
use super::copy_tree::{Copier, Root};
use super::error::FileError;
use super::place::{Look, NewDirectory, Target, join, parent};
use super::plan::{PlannedOp, each_there};
use crate::snapshots::{SnapshotError, Snapshots};

impl PlannedOp {
    /// Does it: makes the layer, which gets the identity `id`. `below` are the files of the state that it goes on top of.
    ///
    /// # Errors
    /// What cannot be read or written, or is not as it was when the copy was planned.
    pub(crate) fn write(
        &self,
        below: &Below,
        snapshots: &Snapshots,
        id: LayerId,
    ) -> Result<Snapshot, FileError> {
        let layer = snapshots.begin_beside(below)?;
        let mode = ModeChange::new(self.action.mode, &self.action.mode_str)?;
        let changes = Changes { owner: self.owner, mode: &mode, mtime: self.action.timestamp };
        write(&self.copy, changes, below, layer.dir())?;
        layer.commit(&id).map_err(SnapshotError::from)?;
        Ok(self.state(id))
    }
}

/// Writes what a copy makes into an empty directory, that of a layer on top of `below`.
pub(super) fn write(
    copy: &PlannedCopy,
    changes: Changes<'_>,
    below: &Below,
    layer: BorrowedFd<'_>,
) -> Result<(), FileError> {
    let target = Target::new(layer);
    let mut path: Vec<u8> = Vec::new();
    for directory in &copy.parents {
        path = join(&path, &directory.name);
        make_parent(directory, &path, below, target)?;
    }
    let selected = &copy.selected;
    let copier = Copier::new(&copy.source, target, changes, false);
    if selected.node.meta().is_dir() {
        copier.copy_tree(selected, &copy.target, Root::Existing)?;
        keep_attributes(copy, below, target)?;
    } else {
        copier.copy_file(&selected.path, &selected.node, &copy.target)?;
    }
    // What was made in them has changed their times, which those that were there keep, but for the last.
    for directory in copy.parents.iter().rev() {
        if directory.is_there || changes.mtime.is_some() {
            set_times(target.open_dir(&path)?.as_fd(), directory.attributes.mtime, &path)?;
        }
        path.truncate(parent(&path).len());
    }
    if copy.parents.first().is_some_and(|first| first.is_there)
        && let Some(root) = Look::stat(below, b"")?
    {
        set_times(layer, rbuild_cache::Meta::from(&root).mtime, b"")?;
    }
    Ok(())
}

/// Makes a directory on the way to what is copied. One that is there below looks as it does there.
fn make_parent(
    directory: &PlannedDirectory,
    path: &[u8],
    below: &Below,
    target: Target<'_>,
) -> Result<(), FileError> {
    let (uid, gid) = directory.attributes.owner;
    let owner = Some(Ownership { uid, gid });
    target.make_dir(path, &NewDirectory { mode: directory.attributes.mode, owner, mtime: None })?;
    if directory.is_there { keep_attributes_of(path, below, target) } else { Ok(()) }
}

/// Gives the directories that are copied onto others the attributes of those that they do not have themselves.
fn keep_attributes(copy: &PlannedCopy, below: &Below, target: Target<'_>) -> Result<(), FileError> {
    if !copy.parents.last().is_none_or(|last| last.is_there) {
        return Ok(());
    }
    let directories = copy.selected.entries.iter().filter(|entry| entry.node.meta().is_dir());
    each_there(directories, &copy.target, below, |_, path, _| {
        keep_attributes_of(path, below, target).map(|()| true)
    })
    .map(drop)
}

/// Gives a directory the extended attributes of the one that it lies on, but for those that it has.
fn keep_attributes_of(path: &[u8], below: &Below, target: Target<'_>) -> Result<(), FileError> {
    let failed = |error: io::Error| FileError::io("read attributes of", path, error);
    let mut kept = below.with_directory(path, read_xattrs).map_err(failed)?.unwrap_or_default();
    if kept.is_empty() {
        return Ok(());
    }
    let made = target.open_dir(path)?;
    let own = read_xattrs(made.as_fd()).map_err(failed)?;
    kept.retain(|kept| own.iter().all(|own| own.name != kept.name));
    set_xattrs(made.as_fd(), &kept, path)
}
