//! Manifests and indexes.

use rbuild_oci::{Digest, Hasher, MediaType, Reference, VerifyError};
use reqwest::header::CONTENT_TYPE;

use super::client::{Failure, Get, at, read_bounded};
use super::{RegistryClient, RegistryError, RegistryErrorKind};

/// What the distribution specification asks registries to accept.
const LARGEST_DOCUMENT: u64 = 4 * 1024 * 1024;

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A document as a registry served it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What the registry says it is.
    pub media_type: MediaType,
    /// The digest of the bytes.
    pub digest: Digest,
    /// The bytes, which are never written out anew: the digest is theirs.
    pub bytes: Vec<u8>,
}

impl RegistryClient {
    /// Fetches the manifest or index that `reference` names: by its digest if it has one, else by its tag or `latest`.
    pub async fn manifest(&self, reference: &Reference) -> Result<Document, RegistryError> {
        let mut retries = self.retries();
        loop {
            match self.try_manifest(reference).await {
                Ok(document) => return Ok(document),
                Err(failure) => {
                    retries.wait(failure).await.map_err(|kind| at(reference, kind))?;
                }
            }
        }
    }

    async fn try_manifest(&self, reference: &Reference) -> Result<Document, Failure> {
        let name = match reference.digest() {
            Some(digest) => digest.to_string(),
            None => reference.tag_or_latest().unwrap_or("latest").to_owned(),
        };
        let path = format!("manifests/{name}");
        let get = Get { of: reference, path, accept: Some(ACCEPT), offset: 0 };
        let mut response = self.try_get(&get).await.map_err(|failure| match failure {
            Failure::Final(RegistryErrorKind::Status { status: 404, .. }) => {
                Failure::Final(RegistryErrorKind::ManifestUnknown { reference: name.clone() })
            }
            failure => failure,
        })?;
        let what = format!("manifest `{name}`");
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim().into();
        let bytes = read_bounded(&mut response, LARGEST_DOCUMENT, &what).await?;
        let digest = match reference.digest() {
            Some(expected) => {
                let mut hasher = Hasher::new(expected.algorithm());
                hasher.update(&bytes);
                let actual = hasher.finish();
                if actual != *expected {
                    let source = VerifyError::Digest { expected: *expected, actual };
                    return Err(Failure::Final(RegistryErrorKind::Verify { what, source }));
                }
                actual
            }
            // `Docker-Content-Digest` proves nothing that the bytes do not.
            None => Digest::of(&bytes),
        };
        Ok(Document { media_type, digest, bytes })
    }
}
