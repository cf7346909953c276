//! Why a file could not be fetched.

use std::io;

use rbuild_oci::Digest;

use crate::{IndexError, LayersError, LeaseError, LockError, TransportError};

/// A file could not be fetched.
#[derive(Debug, thiserror::Error)]
#[error("cannot fetch `{url}`")]
pub struct DownloadError {
    /// The address, without a password.
    pub url: String,
    /// Why.
    #[source]
    pub kind: Box<DownloadErrorKind>,
}

/// See [`DownloadError`].
#[derive(Debug, thiserror::Error)]
pub enum DownloadErrorKind {
    /// It is no address.
    #[error("the address is malformed: {0}")]
    Url(String),
    /// An attribute of the source means nothing.
    #[error("attribute `{name}` is {value:?}, which is no {what}")]
    Attribute {
        /// Which.
        name: &'static str,
        /// What it says.
        value: String,
        /// What it should be.
        what: &'static str,
    },
    /// The file would have a name that no file can have.
    #[error("{0:?} is no name for a file")]
    FileName(String),
    /// No answer came.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The server refused. The words are BuildKit's.
    #[error("invalid response status {status}")]
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// A redirect that is not followed.
    #[error("redirect to `{location}` is not followed: {reason}")]
    Redirect {
        /// Where to.
        location: String,
        /// Why not.
        reason: &'static str,
    },
    /// The body does not end.
    #[error("the file is larger than {0} bytes, the most that is fetched")]
    TooLarge(u64),
    /// The body does not end in any time.
    #[error("the server sends fewer than {0} bytes in {1} seconds")]
    TooSlow(u64, u64),
    /// It is another file than the one that was asked for. The words are BuildKit's.
    #[error("digest mismatch {actual}: {expected}")]
    Checksum {
        /// What came.
        actual: Digest,
        /// What had to come.
        expected: Digest,
    },
    /// The file could not be written.
    #[error("cannot {action} the file in the store")]
    Write {
        /// What failed: a verb.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The layer.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// The lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The lock.
    #[error(transparent)]
    Lock(#[from] LockError),
}
