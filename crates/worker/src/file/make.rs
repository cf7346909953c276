//! Making single directories, files and links.

use std::io::Write;
use std::os::fd::AsFd;

use rbuild_solver::{MkdirAction, MkfileAction, SymlinkAction};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{set_times, set_times_at};
use super::chown::Ownership;
use super::error::{FileError, shown};
use super::place::{Look, NewDirectory, Target, parent};
use super::remove::remove_all;
use crate::owner::{gid, uid};

/// Makes a directory. One that is there stays as it is.
pub(super) fn mkdir(
    action: &MkdirAction,
    owner: Option<Ownership>,
    target: Target<'_>,
) -> Result<(), FileError> {
    let new = NewDirectory { mode: action.mode & 0o7777, owner, mtime: action.timestamp };
    let place = target.resolve(action.path.as_bytes(), true)?;
    if action.make_parents {
        return target.make_dirs(&place.path, &new).map_err(|error| match error {
            FileError::NotADirectory(path) => FileError::NoDirectory(path),
            error => error,
        });
    }
    match place.found {
        Some(_) if place.is_dir() => Ok(()),
        Some(_) => Err(FileError::NoDirectory(shown(&place.path))),
        None => target.make_dir(&place.path, &new),
    }
}

/// Writes a file, over one that is there.
pub(super) fn mkfile(
    action: &MkfileAction,
    owner: Ownership,
    target: Target<'_>,
) -> Result<(), FileError> {
    let place = target.resolve(action.path.as_bytes(), true)?;
    if place.path.is_empty() || place.is_dir() {
        return Err(FileError::IsADirectory(shown(&place.path)));
    }
    let failed = |errno| FileError::io("write", &place.path, errno);
    let (parent, name) = target.open_parent(&place.path)?;
    remove_all(parent.as_fd(), name).map_err(failed)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    let mut file = std::fs::File::from(file);
    file.write_all(&action.data).map_err(|error| FileError::io("write", &place.path, error))?;
    rustix::fs::fchown(&file, uid(owner.uid), gid(owner.gid))
        .map_err(|errno| FileError::owner(&place.path, errno))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(action.mode & 0o7777))
        .map_err(|errno| FileError::io("change the mode of", &place.path, errno))?;
    match action.timestamp {
        Some(mtime) => set_times(file.as_fd(), mtime, &place.path),
        None => Ok(()),
    }
}

/// Makes a symbolic link where nothing is.
pub(super) fn symlink(
    action: &SymlinkAction,
    owner: Ownership,
    target: Target<'_>,
) -> Result<(), FileError> {
    let place = target.resolve(action.path.as_bytes(), false)?;
    if place.path.is_empty() {
        return Err(FileError::Root("replace"));
    }
    if target.stat(parent(&place.path))?.is_none() {
        return Err(FileError::NotFound(shown(parent(&place.path))));
    }
    let (parent, name) = target.open_parent(&place.path)?;
    rustix::fs::symlinkat(action.target.as_bytes(), &parent, name)
        .map_err(|errno: Errno| FileError::io("make the symbolic link", &place.path, errno))?;
    rustix::fs::chownat(&parent, name, uid(owner.uid), gid(owner.gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| FileError::owner(&place.path, errno))?;
    match action.timestamp {
        Some(mtime) => set_times_at(parent.as_fd(), name, mtime, &place.path),
        None => Ok(()),
    }
}
