//! Manifests and indexes.

use rbuild_oci::{Descriptor, Digest, Hasher, MediaType, Reference, VerifyError};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Response, StatusCode};

use super::auth::Access;
use super::client::{Call, CallBody, Failure, Target, at, read_bounded};
use super::mirrors::{Answer, Mirror};
use super::{RegistryClient, RegistryError, RegistryErrorKind};

/// What the distribution specification asks registries to accept.
const LARGEST_DOCUMENT: u64 = 4 * 1024 * 1024;

/// What we understand.
const DOCUMENTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
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
        let mut first = 0;
        loop {
            let (failure, mirror) = match self.try_manifest(reference, first).await {
                Ok(document) => return Ok(document),
                Err(failed) => failed,
            };
            match mirror {
                Some(mirror) => {
                    let what = format!("manifest `{}`", name_of(reference));
                    self.note_fault(&mirror, reference.registry(), &what, failure.reason());
                    first = mirror.next;
                }
                None => retries.wait(failure).await.map_err(|kind| at(reference, kind))?,
            }
        }
    }

    /// Makes one attempt at the endpoints from `first` on. If it fails after a mirror has answered, also says which that was.
    async fn try_manifest(
        &self,
        reference: &Reference,
        first: usize,
    ) -> Result<Document, (Failure, Option<Mirror>)> {
        let name = name_of(reference);
        let mut call = Call::get(reference, format!("manifests/{name}"));
        call.headers.insert(ACCEPT, HeaderValue::from_static(DOCUMENTS));
        let sent = self.try_send_from(&call, first).await.map_err(|failure| match failure {
            Failure::Final(RegistryErrorKind::Status { status: 404, message, .. }) => {
                // A page for people says nothing of a manifest.
                let said = Some(message).filter(|said| !said.starts_with('<')).unwrap_or_default();
                let reference = name.clone();
                Failure::Final(RegistryErrorKind::ManifestUnknown { reference, said })
            }
            failure => failure,
        });
        let Answer { mut response, mirror } = sent.map_err(|failure| (failure, None))?;
        // What a server says of its own bytes proves nothing; that it contradicts itself shows that they are damaged.
        let said = mirror.as_ref().and_then(|_| content_digest(&response));
        let expected = reference.digest().copied().or(said);
        document(&mut response, &name, expected).await.map_err(|failure| (failure, mirror))
    }

    /// What a tag or digest names at the moment, without fetching it; `None` for nothing. It asks as one who is about to
    /// push, and its answer is the registry's word.
    pub async fn manifest_descriptor(
        &self,
        reference: &Reference,
    ) -> Result<Option<Descriptor>, RegistryError> {
        let mut retries = self.retries();
        loop {
            match self.try_manifest_descriptor(reference).await {
                Ok(Some(Named::Descriptor(descriptor))) => return Ok(Some(*descriptor)),
                Ok(Some(Named::Unknown)) => {
                    let Document { media_type, digest, bytes } = self.manifest(reference).await?;
                    return Ok(Some(Descriptor::new(media_type, digest, bytes.len() as u64)));
                }
                Ok(None) => return Ok(None),
                Err(failure) => {
                    retries.wait(failure).await.map_err(|kind| at(reference, kind))?;
                }
            }
        }
    }

    async fn try_manifest_descriptor(
        &self,
        reference: &Reference,
    ) -> Result<Option<Named>, Failure> {
        let target = Target::Below(format!("manifests/{}", name_of(reference)));
        let mut call = Call::new(Method::HEAD, reference, Access::Push, target);
        call.headers.insert(ACCEPT, HeaderValue::from_static(DOCUMENTS));
        let response = match self.try_send(&call).await {
            Ok(response) => response,
            Err(Failure::Final(RegistryErrorKind::Status { status: 404, .. })) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let size = response.headers().get(reqwest::header::CONTENT_LENGTH);
        let size = size.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Some(match (content_digest(&response), size) {
            (Some(digest), Some(size)) => {
                Named::Descriptor(Box::new(Descriptor::new(media_type(&response), digest, size)))
            }
            _ => Named::Unknown,
        }))
    }

    /// Stores a manifest or index under what `reference` names: its digest if it has one, else its tag or `latest`. All
    /// that the document refers to must be there; registries check it.
    pub async fn put_manifest(
        &self,
        reference: &Reference,
        document: &Document,
    ) -> Result<(), RegistryError> {
        let mut retries = self.retries();
        loop {
            match self.try_put_manifest(reference, document).await {
                Ok(()) => return Ok(()),
                // It may be there by now; then it is stored once more, which changes nothing.
                Err(failure) => {
                    retries.wait(failure).await.map_err(|kind| at(reference, kind))?;
                }
            }
        }
    }

    /// As [`RegistryClient::put_manifest`], if a tag names `expected` (`None`: nothing) or the document already. Whether it
    /// did. The tag is looked at before each attempt, and just before it.
    pub async fn put_manifest_if(
        &self,
        tag: &Reference,
        document: &Document,
        expected: Option<Digest>,
    ) -> Result<bool, RegistryError> {
        let mut retries = self.retries();
        loop {
            let there = self.manifest_descriptor(tag).await?.map(|there| there.digest);
            if there == Some(document.digest) {
                return Ok(true);
            }
            if there != expected {
                return Ok(false);
            }
            match self.try_put_manifest(tag, document).await {
                Ok(()) => return Ok(true),
                Err(failure) => retries.wait(failure).await.map_err(|kind| at(tag, kind))?,
            }
        }
    }

    async fn try_put_manifest(
        &self,
        reference: &Reference,
        document: &Document,
    ) -> Result<(), Failure> {
        let name = name_of(reference);
        let target = Target::Below(format!("manifests/{name}"));
        let mut call = Call::new(Method::PUT, reference, Access::Push, target);
        let media_type = HeaderValue::from_str(document.media_type.as_str()).map_err(|_| {
            Failure::Final(RegistryErrorKind::MediaType(document.media_type.clone()))
        })?;
        call.headers.insert(CONTENT_TYPE, media_type);
        call.body = CallBody::Bytes(&document.bytes);
        let response = self.try_send(&call).await?;
        stored(&response, &format!("manifest `{name}`"), &document.digest)
    }
}

/// What a registry said of a tag.
enum Named {
    Descriptor(Box<Descriptor>),
    /// That there is something, but not what.
    Unknown,
}

/// Reads the answer to the question for a document, which has to be `expected`.
async fn document(
    response: &mut Response,
    name: &str,
    expected: Option<Digest>,
) -> Result<Document, Failure> {
    let what = format!("manifest `{name}`");
    let media_type = media_type(response);
    let bytes = read_bounded(response, LARGEST_DOCUMENT, &what).await?;
    let Some(expected) = expected else {
        return Ok(Document { media_type, digest: Digest::of(&bytes), bytes });
    };
    let mut hasher = Hasher::new(expected.algorithm());
    hasher.update(&bytes);
    let actual = hasher.finish();
    if actual != expected {
        let source = VerifyError::Digest { expected, actual };
        return Err(Failure::Final(RegistryErrorKind::Verify { what, source }));
    }
    Ok(Document { media_type, digest: actual, bytes })
}

/// What a manifest is asked for by.
fn name_of(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag_or_latest().unwrap_or("latest").to_owned(),
    }
}

fn media_type(response: &Response) -> MediaType {
    let content_type = response.headers().get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().unwrap_or_default().trim().into()
}

fn content_digest(response: &Response) -> Option<Digest> {
    let digest = response.headers().get("Docker-Content-Digest")?;
    Digest::parse(digest.to_str().ok()?.trim()).ok()
}

/// Finds out whether a registry that says it has stored something has stored that.
pub(super) fn stored(response: &Response, what: &str, expected: &Digest) -> Result<(), Failure> {
    // 202 to a PUT would be a promise; none of the registries that give 200 instead of 201 means less by it.
    if response.status() == StatusCode::ACCEPTED {
        return Err(Failure::Final(RegistryErrorKind::NotStored { what: what.to_owned() }));
    }
    match content_digest(response) {
        Some(actual) if actual.algorithm() == expected.algorithm() && actual != *expected => {
            Err(Failure::Final(RegistryErrorKind::StoredOther {
                what: what.to_owned(),
                expected: *expected,
                actual,
            }))
        }
        _ => Ok(()),
    }
}
