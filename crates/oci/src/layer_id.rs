//! Layer identities: section "Layer DiffID" and "Layer ChainID" of the OCI image configuration.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// The digest of a layer's uncompressed tar archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of a stack of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(pub Digest);

impl ChainId {
    /// Computes the identity of `layers`, bottom first; none for no layers.
    ///
    /// `ChainID(L0) = DiffID(L0)`, and `ChainID(L0|..|Ln) = SHA256(ChainID(L0|..|Ln-1) + " " + DiffID(Ln))`.
    pub fn of(layers: &[DiffId]) -> Option<Self> {
        layers.iter().fold(None, |below: Option<Self>, layer| {
            Some(match below {
                None => Self(layer.0),
                Some(below) => Self(Digest::of(format!("{} {}", below.0, layer.0).as_bytes())),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains() {
        let a = DiffId(Digest::of(b"a"));
        let b = DiffId(Digest::of(b"b"));
        assert_eq!(ChainId::of(&[]), None);
        assert_eq!(ChainId::of(&[a]), Some(ChainId(a.0)));
        let both = Digest::of(format!("{a} {b}").as_bytes());
        assert_eq!(ChainId::of(&[a, b]), Some(ChainId(both)));
    }
}
