//! Images in a folder that is an OCI image layout (`tar=false`).

use std::path::Path;

use rbuild_cache::Content;
use rbuild_oci::{Descriptor, MediaType, Reference};

use crate::archive::{IMAGE_NAME, REF_NAME, blobs_of, index_entries};
use crate::export::ExportError;
use crate::index::NamedDocument;
use crate::layout_folder::LayoutFolder;

/// Tag of an image without a name.
const UNNAMED: &str = "latest";

/// Adds an image or index under `names` to the layout in `folder`, which is made when missing. What had a name there loses it; other images
/// stay. What is not there yet must be in `content`.
pub(crate) fn write_image_folder(
    document: &NamedDocument,
    names: &[Reference],
    content: &Content,
    folder: &Path,
) -> Result<(), ExportError> {
    let mut layout = LayoutFolder::open(folder)?;
    let mut entries = layout.entries()?;
    let (blobs, _) = blobs_of(&document.descriptor, content)?;
    for (digest, size) in blobs {
        // The folder's blobs go by their digests alone.
        layout.copy(content, &Descriptor::new(MediaType::OciLayer, digest, size))?;
    }
    let mut new = index_entries(&document.descriptor, names);
    for entry in &mut new {
        entry.annotations.entry(REF_NAME.to_owned()).or_insert_with(|| UNNAMED.to_owned());
    }
    entries.retain(|old| !new.iter().any(|new| name(new) == name(old)));
    entries.extend(new);
    Ok(layout.set_entries(entries)?)
}

/// What an entry is known by: its whole name, or else its tag.
fn name(entry: &Descriptor) -> (Option<&String>, Option<&String>) {
    match entry.annotations.get(IMAGE_NAME) {
        Some(name) => (Some(name), None),
        None => (None, entry.annotations.get(REF_NAME)),
    }
}
