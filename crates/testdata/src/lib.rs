//! Fixtures for the tests of the other crates, and the oracle that checks what they write. Development only.
//!
//! * [`Layer`], [`Image`] and [`Layout`] make small images, also hostile ones, in memory and as OCI layout folders;
//! * [`Registry`] is Debian's `docker-registry` on a loopback port, [`BucketServer`] an S3 server there, [`Scripted`] an HTTP server that
//!   misbehaves as told;
//! * [`validate`] rereads what an exporter wrote and recomputes every digest, diff id and size.
//!
//! The crate uses none of rbuild's own, on purpose: an oracle that shares code with what it checks shares its mistakes.
//! A fixture that cannot be made is a failed test, so functions here panic instead of returning errors; [`validate`] is
//! the exception, because "this is invalid" is its answer.

mod bucket_server;
mod busybox;
pub mod estargz;
mod image;
mod layer;
mod layout;
mod registry;
mod scripted;
pub mod validate;

pub use bucket_server::BucketServer;
pub use busybox::{busybox_image, busybox_layer, busybox_rootfs, foreign_busybox_image};
pub use image::{Blob, Image, ImageIndex, Published};
pub use layer::{Compression, Entry, EntryKind, Layer, sha256};
pub use layout::Layout;
pub use registry::Registry;
pub use scripted::{Reply, Request, Scripted, serve_image};
