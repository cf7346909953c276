//! Image manifests and indexes. Docker's schema 2 documents have the same shape and are read as the same types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Descriptor, MediaType, Platform};

/// An image manifest: section "OCI Image Manifest" of the image specification.
///
/// What was pulled is never written out again from this type: its digest is that of the bytes it came in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own type; older OCI documents leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// Type of an artifact that is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image configuration.
    pub config: Descriptor,
    /// The layer blobs, bottom first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Keys that are not named here.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Manifest {
    /// An OCI manifest of an image.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MediaType::OciManifest),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }
}

/// A list of manifests: section "OCI Image Index" of the image specification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own type; older OCI documents leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// Type of an artifact that is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests, or further indexes.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this index refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Keys that are not named here.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Index {
    /// An OCI index of `manifests`.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MediaType::OciIndex),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// The entry that serves `wanted` best; the first of equals. Entries without a platform serve everybody
    /// but come last, and attestations (platform `unknown/unknown`) serve nobody.
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        self.manifests
            .iter()
            .filter(|entry| entry.media_type.is_manifest() || entry.media_type.is_index())
            .filter_map(|entry| match &entry.platform {
                Some(platform) => Some((wanted.distance(platform)?, entry)),
                None => Some((u32::MAX, entry)),
            })
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn entry(name: &str, platform: Option<&str>) -> Descriptor {
        let mut descriptor =
            Descriptor::new(MediaType::OciManifest, Digest::of(name.as_bytes()), 1);
        descriptor.platform = platform.map(|text| text.parse().unwrap());
        descriptor
    }

    #[test]
    fn selects_the_nearest_platform() {
        let index = Index::new(vec![
            entry("any", None),
            entry("v5", Some("linux/arm/v5")),
            entry("v6", Some("linux/arm/v6")),
            entry("x", Some("linux/amd64")),
        ]);
        let select = |text: &str| index.select(&text.parse().unwrap()).unwrap().digest;
        assert_eq!(select("linux/arm/v7"), Digest::of(b"v6"));
        assert_eq!(select("linux/amd64"), Digest::of(b"x"));
        assert_eq!(select("linux/s390x"), Digest::of(b"any"));
    }

    #[test]
    fn other_readers_read_what_we_write() {
        let manifest = Manifest::new(entry("config", None), vec![entry("layer", None)]);
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let theirs: oci_spec::image::ImageManifest = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(theirs.layers().len(), 1);
        let index = Index::new(vec![entry("x", Some("linux/arm/v6"))]);
        let bytes = serde_json::to_vec(&index).unwrap();
        let theirs: oci_spec::image::ImageIndex = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            theirs.manifests()[0].platform().as_ref().unwrap().variant().as_deref(),
            Some("v6")
        );
    }
}
