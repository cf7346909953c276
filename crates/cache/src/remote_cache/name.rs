//! What a cache is called.

use rbuild_oci::Digest;

use crate::{ImageName, S3Bucket};

/// Where a cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheName {
    /// At a registry or in an OCI layout: as a manifest, or within an image.
    Image(ImageName),
    /// In a bucket.
    S3(S3Cache),
}

/// A cache in a bucket, in the form that BuildKit reads and writes:
///
/// ```text
/// <manifests><name>     a CacheConfig, without a manifest around it
/// <blobs><digest>       a blob of a layer
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Cache {
    /// The bucket.
    pub bucket: S3Bucket,
    /// What comes before the digest in the keys of blobs.
    pub blobs: String,
    /// What comes before the name in the keys of caches.
    pub manifests: String,
    /// The names: it is written under each, and what is found under any of them is read.
    pub names: Vec<String>,
}

impl S3Cache {
    /// The key of a blob.
    pub fn blob(&self, digest: &Digest) -> String {
        format!("{}{digest}", self.blobs)
    }

    /// The key of the cache of a name.
    pub fn manifest(&self, name: &str) -> String {
        format!("{}{name}", self.manifests)
    }
}
