//! What a build says of its result: `--provenance`, `--sbom`, `--attest` and `BUILDKIT_ATTEST_*` (section 4.7 of the behaviour
//! reference). Off unless asked for.

mod facts;
mod made;
mod options;

pub(super) use facts::{Asked, Done, facts};
pub(crate) use made::Attesting;
pub(super) use made::PlatformFacts;
pub(super) use options::AttestPlan;
