//! What would be lost if an image took the place of the index that it came from.

use rbuild_oci::{Descriptor, Index, Platform, Reference};

use super::{ImagePush, PushError};

impl ImagePush {
    /// What the index that has `name` at the registry lists beside an image that it lists, too: to push the image to that
    /// name would hide it. Nothing, if the name stands for something else.
    pub async fn listed_beside(
        &self,
        image: &Descriptor,
        name: &Reference,
    ) -> Result<Vec<Descriptor>, PushError> {
        if image.media_type.is_index() {
            return Ok(Vec::new());
        }
        let there = self.registry.manifest_descriptor(name).await?;
        let Some(there) = there.filter(|there| there.media_type.is_index()) else {
            return Ok(Vec::new());
        };
        let document = self.registry.manifest(&name.pinned(there.digest)).await?;
        // What is no index hides nothing.
        let Ok(index) = serde_json::from_slice::<Index>(&document.bytes) else {
            return Ok(Vec::new());
        };
        let (same, others): (Vec<_>, Vec<_>) =
            index.manifests.into_iter().partition(|entry| entry.digest == image.digest);
        Ok(if same.is_empty() { Vec::new() } else { others })
    }
}

/// Entries of an index, as people name them.
pub fn names_of_entries(entries: &[Descriptor]) -> String {
    let platforms = entries.iter().filter_map(|entry| entry.platform.clone());
    let is_known = |platform: &Platform| platform.os != "unknown";
    let mut names: Vec<String> =
        platforms.filter(is_known).map(|platform| platform.to_string()).collect();
    if names.len() < entries.len() {
        names.push("attestations".to_owned());
    }
    names.join(", ")
}
