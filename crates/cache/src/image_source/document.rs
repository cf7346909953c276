//! Telling manifests from indexes.

use rbuild_oci::{Index, Manifest, MediaType};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// A manifest or an index.
#[derive(Clone, Debug)]
pub(crate) enum ImageDocument {
    Manifest(Box<Manifest>),
    Index(Box<Index>),
}

/// Why a document is neither a manifest nor an index.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is in the format that was given up in 2017.
    #[error(
        "it is a Docker schema 1 manifest, a format without content digests that is no longer supported: push the \
         image again with a current tool"
    )]
    Schema1,
    /// It is something else.
    #[error("it is of type `{0}`, not an image manifest or index")]
    Type(String),
    /// It can be read as both (CVE-2021-41190).
    #[error("it has the fields of both a manifest and an index")]
    Ambiguous,
    /// It is not JSON of the right shape.
    #[error("it cannot be understood: {0}")]
    Json(serde_json::Error),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u32>,
    media_type: Option<MediaType>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

impl ImageDocument {
    /// Reads a document that its descriptor, or the registry that served it, declares to be of type `declared`.
    pub(crate) fn parse(declared: &MediaType, bytes: &[u8]) -> Result<Self, DocumentError> {
        let probe: Probe = serde_json::from_slice(bytes).map_err(DocumentError::Json)?;
        let schema_1 =
            declared.as_str().starts_with("application/vnd.docker.distribution.manifest.v1");
        if probe.schema_version == Some(1) || schema_1 {
            return Err(DocumentError::Schema1);
        }
        let is_index = probe.manifests.is_some();
        if is_index && (probe.layers.is_some() || probe.config.is_some()) {
            return Err(DocumentError::Ambiguous);
        }
        // The document's own word counts more than the envelope's, and what it has most.
        let known = |media_type: &&MediaType| media_type.is_index() || media_type.is_manifest();
        let named = [probe.media_type.as_ref(), Some(declared)];
        if let Some(named) = named.into_iter().flatten().find(known)
            && named.is_index() != is_index
        {
            return Err(DocumentError::Ambiguous);
        }
        if let Some(other) = probe.media_type.as_ref().filter(|media_type| !known(media_type)) {
            return Err(DocumentError::Type(other.to_string()));
        }
        if is_index {
            serde_json::from_slice(bytes)
                .map(Box::new)
                .map(Self::Index)
                .map_err(DocumentError::Json)
        } else {
            serde_json::from_slice(bytes)
                .map(Box::new)
                .map(Self::Manifest)
                .map_err(DocumentError::Json)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(declared: &str, document: &str, expected: &str) {
        let said = match ImageDocument::parse(&declared.into(), document.as_bytes()) {
            Ok(ImageDocument::Manifest(_)) => "manifest".to_owned(),
            Ok(ImageDocument::Index(_)) => "index".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(said.contains(expected), "{document}: {said}");
    }

    #[test]
    fn tells_documents_apart() {
        const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
        const INDEX: &str = "application/vnd.oci.image.index.v1+json";
        let digest = format!("sha256:{}", "0".repeat(64));
        let config = format!(r#"{{"mediaType":"x","digest":"{digest}","size":1}}"#);
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        check(MANIFEST, &manifest, "manifest");
        check("", &manifest, "manifest");
        check("application/octet-stream", index, "index");
        check(INDEX, index, "index");
        check(INDEX, &manifest, "both");
        check(MANIFEST, index, "both");
        check(MANIFEST, r#"{"schemaVersion":2,"manifests":[],"config":{}}"#, "both");
        check("", r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1");
        check("application/vnd.docker.distribution.manifest.v1+prettyjws", "{}", "schema 1");
        check("", r#"{"schemaVersion":2,"mediaType":"text/x"}"#, "of type `text/x`");
        check("", "<html>", "cannot be understood");
        check("", "{}", "cannot be understood");
    }
}
