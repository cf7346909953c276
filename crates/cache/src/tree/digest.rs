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

use super::content::{encode_xattrs, sha256};
use super::error::TreeError;
use super::lookup::Tree;
use super::node::Node;
use super::select::{Entry, Selection};

const VERSION: &[u8] = b"rbuild.tree.v1\0";

/// Files that one thread hashes before another may take some of them: looking a digest up is cheap.
const FILES_AT_ONCE: usize = 64;

/// Entries whose form is in memory at once.
const ENCODED_AT_ONCE: usize = 16 << 10;

/// Bytes of the form of an entry with a name of usual length.
const USUAL_BYTES: usize = 96;

/// So few files are not worth waking other threads for, if their digests are known.
const LOOKED_UP_ALONE: usize = 4096;

/// So many files are looked at in some milliseconds.
const FEW_FILES: usize = 2048;

impl Tree {
    /// The digest of what `selector` picks. Asked again, the answer is remembered.
    pub fn content_digest(&self, selector: &Selector) -> Result<Digest, TreeError> {
        let digests = || self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = digests().get(selector) {
            return Ok(*digest);
        }
        let selection = self.select(selector)?;
        let digest = self.digest_of(&selection, selector.contents_only)?;
        if selection.sources.iter().any(|source| source.entries.len() > LOOKED_UP_ALONE) {
            // To free so much takes milliseconds, for which nobody need wait.
            rayon::spawn(move || drop(selection));
        }
        digests().insert(selector.clone(), digest);
        Ok(digest)
    }

    /// The digest of what `selector` picks, if that takes no more than looking at a few files which are known to be few from an earlier
    /// build: so it is with a small context that has not changed, for which a thread to wait on would cost more than the look. What was
    /// looked at in vain is not looked at again.
    pub fn digest_at_a_glance(&self, selector: &Selector) -> Result<Option<Digest>, TreeError> {
        let digests = || self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = digests().get(selector) {
            return Ok(Some(*digest));
        }
        let few = 1..=FEW_FILES;
        if !self.stat_cache().is_some_and(|cache| few.contains(&cache.len())) {
            return Ok(None);
        }
        let selection = self.select(selector)?;
        let is_known = |node: &Node| {
            node.meta().file_type() != FileType::RegularFile || self.knows_content(node)
        };
        let mut entries = selection.sources.iter().flat_map(|source| &source.entries);
        let mut sources = selection.sources.iter();
        if !sources.all(|source| is_known(&source.node)) || !entries.all(|of| is_known(&of.node)) {
            return Ok(None);
        }
        let digest = self.digest_of(&selection, selector.contents_only)?;
        digests().insert(selector.clone(), digest);
        Ok(Some(digest))
    }

    /// The digest of a selection. Files are read side by side.
    pub fn digest_of(
        &self,
        selection: &Selection,
        contents_only: bool,
    ) -> Result<Digest, TreeError> {
        let mut hasher = Hasher::default();
        hasher.update(VERSION);
        for source in &selection.sources {
            let name = if selection.by_wildcard { source.base_name() } else { b"" };
            let bare = contents_only && source.node.meta().is_dir();
            let mut bytes = Vec::new();
            self.encode(&mut bytes, name, (&source.path, &source.node), bare)?;
            hasher.update(&bytes);
            if source.entries.len() <= LOOKED_UP_ALONE {
                self.read_unknown(&source.entries)?;
                hasher.update(&self.encode_all(&source.entries)?);
                continue;
            }
            for entries in source.entries.chunks(ENCODED_AT_ONCE) {
                let parts = entries.par_chunks(FILES_AT_ONCE).map(|part| self.encode_all(part));
                let parts: Vec<Vec<u8>> = parts.collect::<Result<_, _>>()?;
                parts.iter().for_each(|part| hasher.update(part));
            }
        }
        Ok(Digest::Sha256(sha256(hasher)))
    }

    /// Reads the files of which the digest is not known yet, side by side.
    fn read_unknown(&self, entries: &[Entry]) -> Result<(), TreeError> {
        let is_unknown = |entry: &&Entry| {
            entry.node.meta().file_type() == FileType::RegularFile
                && !self.knows_content(&entry.node)
        };
        let unknown: Vec<&Entry> = entries.iter().filter(is_unknown).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        unknown.par_iter().try_for_each(|entry| self.content(&entry.path, &entry.node).map(drop))
    }

    fn encode_all(&self, entries: &[Entry]) -> Result<Vec<u8>, TreeError> {
        let mut bytes = Vec::with_capacity(entries.len() * USUAL_BYTES);
        for entry in entries {
            self.encode(&mut bytes, entry.relative(), (&entry.path, &entry.node), false)?;
        }
        Ok(bytes)
    }

    /// Adds what the digest is made of of one entry. A file whose digest is not known is read.
    fn encode(
        &self,
        bytes: &mut Vec<u8>,
        name: &[u8],
        (path, node): (&[u8], &Node),
        bare: bool,
    ) -> Result<(), TreeError> {
        let meta = node.meta();
        let (permissions, uid, gid) =
            if bare { (0, 0, 0) } else { (meta.permissions(), meta.uid, meta.gid) };
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend(name);
        bytes.push((meta.mode >> 12) as u8);
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(uid.to_le_bytes());
        bytes.extend(gid.to_le_bytes());
        match meta.file_type() {
            FileType::RegularFile => bytes.extend(self.content(path, node)?),
            FileType::Symlink => {
                let target = node.link_target().unwrap_or_default();
                bytes.extend((target.len() as u32).to_le_bytes());
                bytes.extend(target);
            }
            FileType::Directory if bare => encode_xattrs(bytes, &[]),
            FileType::Directory => encode_xattrs(bytes, node.directory_xattrs()),
            _ => bytes.extend(meta.rdev.to_le_bytes()),
        }
        Ok(())
    }
}
