//! The digest of one file's content: its bytes and extended attributes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_oci::{Digest, Hasher};
use rustix::io::Errno;

use super::error::TreeError;
use super::lookup::Tree;
use super::meta::Meta;
use super::node::{Content, Node};
use super::xattr::read_xattrs;
use crate::layer::Xattr;

/// Most bytes that are read at once.
const READ_BUFFER: usize = 128 << 10;

/// How long after a change another one may get the same time: the kernel's clock for files ticks at 100 Hz or
/// faster.
const CLOCK_GRANULE: i64 = 50_000_000;

/// The same for file systems whose times have no fractions (the coarsest, FAT, counts in twos).
const COARSE_GRANULE: i64 = 2_000_000_000;

/// Computes the content digest of a file from its attributes (sorted) and bytes.
///
/// ```text
/// SHA-256 of: number of attributes (u32 LE)
///             per attribute: length of name (u32 LE), name, length of value (u32 LE), value
///             the bytes
/// ```
fn hash_content(xattrs: &[Xattr], file: BorrowedFd<'_>, size: u64) -> Result<[u8; 32], Errno> {
    let mut hasher = Hasher::default();
    hash_xattrs(&mut hasher, xattrs);
    // One more than is expected, so that the end is seen with the first call.
    let expected = usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1);
    let mut buffer = vec![0; expected.min(READ_BUFFER)];
    let mut offset = 0;
    loop {
        let length = match rustix::io::pread(file, &mut buffer, offset) {
            Err(Errno::INTR) => continue,
            length => length?,
        };
        hasher.update(&buffer[..length]);
        offset += length as u64;
        if length == 0 || (length < buffer.len() && offset == size) {
            return Ok(sha256(hasher));
        }
    }
}

/// Adds attributes to a digest.
pub(super) fn hash_xattrs(hasher: &mut Hasher, xattrs: &[Xattr]) {
    let mut bytes = Vec::new();
    encode_xattrs(&mut bytes, xattrs);
    hasher.update(&bytes);
}

/// What a digest is made of of attributes: their number first.
pub(super) fn encode_xattrs(bytes: &mut Vec<u8>, xattrs: &[Xattr]) {
    bytes.extend((xattrs.len() as u32).to_le_bytes());
    for xattr in xattrs {
        for part in [&xattr.name, &xattr.value] {
            bytes.extend((part.len() as u32).to_le_bytes());
            bytes.extend(part);
        }
    }
}

pub(super) fn sha256(hasher: Hasher) -> [u8; 32] {
    match hasher.finish() {
        Digest::Sha256(bytes) => bytes,
        Digest::Sha512(_) => unreachable!("the default hasher is SHA-256"),
    }
}

impl Tree {
    /// The content digest of a regular file: remembered, or found by reading it.
    pub(super) fn content(&self, path: &[u8], node: &Node) -> Result<[u8; 32], TreeError> {
        if let Some(content) = node.content.get() {
            return Ok(content.digest);
        }
        let content = match self.remembered(node) {
            Some(content) => content,
            None => self.read_content(path, node)?,
        };
        Ok(node.content.get_or_init(|| content).digest)
    }

    /// Whether [`content`](Self::content) has an answer without reading the file.
    pub(super) fn knows_content(&self, node: &Node) -> bool {
        node.content.get().is_some()
            || self.remembered(node).map(|content| node.content.get_or_init(|| content)).is_some()
    }

    fn remembered(&self, node: &Node) -> Option<Content> {
        let digest = self.stat_cache()?.lookup(node.meta())?;
        Some(Content { digest, settled: true })
    }

    /// The content digest of a regular file that was selected: known already where it took part in a key.
    pub(crate) fn file_digest(&self, path: &[u8], node: &Node) -> Result<[u8; 32], TreeError> {
        self.content(path, node)
    }

    fn read_content(&self, path: &[u8], node: &Node) -> Result<Content, TreeError> {
        let now = now();
        let file = self.open(path, node)?;
        let xattrs = read_xattrs(file.as_fd())
            .map_err(|error| TreeError::io("read attributes of", path, error))?;
        let digest = hash_content(&xattrs, file.as_fd(), node.meta().size)
            .map_err(|errno| TreeError::io("read", path, errno))?;
        self.verify(path, node, file.as_fd())?;
        let settled = is_settled(node.meta(), now);
        if let Some(cache) = self.stat_cache().filter(|_| settled) {
            cache.insert(node.meta(), digest);
        }
        Ok(Content { digest, settled })
    }

    /// Whether what was copied of an open file is what was hashed of it, where the file's status alone cannot tell: then its attributes
    /// and the copy are read.
    pub fn is_copy(
        &self,
        node: &Node,
        original: BorrowedFd<'_>,
        copy: BorrowedFd<'_>,
    ) -> io::Result<bool> {
        let Some(expected) = self.unsettled_content(node) else { return Ok(true) };
        Ok(hash_content(&read_xattrs(original)?, copy, node.meta().size)? == expected)
    }

    /// The content digest that a copy of this file must have, if the file's status alone cannot tell whether it
    /// has changed since it was hashed: it was hashed right after it was written.
    pub(super) fn unsettled_content(&self, node: &Node) -> Option<[u8; 32]> {
        let content = node.content.get().filter(|content| !content.settled && self.is_mutable());
        content.map(|content| content.digest)
    }
}

/// Whether a file's last change is so long past that one more would show in its times.
fn is_settled(meta: &Meta, now: i64) -> bool {
    let has_fractions = meta.mtime % 1_000_000_000 != 0 || meta.ctime % 1_000_000_000 != 0;
    let granule = if has_fractions { CLOCK_GRANULE } else { COARSE_GRANULE };
    meta.mtime.max(meta.ctime) < now.saturating_sub(granule)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
