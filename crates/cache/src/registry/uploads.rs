//! Blobs, into a repository.
//!
//! A blob is sent as one `PUT` to an upload session. A server in front of the registry may limit how much one request
//! carries and answer 413; then the blob goes in pieces, each smaller than the last that was refused. What broke is begun anew
//! in a new session, unless the registry has the blob by then: the answer may be all that was lost.

use rbuild_oci::{Descriptor, Digest, Reference};
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};

use super::auth::Access;
use super::client::{Call, CallBody, Failure, Target, at};
use super::manifests::stored;
use super::{RegistryClient, RegistryError, RegistryErrorKind};
use crate::http::{BlobBody, BodyStream, location};

/// The first size of pieces, and by how much they shrink when that is too much: 8 MiB, then 1 MiB, which is what nginx
/// takes when nobody told it otherwise.
const PIECE: u64 = 8 << 20;
const SHRINK: u64 = 8;
const SMALLEST_PIECE: u64 = 1 << 20;

/// An upload that a registry waits for.
#[derive(Clone, Debug)]
pub struct UploadSession {
    url: Url,
    /// What pieces must have at least, if the registry says so.
    least_piece: u64,
}

/// What became of a mount.
#[derive(Clone, Debug)]
pub enum Mount {
    /// The repository has the blob now.
    Done,
    /// The registry would not, and waits for the blob to be sent.
    Refused(UploadSession),
}

impl RegistryClient {
    /// Whether the repository has a blob.
    pub async fn has_blob(&self, of: &Reference, digest: &Digest) -> Result<bool, RegistryError> {
        let mut retries = self.retries();
        loop {
            match self.try_has_blob(of, digest).await {
                Ok(there) => return Ok(there),
                Err(failure) => retries.wait(failure).await.map_err(|kind| at(of, kind))?,
            }
        }
    }

    async fn try_has_blob(&self, of: &Reference, digest: &Digest) -> Result<bool, Failure> {
        let target = Target::Below(format!("blobs/{digest}"));
        match self.try_send(&Call::new(Method::HEAD, of, Access::Push, target)).await {
            Ok(_) => Ok(true),
            Err(Failure::Final(RegistryErrorKind::Status { status: 404, .. })) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Takes a blob over from repository `from` of the same registry, without sending it.
    pub async fn mount_blob(
        &self,
        of: &Reference,
        digest: &Digest,
        from: &str,
    ) -> Result<Mount, RegistryError> {
        let mut retries = self.retries();
        loop {
            match self.try_mount_blob(of, digest, from).await {
                Ok(mount) => return Ok(mount),
                Err(failure) => retries.wait(failure).await.map_err(|kind| at(of, kind))?,
            }
        }
    }

    async fn try_mount_blob(
        &self,
        of: &Reference,
        digest: &Digest,
        from: &str,
    ) -> Result<Mount, Failure> {
        // A repository's name has no character that a query would have to escape.
        let target = Target::Below(format!("blobs/uploads/?mount={digest}&from={from}"));
        let call = Call::new(Method::POST, of, Access::Mount { from }, target);
        let response = self.try_send(&call).await?;
        match response.status() {
            StatusCode::ACCEPTED => session(&response, digest).map(Mount::Refused),
            _ => stored(&response, &format!("blob `{digest}`"), digest).map(|()| Mount::Done),
        }
    }

    /// Sends a blob of known digest and size, into `session` if there is one. The registry verifies the digest.
    pub async fn put_blob(
        &self,
        of: &Reference,
        blob: &Descriptor,
        body: &BlobBody,
        session: Option<UploadSession>,
    ) -> Result<(), RegistryError> {
        let uploads = self.uploads(of);
        let _permit = uploads.acquire().await.expect("the semaphore is never closed");
        let mut upload = Upload { client: self, of, blob, body, piece: None };
        let mut session = session;
        let mut retries = self.retries();
        loop {
            let failure = match upload.run(session.take()).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if upload.is_too_much(&failure) {
                continue;
            }
            retries.wait(failure).await.map_err(|kind| at(of, kind))?;
            if self.has_blob(of, &blob.digest).await? {
                return Ok(());
            }
        }
    }

    /// Tells the registry not to wait any longer. Nothing depends on it: sessions that nobody uses run out.
    pub async fn cancel_upload(&self, of: &Reference, session: UploadSession) {
        let target = Target::Named(session.url);
        let _ = self.try_send(&Call::new(Method::DELETE, of, Access::Push, target)).await;
    }
}

/// One blob on its way.
struct Upload<'a> {
    client: &'a RegistryClient,
    of: &'a Reference,
    blob: &'a Descriptor,
    body: &'a BlobBody,
    /// How large the pieces are; `None` for the whole blob at once.
    piece: Option<u64>,
}

impl Upload<'_> {
    async fn run(&self, session: Option<UploadSession>) -> Result<(), Failure> {
        let session = match session {
            Some(session) => session,
            None => self.begin().await?,
        };
        let sent = match self.piece {
            None => self.finish(session.url, Some(self.stream(0, self.blob.size))).await,
            Some(piece) => self.send_pieces(session, piece).await,
        };
        sent.map_err(|failure| match failure {
            // The session ran out, or is at another position than we are: another one is needed.
            Failure::Final(kind @ RegistryErrorKind::Status { status: 404 | 416, .. }) => {
                Failure::Transient(kind, None)
            }
            failure => failure,
        })
    }

    async fn begin(&self) -> Result<UploadSession, Failure> {
        let target = Target::Below("blobs/uploads/".to_owned());
        let call = Call::new(Method::POST, self.of, Access::Push, target);
        session(&self.client.try_send(&call).await?, &self.blob.digest)
    }

    async fn send_pieces(&self, session: UploadSession, piece: u64) -> Result<(), Failure> {
        let UploadSession { mut url, least_piece } = session;
        let (mut start, size) = (0, self.blob.size);
        while start < size {
            let length = piece.max(least_piece).min(size - start);
            let stream = self.stream(start, length);
            let mut call = self.call(Method::PATCH, url);
            let range = format!("{start}-{}", start + length - 1);
            let range = HeaderValue::from_str(&range).expect("digits are fit for a header");
            call.headers.insert(CONTENT_RANGE, range);
            call.body = CallBody::Stream(&stream);
            let response = self.client.try_send(&call).await?;
            url = self::session(&response, &self.blob.digest)?.url;
            start += length;
        }
        self.finish(url, None).await
    }

    /// Ends the session, with the whole blob or after its pieces.
    async fn finish(&self, mut url: Url, stream: Option<BodyStream>) -> Result<(), Failure> {
        let digest = self.blob.digest;
        let query = match url.query().filter(|query| !query.is_empty()) {
            // What is there is the registry's own and may be signed: it stays as it is written.
            Some(query) => format!("{query}&digest={digest}"),
            None => format!("digest={digest}"),
        };
        url.set_query(Some(&query));
        let mut call = self.call(Method::PUT, url);
        if let Some(stream) = &stream {
            call.body = CallBody::Stream(stream);
        }
        stored(&self.client.try_send(&call).await?, &format!("blob `{digest}`"), &digest)
    }

    fn stream(&self, start: u64, size: u64) -> BodyStream {
        BodyStream::new(self.body, self.blob.digest, start, size)
    }

    fn call(&self, method: Method, url: Url) -> Call<'_> {
        let mut call = Call::new(method, self.of, Access::Push, Target::Named(url));
        let bytes = HeaderValue::from_static("application/octet-stream");
        call.headers.insert(CONTENT_TYPE, bytes);
        call
    }

    /// Whether a request was refused for its size, and smaller ones can be tried.
    fn is_too_much(&mut self, failure: &Failure) -> bool {
        if !matches!(failure, Failure::Final(RegistryErrorKind::Status { status: 413, .. })) {
            return false;
        }
        let next = self.piece.map_or(PIECE, |piece| piece / SHRINK);
        let is_possible = next >= SMALLEST_PIECE && next < self.blob.size;
        if is_possible {
            self.piece = Some(next);
        }
        is_possible
    }
}

/// Where to go on with an upload.
fn session(response: &Response, digest: &Digest) -> Result<UploadSession, Failure> {
    let url = location(response.url(), response)
        .ok_or(Failure::Final(RegistryErrorKind::NoUploadLocation(*digest)))?;
    let least = response.headers().get("OCI-Chunk-Min-Length");
    let least_piece = least.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    Ok(UploadSession { url, least_piece })
}
