//! LLB: the protobuf form of graphs (`solver/pb/ops.proto` of BuildKit, design D1).
//!
//! A [`Definition`](pb::Definition) is a list of encoded operations that name their inputs by digest; the last
//! one is a terminal with nothing but one input, the result. What this module writes is byte for byte what
//! BuildKit's own client writes for the same operation, so vertices have the digests that they have there.
//! What it reads may come from anybody: everything that this crate does not know is refused rather than left
//! out.

mod decode;
mod definition;
mod encode;

pub use bollard_buildkit_proto::pb;
pub use decode::OpError;
pub use definition::{DefinitionError, from_bytes, from_definition, to_bytes, to_definition};
pub(crate) use encode::encode_op;
pub use encode::vertex_digest;
