//! Removing files and trees.

use std::os::fd::{AsFd, BorrowedFd};

use rbuild_solver::{PathPattern, RmAction, has_wildcards};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::{FileError, shown};
use super::place::{Target, base_name, join, parent, stat_at};

/// Removes what the action names: a tree as a whole, of a link the link.
pub(super) fn run(action: &RmAction, target: Target<'_>) -> Result<(), FileError> {
    let path = action.path.as_bytes();
    let names = if action.allow_wildcard && has_wildcards(&action.path) {
        expand(&action.path, target)?
    } else {
        vec![path.to_vec()]
    };
    if names.is_empty() && !action.allow_not_found {
        return Err(FileError::NotFound(action.path.clone()));
    }
    for name in names {
        let place = target.resolve(&name, false)?;
        if place.path.is_empty() {
            return Err(FileError::Root("remove"));
        }
        if place.found.is_some() {
            let (parent, name) = target.open_parent(&place.path)?;
            remove_all(parent.as_fd(), name)
                .map_err(|errno| FileError::io("remove", &place.path, errno))?;
        } else if !action.allow_not_found {
            return Err(FileError::NotFound(shown(&place.path)));
        }
    }
    Ok(())
}

/// The paths that a pattern stands for. Links before the first wildcard are followed.
fn expand(pattern: &str, target: Target<'_>) -> Result<Vec<Vec<u8>>, FileError> {
    let mut found: Vec<Vec<u8>> = vec![Vec::new()];
    for element in pattern.split('/').filter(|element| !matches!(*element, "" | ".")) {
        let mut matched = Vec::new();
        for path in found {
            if !has_wildcards(element) {
                matched.push(join(&path, element.as_bytes()));
                continue;
            }
            let element =
                PathPattern::parse(element).map_err(|error| FileError::Source(error.into()))?;
            let place = target.resolve(&path, true)?;
            if !place.is_dir() {
                continue;
            }
            let failed = |errno| FileError::io("read directory", &place.path, errno);
            for entry in Dir::new(target.open_dir(&place.path)?).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name().to_bytes();
                if !matches!(name, b"." | b"..") && element.matches(name) {
                    matched.push(join(&path, name));
                }
            }
        }
        found = matched;
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes the entry of a directory, whatever it is, with all below it. Not being there is fine.
///
/// Holds one directory open at a time and comes back through `..`, so that no depth of directories is too much.
pub(super) fn remove_all(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    // The names of the directories between `dir` and `here`.
    let mut down = vec![name.to_vec()];
    while let Some(leaving) = down.last() {
        match remove_entries(here.as_fd())? {
            Some(subdirectory) => {
                here = rustix::fs::openat(&here, subdirectory.as_slice(), flags, Mode::empty())?;
                down.push(subdirectory);
            }
            None if down.len() == 1 => {
                return rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR);
            }
            None => {
                here = rustix::fs::openat(&here, c"..", flags, Mode::empty())?;
                rustix::fs::unlinkat(&here, leaving.as_slice(), AtFlags::REMOVEDIR)?;
                down.pop();
            }
        }
    }
    Ok(())
}

/// Removes what is in a directory, until it meets a directory that is not empty: that one's name.
fn remove_entries(dir: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Errno> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let is_dir = match entry.file_type() {
            FileType::Unknown => stat_at(dir, name.to_bytes())?
                .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
            file_type => file_type == FileType::Directory,
        };
        let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match rustix::fs::unlinkat(dir, name, flags) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) if is_dir => {
                return Ok(Some(name.to_bytes().to_vec()));
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

/// Removes what is at a path.
pub(super) fn remove_path(target: Target<'_>, path: &[u8]) -> Result<(), FileError> {
    let dir = target.open_dir(parent(path))?;
    remove_all(dir.as_fd(), base_name(path)).map_err(|errno| FileError::io("remove", path, errno))
}
