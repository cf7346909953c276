//! Bytes on disk and at registries: blobs, layers, their index, locks.
//!
//! This crate knows nothing of Dockerfiles and runs nothing. [`Overlay`] and [`View`] show layer directories as one tree; [`diff`] turns a
//! layer directory into an archive.

mod layer;
mod overlay;
mod view;

pub use layer::{
    Compression, CompressionError, Decoder, DiffError, EntryKind, LayerBlob, LayerBlobWriter,
    OverlayXattrs, TarEntry, TarWriteError, TarWriter, Xattr, diff, write_tree,
};
pub use overlay::{MAX_LAYERS, Overlay, OverlayError, Upper};
pub use view::View;
