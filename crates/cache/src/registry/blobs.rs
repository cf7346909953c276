//! Blobs, as streams that survive a broken connection.

use rbuild_oci::{Descriptor, Hasher, Reference};
use reqwest::header::RANGE;

use super::client::{Call, Failure, Retries, at};
use super::mirrors::{Answer, Mirror};
use super::{RegistryClient, RegistryError, RegistryErrorKind};
use crate::http::{Fault, Incoming};

/// After so many bytes, an interruption is another one, and not the same once more.
const WORTH_IT: u64 = 8 << 20;

/// A blob on its way.
///
/// The stream hands out at most as many bytes as the blob has, and goes on where it was when the connection breaks. What
/// the bytes are is not verified here: the reader does that with a [`rbuild_oci::VerifyingReader`].
#[derive(Debug)]
pub struct BlobStream {
    client: RegistryClient,
    of: Reference,
    descriptor: Descriptor,
    incoming: Incoming,
    retries: Retries,
    /// How much had come when an attempt was last worth it.
    kept: u64,
    /// The first of the registry's endpoints that is asked.
    first: usize,
    /// The mirror that is answering.
    mirror: Option<Mirror>,
    /// The mirror that gave the first bytes. Later ones may be another's.
    began: Option<Mirror>,
}

impl RegistryClient {
    fn incoming(&self, size: u64) -> Incoming {
        Incoming::new(size, self.0.options.retry.idle_limit)
    }

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
            incoming: self.incoming(descriptor.size),
            retries: self.retries(),
            kept: 0,
            first: 0,
            mirror: None,
            began: None,
        };
        while !stream.incoming.is_connected() {
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
        loop {
            if !self.incoming.is_connected() {
                self.connect().await?;
                continue;
            }
            match self.incoming.chunk().await {
                Ok(chunk) => return Ok(chunk),
                // There is nothing to go on with.
                Err(Fault::Size(actual)) => return Err(at(&self.of, self.wrong_size(actual))),
                Err(fault) => self.interrupted(self.failure(fault)).await?,
            }
        }
    }

    /// Begins again with the first byte, at the server after the mirror that gave it. For those who find out that what they
    /// got is wrong. `false` if it came from the registry itself, or there is nobody else to ask.
    pub fn leave_mirror(&mut self, reason: &str) -> bool {
        let Some(mirror) = self.began.take() else { return false };
        self.pass_over(&mirror, reason.to_owned());
        self.incoming = self.client.incoming(self.descriptor.size);
        self.kept = 0;
        self.mirror = None;
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
        if let Some(mirror) = self.mirror.take() {
            self.pass_over(&mirror, failure.reason());
            return Ok(());
        }
        let received = self.incoming.received();
        if received - self.kept >= WORTH_IT {
            self.kept = received;
            self.retries.begin_again();
        }
        self.retries.wait(failure).await.map_err(|kind| at(&self.of, kind))
    }

    /// Makes one attempt to get an answer that goes on after what was received; without an error it may be tried again.
    async fn connect(&mut self) -> Result<(), RegistryError> {
        let digest = self.descriptor.digest;
        let path = format!("blobs/{digest}");
        let mut call = Call::get(&self.of, path);
        if let Some(range) = self.incoming.range() {
            call.headers.insert(RANGE, range);
        }
        let Answer { response, mirror } = match self.client.try_send_from(&call, self.first).await {
            Ok(answer) => answer,
            Err(Failure::Final(RegistryErrorKind::Status { status: 404, .. })) => {
                return Err(at(&self.of, RegistryErrorKind::BlobUnknown(digest)));
            }
            Err(failure) => return self.interrupted(failure).await,
        };
        self.mirror = mirror;
        if self.incoming.range().is_none() {
            self.began.clone_from(&self.mirror);
        }
        match self.incoming.accept(response) {
            Ok(()) => Ok(()),
            Err(fault) => self.interrupted(self.failure(fault)).await,
        }
    }

    fn failure(&self, fault: Fault) -> Failure {
        match fault {
            Fault::Broken(error) => error.into(),
            // Without a length, an answer that is cut short ends like a complete one.
            Fault::Short(actual) => Failure::Transient(self.wrong_size(actual), None),
            Fault::Size(actual) => Failure::Final(self.wrong_size(actual)),
            Fault::Range => Failure::Final(RegistryErrorKind::Status {
                status: 206,
                method: "GET",
                path: format!("/v2/{}/blobs/{}", self.of.repository(), self.descriptor.digest),
                message: "the range is not the one that was asked for".to_owned(),
            }),
        }
    }

    fn wrong_size(&self, actual: u64) -> RegistryErrorKind {
        let Self { descriptor, .. } = self;
        RegistryErrorKind::BlobSize { digest: descriptor.digest, expected: descriptor.size, actual }
    }
}
