//! Layers of base images in another compression than they came in (`force-compression`).
//!
//! Only the blob changes: the archive, and with it the diff id, stays, but for what eStargz adds. What was made is noted under an encoder of its own, so
//! that it is never taken for what the base image has.

use std::io::BufWriter;

use rbuild_cache::{BlobFacts, LayerBlobReader, LayerBlobWriter, LayerFacts};
use rbuild_oci::Descriptor;
use rbuild_solver::LayerId;

use crate::image::ImageLayer;
use crate::layers::{ExportStore, Known, LayerError, LayerForm, keep, made_by, own_diff_id};

/// What there is of a layer from elsewhere, none of whose blobs fits.
pub(crate) fn converted(
    store: ExportStore<'_>,
    layer: LayerId,
    form: LayerForm,
    facts: LayerFacts,
) -> Result<Known, LayerError> {
    let encoder = encoder(form);
    Ok(match made_by(store, layer, &facts, &encoder)? {
        None => Known::Unfit(facts),
        Some((descriptor, diff_id)) => Known::Made(ImageLayer {
            descriptor,
            diff_id,
            created: facts.made(),
            encoder: Some(encoder),
        }),
    })
}

/// Compresses a layer anew from one of its blobs that is in the store.
pub(crate) fn convert(
    store: ExportStore<'_>,
    layer: LayerId,
    form: LayerForm,
    facts: &LayerFacts,
) -> Result<ImageLayer, LayerError> {
    const BUFFER: usize = 256 << 10;
    let blob = sound_blob(store, layer, facts)?.ok_or(LayerError::NoBlob { layer })?;
    let Descriptor { digest, size, .. } = blob.descriptor;
    let stored = |source| LayerError::Store { layer, source };
    let compress = |source| LayerError::Compress { layer, source };
    let file = store.content.open(&digest, Some(size)).map_err(stored)?;
    let mut archive =
        LayerBlobReader::new(file).map_err(|source| LayerError::Read { layer, source })?;
    let out = LayerBlobWriter::anew(store.content.begin().map_err(stored)?, form.compression);
    let mut out = BufWriter::with_capacity(BUFFER, out.map_err(compress)?);
    std::io::copy(&mut archive, &mut out).map_err(compress)?;
    let out = out.into_inner().map_err(|error| compress(error.into_error()))?;
    let out = out.finish().map_err(compress)?;
    if own_diff_id(layer, blob)?.or(facts.diff_id) != Some(archive.diff_id()) {
        return Err(LayerError::NoBlob { layer });
    }
    let diff_id = out.diff_id;
    let descriptor = keep(store, layer, out, form, encoder(form))?;
    Ok(ImageLayer { descriptor, diff_id, created: facts.made(), encoder: Some(encoder(form)) })
}

/// A blob in the store that was found to be the layer. One that was made here for a form that adds to the archive is not.
fn sound_blob<'a>(
    store: ExportStore<'_>,
    layer: LayerId,
    facts: &'a LayerFacts,
) -> Result<Option<&'a BlobFacts>, LayerError> {
    for blob in facts.blobs.iter().filter(|blob| blob.verified) {
        if own_diff_id(layer, blob)?.is_some_and(|own| facts.diff_id != Some(own)) {
            continue;
        }
        let Descriptor { digest, size, .. } = blob.descriptor;
        store.lease.pin_blobs(&[digest]).map_err(|source| LayerError::Pin { layer, source })?;
        let there = store.content.contains(&digest, size);
        if there.map_err(|source| LayerError::Store { layer, source })? {
            return Ok(Some(blob));
        }
    }
    Ok(None)
}

fn encoder(form: LayerForm) -> String {
    // The times in the archive are not ours.
    format!("converted;{}", form.compression.encoder_id())
}
