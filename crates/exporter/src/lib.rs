//! Writes what a build made: images, archives, folders.
//!
//! Nothing here knows registries, graphs or progress bars. [`export`](crate::assemble) starts from a snapshot and
//! an image configuration; [`Image`] is the type to read first.

mod archive;
mod image;
mod local;
mod output_file;
mod tree;

pub use archive::{ArchiveError, ArchiveForm};
pub use image::{DocumentTypes, Image, ImageLayer, assemble};
pub use local::{LocalError, LocalOptions};
pub use output_file::{FileDestination, OutputFileError};
pub use tree::TreeError;
