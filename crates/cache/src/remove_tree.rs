//! Deletes directory trees that hostile archives may have made.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, renameat, unlinkat};
use rustix::io::Errno;

/// How many directories are open at once. `std::fs::remove_dir_all` keeps one open per level, so a tree a few
/// thousand levels deep (an archive of some kilobytes) could never be deleted with it.
const MAX_DEPTH: u32 = 64;

/// Deletes `name` inside `parent`, whatever it is. That it does not exist is no error.
///
/// Never follows a symbolic link and never leaves `parent`.
pub(crate) fn remove_tree(
    parent: BorrowedFd<'_>,
    name: impl rustix::path::Arg + Copy,
) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return gone(unlinkat(parent, name, AtFlags::empty())),
        Err(Errno::ACCESS) => open_forbidden(parent, name, flags)?,
        Err(error) => return Err(error),
    };
    let mut removal = Removal { top: top.as_fd(), hoisted: 0 };
    // What is too deep is moved up to the top and met there by the next round.
    loop {
        let before = removal.hoisted;
        removal.empty(top.as_fd(), 0)?;
        if removal.hoisted == before {
            break;
        }
    }
    gone(unlinkat(parent, name, AtFlags::REMOVEDIR))
}

/// Opens a directory that its mode closes to its own owner (who is not root).
fn open_forbidden(
    parent: BorrowedFd<'_>,
    name: impl rustix::path::Arg + Copy,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn gone(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    hoisted: u64,
}

impl Removal<'_> {
    fn empty(&mut self, dir: BorrowedFd<'_>, depth: u32) -> rustix::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if !matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
                gone(unlinkat(dir, name, AtFlags::empty()))?;
                continue;
            }
            let child = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
                Ok(child) => child,
                Err(Errno::NOENT) => continue,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    gone(unlinkat(dir, name, AtFlags::empty()))?;
                    continue;
                }
                Err(Errno::ACCESS) => open_forbidden(dir, name, flags)?,
                Err(error) => return Err(error),
            };
            if depth == MAX_DEPTH {
                self.hoist(dir, name)?;
                continue;
            }
            self.empty(child.as_fd(), depth + 1)?;
            gone(unlinkat(dir, name, AtFlags::REMOVEDIR))?;
        }
        Ok(())
    }

    fn hoist(&mut self, dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> rustix::io::Result<()> {
        loop {
            self.hoisted += 1;
            let to = format!(".rbuild-hoisted-{}", self.hoisted);
            match renameat(dir, name, self.top, &to) {
                // A name of the tree itself; the next number is tried.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {}
                other => return other,
            }
        }
    }
}

/// Deletes what is at an absolute path.
pub(crate) fn remove_path(path: &std::path::Path) -> Result<(), crate::DiskError> {
    let failed = |error| crate::DiskError::new("delete", path, error);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
    else {
        return Err(failed(Errno::INVAL));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, parent, flags, Mode::empty()) {
        Ok(parent) => remove_tree(parent.as_fd(), name).map_err(failed),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "test")]
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
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&at, ".rbuild-hoisted-1", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
                .unwrap();
        }
        remove_path(&dir.path().join("d")).unwrap();
        assert!(!dir.path().join("d").exists());
    }
}
