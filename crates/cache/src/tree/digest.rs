//! The content digest of what a selector picks.
//!
//! What counts (section 2.4 of the behaviour reference): names below the selected directory, types, permission
//! bits, owners (0 in a context), sizes, bytes, link targets, device numbers, extended attributes. What does not:
//! times, where the selected path lies, and for a path without wildcards what it is called (the operation that
//! uses it says so itself).
//!
//! ```text
//! SHA-256 of: "rbuild.tree.v1\0", then for each source, then each of its entries:
//!     length of name (u32 LE), name       base name of a source by wildcard, else empty; an entry's path
//!                                         below its source
//!     type (u8, the upper bits of st_mode), permission bits (u32 LE), uid (u32 LE), gid (u32 LE)
//!     file:       content digest
//!     link:       length of target (u32 LE), target
//!     device:     number (u64 LE)
//!     directory:  attributes as in content digests
//! ```
//!
//! Where only a directory's contents are selected, permission bits, owners and attributes of the directory itself
//! are 0 and none.

use std::sync::PoisonError;

use rayon::prelude::*;
use rbuild_oci::{Digest, Hasher};
use rbuild_solver::Selector;
use rustix::fs::FileType;

use super::content::{hash_xattrs, sha256};
use super::error::TreeError;
use super::lookup::Tree;
use super::node::Node;
use super::select::{Entry, Selection};

const VERSION: &[u8] = b"rbuild.tree.v1\0";

/// Files that one thread hashes before another may take some of them: looking a digest up is cheap.
const FILES_AT_ONCE: usize = 64;

/// So few files are not worth waking other threads for, if their digests are known.
const LOOKED_UP_ALONE: usize = 1024;

impl Tree {
    /// The digest of what `selector` picks. Asked again, the answer is remembered.
    pub fn content_digest(&self, selector: &Selector) -> Result<Digest, TreeError> {
        let digests = || self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = digests().get(selector) {
            return Ok(*digest);
        }
        let digest = self.digest_of(&self.select(selector)?, selector.contents_only)?;
        digests().insert(selector.clone(), digest);
        Ok(digest)
    }

    /// The digest of a selection. Files are read side by side.
    pub fn digest_of(
        &self,
        selection: &Selection,
        contents_only: bool,
    ) -> Result<Digest, TreeError> {
        for source in &selection.sources {
            let files = |node: &Node| node.meta().file_type() == FileType::RegularFile;
            if files(&source.node) {
                self.content(&source.path, &source.node)?;
            }
            let files = |entry: &&Entry| files(&entry.node);
            let content = |entry: &Entry| self.content(&entry.path, &entry.node).map(drop);
            let entries = &source.entries;
            if entries.len() <= LOOKED_UP_ALONE {
                let is_unknown = |entry: &&Entry| files(entry) && !self.knows_content(&entry.node);
                let unknown: Vec<&Entry> = entries.iter().filter(is_unknown).collect();
                if !unknown.is_empty() {
                    unknown.par_iter().try_for_each(|entry| content(entry))?;
                }
            } else {
                let entries = entries.par_iter().with_min_len(FILES_AT_ONCE);
                entries.filter(files).try_for_each(content)?;
            }
        }
        let mut hasher = Hasher::default();
        hasher.update(VERSION);
        for source in &selection.sources {
            let name = if selection.by_wildcard { source.base_name() } else { b"" };
            let bare = contents_only && source.node.meta().is_dir();
            self.hash_entry(&mut hasher, name, &source.path, &source.node, bare)?;
            for entry in &source.entries {
                self.hash_entry(&mut hasher, entry.relative(), &entry.path, &entry.node, false)?;
            }
        }
        Ok(Digest::Sha256(sha256(hasher)))
    }

    fn hash_entry(
        &self,
        hasher: &mut Hasher,
        name: &[u8],
        path: &[u8],
        node: &Node,
        bare: bool,
    ) -> Result<(), TreeError> {
        let meta = node.meta();
        let (permissions, uid, gid) =
            if bare { (0, 0, 0) } else { (meta.permissions(), meta.uid, meta.gid) };
        hasher.update(&(name.len() as u32).to_le_bytes());
        hasher.update(name);
        let mut fixed = [0; 13];
        fixed[0] = (meta.mode >> 12) as u8;
        fixed[1..5].copy_from_slice(&permissions.to_le_bytes());
        fixed[5..9].copy_from_slice(&uid.to_le_bytes());
        fixed[9..].copy_from_slice(&gid.to_le_bytes());
        hasher.update(&fixed);
        match meta.file_type() {
            FileType::RegularFile => hasher.update(&self.content(path, node)?),
            FileType::Symlink => {
                let target = node.link_target().unwrap_or_default();
                hasher.update(&(target.len() as u32).to_le_bytes());
                hasher.update(target);
            }
            FileType::Directory if bare => hash_xattrs(hasher, &[]),
            FileType::Directory => hash_xattrs(hasher, node.directory_xattrs()),
            _ => hasher.update(&meta.rdev.to_le_bytes()),
        }
        Ok(())
    }
}
