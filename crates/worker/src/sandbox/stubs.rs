//! Mount points that were made for a run, and their removal after it, so that no layer contains them.

use std::os::fd::BorrowedFd;

use rustix::fs::{
    AtFlags, FileType, OFlags, ResolveFlags, Stat, Timespec, Timestamps, fstat, futimens, statat,
    unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// A file or directory that did not exist before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stub {
    /// The directory that it is in, relative to the root and without links; empty for the root.
    directory: Vec<u8>,
    name: Vec<u8>,
    is_directory: bool,
    /// Device and inode: what is mounted over the directory when the stub is made is not there any more when it is removed, and what then
    /// has its name may be another file.
    identity: (u64, u64),
    /// The directory's times before the stub was made.
    accessed: Time,
    modified: Time,
    /// The directory's modification time just afterwards: if it is still this at the end, the step has not touched the directory.
    modified_by_stub: Time,
}

/// Seconds and nanoseconds.
type Time = (i64, i64);

fn accessed(stat: &Stat) -> Time {
    (stat.st_atime, stat.st_atime_nsec as i64)
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn modified(stat: &Stat) -> Time {
    (stat.st_mtime, stat.st_mtime_nsec as i64)
}

impl Stub {
    /// Describes what was made, with the state of its directory before and after.
    pub(super) fn new(
        directory: Vec<u8>,
        name: Vec<u8>,
        made: &Stat,
        before: &Stat,
        after: &Stat,
    ) -> Self {
        Self {
            directory,
            name,
            is_directory: FileType::from_raw_mode(made.st_mode) == FileType::Directory,
            identity: identity(made),
            accessed: accessed(before),
            modified: modified(before),
            modified_by_stub: modified(after),
        }
    }

    /// Removes the stub if it is still empty, and leaves its directory with the times that it would have had without it.
    fn remove(&self, root: BorrowedFd<'_>) -> Result<(), Errno> {
        let path: &[u8] = if self.directory.is_empty() { b"." } else { &self.directory };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let directory = rbuild_cache::open_in_root(root, path, flags, resolve)?;
        let before = fstat(&directory)?;
        let stat = statat(&directory, self.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
        if identity(&stat) != self.identity {
            return Ok(());
        }
        if self.is_directory {
            unlinkat(&directory, self.name.as_slice(), AtFlags::REMOVEDIR)?;
        } else {
            if stat.st_size != 0 {
                return Ok(());
            }
            unlinkat(&directory, self.name.as_slice(), AtFlags::empty())?;
        }
        let (last_access, last_modification) = if modified(&before) == self.modified_by_stub {
            (self.accessed, self.modified)
        } else {
            (accessed(&before), modified(&before))
        };
        let time = |(tv_sec, tv_nsec): Time| Timespec { tv_sec, tv_nsec };
        futimens(
            &directory,
            &Timestamps {
                last_access: time(last_access),
                last_modification: time(last_modification),
            },
        )
    }
}

/// Removes stubs in the reverse order of their making. One that the step has removed, replaced or filled is the step's, and stays.
///
/// Returns the first error that means something else.
pub(super) fn remove_all(root: BorrowedFd<'_>, stubs: &[Stub]) -> Result<(), (String, Errno)> {
    let mut result = Ok(());
    for stub in stubs.iter().rev() {
        match stub.remove(root) {
            Ok(())
            | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::NOTDIR | Errno::EXIST | Errno::LOOP) => {}
            Err(errno) => {
                let directory = String::from_utf8_lossy(&stub.directory);
                let path = format!("/{directory}/{}", String::from_utf8_lossy(&stub.name));
                result = result.and(Err((path, errno)));
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::mount_point::{PlaceKind, open_or_make};
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    fn set_old(path: &Path) -> SystemTime {
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        File::open(path).unwrap().set_modified(old).unwrap();
        old
    }

    fn modification(path: &Path) -> SystemTime {
        fs::metadata(path).unwrap().modified().unwrap()
    }

    fn make(root: &File, paths: &[&str]) -> Vec<Stub> {
        let mut stubs = Vec::new();
        for path in paths {
            open_or_make(root.as_fd(), path, PlaceKind::File, (0, 0), &mut stubs).unwrap();
        }
        stubs
    }

    #[test]
    fn nothing_is_left_and_times_are_as_before() {
        let directory = tempfile::tempdir().unwrap();
        let etc = directory.path().join("etc");
        fs::create_dir(&etc).unwrap();
        let (old_etc, old_root) = (set_old(&etc), set_old(directory.path()));
        let root = File::open(directory.path()).unwrap();
        let stubs = make(&root, &["/etc/hosts", "/etc/resolv.conf", "/run/x/y"]);
        assert_eq!(stubs.len(), 5);
        remove_all(root.as_fd(), &stubs).unwrap();
        let names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["etc"]);
        assert_eq!(fs::read_dir(&etc).unwrap().count(), 0);
        assert_eq!((modification(&etc), modification(directory.path())), (old_etc, old_root));
    }

    #[test]
    fn what_the_step_did_stays() {
        let directory = tempfile::tempdir().unwrap();
        let root = File::open(directory.path()).unwrap();
        let stubs = make(&root, &["/etc/hosts", "/etc/resolv.conf", "/gone/x"]);
        fs::write(directory.path().join("etc/hosts"), "mine").unwrap();
        fs::remove_dir_all(directory.path().join("gone")).unwrap();
        std::os::unix::fs::symlink("/etc", directory.path().join("gone")).unwrap();
        let changed = set_old(&directory.path().join("etc"));
        remove_all(root.as_fd(), &stubs).unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("etc/hosts")).unwrap(), "mine");
        assert!(!directory.path().join("etc/resolv.conf").exists());
        assert_eq!(modification(&directory.path().join("etc")), changed);
    }
}
