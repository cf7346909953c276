//! Directories with the files of a merged tree.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::error::{CopyError, Place};
use super::merged::{Found, Merged};
use crate::OverlayXattrs;
use crate::copy_data::DataCopier;
use crate::layer::whiteout::LayerXattr;
use crate::layer::{tree, xattrs};
use crate::tree::is_kept_xattr;

/// What tells later which of the files of a copy are still as they were made.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// When the copy was complete: what has an older change time has not been touched.
    pub(super) complete: (i64, i64),
    /// The directories by their paths. One that is another now may hold what was moved there with an older change time.
    pub(super) directories: HashMap<Vec<u8>, u64>,
}

/// Fills an empty directory with the files of a tree, to be changed.
///
/// Each name becomes a file of its own, as overlayfs shows the names of a file in a lower layer: what is written to one of them is
/// not to be read through another.
pub(crate) fn make_writable(
    from: &Merged,
    xattrs: OverlayXattrs,
    to: BorrowedFd<'_>,
) -> Result<Marks, CopyError> {
    let mut replica = Replica::new(xattrs, false);
    replica.directory(from, to)?;
    // Also sets the change time.
    replica.directory_attributes(from, to)?;
    let stat = rustix::fs::fstat(to).map_err(replica.place.cannot("inspect"))?;
    let complete = change_time(&stat);
    replica.marks.directories.insert(Vec::new(), stat.st_ino);
    Ok(Marks { complete, ..replica.marks })
}

/// Fills an empty directory with the files of a tree, to be read only: they are the layers' own files under further names.
pub(crate) fn make_readable(
    from: &Merged,
    xattrs: OverlayXattrs,
    to: BorrowedFd<'_>,
) -> Result<(), CopyError> {
    let mut replica = Replica::new(xattrs, true);
    replica.directory(from, to)?;
    replica.directory_attributes(from, to)
}

/// When the kernel last saw a change of the file.
pub(super) fn change_time(stat: &Stat) -> (i64, i64) {
    (stat.st_ctime, stat.st_ctime_nsec as i64)
}

struct Replica {
    xattrs: OverlayXattrs,
    /// Whether files may be those of the layers.
    by_link: bool,
    data: DataCopier,
    buffer: Vec<u8>,
    place: Place,
    marks: Marks,
}

impl Replica {
    fn new(xattrs: OverlayXattrs, by_link: bool) -> Self {
        Self {
            xattrs,
            by_link,
            data: DataCopier::default(),
            buffer: Vec::new(),
            place: Place::default(),
            marks: Marks::default(),
        }
    }

    fn directory(&mut self, from: &Merged, to: BorrowedFd<'_>) -> Result<(), CopyError> {
        let entries = from.entries().map_err(self.place.cannot("list"))?;
        for (name, found) in &entries {
            let length = self.place.enter(name.to_bytes())?;
            if found.file_type() == FileType::Directory {
                self.subdirectory(from, name, found, to)?;
            } else if !(self.by_link && self.link(from.dir(found), name, to)?) {
                self.copy(from.dir(found), name, &found.stat, to)?;
            }
            self.place.leave(length);
        }
        Ok(())
    }

    fn subdirectory(
        &mut self,
        from: &Merged,
        name: &CStr,
        found: &Found,
        to: BorrowedFd<'_>,
    ) -> Result<(), CopyError> {
        let inner = from.enter(name, found).map_err(self.place.cannot("open"))?;
        rustix::fs::mkdirat(to, name, Mode::RWXU).map_err(self.place.cannot("make"))?;
        let dir = tree::open_directory(to, name).map_err(self.place.cannot("open"))?;
        self.directory(&inner, dir.as_fd())?;
        self.directory_attributes(&inner, dir.as_fd())?;
        if !self.by_link {
            let stat = rustix::fs::fstat(&dir).map_err(self.place.cannot("inspect"))?;
            self.marks.directories.insert(self.place.path().to_vec(), stat.st_ino);
        }
        Ok(())
    }

    fn directory_attributes(&self, from: &Merged, to: BorrowedFd<'_>) -> Result<(), CopyError> {
        let Some(top) = from.top() else { return Ok(()) };
        let cannot = |source: io::Error| self.place.cannot("set the attributes of")(source);
        let stat = rustix::fs::fstat(top).map_err(|errno| cannot(errno.into()))?;
        self.attributes(top, &stat, to).map_err(cannot)
    }

    /// Gives a file a further name; `false` where that cannot be.
    fn link(
        &self,
        from: BorrowedFd<'_>,
        name: &CStr,
        to: BorrowedFd<'_>,
    ) -> Result<bool, CopyError> {
        match rustix::fs::linkat(from, name, to, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::MLINK | Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP) => Ok(false),
            Err(errno) => Err(self.place.cannot("link")(errno)),
        }
    }

    fn copy(
        &mut self,
        from: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        to: BorrowedFd<'_>,
    ) -> Result<(), CopyError> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let made = match kind {
            FileType::RegularFile => {
                let copied = self.regular(from, name, stat, to);
                return copied.map_err(self.place.cannot("copy"));
            }
            FileType::Symlink => rustix::fs::readlinkat(from, name, Vec::new())
                .and_then(|target| rustix::fs::symlinkat(&*target, to, name)),
            _ => rustix::fs::mknodat(to, name, kind, Mode::RUSR, stat.st_rdev),
        };
        made.and_then(|()| {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::chownat(to, name, Some(uid), Some(gid), flags)?;
            if kind != FileType::Symlink {
                rustix::fs::chmodat(to, name, mode(stat), AtFlags::empty())?;
            }
            rustix::fs::utimensat(to, name, &times(stat), flags)
        })
        .map_err(self.place.cannot("copy"))
    }

    fn regular(
        &mut self,
        from: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        to: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let from = tree::open_file(from, name)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let to: OwnedFd = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.data.copy(from.as_fd(), to.as_fd(), size, &mut self.buffer)?;
        self.attributes(from.as_fd(), stat, to.as_fd())
    }

    /// Owner, mode, attributes and times of what is open.
    fn attributes(&self, from: BorrowedFd<'_>, stat: &Stat, to: BorrowedFd<'_>) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(to, Some(uid), Some(gid))?;
        rustix::fs::fchmod(to, mode(stat))?;
        for xattr in xattrs(from)? {
            let name = match self.xattrs.classify(&xattr.name) {
                LayerXattr::Plain if is_kept_xattr(&xattr.name) => xattr.name,
                LayerXattr::Escaped(name) => name,
                _ => continue,
            };
            match rustix::fs::fsetxattr(to, name, &xattr.value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(rustix::fs::futimens(to, &times(stat))?)
    }
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

pub(super) fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}
