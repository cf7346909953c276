//! The crate's public face, against real parts.
#![expect(clippy::unwrap_used, reason = "test")]

mod buckets;
mod collect;
mod downloads;
mod faults;
mod fixture;
mod images;
mod index;
mod layers;
mod mirrors;
mod processes;
mod push;
mod records;
mod registry;
mod remote_mounts;
mod store;
