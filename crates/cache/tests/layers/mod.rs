//! Layers, archives and overlay mounts.

mod archive;
mod hostile;
mod listing;
mod namespace;
mod overlay;
mod round_trip;
mod tools;
mod world;
