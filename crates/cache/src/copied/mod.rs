//! Snapshots without overlayfs, where the kernel refuses it: a directory with copies of the files of all layers, and a search for what
//! was changed in it.
//!
//! The layers that come of it are those that overlayfs would have made, so both ways share a store. What it costs is the size of the
//! snapshot instead of that of the change, unless the file system shares blocks between files (`FICLONE`: btrfs, xfs).
//!
//! Read `merged` (the layers as one tree), `replica` (the copy) and `collect` (the changes).

mod collect;
mod error;
mod merged;
mod replica;

pub(crate) use collect::collect;
pub use error::CopyError;
pub(crate) use merged::Merged;
pub(crate) use replica::{Marks, make_readable, make_writable};
