//! Layers, archives and overlay mounts.

mod archive;
mod conformance;
mod estargz;
mod hostile;
mod listing;
pub(crate) mod namespace;
mod overlay;
mod round_trip;
mod tools;
mod world;
