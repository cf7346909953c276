//! What a step read of a folder.

use std::collections::BTreeMap;
use std::io::{self, Write};

use rbuild_oci::Digest;
use rbuild_solver::Selector;
use rustix::fs::FileType;

use crate::{Node, Selection, Tree, TreeError};

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

/// What a step picks of a folder, to be stored as a [`FileList`]; nothing that is known of the folder is copied for it.
#[derive(Debug)]
pub struct PickedFiles(Vec<Picked>);

#[derive(Debug)]
struct Picked {
    selection: Selection,
    contents_only: bool,
}

impl PickedFiles {
    /// What these selectors pick. Files whose digest is known are not read again.
    ///
    /// # Errors
    ///
    /// As [`Tree::select`], and when a file cannot be read.
    pub fn of(tree: &Tree, selectors: &[Selector]) -> Result<Self, TreeError> {
        let picked = selectors.iter().map(|selector| {
            let selection = tree.select(selector)?;
            Ok(Picked { selection, contents_only: selector.contents_only })
        });
        let picked = Self(picked.collect::<Result<_, TreeError>>()?);
        for (path, node) in picked.files() {
            if kind_of(node) == ListedKind::File {
                tree.file_digest(path, node)?;
            }
        }
        Ok(picked)
    }

    fn files(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        let sources = self.0.iter().flat_map(|picked| {
            picked.selection.sources.iter().map(|source| (source, picked.contents_only))
        });
        sources.flat_map(|(source, contents_only)| {
            // The directory itself is nothing that a copy of its contents shows.
            let itself = !(contents_only && source.node.meta().is_dir());
            let itself = itself.then(|| (source.path.as_slice(), &*source.node));
            let entries = source.entries.iter().filter(|entry| entry.picked);
            itself.into_iter().chain(entries.map(|entry| (entry.path.as_slice(), &*entry.node)))
        })
    }

    /// Writes the list as it is stored.
    pub(super) fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let mut files: Vec<_> = self.files().collect();
        files.sort_by_key(|(path, _)| *path);
        files.dedup_by_key(|(path, _)| *path);
        out.write_all(HEADER)?;
        for (path, node) in files {
            let (kind, mode) = (kind_of(node), node.meta().permissions());
            let content = node.known_digest().filter(|_| kind == ListedKind::File);
            write_file(out, path, (kind, mode, content), node.link_target().unwrap_or_default())?;
        }
        Ok(())
    }
}

fn kind_of(node: &Node) -> ListedKind {
    match node.meta().file_type() {
        FileType::RegularFile => ListedKind::File,
        FileType::Directory => ListedKind::Directory,
        FileType::Symlink => ListedKind::Link,
        _ => ListedKind::Other,
    }
}

fn write_file(
    out: &mut impl Write,
    path: &[u8],
    (kind, mode, content): (ListedKind, u32, Option<[u8; 32]>),
    target: &[u8],
) -> io::Result<()> {
    let kind = match kind {
        ListedKind::File => 'f',
        ListedKind::Directory => 'd',
        ListedKind::Link => 'l',
        ListedKind::Other => 'o',
    };
    write!(out, "{kind} {mode:o} ")?;
    match content {
        Some(digest) => out.write_all(Digest::Sha256(digest).hex().as_bytes())?,
        None => out.write_all(b"-")?,
    }
    writeln!(out, " {} {}", target.len(), path.len())?;
    [target, path, b"\n"].into_iter().try_for_each(|part| out.write_all(part))
}

impl FileList {
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
                hex => match Digest::parse(&format!("sha256:{hex}")).ok()? {
                    Digest::Sha256(digest) => Some(digest),
                    Digest::Sha512(_) => return None,
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
        let mut bytes = HEADER.to_vec();
        for (path, file) in &list.0 {
            let state = (file.kind, file.mode, file.content);
            write_file(&mut bytes, path, state, &file.target).unwrap();
        }
        assert_eq!(FileList::from_bytes(&bytes), Some(list.clone()));
        for cut in 0..bytes.len() {
            assert_ne!(FileList::from_bytes(&bytes[..cut]), Some(list.clone()));
        }
    }
}
