//! What a copy goes on top of.

use std::cell::RefCell;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rbuild_solver::Snapshot;
use rustix::fs::{FileType, Stat};

use crate::copied::Merged;
use crate::layer::{Xattr, xattrs};
use crate::view::copy_root;
use crate::{Layers, Overlay, OverlayXattrs, PendingLayer, ViewError};

/// The files of a snapshot, to look up what is at a few paths: nothing is mounted, and nothing copied.
///
/// Paths are relative and have no links, no `.` and no `..` in them; the empty one is the root.
#[derive(Debug)]
pub struct Below {
    root: Merged,
    /// There are no layers, and the root is just an empty directory.
    is_nothing: bool,
    /// The names of the directories that lead to where something was looked up last; the last one is open, and so are others as long as
    /// they are few.
    open: RefCell<Vec<(CString, Option<Merged>)>>,
}

/// How many directories of layers may be open beside those of the root and of the last directory: a path leads through as many for each
/// name as there are layers.
const MOST_OPEN: usize = 64;

impl Below {
    /// The files of these layers, all of which are in the store.
    ///
    /// # Errors
    /// A layer that is not there or cannot be opened.
    pub fn open(
        overlay: &Overlay,
        layers: &Layers,
        snapshot: &Snapshot,
    ) -> Result<Self, ViewError> {
        let directories: Vec<_> =
            snapshot.layers().iter().map(|id| layers.open(id)).collect::<Result<_, _>>()?;
        let directories: Vec<BorrowedFd<'_>> = directories.iter().map(AsFd::as_fd).collect();
        if directories.is_empty() {
            let nothing = Self::of_directories(&[overlay.empty()?], overlay.xattrs())?;
            return Ok(Self { is_nothing: true, ..nothing });
        }
        Self::of_directories(&directories, overlay.xattrs())
    }

    /// The files of directories that are not in the store, bottom first, at least one.
    ///
    /// # Errors
    /// One that cannot be opened.
    pub fn of_directories(
        directories: &[BorrowedFd<'_>],
        xattrs: OverlayXattrs,
    ) -> Result<Self, ViewError> {
        let root = Merged::root(directories, xattrs).map_err(ViewError::Root)?;
        Ok(Self { root, is_nothing: false, open: RefCell::default() })
    }

    /// Begins a layer that will lie on these. Its root looks like theirs, because that of the topmost layer counts.
    ///
    /// # Errors
    /// The store's.
    pub fn begin_layer(&self, layers: &Layers) -> Result<PendingLayer, ViewError> {
        let layer = layers.begin()?;
        if let Some(top) = self.root.top().filter(|_| !self.is_nothing) {
            copy_root(top, layer.dir()).map_err(ViewError::Root)?;
        }
        Ok(layer)
    }

    /// What is at a path, if anything. A link is not followed.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn stat(&self, path: &[u8]) -> io::Result<Option<Stat>> {
        let Some((parent, name)) = split(path)? else {
            let root = self.root.top().map(rustix::fs::fstat).transpose()?;
            return Ok(root);
        };
        self.in_directory(parent, |merged| Ok(merged.lookup(&name)?.map(|found| found.stat)))
    }

    /// Where a link leads.
    ///
    /// # Errors
    /// What is no link, or cannot be read.
    pub fn read_link(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let Some((parent, name)) = split(path)? else { return Err(io::ErrorKind::NotFound.into()) };
        let target = self.in_directory(parent, |merged| {
            let Some(found) = merged.lookup(&name)? else { return Ok(None) };
            Ok(Some(rustix::fs::readlinkat(merged.dir(&found), &name, Vec::new())?.into_bytes()))
        });
        target?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Calls `use_it` with the directory whose owner, mode and attributes those of the one at a path are; `None` where there is none.
    ///
    /// # Errors
    /// What cannot be read, or `use_it` says.
    pub fn with_directory<T>(
        &self,
        path: &[u8],
        use_it: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        self.in_directory(path, |merged| merged.top().map(use_it).transpose())
    }

    /// Whether the directory at a path has an access control list; `false` where there is none.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn has_acl(&self, path: &[u8]) -> io::Result<bool> {
        let is_acl = |xattr: &Xattr| xattr.name.starts_with(b"system.posix_acl_");
        let found = self.with_directory(path, |dir| Ok(xattrs(dir)?.iter().any(is_acl)))?;
        Ok(found == Some(true))
    }

    /// Calls `look` with the directory at a path; `None` where there is none.
    fn in_directory<T>(
        &self,
        path: &[u8],
        look: impl FnOnce(&Merged) -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        let names = || path.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
        let mut open = self.open.borrow_mut();
        let common =
            open.iter().zip(names()).take_while(|((there, _), name)| there.as_bytes() == *name);
        let mut depth = common.count();
        open.truncate(depth);
        if open.last().is_some_and(|(_, merged)| merged.is_none()) {
            // From the root again.
            open.clear();
            depth = 0;
        }
        for name in names().skip(depth) {
            let here = open.last().and_then(|(_, merged)| merged.as_ref()).unwrap_or(&self.root);
            let name = CString::new(name)?;
            let Some(found) = here.lookup(&name)? else { return Ok(None) };
            if found.file_type() != FileType::Directory {
                return Ok(None);
            }
            let below = here.enter(&name, &found)?;
            let parts = open.iter().flat_map(|(_, merged)| merged).map(Merged::parts);
            if parts.sum::<usize>() > MOST_OPEN {
                open.iter_mut().for_each(|(_, merged)| *merged = None);
            }
            open.push((name, Some(below)));
        }
        look(open.last().and_then(|(_, merged)| merged.as_ref()).unwrap_or(&self.root))
    }
}

/// The parent directory of a path and its last name; `None` of the root.
fn split(path: &[u8]) -> io::Result<Option<(&[u8], CString)>> {
    if path.is_empty() {
        return Ok(None);
    }
    let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    };
    Ok(Some((parent, CString::new(name)?)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_topmost_counts_and_whiteouts_hide() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["low/d/sub", "low/gone", "high/d"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        fs::write(dir.path().join("low/d/f"), "low").unwrap();
        fs::write(dir.path().join("low/d/sub/g"), "low").unwrap();
        fs::write(dir.path().join("high/d/f"), "higher").unwrap();
        std::os::unix::fs::symlink("d/sub", dir.path().join("high/link")).unwrap();
        let open = |name: &str| fs::File::open(dir.path().join(name)).unwrap();
        let (low, high) = (open("low"), open("high"));
        let mark = rustix::fs::fsetxattr(
            fs::File::open(dir.path().join("high/d")).unwrap(),
            "user.overlay.opaque",
            b"x",
            rustix::fs::XattrFlags::empty(),
        );
        mark.unwrap();
        let hidden = fs::File::create(dir.path().join("high/d/sub")).unwrap();
        let mark = rustix::fs::fsetxattr(
            &hidden,
            "user.overlay.whiteout",
            b"",
            rustix::fs::XattrFlags::empty(),
        );
        mark.unwrap();
        let root = Merged::root(&[low.as_fd(), high.as_fd()], OverlayXattrs::User).unwrap();
        let below = Below { root, is_nothing: false, open: RefCell::default() };
        let size = |path: &str| below.stat(path.as_bytes()).unwrap().map(|stat| stat.st_size);
        assert_eq!(size("d/f"), Some(6));
        assert_eq!(size("d/sub/g"), None);
        assert_eq!(size("d/sub"), None);
        assert_eq!(size("d/f/x"), None);
        assert!(size("gone").is_some() && size("").is_some() && size("d").is_some());
        assert_eq!(below.read_link(b"link").unwrap(), b"d/sub");
        assert!(below.read_link(b"none").is_err() && below.read_link(b"d").is_err());
        assert_eq!(below.with_directory(b"d", |_| Ok(7)).unwrap(), Some(7));
        assert_eq!(below.with_directory(b"d/f", |_| Ok(7)).unwrap(), None);
    }

    #[test]
    fn deep_paths_in_many_layers_take_few_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<fs::File> = (0..MOST_OPEN + 1)
            .map(|layer| {
                let path = dir.path().join(layer.to_string());
                fs::create_dir_all(path.join("a/b/c/d/e")).unwrap();
                fs::write(path.join(format!("a/b/c/d/e/f{layer}")), "").unwrap();
                fs::File::open(path).unwrap()
            })
            .collect();
        let layers: Vec<_> = layers.iter().map(AsFd::as_fd).collect();
        let below = Below::of_directories(&layers, OverlayXattrs::User).unwrap();
        let open = || {
            let open = below.open.borrow();
            open.iter().flat_map(|(_, merged)| merged).map(Merged::parts).sum::<usize>()
        };
        for (path, is_there) in [
            ("a/b/c/d/e/f0", true),
            ("a/b/c/d/e/f64", true),
            ("a/b/x", false),
            ("a/b/c", true),
            ("a/b/c/d/e/f1", true),
            ("a/b/c/d/f1", false),
            ("a", true),
        ] {
            assert_eq!(below.stat(path.as_bytes()).unwrap().is_some(), is_there, "{path}");
            assert!(open() <= 2 * layers.len(), "{path}: {}", open());
        }
    }
}
