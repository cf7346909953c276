//! How a result was made, as SLSA's provenance, version 1, with BuildKit's extensions.
//!
//! [`provenance`] is pure: it is told what is known. Values of secrets are not among that, and no address has a password:
//! who calls it gives the graph of [`rbuild_solver::published`].

mod dependencies;
mod layer_map;
mod llb_json;
mod predicate;

pub use dependencies::{ResolvedSource, SourceDigest};
pub use predicate::{
    BuildFacts, ConfigSource, ProvenanceMode, ProvenanceOptions, SourceText, provenance,
};
