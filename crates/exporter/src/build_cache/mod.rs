//! What a build made as a cache that other machines use (section 2.7 of the behaviour reference).
//!
//! [`FinishedRecords::collect`] finds what there is of a build's vertices, [`make_cache`] makes the documents and the blobs of
//! layers that have none, [`write_cache_layout`] puts them into a folder; [`make_bucket_document`] makes what a bucket gets. The form of the documents, and how layers are named
//! in them, is `rbuild_cache`'s business.

mod bucket;
mod documents;
mod finished;
mod inline;
mod layout;

pub use bucket::{BucketDocument, make_bucket_document};
pub use documents::{CacheDocuments, CacheForm, make_cache};
pub use finished::{CacheExportError, FinishedRecords};
pub(crate) use inline::inline_cache;
pub use layout::{CacheLayout, missing_blobs, write_cache_layout};
