//! Where paths of the user's lead in the state that is being changed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::attributes::set_times;
use super::chown::Ownership;
use super::error::{FileError, shown};
use crate::owner::{gid, uid};

/// How many links one path may lead through; the kernel's number.
const MOST_LINKS: usize = 40;

/// The root directory of a state that is being changed.
///
/// Paths given to its methods are relative, have no links, no `.` and no `..` in them; the empty one is the root.
/// [`Target::resolve`] makes such paths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    root: BorrowedFd<'a>,
}

/// A path without links, and what is there.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: Vec<u8>,
    /// `None`: nothing is there.
    pub(super) found: Option<Stat>,
}

/// How directories are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewDirectory {
    pub(super) mode: u32,
    /// `None`: root, and the group of a parent that hands on its own.
    pub(super) owner: Option<Ownership>,
    /// Modification time in nanoseconds since the epoch; `None` is now.
    pub(super) mtime: Option<i64>,
}

impl Place {
    pub(super) fn is_dir(&self) -> bool {
        self.found.is_some_and(|stat| file_type(&stat) == FileType::Directory)
    }
}

/// The files of a state, to look up where paths lead. Paths are as with [`Target`].
pub(super) trait Look {
    /// What is at a path. A link is not followed.
    fn stat(&self, path: &[u8]) -> Result<Option<Stat>, FileError>;

    /// Where a link leads.
    fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, FileError>;
}

impl Look for Target<'_> {
    fn stat(&self, path: &[u8]) -> Result<Option<Stat>, FileError> {
        if path.is_empty() {
            return self.stat_root().map(Some);
        }
        match self.open_as(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(file) => rustix::fs::fstat(&file)
                .map(Some)
                .map_err(|errno| FileError::io("inspect", path, errno)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(FileError::io("inspect", path, errno)),
        }
    }

    fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, FileError> {
        let failed = |errno| FileError::io("read link", path, errno);
        let link = self.open_as(path, OFlags::PATH | OFlags::NOFOLLOW).map_err(failed)?;
        Ok(rustix::fs::readlinkat(&link, c"", Vec::new()).map_err(failed)?.into_bytes())
    }
}

/// Follows a path inside the root: links in it, also dangling ones, and at its end if `follow_last`. From the first name on that is not
/// there, the rest is taken as it is written.
pub(super) fn resolve(
    files: &impl Look,
    path: &[u8],
    follow_last: bool,
) -> Result<Place, FileError> {
    let mut ahead = elements(path);
    let mut links = 0;
    let mut here: Vec<u8> = Vec::new();
    let mut found = files.stat(&here)?;
    while let Some(name) = ahead.pop() {
        if name == b".." {
            here.truncate(parent(&here).len());
            found = files.stat(&here)?;
            continue;
        }
        let next = join(&here, &name);
        found = match found {
            Some(stat) if file_type(&stat) == FileType::Directory => files.stat(&next)?,
            _ => None,
        };
        let is_link = found.is_some_and(|stat| file_type(&stat) == FileType::Symlink);
        if is_link && (follow_last || !ahead.is_empty()) {
            links += 1;
            if links > MOST_LINKS {
                return Err(FileError::TooManyLinks(shown(path)));
            }
            let target = files.read_link(&next)?;
            if target.starts_with(b"/") {
                here.clear();
            }
            ahead.extend(elements(&target));
            found = files.stat(&here)?;
            continue;
        }
        here = next;
    }
    Ok(Place { path: here, found })
}

impl<'a> Target<'a> {
    pub(super) fn new(root: BorrowedFd<'a>) -> Self {
        Self { root }
    }

    /// [`resolve`], in fewer system calls.
    pub(super) fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Place, FileError> {
        match self.without_links(path)? {
            Some(place) => Ok(place),
            None => resolve(self, path, follow_last),
        }
    }

    /// The usual case, with one system call: no links, no `..`.
    fn without_links(&self, path: &[u8]) -> Result<Option<Place>, FileError> {
        let ahead = elements(path);
        if ahead.iter().any(|name| name == b"..") {
            return Ok(None);
        }
        let path = ahead.iter().rev().fold(Vec::new(), |path, name| join(&path, name));
        match self.open_as(&path, OFlags::PATH) {
            Ok(file) => {
                let stat = rustix::fs::fstat(&file)
                    .map_err(|errno| FileError::io("inspect", &path, errno))?;
                Ok(Some(Place { path, found: Some(stat) }))
            }
            Err(_) => Ok(None),
        }
    }

    fn stat_root(&self) -> Result<Stat, FileError> {
        rustix::fs::fstat(self.root).map_err(|errno| FileError::io("inspect", b"", errno))
    }

    /// Opens a path. A link at its end only as a place that is not to be followed.
    pub(super) fn open_as(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rbuild_cache::open_in_root(self.root, path, flags | OFlags::CLOEXEC, resolve)
    }

    /// Opens a directory, to reach what is in it.
    pub(super) fn open_dir(&self, path: &[u8]) -> Result<OwnedFd, FileError> {
        self.open_as(path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|errno| FileError::io("open directory", path, errno))
    }

    /// Opens a path's parent directory; and the path's last name.
    pub(super) fn open_parent<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8]), FileError> {
        Ok((self.open_dir(parent(path))?, base_name(path)))
    }

    /// Makes the directories of a path that are not there.
    pub(super) fn make_dirs(&self, path: &[u8], new: &NewDirectory) -> Result<(), FileError> {
        match self.stat(path)? {
            Some(stat) if file_type(&stat) == FileType::Directory => return Ok(()),
            Some(_) => return Err(FileError::NotADirectory(shown(path))),
            None => {}
        }
        // From the deepest directory that is there, downwards.
        let mut missing = vec![path];
        let mut above = parent(path);
        loop {
            match self.stat(above)? {
                Some(stat) if file_type(&stat) == FileType::Directory => break,
                Some(_) => return Err(FileError::NotADirectory(shown(above))),
                None => {
                    missing.push(above);
                    above = parent(above);
                }
            }
        }
        for path in missing.iter().rev() {
            self.make_dir(path, new)?;
        }
        // Each got another time when the one below was made in it.
        if let Some(mtime) = new.mtime {
            for path in missing.iter().skip(1) {
                set_times(self.open_dir(path)?.as_fd(), mtime, path)?;
            }
        }
        Ok(())
    }

    /// Makes one directory, whose parent is there.
    pub(super) fn make_dir(&self, path: &[u8], new: &NewDirectory) -> Result<(), FileError> {
        let failed = |errno| FileError::io("make directory", path, errno);
        let (parent, name) = self.open_parent(path)?;
        rustix::fs::mkdirat(&parent, name, Mode::RWXU).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(failed)?;
        // The kernel has passed on the bit of the parent, and its group.
        let stat = rustix::fs::fstat(&made).map_err(failed)?;
        let set_gid = stat.st_mode & Mode::SGID.as_raw_mode();
        let group = if set_gid == 0 { 0 } else { stat.st_gid };
        let owner = new.owner.unwrap_or(Ownership { uid: 0, gid: group });
        rustix::fs::fchown(&made, uid(owner.uid), gid(owner.gid))
            .map_err(|errno| FileError::owner(path, errno))?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(new.mode & 0o7777 | set_gid))
            .map_err(|errno| FileError::io("change the mode of", path, errno))?;
        match new.mtime {
            Some(mtime) => set_times(made.as_fd(), mtime, path),
            None => Ok(()),
        }
    }
}

pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// What is at `name`, if anything. A link is not followed.
pub(super) fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The path of `name` in the directory at `path`.
pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(path.len() + 1 + name.len());
    joined.extend_from_slice(path);
    if !path.is_empty() && !name.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}

/// The path of the directory that a path is in.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&byte| byte == b'/').map_or(&[], |slash| &path[..slash])
}

/// The last name of a path.
pub(super) fn base_name(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&byte| byte == b'/').map_or(path, |slash| &path[slash + 1..])
}

/// Whether a path leads into the directory at another.
pub(super) fn is_in(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

/// The elements of a path, last first.
fn elements(path: &[u8]) -> Vec<Vec<u8>> {
    let named = |element: &&[u8]| !matches!(*element, b"" | b".");
    path.split(|&byte| byte == b'/').filter(named).rev().map(<[u8]>::to_vec).collect()
}
