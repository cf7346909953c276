//! What a step read of a folder.

use std::collections::BTreeMap;

use rbuild_solver::Selector;
use rustix::fs::FileType;

use crate::{Tree, TreeError};

/// The files that a step used of a folder, so that a later build can say which of them has changed.
///
/// ```text
/// "rbuild-files-v1\n"
/// per file, sorted by path:
///     kind (one of f d l c b p), space, permission bits (octal), space, digest of the content (64 hex digits, of files only;
///     else `-`), space, length of the target of a link, space, length of the path, newline, target, path, newline
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileList(pub BTreeMap<Vec<u8>, ListedFile>);

/// One of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// What it is.
    pub kind: ListedKind,
    /// Its permission bits.
    pub mode: u32,
    /// SHA-256 of what is in a regular file, attributes included.
    pub content: Option<[u8; 32]>,
    /// What a link says.
    pub target: Vec<u8>,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListedKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device or a pipe.
    Other,
}

const HEADER: &[u8] = b"rbuild-files-v1\n";

impl FileList {
    /// Adds what a selector picks. Files whose digest is known are not read again.
    ///
    /// # Errors
    ///
    /// As [`Tree::select`], and when a file cannot be read.
    pub fn add(&mut self, tree: &Tree, selector: &Selector) -> Result<(), TreeError> {
        let selection = tree.select(selector)?;
        for source in &selection.sources {
            // The directory itself is nothing that a copy of its contents shows.
            if !selector.contents_only || !source.node.meta().is_dir() {
                self.insert(tree, &source.path, &source.node)?;
            }
            for entry in source.entries.iter().filter(|entry| entry.picked) {
                self.insert(tree, &entry.path, &entry.node)?;
            }
        }
        Ok(())
    }

    fn insert(&mut self, tree: &Tree, path: &[u8], node: &crate::Node) -> Result<(), TreeError> {
        let kind = match node.meta().file_type() {
            FileType::RegularFile => ListedKind::File,
            FileType::Directory => ListedKind::Directory,
            FileType::Symlink => ListedKind::Link,
            _ => ListedKind::Other,
        };
        let content = match kind {
            ListedKind::File => Some(tree.file_digest(path, node)?),
            _ => None,
        };
        let target = node.link_target().unwrap_or_default().to_vec();
        let mode = node.meta().permissions();
        self.0.insert(path.to_vec(), ListedFile { kind, mode, content, target });
        Ok(())
    }

    /// The list as it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        for (path, file) in &self.0 {
            let kind = match file.kind {
                ListedKind::File => 'f',
                ListedKind::Directory => 'd',
                ListedKind::Link => 'l',
                ListedKind::Other => 'o',
            };
            let content = match file.content {
                Some(digest) => rbuild_oci::Digest::Sha256(digest).hex(),
                None => "-".to_owned(),
            };
            let (target, length) = (&file.target, path.len());
            let line = format!("{kind} {:o} {content} {} {length}\n", file.mode, target.len());
            for part in [line.as_bytes(), target, path, b"\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes
    }

    /// Reads a stored list; `None` for what is none, or not whole.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(HEADER)?;
        let mut files = BTreeMap::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            let line = std::str::from_utf8(&rest[..end]).ok()?;
            rest = &rest[end + 1..];
            let mut fields = line.split(' ');
            let kind = match fields.next()? {
                "f" => ListedKind::File,
                "d" => ListedKind::Directory,
                "l" => ListedKind::Link,
                "o" => ListedKind::Other,
                _ => return None,
            };
            let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
            let content = match fields.next()? {
                "-" => None,
                hex => match rbuild_oci::Digest::parse(&format!("sha256:{hex}")).ok()? {
                    rbuild_oci::Digest::Sha256(digest) => Some(digest),
                    rbuild_oci::Digest::Sha512(_) => return None,
                },
            };
            let (target, after) = rest.split_at_checked(fields.next()?.parse().ok()?)?;
            let (path, after) = after.split_at_checked(fields.next()?.parse().ok()?)?;
            rest = after.strip_prefix(b"\n")?;
            let target = target.to_vec();
            files.insert(path.to_vec(), ListedFile { kind, mode, content, target });
        }
        Some(Self(files))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_go_both_ways() {
        let file = |kind, content, target: &[u8]| ListedFile {
            kind,
            mode: 0o644,
            content,
            target: target.to_vec(),
        };
        let list = FileList(BTreeMap::from([
            (b"a b\nc".to_vec(), file(ListedKind::File, Some([7; 32]), b"")),
            (b"dir".to_vec(), file(ListedKind::Directory, None, b"")),
            (b"\xff".to_vec(), file(ListedKind::Link, None, b"x\ny")),
            (Vec::new(), file(ListedKind::Other, None, b"")),
        ]));
        let bytes = list.to_bytes();
        assert_eq!(FileList::from_bytes(&bytes), Some(list.clone()));
        for cut in 0..bytes.len() {
            assert_ne!(FileList::from_bytes(&bytes[..cut]), Some(list.clone()));
        }
    }
}
