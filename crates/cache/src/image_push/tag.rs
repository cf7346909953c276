//! A tag for what a registry has already.

use rbuild_oci::{Descriptor, Digest, Reference};

use super::contents::read;
use super::{ImagePush, PushError};

impl ImagePush {
    /// What a tag names at the moment, by its registry's own word and not a mirror's; `None` for nothing.
    pub async fn tagged(&self, tag: &Reference) -> Result<Option<Digest>, PushError> {
        Ok(self.registry.manifest_descriptor(tag).await?.map(|there| there.digest))
    }

    /// Gives a tag to a manifest or index that was pushed by its digest, if the tag still names `expected` (`None`:
    /// nothing). Whether it did. Between the comparison and the change nothing else is asked for.
    pub async fn tag(
        &self,
        top: &Descriptor,
        tag: &Reference,
        expected: Option<Digest>,
    ) -> Result<bool, PushError> {
        let (_, document) = read(&self.content, top)?;
        Ok(self.registry.put_manifest_if(tag, &document, expected).await?)
    }
}
