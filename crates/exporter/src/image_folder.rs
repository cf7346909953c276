//! Images in a folder that is an OCI image layout (`tar=false`).

use std::path::Path;

use rbuild_cache::Content;
use rbuild_oci::{Descriptor, Reference};

use crate::archive::{IMAGE_NAME, REF_NAME, index_entries};
use crate::image::Image;
use crate::layout_folder::{LayoutFolder, LayoutFolderError};

/// Tag of an image without a name.
const UNNAMED: &str = "latest";

/// Adds `image` under `names` to the layout in `folder`, which is made when missing. What had a name there loses it; other images
/// stay. Layer blobs that are not there yet must be in `content`.
pub(crate) fn write_image_folder(
    image: &Image,
    names: &[Reference],
    content: &Content,
    folder: &Path,
) -> Result<(), LayoutFolderError> {
    let layout = LayoutFolder::open(folder)?;
    let mut entries = layout.entries()?;
    image.manifest.layers.iter().try_for_each(|layer| layout.copy(content, layer))?;
    layout.put(&image.manifest.config, &image.config_bytes)?;
    layout.put(&image.descriptor, &image.manifest_bytes)?;
    let mut new = index_entries(image, names);
    for entry in &mut new {
        entry.annotations.entry(REF_NAME.to_owned()).or_insert_with(|| UNNAMED.to_owned());
    }
    entries.retain(|old| !new.iter().any(|new| name(new) == name(old)));
    entries.extend(new);
    layout.set_entries(entries)
}

/// What an entry is known by: its whole name, or else its tag.
fn name(entry: &Descriptor) -> (Option<&String>, Option<&String>) {
    match entry.annotations.get(IMAGE_NAME) {
        Some(name) => (Some(name), None),
        None => (None, entry.annotations.get(REF_NAME)),
    }
}
