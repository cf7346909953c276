//! Why an image, or a layer of one, cannot be had.

use rbuild_oci::{DiffId, Digest, MediaType};
use rbuild_solver::LayerId;

use super::DocumentError;
use crate::part_error::from_parts;
use crate::{
    ApplyError, CompressionError, ContentError, DocumentWalkError, IndexError, LayersError,
    LayoutError, LeaseError, LockError, PartError, RegistryError, S3Error, ViewError,
};

/// An image, or a layer of one, cannot be had. `image` is the name as people write it.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The layout folder.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The bucket.
    #[error(transparent)]
    Bucket(#[from] S3Error),
    /// A layer that was to be made once it was needed.
    #[error("cannot make a layer whose files nobody needed until now")]
    Deferred(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A manifest or index that is none.
    #[error("document `{digest}` of image `{image}` cannot be used")]
    Document {
        /// Which image.
        image: String,
        /// Which document.
        digest: Digest,
        /// Why.
        source: DocumentError,
    },
    /// An index without an entry for the platform.
    #[error("image `{image}` is not there for {wanted}, only for {available}")]
    NoPlatform {
        /// Which image.
        image: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// The local image store has the name for something else, and the registry could not be asked.
    #[error(
        "the local image `{image}` is for {here}, not for {wanted}, and its registry does not help"
    )]
    OtherPlatform {
        /// Which image.
        image: String,
        /// What there is.
        here: String,
        /// What was asked for.
        wanted: String,
        /// What came of asking.
        source: RegistryError,
    },
    /// Indexes that list indexes.
    #[error("image `{image}` is an index of indexes, nested too deeply")]
    Nesting {
        /// Which image.
        image: String,
    },
    /// An index that is not followed.
    #[error("what image `{image}` consists of is not believed")]
    Walk {
        /// Which image.
        image: String,
        /// Why.
        source: DocumentWalkError,
    },
    /// An artifact that is no image.
    #[error("`{image}` is not a container image: its configuration has type `{media_type}`")]
    NotAnImage {
        /// Which artifact.
        image: String,
        /// What its configuration is.
        media_type: MediaType,
    },
    /// A document that says it is larger than any sensible one.
    #[error(
        "document `{digest}` of image `{image}` has {size} bytes, at most {limit} are believed"
    )]
    TooLarge {
        /// Which image.
        image: String,
        /// Which document.
        digest: Digest,
        /// What its descriptor says.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The configuration is not JSON of the right shape.
    #[error("the configuration of image `{image}` cannot be understood")]
    Config {
        /// Which image.
        image: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Manifest and configuration contradict each other.
    #[error(
        "image `{image}` is broken: its manifest has {layers} layers, its configuration {diff_ids} diff ids"
    )]
    LayerCount {
        /// Which image.
        image: String,
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// A layer of a type that is not known.
    #[error("layer `{digest}` of image `{image}` has the unsupported type `{media_type}`")]
    LayerType {
        /// Which image.
        image: String,
        /// Which blob.
        digest: Digest,
        /// Its type.
        media_type: MediaType,
    },
    /// A layer that registries may not have.
    #[error(
        "layer `{digest}` of image `{image}` is not distributable (`{media_type}`): rbuild does not fetch layers from \
         elsewhere"
    )]
    NotDistributable {
        /// Which image.
        image: String,
        /// Which blob.
        digest: Digest,
        /// Its type.
        media_type: MediaType,
    },
    /// A blob that could not be fetched whole and right.
    #[error("cannot fetch blob `{digest}` from {from}")]
    Fetch {
        /// Which blob.
        digest: Digest,
        /// Where from.
        from: String,
        /// Why.
        source: FetchError,
    },
    /// A blob that is what it should be, but no layer that can be unpacked.
    #[error("cannot unpack layer `{digest}`")]
    Unpack {
        /// The blob.
        digest: Digest,
        /// Why.
        source: ApplyError,
    },
    /// A blob with an unknown compression.
    #[error("cannot unpack layer `{digest}`")]
    Compression {
        /// The blob.
        digest: Digest,
        /// Why.
        source: CompressionError,
    },
    /// A blob whose archive cannot be read to its end.
    #[error("cannot read layer `{digest}`")]
    Unreadable {
        /// The blob.
        digest: Digest,
        /// Why.
        source: std::io::Error,
    },
    /// A layer whose content is not what the configuration says.
    #[error("layer `{digest}` has diff id `{actual}`, the image's configuration says `{expected}`")]
    DiffId {
        /// The blob.
        digest: Digest,
        /// In the configuration.
        expected: DiffId,
        /// What was unpacked.
        actual: DiffId,
    },
    /// A layer of a cache that is compressed in another way than the cache says.
    #[error("layer `{digest}` is not compressed as its type `{media_type}` says")]
    MediaType {
        /// The blob.
        digest: Digest,
        /// Its type.
        media_type: MediaType,
    },
    /// A layer that is gone, of which nobody knows where to get it.
    #[error("layer `{0}` is not in the store any more, and it is not known where to fetch it")]
    Unavailable(LayerId),
    /// A part of the store.
    #[error(transparent)]
    Store(#[from] PartError),
    /// The layers below one that needs them.
    #[error(transparent)]
    View(#[from] ViewError),
}

from_parts!(ImageError: ContentError, LayersError, IndexError, LeaseError, LockError);

/// See [`ImageError::Fetch`].
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The bytes did not come.
    #[error("cannot read it")]
    Read(#[source] std::io::Error),
    /// Other bytes came.
    #[error(transparent)]
    Content(ContentError),
}
