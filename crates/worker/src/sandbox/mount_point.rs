//! Finding, and where missing making, a place inside the root.
//!
//! The root may be hostile: `/etc` may be a link to `../../..`. A place that exists is opened with `rbuild_cache::open_in_root(RESOLVE_IN_ROOT)`. For one
//! that does not, the path is walked one component at a time with the links' texts resolved here, as the kernel would from this root,
//! so that a dangling link like Debian's `/etc/resolv.conf` gets the file that it points to.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, chownat, fstat, mkdirat, openat,
    readlinkat,
};
use rustix::io::Errno;

use super::stubs::Stub;
use crate::owner;

/// The kernel's own limit.
const MAX_LINKS: usize = 40;

/// What is made when a place is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlaceKind {
    File,
    Directory,
}

/// Opens a place that must exist, without following any link. For places of our own and those that may not be links.
pub(super) fn open_plain(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rbuild_cache::open_in_root(root, path, OFlags::PATH | OFlags::CLOEXEC, resolve)
}

/// Opens a place, following links inside the root, and makes what is missing of it, parents too. Everything made is owned by `owner`
/// and added to `made`.
pub(super) fn open_or_make(
    root: BorrowedFd<'_>,
    path: &str,
    kind: PlaceKind,
    owner: (u32, u32),
    made: &mut Vec<Stub>,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match rbuild_cache::open_in_root(root, path, OFlags::PATH | OFlags::CLOEXEC, resolve) {
        Err(Errno::NOENT) => {
            Walk { root, trail: Vec::new(), owner, made }.make(path.as_bytes(), kind)
        }
        found => found,
    }
}

/// A walk from the root. `trail` is the way from it without links and without `..`.
struct Walk<'a> {
    root: BorrowedFd<'a>,
    trail: Vec<(Vec<u8>, OwnedFd)>,
    owner: (u32, u32),
    made: &'a mut Vec<Stub>,
}

impl Walk<'_> {
    fn make(mut self, path: &[u8], kind: PlaceKind) -> Result<OwnedFd, Errno> {
        let mut pending: VecDeque<Vec<u8>> = components(path).collect();
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == b".." {
                self.trail.pop();
                continue;
            }
            let kind = if pending.is_empty() { kind } else { PlaceKind::Directory };
            let place = match openat(self.here(), name.as_slice(), PLACE, Mode::empty()) {
                Err(Errno::NOENT) => self.make_one(&name, kind)?,
                found => found?,
            };
            match FileType::from_raw_mode(fstat(&place)?.st_mode) {
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = readlinkat(&place, c"", Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        self.trail.clear();
                    }
                    for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
                        pending.push_front(component);
                    }
                }
                FileType::Directory => self.trail.push((name, place)),
                _ if pending.is_empty() => return Ok(place),
                _ => return Err(Errno::NOTDIR),
            }
        }
        match self.trail.pop() {
            Some((_, directory)) => Ok(directory),
            None => openat(self.root, c".", PLACE, Mode::empty()),
        }
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.trail.last().map_or(self.root, |(_, directory)| directory.as_fd())
    }

    fn make_one(&mut self, name: &[u8], kind: PlaceKind) -> Result<OwnedFd, Errno> {
        let parent = self.here();
        let before = fstat(parent)?;
        match kind {
            PlaceKind::Directory => mkdirat(parent, name, Mode::from_raw_mode(0o755))?,
            PlaceKind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                drop(openat(parent, name, flags, Mode::from_raw_mode(0o644))?);
            }
        }
        let (uid, gid) = self.owner;
        if (uid, gid) != (0, 0) {
            let (uid, gid) = (owner::uid(uid), owner::gid(gid));
            chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let after: Stat = fstat(parent)?;
        let place = openat(parent, name, PLACE, Mode::empty())?;
        let directory: Vec<&[u8]> = self.trail.iter().map(|(name, _)| name.as_slice()).collect();
        let made = fstat(&place)?;
        let stub = Stub::new(directory.join(&b'/'), name.to_vec(), &made, &before, &after);
        self.made.push(stub);
        Ok(place)
    }
}

const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    path.split(|byte| *byte == b'/')
        .filter(|component| !component.is_empty() && *component != b".")
        .map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    /// Makes `path` in a root with the given links, and says where it came to be.
    fn check(links: &[(&str, &str)], path: &str, kind: PlaceKind, expected: Result<&str, Errno>) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("outer/root");
        fs::create_dir_all(&root).unwrap();
        for (link, target) in links {
            let link = root.join(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(target, link).unwrap();
        }
        let mut made = Vec::new();
        let place = open_or_make(File::open(&root).unwrap().as_fd(), path, kind, (0, 0), &mut made);
        match expected {
            Ok(expected) => {
                let made = fstat(place.unwrap()).unwrap();
                let there = rustix::fs::lstat(root.join(expected)).unwrap();
                assert_eq!((made.st_ino, made.st_dev), (there.st_ino, there.st_dev), "{path}");
                assert_eq!(
                    FileType::from_raw_mode(made.st_mode) == FileType::Directory,
                    kind == PlaceKind::Directory
                );
            }
            Err(errno) => assert_eq!(place.unwrap_err(), errno, "{path}"),
        }
        let outside = fs::read_dir(directory.path().join("outer")).unwrap().count()
            + fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(outside, 2, "something was made outside of the root");
    }

    #[test]
    fn missing_places_are_made_with_their_parents() {
        check(&[], "/etc/hosts", PlaceKind::File, Ok("etc/hosts"));
        check(&[], "/a/b/c", PlaceKind::Directory, Ok("a/b/c"));
        check(&[], "a//./b/", PlaceKind::Directory, Ok("a/b"));
    }

    #[test]
    fn dangling_links_lead_to_places_in_the_root() {
        check(
            &[("etc/resolv.conf", "../run/systemd/resolve/stub.conf")],
            "/etc/resolv.conf",
            PlaceKind::File,
            Ok("run/systemd/resolve/stub.conf"),
        );
        check(&[("etc/resolv.conf", "/run/x")], "/etc/resolv.conf", PlaceKind::File, Ok("run/x"));
    }

    #[test]
    fn hostile_links_stay_in_the_root() {
        check(&[("etc", "../../../..")], "/etc/hosts", PlaceKind::File, Ok("hosts"));
        check(&[("x", "../../../../new/dir")], "/x/../y", PlaceKind::Directory, Ok("new/y"));
        check(&[("loop", "loop")], "/loop/x", PlaceKind::File, Err(Errno::LOOP));
        check(&[("a", "b"), ("b", "a")], "/a", PlaceKind::Directory, Err(Errno::LOOP));
        check(&[], "/..", PlaceKind::Directory, Ok("."));
    }
}
