//! The index of several images (section 4.2 of the behaviour reference).

use std::collections::BTreeMap;

use rbuild_oci::{Descriptor, Digest, Index, MediaType};

use crate::export::ExportError;
use crate::image::{DocumentTypes, Image};
use crate::layers::ExportStore;

/// Annotation of what has a name: when it was made, RFC 3339.
pub(crate) const CREATED: &str = "org.opencontainers.image.created";

/// What an index lists and says.
#[derive(Clone, Debug)]
pub struct IndexContents {
    /// The manifests, each with its platform and annotations, in the order in which they are listed. Their documents are
    /// in the content store.
    pub entries: Vec<Descriptor>,
    /// Its own annotations.
    pub annotations: BTreeMap<String, String>,
    /// Whose document it is.
    pub types: DocumentTypes,
}

/// What gets a name: the manifest of an image, or an index.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedDocument {
    /// Describes it. Where the name is written down in a document, the annotations are, too.
    pub descriptor: Descriptor,
    /// The image's configuration; an index has none.
    pub config: Option<Digest>,
}

impl NamedDocument {
    /// Notes when it was made, in the form of RFC 3339.
    #[must_use]
    pub fn created(mut self, at: Option<String>) -> Self {
        self.descriptor.annotations.extend(at.map(|at| (CREATED.to_owned(), at)));
        self
    }
}

impl From<&Image> for NamedDocument {
    fn from(image: &Image) -> Self {
        let config = Some(image.manifest.config.digest);
        Self { descriptor: image.descriptor.clone(), config }.created(image.created.clone())
    }
}

/// Makes an index and puts it into the content store.
pub fn make_index(
    store: ExportStore<'_>,
    contents: IndexContents,
) -> Result<NamedDocument, ExportError> {
    let media_type = match contents.types {
        DocumentTypes::Oci => MediaType::OciIndex,
        DocumentTypes::Docker => MediaType::DockerManifestList,
    };
    let mut index = Index::new(contents.entries);
    index.media_type = Some(media_type.clone());
    index.annotations = contents.annotations;
    // As BuildKit writes it.
    let bytes = serde_json::to_vec_pretty(&index).expect("an index always serialises");
    let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
    store.lease.pin_blobs(&[descriptor.digest])?;
    store.content.put(&bytes)?;
    Ok(NamedDocument { descriptor, config: None })
}
