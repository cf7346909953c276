//! What can go wrong with copies.

use std::io;
use std::path::PathBuf;

use crate::layer::path_of;

/// A snapshot could not be copied, or what was changed in a copy not be found.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// An access to a file.
    #[error("cannot {action} `{}` in a copy of a snapshot", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// To what, in the snapshot.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A directory is deeper than there are descriptors for.
    #[error("`{}` has more than {MAX_DEPTH} directories one in another, which only overlayfs can do", path.display())]
    TooDeep {
        /// The directory.
        path: PathBuf,
    },
}

/// The most directories one in another. Each has its descriptors open while those in it are walked.
pub(super) const MAX_DEPTH: usize = 256;

/// Where a walk is.
#[derive(Debug, Default)]
pub(super) struct Place {
    path: Vec<u8>,
    depth: usize,
}

impl Place {
    /// Goes to something in the directory; returns what [`Place::leave`] wants.
    pub(super) fn enter(&mut self, name: &[u8]) -> Result<usize, CopyError> {
        let length = self.path.len();
        if length > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(CopyError::TooDeep { path: path_of(&self.path) });
        }
        Ok(length)
    }

    pub(super) fn leave(&mut self, length: usize) {
        self.path.truncate(length);
        self.depth -= 1;
    }

    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// What makes an error of a failed call here.
    pub(super) fn cannot<E: Into<io::Error>>(
        &self,
        action: &'static str,
    ) -> impl Fn(E) -> CopyError + use<'_, E> {
        move |source| CopyError::File { action, path: path_of(&self.path), source: source.into() }
    }
}
