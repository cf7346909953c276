//! Layer archives and layer directories, in both directions.
//!
//! A *layer directory* is in overlay form: it is used as it is as a lower directory of an overlay mount (see
//! [`whiteout`]). `apply` makes one from an archive, `diff` makes the archive from one; `compression` and
//! `blob` turn archives into blobs. Everything works on descriptors and never on paths from the process's root.

mod apply;
mod attributes;
mod background_hasher;
mod blob;
mod compression;
mod diff;
mod directories;
mod estargz;
mod gunzip;
mod gzip;
mod incompressible;
mod name;
mod planned;
mod read_ahead;
mod sparse;
mod tar_reader;
mod tar_writer;
pub(crate) mod tree;
pub(crate) mod whiteout;

pub use apply::{AppliedLayer, ApplyError, ApplyForm, ApplyOptions, OutsideHardlink, apply};
pub use blob::{FinishedBlob, LayerBlobReader, LayerBlobWriter};
pub use compression::{Compression, CompressionError, Decoder};
pub use diff::{DiffError, diff, diff_merged, write_tree};
pub use estargz::{TOC_DIGEST, UNCOMPRESSED_SIZE};
pub(crate) use name::path_of;
pub use planned::{PlannedAttributes, PlannedCopy, PlannedDirectory, PlannedEntry};
pub use tar_reader::{ArchiveLimits, TarReadError};
pub use tar_writer::{EntryKind, TarEntry, TarWriteError, TarWriter, Xattr};
pub(crate) use tree::xattrs;
pub use whiteout::OverlayXattrs;
