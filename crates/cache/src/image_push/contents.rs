//! What an image consists of.

use std::collections::{HashMap, HashSet};

use rbuild_oci::{Descriptor, DiffId, Digest, ImageConfig, Index, Manifest, MediaType, Platform};

use super::PushError;
use crate::image_source::ImageDocument;
use crate::{Content, Document, DocumentWalk};

const LARGEST_DOCUMENT: u64 = 4 << 20;

/// What of an image for several platforms is pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushedPlatforms {
    /// All; it is an error if one is not in the store.
    All,
    /// All, or else the only one that is in the store.
    Available,
    /// This one.
    One(Platform),
}

/// The parts of an image, in the order in which a registry wants them.
#[derive(Debug)]
pub(super) struct Contents {
    /// Layers and configurations, each once, the largest first.
    pub(super) blobs: Vec<Descriptor>,
    /// What the configurations say of layers: the digests of a blob's archive, of which a sound image has one.
    pub(super) diff_ids: HashMap<Digest, HashSet<DiffId>>,
    /// What `top` refers to, lower ones first.
    pub(super) manifests: Vec<Document>,
    /// The manifest or index that gets a name.
    pub(super) top: Document,
}

impl Contents {
    /// Reads the documents of an image.
    pub(super) fn read(content: &Content, top: &Descriptor) -> Result<Self, PushError> {
        let mut walk = DocumentWalk::new(top.clone());
        let mut seen = HashSet::new();
        let mut blobs = Vec::new();
        let mut documents = Vec::new();
        let mut diff_ids: HashMap<Digest, HashSet<DiffId>> = HashMap::new();
        while let Some(descriptor) = walk.next() {
            if !seen.insert(descriptor.digest) {
                continue;
            }
            let (parsed, document) = read(content, &descriptor)?;
            walk.read(&descriptor, document.bytes.len() as u64)?;
            documents.push((walk.depth(), document));
            match parsed {
                ImageDocument::Manifest(manifest) => {
                    for (layer, diff_id) in configured(content, &manifest) {
                        diff_ids.entry(layer).or_default().insert(diff_id);
                    }
                    let named = std::iter::once(manifest.config).chain(manifest.layers);
                    let wanted = named.filter(is_distributed);
                    blobs.extend(wanted.filter(|blob| seen.insert(blob.digest)));
                }
                ImageDocument::Index(index) => walk.enter(&index)?,
            }
        }
        let (_, top) = documents.remove(0);
        documents.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        let manifests = documents.into_iter().map(|(_, document)| document).collect();
        blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        Ok(Self { blobs, diff_ids, manifests, top })
    }
}

/// What an image's configuration says of its layers; nothing for other artifacts.
fn configured(content: &Content, manifest: &Manifest) -> Vec<(Digest, DiffId)> {
    let is_image =
        matches!(manifest.config.media_type, MediaType::OciConfig | MediaType::DockerConfig);
    let diff_ids = match config(content, &manifest.config) {
        Some(config) if is_image => config.rootfs.diff_ids,
        _ => Vec::new(),
    };
    if diff_ids.len() != manifest.layers.len() {
        return Vec::new();
    }
    let pairs = manifest.layers.iter().zip(diff_ids);
    pairs
        .filter(|(layer, _)| layer.media_type.layer_compression().is_some())
        .map(|(layer, diff_id)| (layer.digest, diff_id))
        .collect()
}

/// Whether a registry gets a blob. Foreign layers stay where their owner has them, and registries do not miss them.
fn is_distributed(blob: &Descriptor) -> bool {
    !blob.media_type.is_foreign()
}

pub(super) fn read(
    content: &Content,
    descriptor: &Descriptor,
) -> Result<(ImageDocument, Document), PushError> {
    let digest = descriptor.digest;
    let bytes = content
        .read(&digest, LARGEST_DOCUMENT)
        .map_err(|source| PushError::Content { digest, source: Box::new(source) })?;
    let parsed = ImageDocument::parse(&descriptor.media_type, &bytes)
        .map_err(|source| PushError::Document { digest, source })?;
    let own = match &parsed {
        ImageDocument::Manifest(manifest) => manifest.media_type.clone(),
        ImageDocument::Index(index) => index.media_type.clone(),
    };
    let media_type = own.unwrap_or_else(|| descriptor.media_type.clone());
    Ok((parsed, Document { media_type, digest, bytes }))
}

/// Picks what of an image is pushed: the whole, or one platform's manifest.
pub(super) fn select(
    content: &Content,
    top: &Descriptor,
    platforms: &PushedPlatforms,
) -> Result<Descriptor, PushError> {
    let (parsed, _) = read(content, top)?;
    let index = match parsed {
        ImageDocument::Index(index) => *index,
        ImageDocument::Manifest(manifest) => {
            if let PushedPlatforms::One(wanted) = platforms {
                let is_for = platform_of(content, &manifest.config);
                if is_for.is_none_or(|platform| wanted.distance(&platform) != Some(0)) {
                    return Err(PushError::NoPlatform { wanted: wanted.to_string() });
                }
            }
            return Ok(top.clone());
        }
    };
    match platforms {
        PushedPlatforms::One(wanted) => index
            .select(wanted)
            .cloned()
            .ok_or_else(|| PushError::NoPlatform { wanted: wanted.to_string() }),
        PushedPlatforms::All | PushedPlatforms::Available => {
            let missing = missing(content, &index)?;
            let here: Vec<&Descriptor> = index
                .manifests
                .iter()
                .filter(|entry| !missing.contains(&entry.digest))
                .filter(|entry| entry.platform.as_ref().is_none_or(|of| of.os != "unknown"))
                .collect();
            match here.as_slice() {
                _ if missing.is_empty() => Ok(top.clone()),
                [only] if *platforms == PushedPlatforms::Available => Ok((*only).clone()),
                _ => Err(PushError::Incomplete { missing: names(&index, &missing) }),
            }
        }
    }
}

fn platform_of(content: &Content, descriptor: &Descriptor) -> Option<Platform> {
    config(content, descriptor).map(|config| config.platform())
}

fn config(content: &Content, descriptor: &Descriptor) -> Option<ImageConfig> {
    let bytes = content.read(&descriptor.digest, LARGEST_DOCUMENT * 2).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The entries of an index whose documents are not in the store.
fn missing(content: &Content, index: &Index) -> Result<HashSet<Digest>, PushError> {
    let mut missing = HashSet::new();
    for entry in &index.manifests {
        let digest = entry.digest;
        let fail = |source| PushError::Content { digest, source: Box::new(source) };
        let is_here = content.contains(&digest, entry.size).map_err(fail)?
            && match read(content, entry)?.0 {
                ImageDocument::Manifest(manifest) => {
                    content.contains(&manifest.config.digest, manifest.config.size).map_err(fail)?
                }
                ImageDocument::Index(_) => true,
            };
        if !is_here {
            missing.insert(digest);
        }
    }
    Ok(missing)
}

fn names(index: &Index, missing: &HashSet<Digest>) -> String {
    let name = |entry: &Descriptor| {
        entry.platform.as_ref().map_or_else(|| entry.digest.to_string(), ToString::to_string)
    };
    let missing = index.manifests.iter().filter(|entry| missing.contains(&entry.digest));
    missing.map(name).collect::<Vec<_>>().join(", ")
}
