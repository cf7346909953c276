//! LLB: the protobuf form of graphs.

use rbuild_oci::{Digest, Platform};

use crate::Op;

/// The digest of a vertex.
pub fn vertex_digest(
    op: &Op,
    inputs: impl Iterator<Item = (Digest, u32)>,
    platform: Option<&Platform>,
) -> Digest {
    let inputs: Vec<_> = inputs.collect();
    Digest::of(format!("{op:?}{inputs:?}{platform:?}").as_bytes())
}
