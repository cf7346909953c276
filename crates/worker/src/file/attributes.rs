//! Owners, modes, times and extended attributes of what is made.

use std::os::fd::{AsFd, BorrowedFd};

use rbuild_cache::{Meta, Xattr};
use rustix::fs::{AtFlags, Mode, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use super::chmod::ModeChange;
use super::chown::Ownership;
use super::error::FileError;
use crate::owner::{gid, uid};

/// What a copy changes of what it copies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changes<'a> {
    /// `None` keeps the source's.
    pub(super) owner: Option<Ownership>,
    pub(super) mode: &'a ModeChange,
    /// Modification time in nanoseconds since the epoch; `None` keeps the source's.
    pub(super) mtime: Option<i64>,
}

impl Changes<'_> {
    pub(super) fn owner(&self, meta: &Meta) -> Ownership {
        self.owner.unwrap_or(Ownership { uid: meta.uid, gid: meta.gid })
    }

    pub(super) fn mode(&self, meta: &Meta) -> u32 {
        self.mode.apply(meta.permissions(), meta.is_dir())
    }

    pub(super) fn mtime(&self, meta: &Meta) -> i64 {
        self.mtime.unwrap_or(meta.mtime)
    }

    /// Gives an open file or directory what it is to have. `inherits` says that what was made may have got a group
    /// from the directory it is in.
    pub(super) fn apply(
        &self,
        file: BorrowedFd<'_>,
        meta: &Meta,
        xattrs: &[Xattr],
        inherits: bool,
        path: &[u8],
    ) -> Result<(), FileError> {
        let owner = self.owner(meta);
        if inherits || owner != Ownership::default() {
            rustix::fs::fchown(file, uid(owner.uid), gid(owner.gid))
                .map_err(|errno| FileError::owner(path, errno))?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(self.mode(meta)))
            .map_err(|errno| FileError::io("change the mode of", path, errno))?;
        // After the owner, whose change would drop file capabilities.
        set_xattrs(file, xattrs, path)?;
        set_times(file, self.mtime(meta), path)
    }

    /// The same for what cannot be opened: links, which have no mode, and special files.
    pub(super) fn apply_at(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        meta: &Meta,
        is_link: bool,
        path: &[u8],
    ) -> Result<(), FileError> {
        let owner = self.owner(meta);
        rustix::fs::chownat(dir, name, uid(owner.uid), gid(owner.gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| FileError::owner(path, errno))?;
        if !is_link {
            let mode = Mode::from_raw_mode(self.mode(meta));
            rustix::fs::chmodat(dir, name, mode, AtFlags::empty())
                .map_err(|errno| FileError::io("change the mode of", path, errno))?;
        }
        set_times_at(dir, name, self.mtime(meta), path)
    }
}

/// Sets attributes. One that the file system does not take, or that this process may not set, is left out, as
/// BuildKit does.
pub(super) fn set_xattrs(
    file: BorrowedFd<'_>,
    xattrs: &[Xattr],
    path: &[u8],
) -> Result<(), FileError> {
    for xattr in xattrs {
        let flags = XattrFlags::empty();
        let set = rustix::fs::fsetxattr(file, xattr.name.as_slice(), &xattr.value, flags);
        if let Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) = set {
            return Err(FileError::io("set an attribute of", path, errno));
        }
    }
    Ok(())
}

/// Sets the modification time of an open file.
pub(super) fn set_times(file: BorrowedFd<'_>, mtime: i64, path: &[u8]) -> Result<(), FileError> {
    rustix::fs::futimens(file.as_fd(), &times(mtime))
        .map_err(|errno| FileError::io("set the time of", path, errno))
}

/// Sets the modification time of a name. A link is not followed.
pub(super) fn set_times_at(
    dir: BorrowedFd<'_>,
    name: &[u8],
    mtime: i64,
    path: &[u8],
) -> Result<(), FileError> {
    rustix::fs::utimensat(dir, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| FileError::io("set the time of", path, errno))
}

fn times(mtime: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: mtime.div_euclid(1_000_000_000),
            tv_nsec: mtime.rem_euclid(1_000_000_000),
        },
    }
}
