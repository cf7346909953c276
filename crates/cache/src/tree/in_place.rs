//! A file or directory of a context as it lies there, for who may look at it without a copy.
//!
//! What is shown is a clone of the mount that it is on, without what is mounted below, so that nothing of other file systems appears and
//! no directory that is moved meanwhile leads out. Everything is then looked at through that clone: what the build has seen must be
//! there in the same state, and what it has not seen (ignored files, sockets) is listed, to be hidden. Somebody may be changing files
//! meanwhile, so who has looked asks again.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, OFlags, RawDir, ResolveFlags, Stat};
use rustix::mount::OpenTreeFlags;

use super::lookup::{Tree, join};
use super::meta::Meta;
use super::node::Node;
use super::select::Selected;

/// Bytes for the names of a directory; what does not fit takes another call.
const LISTING_BUFFER: usize = 32 << 10;

/// How much more may be hidden than shown before a copy is less work.
const FEW: usize = 1000;

/// A file or directory of a context, in place.
#[derive(Debug)]
pub struct InPlace {
    mount: OwnedFd,
    /// What the build has seen, by its path below the mount; the empty one is the top itself.
    seen: HashMap<Vec<u8>, Arc<Node>>,
    hidden: Vec<Vec<u8>>,
}

impl Tree {
    /// Opens what was selected in place. `None` if it has to be copied, to look as it should or to learn what is wrong with it.
    pub fn in_place(&self, selected: &Selected) -> Option<InPlace> {
        let mut seen: HashMap<Vec<u8>, Arc<Node>> = HashMap::with_capacity(selected.entries.len());
        for entry in &selected.entries {
            seen.insert(entry.relative().to_vec(), Arc::clone(&entry.node));
        }
        seen.insert(Vec::new(), Arc::clone(&selected.node));
        let place = self.open_as(&selected.path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        // Refused, for one, without root when something that root has mounted lies below.
        let mount = rustix::mount::open_tree(&place, c"", flags).ok()?;
        let mut found = InPlace { mount, seen, hidden: Vec::new() };
        found.hidden = found.look()?;
        (found.hidden.len() <= found.seen.len() + FEW).then_some(found)
    }
}

impl InPlace {
    /// The file or directory: the root of a detached mount that can be attached once.
    pub fn mount(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// What a path below it was when the build first looked at it; the empty one is the top itself.
    pub fn meta(&self, path: &[u8]) -> Option<&Meta> {
        self.seen.get(path).map(|node| node.meta())
    }

    /// The paths below it of what is there and not for the build, in order.
    pub fn hidden(&self) -> &[Vec<u8>] {
        &self.hidden
    }

    /// Whether everything still is as it was when it was opened.
    pub fn is_unchanged(&self) -> bool {
        self.look().is_some_and(|hidden| hidden == self.hidden)
    }

    /// Compares with what the build has seen; returns what it has not. `None` if a copy would look otherwise.
    fn look(&self) -> Option<Vec<Vec<u8>>> {
        let top = rustix::fs::fstat(&self.mount).ok()?;
        if !is_same(&self.seen[&b""[..]], &top) {
            return None;
        }
        let directories: Vec<_> =
            self.seen.iter().filter(|(_, node)| node.meta().is_dir()).collect();
        let hidden: Vec<Vec<Vec<u8>>> = directories
            .par_iter()
            .map(|(path, node)| self.look_into(path, node))
            .collect::<Option<_>>()?;
        let mut hidden: Vec<Vec<u8>> = hidden.into_iter().flatten().collect();
        hidden.par_sort_unstable();
        Some(hidden)
    }

    fn look_into(&self, path: &[u8], node: &Node) -> Option<Vec<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let place = if path.is_empty() { b"." } else { path };
        let directory = crate::open_in_root(&self.mount, place, flags, resolve).ok()?;
        let mut hidden = Vec::new();
        let mut buffer = Vec::with_capacity(LISTING_BUFFER);
        let mut names = RawDir::new(&directory, buffer.spare_capacity_mut());
        while let Some(entry) = names.next() {
            let entry = entry.ok()?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let whole = join(path, name);
            let Some(node) = self.seen.get(&whole) else {
                hidden.push(whole);
                continue;
            };
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let stat = rustix::fs::statat(&directory, entry.file_name(), flags).ok()?;
            if !is_same(node, &stat) {
                return None;
            }
        }
        // What is not there any more has changed the directory's time, too.
        let stat = rustix::fs::fstat(&directory).ok()?;
        let directory_is_same = is_same(node, &stat);
        // A copy would keep these; what hides a part of the directory does not.
        let keeps_attributes = hidden.is_empty() || node.directory_xattrs().is_empty();
        (directory_is_same && keeps_attributes).then_some(hidden)
    }
}

/// Whether it is a plain file of the build's user that is what the build has seen. Over something else another file is mounted, or it is
/// a directory in which something is mounted.
fn is_same(node: &Node, stat: &Stat) -> bool {
    let found = Meta::from(stat);
    let is_plain = matches!(
        found.file_type(),
        FileType::RegularFile | FileType::Directory | FileType::Symlink
    );
    is_plain && (found.uid, found.gid) == (0, 0) && node.meta().is_same_state(&found)
}
