//! Writes a cache to a bucket.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rbuild_oci::{Descriptor, Digest};
use time::OffsetDateTime;

use super::name::S3Cache;
use crate::{
    BlobSource, ImageError, ImageSource, IndexError, PullProgress, S3Client, S3Error, S3Object,
};

/// Blobs that are looked for at a time. How many are sent is the client's limit.
const PARALLEL: usize = 16;

/// A cache in a bucket that is written.
///
/// What is there is not sent again, but made new again when it is older than `touch_refresh`: buckets may delete what is old. A cache
/// that is there already, and is not that old, costs one request a name; what it consists of was looked at when it was written.
#[derive(Clone, Debug)]
pub struct BucketCache {
    /// Speaks to the bucket.
    pub client: S3Client,
    /// Where in it.
    pub cache: S3Cache,
    /// How old objects may become.
    pub touch_refresh: Duration,
}

/// A cache cannot be written to a bucket.
#[derive(Debug, thiserror::Error)]
pub enum BucketCacheError {
    /// The bucket.
    #[error(transparent)]
    Bucket(#[from] S3Error),
    /// A layer is not here, and cannot be had from where it came from.
    #[error("cannot fetch layer `{digest}` for the cache")]
    Fetch {
        /// Which layer.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<ImageError>,
    },
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl BucketCache {
    /// Writes blobs, then the document that names them. `images` has, or fetches, the blobs.
    pub async fn write(
        &self,
        images: &ImageSource,
        document: &[u8],
        blobs: &[Descriptor],
        progress: &PullProgress,
    ) -> Result<(), BucketCacheError> {
        let digest = Digest::of(document);
        let old: Vec<&String> = stream::iter(&self.cache.names)
            .map(|name| self.is_there(name, digest))
            .buffered(PARALLEL)
            .try_filter_map(|(name, is_there)| async move { Ok((!is_there).then_some(name)) })
            .try_collect()
            .await?;
        if old.is_empty() {
            return Ok(());
        }
        stream::iter(blobs.iter().map(Ok))
            .try_for_each_concurrent(PARALLEL, |blob| self.write_blob(images, blob, progress))
            .await?;
        let digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest).collect();
        let (bucket, prefix) = (self.cache.bucket.clone(), self.cache.blobs.clone());
        images.index.add_blob_source(&digests, &BlobSource::S3 { bucket, prefix })?;
        for name in old {
            self.client.write_document(&self.cache.manifest(name), document.to_vec()).await?;
        }
        Ok(())
    }

    async fn is_there<'a>(
        &self,
        name: &'a String,
        digest: Digest,
    ) -> Result<(&'a String, bool), S3Error> {
        let object = self.client.head(&self.cache.manifest(name)).await?;
        let is_it = |object: S3Object| object.digest == Some(digest) && !self.is_old(&object);
        Ok((name, object.is_some_and(is_it)))
    }

    async fn write_blob(
        &self,
        images: &ImageSource,
        blob: &Descriptor,
        progress: &PullProgress,
    ) -> Result<(), BucketCacheError> {
        let Descriptor { digest, size, .. } = *blob;
        let key = self.cache.blob(&digest);
        match self.client.head(&key).await? {
            Some(object) if object.size == size => {
                if self.is_old(&object) {
                    self.client.touch(&key, size).await?;
                }
                return Ok(());
            }
            // None, or the rest of a failure of somebody's.
            _ => {}
        }
        let fetched = images.ensure_blob_as(blob, None, progress).await;
        fetched.map_err(|source| BucketCacheError::Fetch { digest, source: Box::new(source) })?;
        let bar = Arc::new(Mutex::new(progress.blob(blob)));
        let report = {
            let bar = Arc::clone(&bar);
            move |sent| bar.lock().unwrap_or_else(PoisonError::into_inner).set(sent)
        };
        self.client.write_blob(&key, blob, &images.content.body(digest, size), report).await?;
        let bar = bar.lock().unwrap_or_else(PoisonError::into_inner).clone();
        bar.complete();
        Ok(())
    }

    /// Whether an object may soon be deleted for its age.
    fn is_old(&self, object: &S3Object) -> bool {
        let age = object.modified.map(|time| OffsetDateTime::now_utc() - time);
        age.is_none_or(|age| age >= self.touch_refresh)
    }
}
