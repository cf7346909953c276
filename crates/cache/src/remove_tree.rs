//! Deletes directory trees that hostile archives may have made.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::DiskError;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Deletes `name` inside `parent`, whatever it is. That it does not exist is no error.
///
/// Never follows a symbolic link, and nobody else may be changing the tree. Only one directory is open at a
/// time: `std::fs::remove_dir_all` keeps one open per level, so a tree some thousand levels deep, an archive of
/// a few kilobytes, could never be deleted with it.
pub fn remove_tree(parent: BorrowedFd<'_>, name: impl Arg + Copy) -> rustix::io::Result<()> {
    let Some(mut at) = enter(parent, name)? else { return Ok(()) };
    // The names that lead from `name` to `at`, and the directories that are left in each of them and in `name`.
    let mut path: Vec<CString> = Vec::new();
    let mut left = vec![remove_files(at.as_fd())?];
    while let Some(directories) = left.last_mut() {
        if let Some(name) = directories.pop() {
            if let Some(child) = enter(at.as_fd(), &*name)? {
                at = child;
                left.push(remove_files(at.as_fd())?);
                path.push(name);
            }
            continue;
        }
        left.pop();
        if let Some(name) = path.pop() {
            at = openat(&at, c"..", DIRECTORY, Mode::empty())?;
            gone(unlinkat(&at, &name, AtFlags::REMOVEDIR))?;
        }
    }
    gone(unlinkat(parent, name, AtFlags::REMOVEDIR))
}

/// Opens a directory. What is none is deleted instead.
fn enter(parent: BorrowedFd<'_>, name: impl Arg + Copy) -> rustix::io::Result<Option<OwnedFd>> {
    match openat(parent, name, DIRECTORY, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            gone(unlinkat(parent, name, AtFlags::empty())).map(|()| None)
        }
        // Its mode closes it to its own owner, who is not root.
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            openat(parent, name, DIRECTORY, Mode::empty()).map(Some)
        }
        Err(error) => Err(error),
    }
}

/// Deletes what is in a directory, but for the directories, whose names it returns.
fn remove_files(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    let mut directories = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        match entry.file_type() {
            _ if name == c"." || name == c".." => {}
            FileType::Directory | FileType::Unknown => directories.push(name.to_owned()),
            _ => gone(unlinkat(directory, name, AtFlags::empty()))?,
        }
    }
    Ok(directories)
}

fn gone(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Deletes what is at an absolute path.
pub(crate) fn remove_path(path: &Path) -> Result<(), DiskError> {
    let failed = |error| DiskError::new("delete", path, error);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(Errno::INVAL));
    };
    let name = CString::new(name.as_encoded_bytes()).map_err(|_| failed(Errno::INVAL))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(CWD, parent, flags, Mode::empty()) {
        Ok(parent) => remove_tree(parent.as_fd(), &*name).map_err(failed),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn removes_files_links_closed_directories_and_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::write(&outside, "kept").unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("a/closed")).unwrap();
        std::fs::write(tree.join("a/closed/file"), "x").unwrap();
        symlink(dir.path(), tree.join("a/link")).unwrap();
        std::fs::set_permissions(tree.join("a/closed"), std::fs::Permissions::from_mode(0o000))
            .unwrap();
        remove_path(&tree).unwrap();
        assert!(!tree.exists());
        remove_path(&tree).unwrap();
        symlink(&outside, &tree).unwrap();
        remove_path(&tree).unwrap();
        assert_eq!(std::fs::read(&outside).unwrap(), b"kept");
    }

    #[test]
    fn removes_trees_deeper_than_the_limit_of_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let mut at =
            rustix::fs::openat(CWD, dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
                .unwrap();
        // Some limits are 1024.
        for _ in 0..1200 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        remove_path(&dir.path().join("d")).unwrap();
        assert!(!dir.path().join("d").exists());
    }
}
