//! All that a name stands for at its registry, whatever platforms that is for.

use rbuild_oci::{Descriptor, ImageConfig, Manifest, MediaType, Reference};

use super::document::ImageDocument;
use super::fetch::Origin;
use super::resolve::LARGEST_CONFIG;
use super::{ImageError, ImageSource, PullProgress};
use crate::{Document, DocumentWalk};

/// What a name stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct WholeImage {
    /// The manifest or index that has the name.
    pub top: Descriptor,
    /// The manifests that it leads to, in their order: each as an index describes it, and an image's with its platform.
    pub manifests: Vec<Descriptor>,
    /// The blobs that those name.
    pub blobs: Vec<Descriptor>,
}

impl ImageSource {
    /// Fetches the manifests of all that a name stands for at its registry into the store, and notes where the blobs are.
    pub async fn whole(&self, reference: &Reference) -> Result<WholeImage, ImageError> {
        let Document { media_type, digest, bytes } = self.registry.manifest(reference).await?;
        let top = Descriptor::new(media_type, digest, bytes.len() as u64);
        let mut whole = WholeImage { top: top.clone(), manifests: Vec::new(), blobs: Vec::new() };
        let mut first = Some(bytes);
        let unusable = |source| ImageError::Walk { image: reference.to_string(), source };
        let mut walk = DocumentWalk::new(top);
        while let Some(mut descriptor) = walk.next() {
            let digest = descriptor.digest;
            let bytes = match first.take() {
                Some(bytes) => bytes,
                None => self.registry.manifest(&reference.pinned(digest)).await?.bytes,
            };
            walk.read(&descriptor, bytes.len() as u64).map_err(unusable)?;
            self.lease.pin_blobs(&[digest])?;
            self.content.put(&bytes)?;
            let image = reference.to_string();
            let parsed = ImageDocument::parse(&descriptor.media_type, &bytes)
                .map_err(|source| ImageError::Document { image, digest, source })?;
            let media_type = match &parsed {
                ImageDocument::Index(index) => index.media_type.clone(),
                ImageDocument::Manifest(manifest) => manifest.media_type.clone(),
            };
            let is_index = matches!(parsed, ImageDocument::Index(_));
            let default = if is_index { MediaType::OciIndex } else { MediaType::OciManifest };
            descriptor.media_type = media_type.unwrap_or(default);
            if walk.depth() == 0 {
                whole.top = descriptor.clone();
            }
            match parsed {
                ImageDocument::Index(index) => walk.enter(&index).map_err(unusable)?,
                ImageDocument::Manifest(manifest) => {
                    let blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
                    self.note_place(reference, blobs.clone())?;
                    if descriptor.platform.is_none() && is_image(&manifest) {
                        let config = self.config(reference, &manifest.config).await?;
                        descriptor.platform = Some(config.platform());
                    }
                    whole.manifests.push(descriptor);
                    whole.blobs.extend(blobs.cloned());
                }
            }
        }
        Ok(whole)
    }

    fn note_place<'a>(
        &self,
        reference: &Reference,
        blobs: impl Iterator<Item = &'a Descriptor>,
    ) -> Result<(), ImageError> {
        let digests: Vec<_> = blobs.map(|blob| blob.digest).collect();
        self.lease.pin_blobs(&digests)?;
        let source = Origin::Registry(reference.clone()).to_blob_source();
        Ok(self.index.add_blob_source(&digests, &source)?)
    }

    /// Fetches a configuration.
    async fn config(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<ImageConfig, ImageError> {
        let image = reference.to_string();
        let Descriptor { digest, size, .. } = *descriptor;
        if size > LARGEST_CONFIG {
            return Err(ImageError::TooLarge { image, digest, size, limit: LARGEST_CONFIG });
        }
        self.ensure_blob(descriptor, &PullProgress::discard()).await?;
        let bytes = self.content.read(&digest, LARGEST_CONFIG)?;
        serde_json::from_slice(&bytes).map_err(|source| ImageError::Config { image, source })
    }
}

fn is_image(manifest: &Manifest) -> bool {
    matches!(manifest.config.media_type, MediaType::OciConfig | MediaType::DockerConfig)
}
