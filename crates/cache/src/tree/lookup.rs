//! Looking at a tree's entries, each once.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_oci::Digest;
use rbuild_solver::{Decision, PatternMatcher, Selector};
use rustix::fs::{AtFlags, FileType, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use super::error::TreeError;
use super::meta::Meta;
use super::node::{Child, Directory, Listing, Node};
use super::stat_cache::StatCache;
use super::xattr::read_xattrs;
use crate::View;

/// Bytes for the names of a directory; what does not fit takes another call.
const LISTING_BUFFER: usize = 32 << 10;

/// A tree of files below a directory, with what is known of it so far.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    pub(super) top: Arc<Node>,
    origin: Origin,
    pub(super) digests: Mutex<HashMap<Selector, Digest>>,
    /// Keeps the files there.
    _view: Option<View>,
}

#[derive(Debug)]
enum Origin {
    /// Layers: nobody changes them.
    Snapshot,
    /// A folder of the user's, who may be editing in it.
    Context { ignore: PatternMatcher, cache: Option<Arc<StatCache>> },
}

impl Tree {
    /// The files of a snapshot, given the root of its view or its only layer. They do not change.
    pub fn of_snapshot(root: OwnedFd) -> Result<Self, TreeError> {
        Self::new(root, Origin::Snapshot)
    }

    /// A folder that is used as it is. What `ignore` excludes is not there; owners count as 0; digests of files
    /// are taken from `cache` where the file's status says that nothing has changed.
    pub fn of_context(
        root: OwnedFd,
        ignore: PatternMatcher,
        cache: Option<Arc<StatCache>>,
    ) -> Result<Self, TreeError> {
        Self::new(root, Origin::Context { ignore, cache })
    }

    /// The files of a view, which stays as long as this.
    pub fn of_view(view: View) -> Result<Self, TreeError> {
        let root = view.root().try_clone_to_owned();
        let root = root.map_err(|source| TreeError::io("open", b"", source))?;
        Ok(Self { _view: Some(view), ..Self::of_snapshot(root)? })
    }

    fn new(root: OwnedFd, origin: Origin) -> Result<Self, TreeError> {
        let stat =
            rustix::fs::fstat(&root).map_err(|errno| TreeError::io("inspect", b"", errno))?;
        let meta = match origin {
            Origin::Snapshot => Meta::from(&stat),
            Origin::Context { .. } => Meta { uid: 0, gid: 0, ..Meta::from(&stat) },
        };
        let top = Arc::new(Node::new(meta, None, Decision::default()));
        Ok(Self { root, top, origin, digests: Mutex::default(), _view: None })
    }

    /// The root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// What remembers digests beyond this tree's life.
    pub(super) fn stat_cache(&self) -> Option<&StatCache> {
        match &self.origin {
            Origin::Snapshot => None,
            Origin::Context { cache, .. } => cache.as_deref(),
        }
    }

    /// Whether somebody may be changing the files.
    pub(super) fn is_mutable(&self) -> bool {
        matches!(self.origin, Origin::Context { .. })
    }

    /// Opens a file or directory for reading: `path` as an [`Entry`](super::Entry) or
    /// [`Selected`](super::Selected) says it, with its node. In a context it must still be in the state in which
    /// it was first seen.
    pub fn open(&self, path: &[u8], node: &Node) -> Result<OwnedFd, TreeError> {
        // Without O_NONBLOCK, a fifo that has taken the file's place would be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match self.open_as(path, flags) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) if self.is_mutable() => {
                return Err(TreeError::changed(path));
            }
            file => file.map_err(|errno| TreeError::io("open", path, errno))?,
        };
        self.verify(path, node, file.as_fd())?;
        Ok(file)
    }

    /// Fails when an open file of a context is not in the state any more in which it was first seen. To be asked
    /// again once the file has been read.
    pub fn verify(&self, path: &[u8], node: &Node, file: BorrowedFd<'_>) -> Result<(), TreeError> {
        if !self.is_mutable() {
            return Ok(());
        }
        let stat =
            rustix::fs::fstat(file).map_err(|errno| TreeError::io("inspect", path, errno))?;
        if node.meta().is_same_state(&Meta::from(&stat)) {
            Ok(())
        } else {
            Err(TreeError::changed(path))
        }
    }

    /// Opens a path that has no symbolic links in it.
    pub(super) fn open_as(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        crate::open_in_root(&self.root, path, flags | OFlags::CLOEXEC, resolve)
    }

    /// One entry of the directory at `path`.
    pub(super) fn child(
        &self,
        dir: &Directory,
        parent: &Node,
        path: &[u8],
        name: &[u8],
    ) -> Result<Option<Arc<Node>>, TreeError> {
        let listed = |listing: &Listing| {
            let found = listing.children.binary_search_by(|child| (*child.name).cmp(name));
            found.ok().map(|index| Arc::clone(&listing.children[index].node))
        };
        if let Some(listing) = dir.listing.get() {
            return Ok(listed(listing));
        }
        let mut looked_up = dir.looked_up.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listing) = dir.listing.get() {
            return Ok(listed(listing));
        }
        if let Some(known) = looked_up.get(name) {
            return Ok(known.clone());
        }
        let opened = match path {
            b"" => None,
            path => Some(
                self.open_as(path, OFlags::PATH | OFlags::DIRECTORY)
                    .map_err(|errno| TreeError::io("open directory", path, errno))?,
            ),
        };
        let opened = opened.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
        let found = self.inspect(opened, parent, path, name, FileType::Unknown)?;
        let found = found.map(Arc::new);
        looked_up.insert(name.into(), found.clone());
        Ok(found)
    }

    /// All entries of the directory at `path`.
    pub(super) fn list<'a>(
        &self,
        dir: &'a Directory,
        parent: &Node,
        path: &[u8],
    ) -> Result<&'a Listing, TreeError> {
        if let Some(listing) = dir.listing.get() {
            return Ok(listing);
        }
        let mut looked_up = dir.looked_up.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listing) = dir.listing.get() {
            return Ok(listing);
        }
        let failed = |errno: Errno| TreeError::io("read directory", path, errno);
        let opened = self.open_as(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        let mut children = Vec::new();
        let mut buffer = Vec::with_capacity(LISTING_BUFFER);
        let mut names = RawDir::new(&opened, buffer.spare_capacity_mut());
        while let Some(entry) = names.next() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let node = match looked_up.remove(name).flatten() {
                Some(known) => Some(known),
                None => self
                    .inspect(opened.as_fd(), parent, path, name, entry.file_type())?
                    .map(Arc::new),
            };
            children.extend(node.map(|node| Child { name: name.into(), node }));
        }
        children.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let xattrs = read_xattrs(opened.as_fd())
            .map_err(|error| TreeError::io("read attributes of", path, error))?
            .into();
        looked_up.clear();
        Ok(dir.listing.get_or_init(|| Listing { children: children.into(), xattrs }))
    }

    /// What `name` in the open directory at `path` is; `None` when it is not there, not for us, or a socket, which
    /// no layer can hold. `file_type` is what the directory says.
    fn inspect(
        &self,
        dir: BorrowedFd<'_>,
        parent: &Node,
        path: &[u8],
        name: &[u8],
        file_type: FileType,
    ) -> Result<Option<Node>, TreeError> {
        let mut ignored = Decision::default();
        let mut excluded = false;
        if let Origin::Context { ignore, .. } = &self.origin
            && !ignore.is_empty()
        {
            let whole = join(path, name);
            let above = parent.ignore().cloned().unwrap_or_default();
            ignored = ignore.decide(&above, &whole);
            excluded = ignored.excluded();
            let is_dir = matches!(file_type, FileType::Directory | FileType::Unknown);
            if excluded && !(is_dir && ignore.may_have_exceptions_below(&ignored, &whole)) {
                return Ok(None);
            }
        }
        let failed = |errno| TreeError::io("inspect", &join(path, name), errno);
        let mut meta = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Meta::from(&stat),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        if self.is_mutable() {
            (meta.uid, meta.gid) = (0, 0);
        }
        let link = match meta.file_type() {
            FileType::Socket => return Ok(None),
            FileType::Directory => None,
            _ if excluded => return Ok(None),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(failed)?;
                Some(target.into_bytes().into())
            }
            _ => None,
        };
        Ok(Some(Node::new(meta, link, ignored)))
    }

    /// Whether a name that the ignore patterns hide is there all the same. For messages.
    pub(super) fn hides(&self, path: &[u8]) -> bool {
        let Origin::Context { ignore, .. } = &self.origin else { return false };
        ignore.matches(path) && self.open_as(path, OFlags::PATH | OFlags::NOFOLLOW).is_ok()
    }
}

/// The path of `name` in the directory at `path`.
pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(path.len() + 1 + name.len());
    joined.extend_from_slice(path);
    if !path.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}
