//! The document of a cache in a bucket: the configuration alone, with what else a manifest would say.

use rbuild_cache::{OtherBlobs, TOC_DIGEST, UNCOMPRESSED_SIZE};
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
    let (mut config, mut blobs) = cache_config(store, records, form, DocumentTypes::Oci)?;
    for layer in &mut config.layers {
        if let (Some(said), Some(blob)) = (&mut layer.annotations, blobs.get(&layer.blob)) {
            let notes = blob.annotations.iter();
            let of_table =
                notes.filter(|(key, _)| [TOC_DIGEST, UNCOMPRESSED_SIZE].contains(&key.as_str()));
            said.notes = of_table.map(|(key, value)| (key.clone(), value.clone())).collect();
        }
    }
    blobs.extend(others.iter().map(|blob| (blob.digest, blob.clone())));
    config.others = (!others.is_empty()).then_some(OtherBlobs { blobs: others });
    let bytes = serde_json::to_vec(&config).expect("plain documents serialise");
    Ok(BucketDocument { bytes, blobs: blobs.into_values().collect() })
}
