//! Reading a file that was selected, and making sure that it is what was selected.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use rbuild_oci::Hasher;

use super::content::{hash_xattrs, sha256};
use super::error::TreeError;
use super::lookup::Tree;
use super::node::Node;
use super::xattr::read_xattrs;
use crate::layer::Xattr;

/// A file of a tree that is being read, from its beginning to its end.
pub(crate) struct SelectedFile<'a> {
    tree: &'a Tree,
    path: &'a [u8],
    node: &'a Node,
    file: File,
    xattrs: Vec<Xattr>,
    /// Where the file's status alone cannot tell whether it has changed: of what was read, and what that must be.
    content: Option<(Hasher, [u8; 32])>,
}

impl Tree {
    /// Opens a file to read all of it; `path` and `node` as [`Tree::open`] takes them.
    pub(crate) fn read<'a>(
        &'a self,
        path: &'a [u8],
        node: &'a Node,
    ) -> Result<SelectedFile<'a>, TreeError> {
        let file = self.open(path, node)?;
        let xattrs = read_xattrs(file.as_fd())
            .map_err(|error| TreeError::io("read attributes of", path, error))?;
        let content = self.unsettled_content(node).map(|expected| {
            let mut hasher = Hasher::default();
            hash_xattrs(&mut hasher, &xattrs);
            (hasher, expected)
        });
        Ok(SelectedFile { tree: self, path, node, file: file.into(), xattrs, content })
    }
}

impl SelectedFile<'_> {
    /// The attributes that count, sorted by name.
    pub(crate) fn xattrs(&self) -> &[Xattr] {
        &self.xattrs
    }

    /// To be called once all was read: fails when that was not what had been selected.
    pub(crate) fn finish(self) -> Result<(), TreeError> {
        self.tree.verify(self.path, self.node, self.file.as_fd())?;
        let is_other = |(hasher, expected)| sha256(hasher) != expected;
        if self.content.is_some_and(is_other) {
            return Err(TreeError::changed(self.path));
        }
        Ok(())
    }
}

impl Read for SelectedFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        if let Some((hasher, _)) = &mut self.content {
            hasher.update(&buffer[..length]);
        }
        Ok(length)
    }
}
