//! From a name to a manifest, a configuration and a list of layers.

use std::io::Write as _;
use std::sync::PoisonError;

use rbuild_oci::{
    ChainId, Descriptor, Digest, ImageConfig, Manifest, MediaType, Platform, Reference,
};
use rbuild_solver::{LayerId, Snapshot};
use serde_json::json;

use super::document::ImageDocument;
use super::error::FetchError;
use super::fetch::Origin;
use super::{ImageError, ImageLayer, ImageName, ImageSource, PullMode, ResolvedImage};
use crate::disk_error::DiskError;
use crate::{BlobFacts, ContentError, LayerFacts, LayoutImage, PartError};

/// What registries are asked to accept as a manifest.
const LARGEST_MANIFEST: u64 = 4 * 1024 * 1024;
/// Some images carry a long history.
pub(super) const LARGEST_CONFIG: u64 = 8 * 1024 * 1024;
/// An index may list an index; beyond that it is no use to anybody.
const DEEPEST_INDEX: usize = 3;

/// A document and what it is.
struct Found {
    descriptor: Descriptor,
    bytes: Vec<u8>,
}

/// Where the parts of one image are looked for.
struct Search<'a> {
    source: &'a ImageSource,
    /// As people write it.
    image: String,
    /// Beyond the store.
    origin: Option<Origin>,
    platform: &'a Platform,
}

/// What the local image store has under a name.
enum Local {
    Found(Box<ResolvedImage>),
    /// An image for these platforms, none of which is wanted.
    OtherPlatform(String),
    Absent,
}

impl ImageSource {
    /// Finds what `name` means for `platform`, keeps the documents and notes where the layers are. Fetches no layer.
    pub async fn resolve(
        &self,
        name: &ImageName,
        platform: &Platform,
        pull: PullMode,
    ) -> Result<ResolvedImage, ImageError> {
        let search = |origin| Search { source: self, image: name.to_string(), origin, platform };
        let resolved = || self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if name.is_by_digest()
            && let Some(image) = resolved().get(&(name.identifier(), platform.clone()))
        {
            return Ok(image.clone());
        }
        let image = match name {
            ImageName::Layout(layout, image) => {
                let search = search(Some(Origin::Layout(layout.clone())));
                let descriptor = layout.find(image)?;
                let top = search.document(&descriptor, LARGEST_MANIFEST).await?;
                let pinned =
                    ImageName::Layout(layout.clone(), LayoutImage::Digest(descriptor.digest));
                search.image(top, pinned).await?
            }
            ImageName::Reference(reference) => {
                let here = match self.resolve_locally(&search(None), reference, pull).await? {
                    Local::Found(image) => return Ok(*image),
                    Local::OtherPlatform(platforms) => Some(platforms),
                    Local::Absent => None,
                };
                let search = search(Some(Origin::Registry(reference.clone())));
                let document = self.registry.manifest(reference).await;
                let document = document.map_err(|source| match here {
                    Some(here) => ImageError::OtherPlatform {
                        image: name.to_string(),
                        here,
                        wanted: platform.to_string(),
                        source,
                    },
                    None => source.into(),
                })?;
                let size = document.bytes.len() as u64;
                let descriptor = Descriptor::new(document.media_type, document.digest, size);
                search.keep(&descriptor, &document.bytes)?;
                let pinned = ImageName::Reference(reference.pinned(document.digest));
                search.image(Found { descriptor, bytes: document.bytes }, pinned).await?
            }
        };
        resolved().insert((image.name.identifier(), platform.clone()), image.clone());
        Ok(image)
    }

    /// Finds an image of the local image store, or one whose digest is known and whose documents are in the store.
    async fn resolve_locally(
        &self,
        search: &Search<'_>,
        reference: &Reference,
        pull: PullMode,
    ) -> Result<Local, ImageError> {
        let named = match (reference.digest(), pull) {
            (Some(digest), _) => {
                let size = self.content.size(digest)?;
                size.map(|size| Descriptor::new("".into(), *digest, size))
            }
            (None, PullMode::Always) => None,
            (None, PullMode::Missing) => {
                let name = reference.with_default_tag().to_string();
                self.index.image(&name)?.map(|image| image.descriptor)
            }
        };
        let Some(descriptor) = named else { return Ok(Local::Absent) };
        let mut search = Search { origin: None, image: search.image.clone(), ..*search };
        if reference.digest().is_some() {
            // Its platform's manifest or its configuration may have to be fetched still.
            search.origin = Some(Origin::Registry(reference.clone()));
        }
        let pinned = ImageName::Reference(reference.pinned(descriptor.digest));
        let found = match search.document(&descriptor, LARGEST_MANIFEST).await {
            Ok(top) => search.image(top, pinned).await,
            Err(error) => Err(error),
        };
        match found {
            // Another platform's image may have been built under this name.
            Ok(image)
                if reference.digest().is_none()
                    && search.platform.distance(&image.config.platform()).is_none() =>
            {
                Ok(Local::OtherPlatform(image.config.platform().to_string()))
            }
            Ok(image) => Ok(Local::Found(Box::new(image))),
            // What the local image store lost, or never had for this platform, the registry may have.
            Err(ImageError::NoPlatform { available, .. }) if reference.digest().is_none() => {
                Ok(Local::OtherPlatform(available))
            }
            Err(ImageError::Store(PartError::Content(ContentError::Missing(_))))
                if reference.digest().is_none() =>
            {
                Ok(Local::Absent)
            }
            Err(error) => Err(error),
        }
    }
}

impl Search<'_> {
    /// Follows indexes down to the manifest for the platform, and reads that.
    async fn image(&self, top: Found, name: ImageName) -> Result<ResolvedImage, ImageError> {
        let top_descriptor = top.descriptor.clone();
        let mut found = top;
        for _ in 0..=DEEPEST_INDEX {
            let digest = found.descriptor.digest;
            let document =
                ImageDocument::parse(&found.descriptor.media_type, &found.bytes).map_err(
                    |source| ImageError::Document { image: self.image.clone(), digest, source },
                )?;
            match document {
                ImageDocument::Manifest(manifest) => {
                    found.descriptor.media_type =
                        manifest.media_type.clone().unwrap_or(MediaType::OciManifest);
                    return self.manifest(*manifest, found.descriptor, top_descriptor, name).await;
                }
                ImageDocument::Index(index) => {
                    let entry =
                        index.select(self.platform).ok_or_else(|| self.no_platform(&index))?;
                    found = self.document(entry, LARGEST_MANIFEST).await?;
                }
            }
        }
        Err(ImageError::Nesting { image: self.image.clone() })
    }

    fn no_platform(&self, index: &rbuild_oci::Index) -> ImageError {
        let mut available: Vec<String> = index
            .manifests
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            .filter(|platform| platform.os != "unknown")
            .map(ToString::to_string)
            .collect();
        available.sort_unstable();
        available.dedup();
        ImageError::NoPlatform {
            image: self.image.clone(),
            wanted: self.platform.to_string(),
            available: if available.is_empty() {
                "no platform at all".to_owned()
            } else {
                available.join(", ")
            },
        }
    }

    async fn manifest(
        &self,
        manifest: Manifest,
        descriptor: Descriptor,
        top: Descriptor,
        name: ImageName,
    ) -> Result<ResolvedImage, ImageError> {
        let image = || self.image.clone();
        let media_type = &manifest.config.media_type;
        if !matches!(media_type, MediaType::OciConfig | MediaType::DockerConfig) {
            return Err(ImageError::NotAnImage { image: image(), media_type: media_type.clone() });
        }
        for layer in &manifest.layers {
            let (digest, media_type) = (layer.digest, layer.media_type.clone());
            match media_type {
                MediaType::OciLayerNondistributable
                | MediaType::OciLayerNondistributableGzip
                | MediaType::DockerForeignLayerGzip => {
                    return Err(ImageError::NotDistributable {
                        image: image(),
                        digest,
                        media_type,
                    });
                }
                media_type if media_type.layer_compression().is_none() => {
                    return Err(ImageError::LayerType { image: image(), digest, media_type });
                }
                _ => {}
            }
        }
        let config_descriptor = manifest.config;
        self.source.lease.pin_blobs(&[top.digest, descriptor.digest, config_descriptor.digest])?;
        let config_bytes = self.document(&config_descriptor, LARGEST_CONFIG).await?.bytes;
        let config: ImageConfig = serde_json::from_slice(&config_bytes)
            .map_err(|source| ImageError::Config { image: image(), source })?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            let (layers, diff_ids) = (manifest.layers.len(), diff_ids.len());
            return Err(ImageError::LayerCount { image: image(), layers, diff_ids });
        }
        let mut chain: Option<ChainId> = None;
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (blob, diff_id) in manifest.layers.into_iter().zip(diff_ids) {
            let next = match chain {
                None => ChainId(diff_id.0),
                Some(below) => ChainId(Digest::of(format!("{} {diff_id}", below.0).as_bytes())),
            };
            chain = Some(next);
            let id = LayerId::of_diff_id(&rbuild_oci::DiffId(next.0));
            layers.push(ImageLayer { descriptor: blob, diff_id: *diff_id, id });
        }
        let snapshot = Snapshot::new(layers.iter().map(|layer| layer.id).collect());
        self.source.lease.pin_layers(snapshot.layers())?;
        self.note(&layers)?;
        Ok(ResolvedImage {
            name,
            top,
            manifest: descriptor,
            config,
            config_descriptor,
            config_bytes,
            layers,
            snapshot,
        })
    }

    /// Notes how the layers can be had later, unless that is known. An earlier image may have lied about the same
    /// blob, so the last one is believed until the blob was read.
    fn note(&self, layers: &[ImageLayer]) -> Result<(), ImageError> {
        let index = &self.source.index;
        let source = self.origin.as_ref().map(Origin::to_blob_source);
        let (mut new_facts, mut new_places) = (Vec::new(), Vec::new());
        let ids = layers.iter().map(|layer| (&layer.id, &layer.descriptor.digest));
        let all_known = index.layers_with_places(ids)?;
        for ((number, layer), known) in layers.iter().enumerate().zip(all_known) {
            let digest = layer.descriptor.digest;
            let knows_blob = known.facts.as_ref().is_some_and(|facts| {
                facts.blobs.iter().any(|blob| {
                    blob.descriptor == layer.descriptor
                        || blob.descriptor.digest == digest
                            && blob.verified
                            && blob.descriptor.size != layer.descriptor.size
                })
            });
            if !knows_blob {
                let blob = BlobFacts {
                    descriptor: layer.descriptor.clone(),
                    encoder: None,
                    verified: false,
                };
                let below = number.checked_sub(1).map(|below| layers[below].id);
                let facts = LayerFacts {
                    diff_id: Some(layer.diff_id),
                    description: format!("layer {} of {}", number + 1, self.image),
                    extra: below.map(|below| json!({ LayerFacts::PARENT: below.to_string() })),
                    blobs: vec![blob],
                    ..LayerFacts::default()
                };
                new_facts.push((layer.id, facts));
            }
            if let Some(source) = &source
                && !known.places.contains(source)
            {
                new_places.push(digest);
            }
        }
        if !new_facts.is_empty() {
            index.add_layers(&new_facts)?;
        }
        if let Some(source) = source.filter(|_| !new_places.is_empty()) {
            index.add_blob_source(&new_places, &source)?;
        }
        Ok(())
    }

    /// Reads a document from the store, or fetches and keeps it.
    async fn document(&self, descriptor: &Descriptor, limit: u64) -> Result<Found, ImageError> {
        let (digest, size) = (descriptor.digest, descriptor.size);
        if size > limit {
            return Err(ImageError::TooLarge { image: self.image.clone(), digest, size, limit });
        }
        let content = &self.source.content;
        self.source.lease.pin_blobs(&[digest])?;
        match content.read(&digest, limit) {
            Ok(bytes) if bytes.len() as u64 == size => {
                return Ok(Found { descriptor: descriptor.clone(), bytes });
            }
            // The descriptor lies.
            Ok(_) | Err(ContentError::TooLarge { .. }) => {}
            // Or it was damaged, and is deleted now.
            Err(ContentError::Missing(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let bytes = match &self.origin {
            // No image is in a bucket.
            None | Some(Origin::Bucket { .. }) => return Err(ContentError::Missing(digest).into()),
            Some(Origin::Layout(layout)) => layout.read(descriptor)?,
            // A registry keeps configurations with the layers and everything else apart.
            Some(Origin::Registry(reference)) if is_config(&descriptor.media_type) => {
                self.source.registry.small_blob(reference, descriptor).await?
            }
            Some(Origin::Registry(reference)) => {
                self.source.registry.manifest(&reference.pinned(digest)).await?.bytes
            }
        };
        self.keep(descriptor, &bytes)?;
        Ok(Found { descriptor: descriptor.clone(), bytes })
    }

    /// Puts a document into the store; fails when it is not what its descriptor says.
    fn keep(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), ImageError> {
        let content = &self.source.content;
        let digest = descriptor.digest;
        if content.contains(&digest, descriptor.size)? {
            return Ok(());
        }
        let mut writer = content.begin_with(digest.algorithm())?;
        writer
            .write_all(bytes)
            .map_err(|error| DiskError::new("write", &content.path(&digest), error))
            .map_err(ContentError::from)?;
        writer.commit(Some((digest, descriptor.size))).map(drop).map_err(|error| {
            let from = self.origin.as_ref().map_or_else(String::new, ToString::to_string);
            ImageError::Fetch { digest, from, source: FetchError::Content(error) }
        })
    }
}

fn is_config(media_type: &MediaType) -> bool {
    matches!(media_type, MediaType::OciConfig | MediaType::DockerConfig)
}
