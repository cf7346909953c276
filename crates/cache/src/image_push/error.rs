//! Why an image cannot be pushed.

use rbuild_oci::Digest;

use crate::part_error::from_parts;
use crate::{
    ContentError, DocumentError, DocumentWalkError, ImageError, IndexError, LeaseError, PartError,
    RegistryError,
};

/// An image cannot be pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layer is not here, and cannot be had from where it came from; or it is another one than the image says.
    #[error("cannot fetch layer `{digest}` to push it")]
    Fetch {
        /// Which layer.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<ImageError>,
    },
    /// A document of the image cannot be read.
    #[error("cannot read document `{digest}` of the image")]
    Content {
        /// Which document.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<ContentError>,
    },
    /// A document of the image cannot be understood.
    #[error("document `{digest}` of the image cannot be used")]
    Document {
        /// Which document.
        digest: Digest,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// An index that is not followed.
    #[error("what the image consists of is not believed")]
    Walk(#[from] DocumentWalkError),
    /// Of an image for several platforms, not all are in the store.
    #[error("the image is not complete: of its platforms, {missing} are missing in the store")]
    Incomplete {
        /// The missing ones.
        missing: String,
    },
    /// The image is not for the platform that was asked for.
    #[error("the image is not for {wanted}")]
    NoPlatform {
        /// What was asked for.
        wanted: String,
    },
    /// A part of the store.
    #[error(transparent)]
    Store(#[from] PartError),
}

from_parts!(PushError: IndexError, LeaseError);
