//! What is known about blobs and layers, and the names of images: an SQLite database.
//!
//! The index is never the truth about content. A record is only used when its layers are there, so a process
//! that dies before it has written, or a database that was lost and made anew, costs cache hits and nothing else.

mod database;
mod downloads;
mod images;
mod import;
mod layer_facts;
mod packages;
mod records;
mod schema;
mod uses;
mod value;

pub use database::{Index, IndexError, IndexWarning};
pub(crate) use downloads::StoredDownload;
pub use images::Image;
pub(crate) use layer_facts::KnownLayer;
pub use layer_facts::{BlobFacts, BlobSource, LayerFacts};
pub(crate) use records::layers_of;
pub use records::{StoredKey, StoredRecord};
