//! The public face of the crate, against real registries and real folders.

#![expect(clippy::unwrap_used, reason = "tests")]

mod registry;
