//! Entries of a tree, as they were when first looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use rbuild_solver::Decision;

use super::meta::Meta;
use crate::layer::Xattr;

/// An entry of a tree as it was when somebody first looked at it. Shared by all who look again.
#[derive(Debug)]
pub struct Node {
    meta: Meta,
    /// What a symbolic link says.
    link: Option<Box<[u8]>>,
    pub(super) content: OnceLock<Content>,
    pub(super) dir: Option<Box<Directory>>,
}

/// What is known of the bytes of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    pub(super) digest: [u8; 32],
    /// Whether every later change would show in the file's times. Not so right after a change: another one within
    /// the clock's granule leaves the same times.
    pub(super) settled: bool,
}

/// What is known of the entries of a directory.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// What the ignore patterns say of it. One that is excluded is only here for exceptions below it, and nothing else that is excluded
    /// is.
    ignore: Decision,
    /// All of them, once somebody needed all.
    pub(super) listing: OnceLock<Listing>,
    /// Those that were looked up one by one before that; held while listing.
    pub(super) looked_up: Mutex<LookedUp>,
}

/// What single names turned out to be; `None` is nothing.
pub(super) type LookedUp = BTreeMap<Box<[u8]>, Option<Arc<Node>>>;

/// A directory's entries.
#[derive(Debug)]
pub(super) struct Listing {
    /// Sorted by name.
    pub(super) children: Box<[Child]>,
    /// The directory's own attributes.
    pub(super) xattrs: Box<[Xattr]>,
}

/// A name in a directory.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) name: Box<[u8]>,
    pub(super) node: Arc<Node>,
}

impl Node {
    pub(super) fn new(meta: Meta, link: Option<Box<[u8]>>, ignore: Decision) -> Self {
        let dir = meta.is_dir().then(|| Box::new(Directory { ignore, ..Directory::default() }));
        Self { meta, link, content: OnceLock::new(), dir }
    }

    /// What the ignore patterns say of a directory; `None` of anything else.
    pub(super) fn ignore(&self) -> Option<&Decision> {
        self.dir.as_ref().map(|dir| &dir.ignore)
    }

    /// Whether the ignore patterns exclude it: see [`Directory`].
    pub(super) fn is_ignored(&self) -> bool {
        self.ignore().is_some_and(Decision::excluded)
    }

    /// What the kernel says of it.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The content digest of a file that somebody asked for it before.
    pub(crate) fn known_digest(&self) -> Option<[u8; 32]> {
        self.content.get().map(|content| content.digest)
    }

    /// What it says, if it is a symbolic link.
    pub fn link_target(&self) -> Option<&[u8]> {
        self.link.as_deref()
    }

    /// The attributes of a directory whose entries were selected; others' are read from the open file.
    pub fn directory_xattrs(&self) -> &[Xattr] {
        match self.dir.as_ref().and_then(|dir| dir.listing.get()) {
            Some(listing) => &listing.xattrs,
            None => &[],
        }
    }
}
