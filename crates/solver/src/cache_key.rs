//! Cache keys (design D2).

use rbuild_oci::Digest;
use serde::{Deserialize, Serialize};

/// What finds the outputs of a vertex that was solved before. Equal keys mean equal outputs, up to what the
/// step itself makes differently each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey(pub Digest);

/// What a key was made from; kept with it so that "why did this step run" has an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyParts {
    /// Digest of the operation by itself ([`crate::CacheMap::digest`]); of a source, its key
    /// ([`crate::Executor::source_key`]).
    pub op: Digest,
    /// Per input, what stands for it. In a fast key that is its own key, and the content used of it where it
    /// is a local folder. In a slow key it is the content used of it where that may stand for it, else the
    /// state that it is ([`crate::Snapshot::digest`]).
    pub inputs: Vec<Digest>,
    /// Whether this is a slow key: one of what the inputs turned out to be rather than of their definitions.
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
