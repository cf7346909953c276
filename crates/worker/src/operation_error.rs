//! Why an operation failed.

use rbuild_cache::{DownloadError, ImageError, ImageNameError, TreeError};

use crate::context::ContextError;
use crate::entitlements::NotAllowed;
use crate::exec::ExecError;
use crate::file::FileError;
use crate::git::GitError;
use crate::logins::LoginError;
use crate::snapshots::SnapshotError;

/// An operation failed.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// A step.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A step that asks for more than was allowed.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// A file operation.
    #[error(transparent)]
    File(#[from] FileError),
    /// An image.
    #[error(transparent)]
    Image(Box<ImageError>),
    /// An image's name.
    #[error(transparent)]
    ImageName(#[from] ImageNameError),
    /// A git repository.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A file behind an address.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// A secret that is no login.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// A folder of the user's.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The files that a key is made from. The words are BuildKit's.
    #[error("failed to calculate checksum of {of}")]
    Checksum {
        /// Of what: the name of a folder, or the word for a state.
        of: String,
        /// Why.
        source: TreeError,
    },
    /// A state could not be opened.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// An operation names an input that its vertex does not have.
    #[error("the operation names input {0}, which its vertex does not have")]
    NoSuchInput(u32),
    /// A diff of states of which one is not made on top of the other.
    #[error(
        "cannot take the difference of two states of which the upper is not made on top of the lower"
    )]
    UnrelatedDiff,
    /// A source that this version cannot read.
    #[error("source `{0}` is not supported")]
    UnsupportedSource(String),
}

impl OperationError {
    /// Whether a step could not run because there is no program of the name.
    pub fn is_missing_program(&self) -> bool {
        self.exit_code() == Some(127)
    }

    /// The exit code that a shell would give for a step whose program could not be executed.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exec(ExecError::Start { reason, .. }) => Some(reason.exit_code()),
            _ => None,
        }
    }
}

impl From<ImageError> for OperationError {
    fn from(error: ImageError) -> Self {
        Self::Image(Box::new(error))
    }
}
