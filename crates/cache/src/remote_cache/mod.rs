//! Caches that other machines wrote: what they know becomes records of this store, whose layers are fetched when a
//! build needs them.
//!
//! [`CacheConfig`] is the document, in the form that BuildKit reads and writes. [`ImageSource::import_cache`] reads one
//! from a registry, an OCI layout or a bucket, checks all of it, and puts it into the index. From then on it is looked up
//! like everything else, and its layers are fetched, verified and unpacked as those of base images are.
//!
//! A bucket has the document under a name, and no manifest: what it lists, the document says too. [`BucketCache`] writes it.
//!
//! # Layers go by their chain
//!
//! A layer that a step made is known here by a random id, which no other machine has and which proves nothing. In a cache it is
//! known by its chain id, as layers of images are: a hash over the archives of it and all below it. So a cache cannot say
//! of a layer that it is another one, two machines with the same files write the same document, and an image that was pulled
//! shares its layers with a cache of it. Slow keys, which have the inputs' layers in them, are written anew with those ids.
//!
//! [`ImageSource::import_cache`]: crate::ImageSource::import_cache

mod broken;
mod bucket;
mod config;
mod contents;
mod import;
mod name;
mod read;

pub(crate) use broken::BrokenLayers;
pub use bucket::{BucketCache, BucketCacheError};
pub use config::{
    CACHE_CONFIG_TYPE, CacheConfig, ConfigChain, ConfigLayer, ConfigRecord, INLINE_CACHE,
    LayerAnnotations, OtherBlobs, RecordLayer, RecordNotes,
};
pub use contents::CacheFormError;
pub(crate) use contents::{CacheContents, ImportedRecord};
pub use import::{CacheImportError, ImportedCache};
pub use name::{CacheName, S3Cache};
