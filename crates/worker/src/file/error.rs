//! What goes wrong in a file operation.

use std::io;

use rbuild_cache::{ApplyError, CacheMountError, TreeError};

use super::chmod::ModeError;
use crate::snapshots::SnapshotError;

/// A file operation failed. Paths are absolute within the state that was being changed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The kernel refused.
    #[error("cannot {action} {path:?}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A file cannot belong to whom it has to.
    #[error("{0}")]
    Owner(#[source] OwnerError),
    /// The files that are copied could not be read or found.
    #[error(transparent)]
    Source(#[from] TreeError),
    /// The archive of a layer that is not made.
    #[error(transparent)]
    NotArchived(Box<dyn std::error::Error + Send + Sync>),
    /// A cache mount.
    #[error(transparent)]
    CacheMount(#[from] CacheMountError),
    /// A wildcard that must match something matches nothing.
    #[error("{0} not found")]
    NoMatch(String),
    /// A directory is copied to where a file is. The words are BuildKit's, as in those below.
    #[error("cannot copy to non-directory: {0}")]
    NotADirectory(String),
    /// A directory is made where a file is.
    #[error("mkdir {0}: not a directory")]
    NoDirectory(String),
    /// A file is copied to where a directory is.
    #[error("cannot replace to directory {0} with file")]
    IsADirectory(String),
    /// Something that has to be there is not.
    #[error("{0}: no such file or directory")]
    NotFound(String),
    /// Links that lead to links without end.
    #[error("{0}: too many levels of symbolic links")]
    TooManyLinks(String),
    /// The root directory cannot be removed or replaced.
    #[error("cannot {0} the root directory")]
    Root(&'static str),
    /// An owner's name has no state in which it could be looked up.
    #[error(
        "invalid user index: -1 (`{0}` cannot be looked up in an empty state; give a number instead)"
    )]
    NoUsers(String),
    /// A mode is no mode.
    #[error(transparent)]
    Mode(#[from] ModeError),
    /// An archive could not be unpacked.
    #[error("cannot unpack the archive {path:?}")]
    Archive {
        /// The archive's path in its source.
        path: String,
        /// Why.
        source: ApplyError,
    },
    /// An action names an input or a state that there is not.
    #[error("action {action} of the file operation names state {state}, which there is not")]
    NoSuchState {
        /// Position of the action.
        action: usize,
        /// What it names.
        state: u32,
    },
    /// The outputs of an operation are not numbered from 0 on.
    #[error("the file operation has no output {0}")]
    NoSuchOutput(u32),
    /// The states could not be opened or stored.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// The kernel did not let a file have an owner; without sub-ids there is only one.
#[derive(Debug, thiserror::Error)]
#[error("cannot change the owner of {path:?}")]
pub struct OwnerError {
    path: String,
    source: io::Error,
}

impl FileError {
    pub(super) fn owner(path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Owner(OwnerError { path: shown(path), source: source.into() })
    }

    pub(super) fn io(action: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: shown(path), source: source.into() }
    }
}

/// A path for people: absolute, what is not UTF-8 replaced.
pub(super) fn shown(path: &[u8]) -> String {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    format!("/{}", String::from_utf8_lossy(path))
}
