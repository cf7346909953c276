//! The document of a cache in a bucket: the configuration alone, with what else a manifest would say.

use rbuild_cache::OtherBlobs;
use rbuild_oci::Descriptor;

use super::documents::cache_config;
use super::finished::{CacheExportError, FinishedRecords};
use crate::image::DocumentTypes;
use crate::layers::{ExportStore, LayerForm};

/// A cache for a bucket.
#[derive(Clone, Debug)]
pub struct BucketDocument {
    /// The document.
    pub bytes: Vec<u8>,
    /// What it names: blobs of layers, and others, each once.
    pub blobs: Vec<Descriptor>,
}

/// Makes the cache of records as [`super::make_cache`] does, without a manifest.
pub fn make_bucket_document(
    store: ExportStore<'_>,
    records: &FinishedRecords,
    form: LayerForm,
    others: Vec<Descriptor>,
) -> Result<BucketDocument, CacheExportError> {
    let (mut config, _) = cache_config(store, records, form, DocumentTypes::Oci)?;
    config.others = (!others.is_empty()).then_some(OtherBlobs { blobs: others });
    let bytes = serde_json::to_vec(&config).expect("plain documents serialise");
    Ok(BucketDocument { bytes, blobs: config.blobs() })
}
