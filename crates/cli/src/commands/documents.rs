//! The documents of an image of the local image store: one manifest, or those that an index lists.

use rbuild_cache::{Image as StoredImage, Store};
use rbuild_oci::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform};
use serde_json::Value;

use super::images::DOCUMENT_LIMIT;
use crate::error::{CommandError, Kind};

/// How deep indexes in indexes are followed.
const MAX_NESTING: u32 = 4;

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
    let mut found = Vec::new();
    collect(store, top, MAX_NESTING, &mut found)?;
    Ok(found)
}

fn collect(
    store: &Store,
    descriptor: &Descriptor,
    nesting: u32,
    found: &mut Vec<ManifestDocument>,
) -> Result<(), CommandError> {
    if !descriptor.media_type.is_index() {
        let manifest = parsed(store, &descriptor.digest)?;
        found.push(ManifestDocument { descriptor: descriptor.clone(), manifest });
        return Ok(());
    }
    if nesting == 0 {
        let message = "the image's indexes list indexes without an end";
        return Err(CommandError::new(Kind::Environment, message));
    }
    let index: Index = parsed(store, &descriptor.digest)?;
    index.manifests.iter().try_for_each(|entry| collect(store, entry, nesting - 1, found))
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
    let bytes = store.content.read(digest, DOCUMENT_LIMIT).map_err(|error| {
        CommandError::caused(
            Kind::Environment,
            format!("cannot read `{digest}` of the image"),
            error,
        )
    })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        CommandError::caused(
            Kind::Environment,
            format!("`{digest}` of the image is not the document that it should be"),
            error,
        )
    })
}
