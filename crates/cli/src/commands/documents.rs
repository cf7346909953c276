//! The documents of an image of the local image store: one manifest, or those that an index lists.

use rbuild_cache::{DocumentWalk, DocumentWalkError, Image as StoredImage, Store};
use rbuild_oci::{Descriptor, DiffId, Digest, ImageConfig, Manifest, MediaType, Platform};
use serde_json::Value;

use super::images::DOCUMENT_LIMIT;
use crate::error::{CommandError, Kind};

/// A manifest of an image.
#[derive(Clone, Debug)]
pub(crate) struct ManifestDocument {
    /// As an index describes it, or the local image store.
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: Manifest,
}

impl ManifestDocument {
    /// Its configuration.
    pub(crate) fn config(&self, store: &Store) -> Result<ImageConfig, CommandError> {
        parsed(store, &self.manifest.config.digest)
    }

    /// The digest of each layer's archive, where its configuration is an image's and says it.
    pub(crate) fn diff_ids(&self, store: &Store) -> Vec<Option<DiffId>> {
        let layers = &self.manifest.layers;
        let config_type = &self.manifest.config.media_type;
        let is_image = matches!(config_type, MediaType::OciConfig | MediaType::DockerConfig);
        let diff_ids = match self.config(store) {
            Ok(config) if is_image => config.rootfs.diff_ids,
            _ => Vec::new(),
        };
        let is_told = diff_ids.len() == layers.len();
        let of = |(position, layer): (usize, &Descriptor)| {
            let told = is_told && layer.media_type.layer_compression().is_some();
            told.then(|| diff_ids[position])
        };
        layers.iter().enumerate().map(of).collect()
    }

    /// What its index or its configuration says that it is for; `None` for what is no image.
    pub(crate) fn platform(&self, store: &Store) -> Option<Platform> {
        let described = self.descriptor.platform.clone();
        let platform = described.or_else(|| Some(self.config(store).ok()?.platform()))?;
        Some(platform).filter(|platform| platform.os != "unknown")
    }
}

/// All manifests that a manifest or index leads to, in their order.
pub(crate) fn manifests(
    store: &Store,
    top: &Descriptor,
) -> Result<Vec<ManifestDocument>, CommandError> {
    let unusable = |error: DocumentWalkError| {
        let message = "what the image consists of is not believed";
        CommandError::caused(Kind::Environment, message, error)
    };
    let mut walk = DocumentWalk::new(top.clone());
    let mut found = Vec::new();
    while let Some(descriptor) = walk.next() {
        let digest = descriptor.digest;
        let bytes = bytes(store, &digest)?;
        walk.read(&descriptor, bytes.len() as u64).map_err(unusable)?;
        if descriptor.media_type.is_index() {
            walk.enter(&parse(&digest, &bytes)?).map_err(unusable)?;
        } else {
            found.push(ManifestDocument { manifest: parse(&digest, &bytes)?, descriptor });
        }
    }
    Ok(found)
}

/// What of an image is for a platform, or all of it.
pub(crate) fn select(
    store: &Store,
    image: &StoredImage,
    wanted: Option<&Platform>,
) -> Result<Descriptor, CommandError> {
    let Some(wanted) = wanted else { return Ok(image.descriptor.clone()) };
    let manifests = manifests(store, &image.descriptor)?;
    let platforms: Vec<(Platform, &ManifestDocument)> =
        manifests.iter().filter_map(|one| Some((one.platform(store)?, one))).collect();
    let nearest = platforms
        .iter()
        .filter_map(|(platform, one)| Some((wanted.distance(platform)?, one)))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((_, one)) => Ok(one.descriptor.clone()),
        None => {
            let names: Vec<String> =
                platforms.iter().map(|(platform, _)| platform.to_string()).collect();
            let message = format!("the image is not for {wanted}, only for {}", names.join(", "));
            Err(CommandError::usage(message))
        }
    }
}

/// A document as it is.
pub(crate) fn document(store: &Store, digest: &Digest) -> Result<Value, CommandError> {
    parsed(store, digest)
}

fn parsed<T: serde::de::DeserializeOwned>(
    store: &Store,
    digest: &Digest,
) -> Result<T, CommandError> {
    parse(digest, &bytes(store, digest)?)
}

fn bytes(store: &Store, digest: &Digest) -> Result<Vec<u8>, CommandError> {
    store.content.read(digest, DOCUMENT_LIMIT).map_err(|error| {
        CommandError::caused(
            Kind::Environment,
            format!("cannot read `{digest}` of the image"),
            error,
        )
    })
}

fn parse<T: serde::de::DeserializeOwned>(digest: &Digest, bytes: &[u8]) -> Result<T, CommandError> {
    serde_json::from_slice(bytes).map_err(|error| {
        CommandError::caused(
            Kind::Environment,
            format!("`{digest}` of the image is not the document that it should be"),
            error,
        )
    })
}
