//! The document of a cache (section 2.7 of the behaviour reference).

use std::collections::{BTreeMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_oci::{Descriptor, DiffId, Digest, MediaType};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The media type of a [`CacheConfig`].
pub const CACHE_CONFIG_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";

/// The key of an image's configuration under which its records are ([`CacheConfig::to_inline`]).
pub const INLINE_CACHE: &str = "moby.buildkit.cache.v0";

/// A cache: layers, and what is known to result in them. Keys that are not named here are left out when reading.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheConfig {
    /// The layers, each with the one below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<ConfigLayer>,
    /// The records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<ConfigRecord>,
    /// What a manifest would list besides the layers. Only where there is no manifest; BuildKit does not know this key.
    #[serde(rename = "rbuild", default, skip_serializing_if = "Option::is_none")]
    pub others: Option<OtherBlobs>,
}

/// Blobs of a cache that are no layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OtherBlobs {
    /// What they are.
    pub blobs: Vec<Descriptor>,
}

/// A layer on top of others: one blob on two bases is two of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigLayer {
    /// The blob.
    pub blob: Digest,
    /// The position of the layer below, -1 for none. Left out where it is 0, as BuildKit does.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parent: i64,
    /// What the manifest does not say of the blob. Absent where an image's configuration says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<LayerAnnotations>,
}

/// What is known of a layer's blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerAnnotations {
    /// Its type.
    pub media_type: MediaType,
    /// The digest of its archive.
    #[serde(rename = "diffID")]
    pub diff_id: DiffId,
    /// Its bytes.
    pub size: u64,
    /// When the layer was made, RFC 3339; absent for layers of base images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// What images say of it: where there is no manifest that has it. BuildKit does not know this key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, String>,
    /// What compressed it, if that was rbuild ([`crate::BlobFacts::encoder`]). BuildKit does not know this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<String>,
}

/// What a key results in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRecord {
    /// The key; for outputs after the first one [`RecordNotes::output_key`].
    pub digest: Digest,
    /// The state is this layer with all below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<RecordLayer>,
    /// The state is these layers, and nothing below them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<ConfigChain>,
    /// What rbuild needs to use it; a record without is one of BuildKit's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rbuild: Option<RecordNotes>,
}

/// A layer as a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordLayer {
    /// Its position.
    pub layer: usize,
    /// When it was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
}

/// A list of layers as a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChain {
    /// Their positions.
    #[serde(default)]
    pub layers: Vec<usize>,
}

/// What a record's key was made from, and for what. The key follows from it, so it cannot be that of another step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordNotes {
    /// [`rbuild_solver::KeyParts::op`].
    pub op: Digest,
    /// [`rbuild_solver::KeyParts::inputs`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Digest>,
    /// [`rbuild_solver::KeyParts::by_content`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_content: bool,
    /// The step's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// How many outputs the step has. Those after the first have records of their own.
    pub outputs: usize,
    /// How long it took.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub millis: i64,
}

impl RecordNotes {
    /// What stands for an output after the first one.
    pub fn output_key(key: &Digest, output: usize) -> Digest {
        Digest::of(format!("rbuild.cache.output.v1 {key} {output}").as_bytes())
    }
}

impl CacheConfig {
    /// What the manifest of a cache lists, for one without: each layer's blob once, as its annotations describe it, and the others.
    pub fn blobs(&self) -> Vec<Descriptor> {
        let mut seen = HashSet::new();
        let layer = |layer: &ConfigLayer| {
            let said = layer.annotations.as_ref()?;
            Some(Descriptor {
                annotations: said.notes.clone(),
                ..Descriptor::new(said.media_type.clone(), layer.blob, said.size)
            })
        };
        let others = self.others.iter().flat_map(|others| others.blobs.iter().cloned());
        let blobs = self.layers.iter().filter_map(layer).chain(others);
        blobs.filter(|blob| seen.insert(blob.digest)).collect()
    }

    /// The records as an image's configuration has them under [`INLINE_CACHE`]; the layers are the image's.
    pub fn to_inline(&self) -> String {
        STANDARD.encode(serde_json::to_vec(&self.records).expect("plain documents serialise"))
    }

    /// Reads what [`CacheConfig::to_inline`] has written; `None` for something else.
    pub(super) fn records_from_inline(text: &str) -> Option<Vec<ConfigRecord>> {
        serde_json::from_slice(&STANDARD.decode(text.trim()).ok()?).ok()
    }
}

/// Milliseconds since 1970 of a time in RFC 3339.
pub(super) fn milliseconds(time: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_39_a_document_has_buildkits_form() {
        let blob = Digest::of(b"blob");
        let layer = |parent| ConfigLayer {
            blob,
            parent,
            annotations: Some(LayerAnnotations {
                media_type: MediaType::OciLayerGzip,
                diff_id: DiffId(blob),
                size: 7,
                created_at: Some("1970-01-01T00:01:40Z".to_owned()),
                notes: BTreeMap::new(),
                encoder: None,
            }),
        };
        let record = ConfigRecord {
            digest: blob,
            layers: vec![RecordLayer { layer: 1, created_at: None }],
            chains: vec![],
            rbuild: None,
        };
        let config =
            CacheConfig { layers: vec![layer(-1), layer(0)], records: vec![record], others: None };
        let annotations = format!(
            r#""annotations":{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","diffID":"{blob}","size":7,"createdAt":"1970-01-01T00:01:40Z"}}"#
        );
        let expected = format!(
            r#"{{"layers":[{{"blob":"{blob}","parent":-1,{annotations}}},{{"blob":"{blob}",{annotations}}}],"records":[{{"digest":"{blob}","layers":[{{"layer":1}}]}}]}}"#
        );
        assert_eq!(serde_json::to_string(&config).unwrap(), expected);
        assert_eq!(serde_json::from_str::<CacheConfig>(&expected).unwrap(), config);
        assert_eq!(config.blobs(), [Descriptor::new(MediaType::OciLayerGzip, blob, 7)]);
        assert_eq!(CacheConfig::records_from_inline(&config.to_inline()), Some(config.records));
        assert_eq!(CacheConfig::records_from_inline("not base64"), None);
        assert_eq!(milliseconds("1970-01-01T00:01:40Z"), Some(100_000));
        assert_eq!(milliseconds("1969-12-31T23:59:59.9995Z"), Some(-1));
    }

    #[test]
    fn records_of_buildkit_are_understood_as_such() {
        let text = format!(
            r#"{{"layers":[],"records":[{{"digest":"{}","inputs":[[{{"link":0}}]],"new":1}}]}}"#,
            Digest::of(b"x")
        );
        let config: CacheConfig = serde_json::from_str(&text).unwrap();
        assert_eq!(config.records[0].rbuild, None);
    }
}
