//! The errors that all who work with several parts of a store share.

use thiserror::Error;

use crate::{ContentError, IndexError, LayersError, LeaseError, LockError};

/// A part of the store failed.
#[derive(Debug, Error)]
pub enum PartError {
    /// The blobs.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The layers.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The leases.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A lock.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// Lets `?` turn the errors of the parts into an error that has a variant `Store` for them.
macro_rules! from_parts {
    ($error:ty: $($part:ty),+) => {$(
        impl From<$part> for $error {
            fn from(error: $part) -> Self {
                Self::Store(error.into())
            }
        }
    )+};
}

pub(crate) use from_parts;
