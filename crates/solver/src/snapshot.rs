//! File system states as lists of layers (design D3).

use std::fmt;
use std::sync::Arc;

use rbuild_oci::{DiffId, Digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::SourceOp;

/// The identity of a layer directory: for a layer of an image its diff id, for one that a step made a digest
/// derived from the step's key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId([u8; 32]);

impl LayerId {
    /// The layer with these bytes as identity.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The layer of an image with this diff id. A diff id that is not SHA-256 is hashed.
    pub fn of_diff_id(diff_id: &DiffId) -> Self {
        match diff_id.0 {
            Digest::Sha256(bytes) => Self(bytes),
            Digest::Sha512(_) => Self::derived("sha512", &[diff_id.0.as_bytes()]),
        }
    }

    /// A layer that is identified by what it was made from: SHA-256 over the parts, each with its length, so
    /// that no two lists of parts read the same.
    pub fn derived(domain: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = rbuild_oci::Hasher::default();
        for part in std::iter::once(domain.as_bytes()).chain(parts.iter().copied()) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        match hasher.finish() {
            Digest::Sha256(bytes) => Self(bytes),
            Digest::Sha512(_) => unreachable!("the default hasher is SHA-256"),
        }
    }

    /// Parses 64 lower-case hex digits.
    pub fn parse(hex: &str) -> Option<Self> {
        match Digest::parse(&format!("sha256:{hex}")) {
            Ok(Digest::Sha256(bytes)) => Some(Self(bytes)),
            _ => None,
        }
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Digest::Sha256(self.0).hex())
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for LayerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Digest::Sha256(self.0).hex())
    }
}

impl<'de> Deserialize<'de> for LayerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not a layer id of 64 hex digits"))
    }
}

/// A file system state: the layers that make it, bottom first. No layers are an empty directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Snapshot(Arc<Vec<LayerId>>);

impl Snapshot {
    /// The state that these layers make, bottom first.
    pub fn new(layers: Vec<LayerId>) -> Self {
        Self(Arc::new(layers))
    }

    /// The layers, bottom first.
    pub fn layers(&self) -> &[LayerId] {
        &self.0
    }

    /// Whether this is the empty directory.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A digest that differs where the layers differ.
    pub fn digest(&self) -> Digest {
        let mut hasher = rbuild_oci::Hasher::default();
        hasher.update(b"rbuild.snapshot.v1");
        self.0.iter().for_each(|layer| hasher.update(&layer.0));
        hasher.finish()
    }

    /// The state that the lowest layers make, so many of them.
    #[must_use]
    pub fn lowest(&self, count: usize) -> Self {
        Self::new(self.0[..count.min(self.0.len())].to_vec())
    }

    /// This state with one more layer on top.
    #[must_use]
    pub fn with(&self, layer: LayerId) -> Self {
        let mut layers = Vec::with_capacity(self.0.len() + 1);
        layers.extend_from_slice(&self.0);
        layers.push(layer);
        Self::new(layers)
    }
}

/// What a vertex yields.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// A file system state in the store.
    Snapshot(Snapshot),
    /// A folder of the user's, used in place: its `local://` source, whose attributes say which of its files
    /// are there (two sources of one folder may differ in that). It is never copied as a whole; its
    /// consumers read the files that their selectors pick (design D4). Never stored in a cache.
    Local(Arc<SourceOp>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_tell_their_parts_apart() {
        assert_ne!(LayerId::derived("a", &[b"bc", b"d"]), LayerId::derived("a", &[b"b", b"cd"]));
        let id = LayerId::derived("a", &[]);
        assert_eq!(LayerId::parse(&id.to_string()), Some(id));
        assert_eq!(LayerId::parse("00"), None);
    }
}
