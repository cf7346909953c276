//! Reads a cache's documents from where it is.

use rbuild_oci::{Descriptor, Digest, Hasher, ImageConfig, Manifest, Reference, VerifyError};

use super::config::{CACHE_CONFIG_TYPE, CacheConfig, INLINE_CACHE};
use super::contents::{CacheContents, mount_index};
use super::import::CacheImportError;
use super::name::{CacheName, S3Cache};
use crate::image_source::ImageDocument;
use crate::{BlobSource, ImageName, ImageSource, OciLayout, RegistryClient, S3Client};

const LARGEST_MANIFEST: u64 = 4 << 20;
const LARGEST_IMAGE_CONFIG: u64 = 8 << 20;
const LARGEST_CACHE_CONFIG: u64 = 32 << 20;
/// How many platforms of an image are looked at.
const MOST_PLATFORMS: usize = 32;

/// Where a cache is.
pub(super) enum Place<'a> {
    Registry(&'a RegistryClient, &'a Reference),
    Layout(&'a OciLayout),
    Bucket(S3Client, &'a S3Cache),
}

impl<'a> Place<'a> {
    /// Where a name is looked for.
    pub(super) fn of(images: &'a ImageSource, name: &'a CacheName) -> Self {
        match name {
            CacheName::Image(ImageName::Reference(reference)) => {
                Self::Registry(&images.registry, reference)
            }
            CacheName::Image(ImageName::Layout(layout, _)) => Self::Layout(layout),
            CacheName::S3(cache) => Self::Bucket(images.buckets.of(&cache.bucket), cache),
        }
    }

    /// The place as one that its blobs can be fetched from.
    pub(super) fn to_blob_source(&self) -> BlobSource {
        match self {
            Self::Registry(_, reference) => BlobSource::Registry {
                registry: reference.registry().to_owned(),
                repository: reference.repository().to_owned(),
            },
            Self::Layout(layout) => BlobSource::OciLayout { path: layout.folder().to_owned() },
            Self::Bucket(_, cache) => {
                BlobSource::S3 { bucket: cache.bucket.clone(), prefix: cache.blobs.clone() }
            }
        }
    }

    /// Reads what a name means: a cache, or an image with records in its configuration.
    pub(super) async fn contents(
        &self,
        name: &CacheName,
    ) -> Result<Vec<CacheContents>, CacheImportError> {
        let name = match name {
            CacheName::Image(name) => name,
            CacheName::S3(_) => return self.of_bucket().await?.into_iter().map(of_plain).collect(),
        };
        match self.top(name).await? {
            ImageDocument::Manifest(manifest) => {
                Ok(vec![self.of_manifest(*manifest).await?.ok_or(CacheImportError::NoRecords)?])
            }
            ImageDocument::Index(index) => {
                let is_config =
                    |entry: &&Descriptor| entry.media_type.as_str() == CACHE_CONFIG_TYPE;
                if let Some(config) = index.manifests.iter().find(is_config) {
                    return Ok(vec![self.of_config(config, &index.manifests).await?]);
                }
                let mut found = Vec::new();
                let platforms = index.manifests.iter().filter(|entry| {
                    entry.media_type.is_manifest()
                        && entry.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
                });
                for entry in platforms.take(MOST_PLATFORMS) {
                    let bytes = self.document(entry).await?;
                    if let ImageDocument::Manifest(manifest) =
                        ImageDocument::parse(&entry.media_type, &bytes)?
                    {
                        found.extend(self.of_manifest(*manifest).await?);
                    }
                }
                if found.is_empty() { Err(CacheImportError::NoRecords) } else { Ok(found) }
            }
        }
    }

    /// The index of cache mounts that a cache has.
    pub(super) async fn mount_index(
        &self,
        name: &CacheName,
    ) -> Result<Option<Descriptor>, CacheImportError> {
        let name = match name {
            CacheName::Image(name) => name,
            CacheName::S3(_) => {
                let configs = self.of_bucket().await?;
                return Ok(configs.iter().find_map(|config| mount_index(&config.blobs())));
            }
        };
        Ok(match self.top(name).await? {
            ImageDocument::Manifest(manifest) => mount_index(&manifest.layers),
            ImageDocument::Index(index) => mount_index(&index.manifests),
        })
    }

    /// The documents that a bucket has under any of the cache's names.
    async fn of_bucket(&self) -> Result<Vec<CacheConfig>, CacheImportError> {
        let Self::Bucket(client, cache) = self else { unreachable!("a place is made of its name") };
        let mut found = Vec::new();
        for name in &cache.names {
            let key = cache.manifest(name);
            if let Some(bytes) = client.read(&key, LARGEST_CACHE_CONFIG).await? {
                found.push(serde_json::from_slice(&bytes).map_err(CacheImportError::Json)?);
            }
        }
        if found.is_empty() {
            let (bucket, names) = (cache.bucket.to_string(), cache.names.join("`, `"));
            return Err(CacheImportError::NoName {
                bucket,
                prefix: cache.manifests.clone(),
                names,
            });
        }
        Ok(found)
    }

    /// What a name means.
    async fn top(&self, name: &ImageName) -> Result<ImageDocument, CacheImportError> {
        let (media_type, bytes) = match (self, name) {
            (Self::Layout(layout), ImageName::Layout(_, image)) => {
                let descriptor = layout.find(image)?;
                (descriptor.media_type.clone(), self.document(&descriptor).await?)
            }
            (Self::Registry(registry, _), ImageName::Reference(reference)) => {
                let document = registry.manifest(reference).await?;
                (document.media_type, document.bytes)
            }
            _ => unreachable!("a place is made of its name"),
        };
        Ok(ImageDocument::parse(&media_type, &bytes)?)
    }

    /// `None` for an image without records.
    async fn of_manifest(
        &self,
        manifest: Manifest,
    ) -> Result<Option<CacheContents>, CacheImportError> {
        if manifest.config.media_type.as_str() == CACHE_CONFIG_TYPE {
            return self.of_config(&manifest.config, &manifest.layers).await.map(Some);
        }
        let bytes = self.blob(&manifest.config, LARGEST_IMAGE_CONFIG).await?;
        let config: ImageConfig = serde_json::from_slice(&bytes).map_err(CacheImportError::Json)?;
        let Some(text) = config.extra.get(INLINE_CACHE).and_then(|value| value.as_str()) else {
            return Ok(None);
        };
        let records =
            CacheConfig::records_from_inline(text).ok_or(CacheImportError::UnreadableRecords)?;
        let (layers, diff_ids) = (manifest.layers, config.rootfs.diff_ids);
        if layers.len() != diff_ids.len() {
            let (layers, diff_ids) = (layers.len(), diff_ids.len());
            return Err(CacheImportError::LayerCount { layers, diff_ids });
        }
        Ok(Some(CacheContents::of_image(layers, &diff_ids, records)?))
    }

    async fn of_config(
        &self,
        config: &Descriptor,
        blobs: &[Descriptor],
    ) -> Result<CacheContents, CacheImportError> {
        let bytes = self.blob(config, LARGEST_CACHE_CONFIG).await?;
        let config: CacheConfig = serde_json::from_slice(&bytes).map_err(CacheImportError::Json)?;
        Ok(CacheContents::of_config(config, blobs)?)
    }

    /// Reads a manifest. A registry keeps those apart from blobs.
    async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, CacheImportError> {
        match self {
            Self::Registry(registry, reference) => {
                Ok(registry.manifest(&reference.pinned(descriptor.digest)).await?.bytes)
            }
            Self::Layout(_) | Self::Bucket(..) => self.blob(descriptor, LARGEST_MANIFEST).await,
        }
    }

    async fn blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, CacheImportError> {
        let (digest, size) = (descriptor.digest, descriptor.size);
        if size > limit {
            return Err(CacheImportError::TooLarge { digest, size, limit });
        }
        match self {
            Self::Layout(layout) => Ok(layout.read(descriptor)?),
            Self::Registry(registry, reference) => {
                let bytes = registry.small_blob(reference, descriptor).await?;
                verified(digest, bytes)
            }
            Self::Bucket(client, cache) => {
                let bytes = client.read(&cache.blob(&digest), size).await?.unwrap_or_default();
                verified(digest, bytes)
            }
        }
    }
}

/// A document that is not listed by a manifest.
fn of_plain(config: CacheConfig) -> Result<CacheContents, CacheImportError> {
    let blobs = config.blobs();
    Ok(CacheContents::of_config(config, &blobs)?)
}

fn verified(expected: Digest, bytes: Vec<u8>) -> Result<Vec<u8>, CacheImportError> {
    let mut hasher = Hasher::new(expected.algorithm());
    hasher.update(&bytes);
    let actual = hasher.finish();
    if actual == expected {
        return Ok(bytes);
    }
    let source = VerifyError::Digest { expected, actual };
    Err(CacheImportError::Verify { digest: expected, source })
}
