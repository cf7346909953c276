//! Annotations of an image's manifest.

use std::collections::BTreeMap;

use rbuild_oci::Digest;

use crate::export::ExportError;
use crate::image::Image;
use crate::layers::ExportStore;

/// The image with these annotations in its manifest, which is put into the content store.
pub fn annotate(
    store: ExportStore<'_>,
    image: Image,
    annotations: BTreeMap<String, String>,
) -> Result<Image, ExportError> {
    if annotations.is_empty() {
        return Ok(image);
    }
    let Image { mut manifest, mut descriptor, .. } = image;
    manifest.annotations.extend(annotations);
    let manifest_bytes = serde_json::to_vec(&manifest).expect("a manifest always serialises");
    descriptor.digest = Digest::of(&manifest_bytes);
    descriptor.size = manifest_bytes.len() as u64;
    store.lease.pin_blobs(&[descriptor.digest])?;
    store.content.put(&manifest_bytes)?;
    Ok(Image { manifest, manifest_bytes, descriptor, ..image })
}
