//! Cache keys (design D2).

use rbuild_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::Selector;

/// What finds the outputs of a vertex that was solved before. Equal keys mean equal outputs, up to what the
/// step itself makes differently each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey(pub Digest);

/// What a key was made from; kept with it so that "why did this step run" has an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyParts {
    /// Digest of the operation by itself ([`CacheMap::digest`]).
    pub op: Digest,
    /// Per input: the input's key, or the digest of the content that the operation uses of it.
    pub inputs: Vec<Digest>,
    /// Whether any of `inputs` is content that had to be made first (a slow key) rather than a definition.
    pub by_content: bool,
}

impl KeyParts {
    /// The key that these parts make.
    pub fn key(&self) -> CacheKey {
        let mut hasher = rbuild_oci::Hasher::default();
        hasher.update(if self.by_content { b"rbuild.key.slow.v1" } else { b"rbuild.key.fast.v1" });
        for digest in std::iter::once(&self.op).chain(&self.inputs) {
            hasher.update(&[digest.as_bytes().len() as u8]);
            hasher.update(digest.as_bytes());
        }
        CacheKey(hasher.finish())
    }
}

/// How an operation is keyed: the part of it that decides what comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMap {
    /// Digest of the operation without what must not matter (section 2.2 of the behaviour reference).
    pub digest: Digest,
    /// Per input of the vertex.
    pub inputs: Vec<InputKeying>,
}

/// How one input takes part in a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputKeying {
    /// The selections whose content may stand for the input; empty when only the input's own key may.
    pub content: Vec<Selector>,
}
