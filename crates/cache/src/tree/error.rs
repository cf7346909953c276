//! What goes wrong when a tree is read.

use std::io;

use rbuild_solver::PatternError;

/// A tree could not be read, or does not have what was asked for. Paths are absolute within the tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// There is no such path. The words are BuildKit's.
    #[error("{path:?}: not found")]
    NotFound {
        /// What was asked for.
        path: String,
        /// Whether it is there, but the ignore file hides it.
        ignored: bool,
        /// Whole paths of names in the same directory that look like it, nearest first.
        similar: Vec<String>,
    },
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
    /// Links that lead to links without end.
    #[error("{path:?}: too many levels of symbolic links")]
    TooManyLinks {
        /// What was asked for.
        path: String,
    },
    /// A file is not any more what it was when the build first looked at it.
    #[error("{path:?}: file changed during the build")]
    Changed {
        /// Which.
        path: String,
    },
    /// A wildcard, include or exclude pattern is malformed.
    #[error("cannot select files")]
    Pattern {
        /// What is wrong with it.
        source: PatternError,
    },
}

impl TreeError {
    pub(crate) fn io(action: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: shown(path), source: source.into() }
    }

    pub(crate) fn changed(path: &[u8]) -> Self {
        Self::Changed { path: shown(path) }
    }
}

impl From<PatternError> for TreeError {
    fn from(source: PatternError) -> Self {
        Self::Pattern { source }
    }
}

/// A path of the tree for people: absolute, what is not UTF-8 replaced.
pub(super) fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}
