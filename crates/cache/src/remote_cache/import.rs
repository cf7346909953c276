//! From a cache to records of this store.

use rbuild_oci::{Descriptor, Digest, VerifyError};

use super::contents::CacheFormError;
use super::read::Place;
use crate::{
    BlobSource, CacheName, DocumentError, ImageSource, IndexError, LayoutError, RegistryError,
    S3Error,
};

/// A cache that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportedCache {
    /// How many records of rbuild's it has.
    pub records: usize,
    /// How many of them were not known.
    pub new: usize,
}

/// A cache that cannot be imported. Nothing of it is.
#[derive(Debug, thiserror::Error)]
pub enum CacheImportError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The layout folder.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The bucket.
    #[error(transparent)]
    Bucket(#[from] S3Error),
    /// A bucket without it.
    #[error("`{bucket}/{prefix}` has nothing called `{names}`")]
    NoName {
        /// The bucket.
        bucket: String,
        /// Where in it.
        prefix: String,
        /// What was looked for.
        names: String,
    },
    /// Its manifest.
    #[error("its manifest cannot be used")]
    Document(#[from] DocumentError),
    /// It is an image, and has no records.
    #[error(
        "it is an image without a cache: such images are made with --cache-to type=inline, or BUILDKIT_INLINE_CACHE=1"
    )]
    NoRecords,
    /// The records of an image.
    #[error("the records in the image's configuration cannot be understood")]
    UnreadableRecords,
    /// Manifest and configuration contradict each other.
    #[error("its manifest has {layers} layers, its configuration {diff_ids} diff ids")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// A document that says it is larger than any sensible one.
    #[error("document `{digest}` has {size} bytes, at most {limit} are believed")]
    TooLarge {
        /// Which document.
        digest: Digest,
        /// What its descriptor says.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A document that is another one.
    #[error("document `{digest}` is damaged")]
    Verify {
        /// Which document.
        digest: Digest,
        /// How.
        source: VerifyError,
    },
    /// Not JSON of the right shape.
    #[error("a document of it cannot be understood")]
    Json(#[source] serde_json::Error),
    /// What it says cannot be.
    #[error(transparent)]
    Form(#[from] CacheFormError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl ImageSource {
    /// Reads a cache, or the cache that an image carries, and makes its records ours. A record that is there already stays.
    ///
    /// No layer is fetched. That happens when one is needed as files, or an output must contain it; one that cannot be
    /// had then is noted, see [`ImageSource::give_up_broken`].
    pub async fn import_cache(&self, name: &CacheName) -> Result<ImportedCache, CacheImportError> {
        let place = Place::of(self, name);
        let mut imported = ImportedCache { records: 0, new: 0 };
        for contents in place.contents(name).await? {
            imported.records += contents.records.len();
            imported.new += self.index.import(&contents, &place.to_blob_source())?;
            if let Some(mounts) = contents.mounts {
                self.mounts.note(mounts, place.to_blob_source());
            }
        }
        Ok(imported)
    }

    /// The index of cache mounts that a cache has, and where its blobs are.
    pub(crate) async fn mount_index_of(
        &self,
        name: &CacheName,
    ) -> Result<Option<(Descriptor, BlobSource)>, CacheImportError> {
        let place = Place::of(self, name);
        let index = place.mount_index(name).await?;
        Ok(index.map(|index| (index, place.to_blob_source())))
    }
}
