//! What every failed access to the disk says.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// An access to the store's files failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct DiskError {
    /// What was being done: a verb, perhaps with an object, that reads well before a path.
    pub action: &'static str,
    /// To what.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

impl DiskError {
    pub(crate) fn new(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { action, path: path.to_owned(), source: source.into() }
    }

    /// Whether the disk, or what the user may have of it, is full.
    pub fn is_full(&self) -> bool {
        let full = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG];
        Errno::from_io_error(&self.source).is_some_and(|errno| full.contains(&errno))
    }

    /// Whether the caller may not write there.
    pub fn is_denied(&self) -> bool {
        let denied = [Errno::ACCESS, Errno::PERM, Errno::ROFS];
        Errno::from_io_error(&self.source).is_some_and(|errno| denied.contains(&errno))
    }
}

/// Turns the error of a call on a path into a [`DiskError`].
pub(crate) trait OnPath<T> {
    fn on_path(self, action: &'static str, path: &Path) -> Result<T, DiskError>;
}

impl<T, E: Into<io::Error>> OnPath<T> for Result<T, E> {
    fn on_path(self, action: &'static str, path: &Path) -> Result<T, DiskError> {
        self.map_err(|error| DiskError::new(action, path, error))
    }
}
