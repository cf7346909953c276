//! Blobs, as streams that survive a broken connection.

use rbuild_oci::{Descriptor, Hasher, Reference};
use reqwest::header::{CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Response, StatusCode};

use super::client::{Call, Failure, Retries, at};
use super::mirrors::{Answer, Mirror};
use super::{RegistryClient, RegistryError, RegistryErrorKind};
use crate::http::broken;

/// A blob on its way.
///
/// The stream hands out at most as many bytes as the blob has, and goes on where it was when the connection breaks. What
/// the bytes are is not verified here: the reader does that with a [`rbuild_oci::VerifyingReader`].
#[derive(Debug)]
pub struct BlobStream {
    client: RegistryClient,
    of: Reference,
    descriptor: Descriptor,
    response: Option<Response>,
    received: u64,
    /// Bytes of a new answer that were received already: the registry ignored the range.
    skip: u64,
    retries: Retries,
    /// The first of the registry's endpoints that is asked.
    first: usize,
    /// The mirror that is answering.
    mirror: Option<Mirror>,
    /// The mirror that gave the first bytes. Later ones may be another's.
    began: Option<Mirror>,
}

impl RegistryClient {
    /// Starts to fetch a blob of the repository that `of` names.
    pub async fn blob(
        &self,
        of: &Reference,
        descriptor: &Descriptor,
    ) -> Result<BlobStream, RegistryError> {
        let mut stream = BlobStream {
            client: self.clone(),
            of: of.clone(),
            descriptor: descriptor.clone(),
            response: None,
            received: 0,
            skip: 0,
            retries: self.retries(),
            first: 0,
            mirror: None,
            began: None,
        };
        while stream.response.is_none() {
            stream.connect().await?;
        }
        Ok(stream)
    }

    /// Fetches a small blob whole, but never more than its descriptor's size, which the caller has found sensible. What it
    /// is, is verified as long as it comes from mirrors that can be left, and else up to the caller.
    pub async fn small_blob(
        &self,
        of: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut stream = self.blob(of, descriptor).await?;
        loop {
            let (reason, whole) = match stream.rest().await {
                Ok(bytes) => {
                    let mut hasher = Hasher::new(descriptor.digest.algorithm());
                    hasher.update(&bytes);
                    let actual = hasher.finish();
                    if actual == descriptor.digest {
                        return Ok(bytes);
                    }
                    (format!("it sent `{actual}`"), Ok(bytes))
                }
                Err(error) => (error.kind.to_string(), Err(error)),
            };
            if !stream.leave_mirror(&reason) {
                return whole;
            }
        }
    }
}

impl BlobStream {
    /// The next bytes; `None` when the registry has no more.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, RegistryError> {
        let size = self.descriptor.size;
        loop {
            let Some(response) = &mut self.response else {
                self.connect().await?;
                continue;
            };
            let url = response.url().clone();
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let skipped = self.skip.min(chunk.len() as u64);
                    self.skip -= skipped;
                    let fresh = &chunk[skipped as usize..];
                    self.received += fresh.len() as u64;
                    if self.received > size {
                        let actual = self.received;
                        return Err(self.fail(self.wrong_size(actual)));
                    }
                    if !fresh.is_empty() {
                        return Ok(Some(fresh.to_vec()));
                    }
                }
                Ok(None) if self.received < size && self.received > 0 => {
                    // Without a length, an answer that is cut short ends like a complete one.
                    let error = self.wrong_size(self.received);
                    self.interrupted(Failure::Transient(error, None)).await?;
                }
                Ok(None) => return Ok(None),
                Err(error) => self.interrupted(broken(&url, error).into()).await?,
            }
        }
    }

    /// Begins again with the first byte, at the server after the mirror that gave it. For those who find out that what they
    /// got is wrong. `false` if it came from the registry itself, or there is nobody else to ask.
    pub fn leave_mirror(&mut self, reason: &str) -> bool {
        let Some(mirror) = self.began.take() else { return false };
        self.pass_over(&mirror, reason.to_owned());
        (self.received, self.skip) = (0, 0);
        (self.response, self.mirror) = (None, None);
        true
    }

    fn pass_over(&mut self, mirror: &Mirror, reason: String) {
        let what = format!("blob `{}`", self.descriptor.digest);
        self.client.note_fault(mirror, self.of.registry(), &what, reason);
        self.first = mirror.next;
    }

    async fn rest(&mut self) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Goes on at the next server if it was a mirror that failed after it had begun to answer; else waits for another try.
    async fn interrupted(&mut self, failure: Failure) -> Result<(), RegistryError> {
        self.response = None;
        if let Some(mirror) = self.mirror.take() {
            self.pass_over(&mirror, failure.reason());
            return Ok(());
        }
        self.retries.wait(failure).await.map_err(|kind| at(&self.of, kind))
    }

    /// Makes one attempt to get an answer that goes on after what was received; without an error it may be tried again.
    async fn connect(&mut self) -> Result<(), RegistryError> {
        let digest = self.descriptor.digest;
        let path = format!("blobs/{digest}");
        let mut call = Call::get(&self.of, path);
        if self.received > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.received))
                .expect("digits are fit for a header");
            call.headers.insert(RANGE, range);
        }
        let Answer { response, mirror } = match self.client.try_send_from(&call, self.first).await {
            Ok(answer) => answer,
            Err(Failure::Final(RegistryErrorKind::Status { status: 404, .. })) => {
                return Err(self.fail(RegistryErrorKind::BlobUnknown(digest)));
            }
            Err(failure) => return self.interrupted(failure).await,
        };
        self.mirror = mirror;
        if self.received == 0 {
            self.began.clone_from(&self.mirror);
        }
        let resumes = response.status() == StatusCode::PARTIAL_CONTENT;
        let start = if resumes { range_start(&response) } else { Some(0) };
        // A range that we did not ask for cannot be put together with what is there.
        let Some(start) = start.filter(|start| *start <= self.received) else {
            let kind = RegistryErrorKind::Status {
                status: 206,
                method: "GET",
                path: format!("/v2/{}/blobs/{digest}", self.of.repository()),
                message: "the range is not the one that was asked for".to_owned(),
            };
            return self.interrupted(Failure::Final(kind)).await;
        };
        if let Some(length) = response.content_length()
            && start.checked_add(length) != Some(self.descriptor.size)
        {
            let kind = self.wrong_size(start.saturating_add(length));
            return self.interrupted(Failure::Final(kind)).await;
        }
        self.skip = self.received - start;
        self.response = Some(response);
        Ok(())
    }

    fn wrong_size(&self, actual: u64) -> RegistryErrorKind {
        let Self { descriptor, .. } = self;
        RegistryErrorKind::BlobSize { digest: descriptor.digest, expected: descriptor.size, actual }
    }

    fn fail(&self, kind: RegistryErrorKind) -> RegistryError {
        at(&self.of, kind)
    }
}

/// The first position of `Content-Range: bytes 5-9/10`.
fn range_start(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
