//! Why a repository could not be had.

use std::io;
use std::path::PathBuf;

use rbuild_cache::{LayersError, LeaseError, LockError};

use crate::logins::LoginError;

/// A repository could not be fetched.
#[derive(Debug, thiserror::Error)]
#[error("failed to load git source {remote}")]
pub struct GitError {
    /// Its address, without a password.
    pub remote: String,
    /// Why.
    #[source]
    pub kind: Box<GitErrorKind>,
}

/// See [`GitError`].
#[derive(Debug, thiserror::Error)]
pub enum GitErrorKind {
    /// The program is not there, or cannot be run.
    #[error("cannot run git, which has to be installed to fetch repositories")]
    Program(#[source] io::Error),
    /// The program failed.
    #[error("git {command} failed: {said}{advice}")]
    Failed {
        /// What it was to do.
        command: &'static str,
        /// The end of what it wrote to its standard error.
        said: String,
        /// What would help; perhaps nothing.
        advice: &'static str,
    },
    /// The remote neither answers nor closes the connection.
    #[error("git {0} has heard nothing from the remote for {1} seconds")]
    Silent(&'static str, u64),
    /// The socket of the keys that were given.
    #[error("cannot serve the SSH keys")]
    Agent(#[source] io::Error),
    /// A secret that is no login.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The program said more than there can be to say.
    #[error("git {0} printed more than can be right")]
    TooMuch(&'static str),
    /// An address or a reference that git, or a program that it starts, could take for something else.
    #[error("{what} {value:?} cannot be used")]
    Unsafe {
        /// What it is.
        what: &'static str,
        /// Its text.
        value: String,
    },
    /// The remote has no such name. The words are BuildKit's.
    #[error("repository does not contain ref {0}")]
    NoReference(String),
    /// The name stands for another commit than it has to. The words are BuildKit's.
    #[error("expected checksum to match {expected}, got {actual}")]
    Checksum {
        /// What it has to begin with.
        expected: String,
        /// The commit.
        actual: String,
    },
    /// The commit has no such folder.
    #[error("the repository has no folder {0:?}")]
    NoFolder(String),
    /// The disk.
    #[error("cannot {action} `{}`", path.display())]
    Disk {
        /// What failed: a verb.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The layer.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// The lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The lock.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl GitErrorKind {
    pub(super) fn disk<'a>(
        action: &'static str,
        path: &'a std::path::Path,
    ) -> impl Fn(io::Error) -> Self + use<'a> {
        move |source| Self::Disk { action, path: path.to_owned(), source }
    }
}
