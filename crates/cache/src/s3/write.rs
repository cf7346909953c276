//! Objects, written: small ones with one request, others in parts of which several are sent at a time.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rbuild_oci::{Descriptor, Digest};
use reqwest::Method;
use reqwest::header::ETAG;
use time::OffsetDateTime;

use super::client::{Ask, DIGEST, element};
use super::sign::encoded;
use super::{S3Client, S3Error, S3ErrorKind};
use crate::http::{BlobBody, BodyStream};

/// What is sent in one piece.
const PART: u64 = 16 << 20;
/// S3 takes ten thousand parts of an object.
const MOST_PARTS: u64 = 9_000;
/// The most that can be copied with one request.
const LARGEST_COPY: u64 = 5 << 30;

impl S3Client {
    /// Writes a blob, and tells `sent` how many of its bytes were sent.
    pub async fn write_blob(
        &self,
        key: &str,
        blob: &Descriptor,
        body: &BlobBody,
        sent: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<(), S3Error> {
        let Descriptor { digest, size, .. } = *blob;
        if size <= PART {
            let body = body.clone().reporting(sent);
            let known = matches!(digest, Digest::Sha256(_)).then_some(digest);
            let ask = Ask::new("write", Method::PUT, key);
            return self.send_piece(ask, &body, digest, (0, size), known).await.map(drop);
        }
        let id = self.begin(key).await?;
        let parts = Parts { client: self, key, id: &id, digest, size, body };
        let finished = match parts.send(sent).await {
            Ok(tags) => self.complete(key, &id, &tags, size).await,
            Err(error) => Err(error),
        };
        if finished.is_err() {
            // What was sent takes space until it is given up.
            let mut ask = Ask::new("give up", Method::DELETE, key);
            ask.query = format!("uploadId={}", encoded(&id, false));
            let _ = self.send(&ask).await;
        }
        finished
    }

    /// Writes a document, and with it its digest, which [`S3Client::head`] finds.
    pub async fn write_document(&self, key: &str, bytes: Vec<u8>) -> Result<(), S3Error> {
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        let ask = Ask::new("write", Method::PUT, key)
            .with("content-type", "application/json")
            .with(DIGEST, &digest.to_string());
        let body = BlobBody::from_bytes(bytes);
        self.send_piece(ask, &body, digest, (0, size), Some(digest)).await.map(drop)
    }

    /// Makes an object of this size as new as if it had been written now, for buckets that delete what is old.
    pub async fn touch(&self, key: &str, size: u64) -> Result<(), S3Error> {
        let source = format!("{}/{}", self.bucket().bucket, encoded(key, true));
        let copy = |method| Ask::new("renew", method, key).with("x-amz-copy-source", &source);
        if size <= LARGEST_COPY {
            // A copy of an object onto itself has to change something.
            let now = OffsetDateTime::now_utc().unix_timestamp().to_string();
            let ask = copy(Method::PUT)
                .with("x-amz-metadata-directive", "REPLACE")
                .with("x-amz-meta-renewed", &now);
            return self.answer(&ask).await.map(drop);
        }
        let id = self.begin(key).await?;
        let mut tags = Vec::new();
        for (number, start) in (0..size.div_ceil(LARGEST_COPY)).map(|n| (n + 1, n * LARGEST_COPY)) {
            let end = size.min(start + LARGEST_COPY) - 1;
            let mut ask =
                copy(Method::PUT).with("x-amz-copy-source-range", &format!("bytes={start}-{end}"));
            ask.query = format!("partNumber={number}&uploadId={}", encoded(&id, false));
            let answer = self.answer(&ask).await?;
            let tag = element(&answer, "ETag");
            tags.push(tag.ok_or_else(|| self.failed(&ask, S3ErrorKind::Incomplete("tag")))?);
        }
        self.complete(key, &id, &tags, size).await
    }

    /// Sends bytes of a body and returns the tag of what was written.
    async fn send_piece(
        &self,
        mut ask: Ask<'_>,
        body: &BlobBody,
        digest: Digest,
        (start, size): (u64, u64),
        payload: Option<Digest>,
    ) -> Result<Option<String>, S3Error> {
        let _permit = self.0.uploads.acquire().await.expect("the semaphore is never closed");
        let payload = match payload {
            Some(payload) => payload,
            None => {
                let hashed = body.sha256(start, size).await;
                hashed
                    .map_err(|source| self.failed(&ask, S3ErrorKind::Source { digest, source }))?
            }
        };
        let stream = BodyStream::new(body, digest, start, size);
        ask.body = Some((&stream, payload));
        let response = self.send(&ask).await?;
        let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
        Ok(tag.map(str::to_owned))
    }

    async fn begin(&self, key: &str) -> Result<String, S3Error> {
        let mut ask = Ask::new("begin to write", Method::POST, key);
        ask.query = "uploads=".to_owned();
        let id = element(&self.answer(&ask).await?, "UploadId");
        id.ok_or_else(|| self.failed(&ask, S3ErrorKind::Incomplete("upload id")))
    }

    async fn complete(
        &self,
        key: &str,
        id: &str,
        tags: &[String],
        size: u64,
    ) -> Result<(), S3Error> {
        let escape = |tag: &str| tag.replace('&', "&amp;").replace('<', "&lt;");
        let part = |(number, tag): (usize, &String)| {
            let (number, tag) = (number + 1, escape(tag));
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>")
        };
        let parts: String = tags.iter().enumerate().map(part).collect();
        let document = format!(
            "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{parts}</CompleteMultipartUpload>"
        );
        let (digest, length) = (Digest::of(document.as_bytes()), document.len() as u64);
        let body = BlobBody::from_bytes(document);
        let stream = BodyStream::new(&body, digest, 0, length);
        let mut ask = Ask::new("finish writing", Method::POST, key);
        ask.query = format!("uploadId={}", encoded(id, false));
        ask.body = Some((&stream, digest));
        let answered = self.answer(&ask).await;
        match answered {
            Ok(_) => Ok(()),
            // The answer may be all that was lost, and the upload is over.
            Err(error) => match self.head(key).await {
                Ok(Some(object)) if object.size == size => Ok(()),
                _ => Err(error),
            },
        }
    }
}

/// A blob on its way in parts.
struct Parts<'a> {
    client: &'a S3Client,
    key: &'a str,
    id: &'a str,
    digest: Digest,
    size: u64,
    body: &'a BlobBody,
}

impl Parts<'_> {
    /// Sends all, and returns their tags in order.
    async fn send(
        &self,
        sent: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<Vec<String>, S3Error> {
        let length = PART.max(self.size.div_ceil(MOST_PARTS));
        let count = self.size.div_ceil(length);
        let sent = std::sync::Arc::new(Sent::new(count as usize, sent));
        stream::iter(0..count)
            .map(|number| {
                let (start, sent) = (number * length, std::sync::Arc::clone(&sent));
                let body = self.body.clone().reporting(move |position| {
                    sent.set(number as usize, position.saturating_sub(start));
                });
                self.send_part(body, number + 1, start, length.min(self.size - start))
            })
            .buffered(count.min(64) as usize)
            .try_collect()
            .await
    }

    async fn send_part(
        &self,
        body: BlobBody,
        number: u64,
        start: u64,
        size: u64,
    ) -> Result<String, S3Error> {
        let ask = || {
            let mut ask = Ask::new("write", Method::PUT, self.key);
            ask.query = format!("partNumber={number}&uploadId={}", encoded(self.id, false));
            ask
        };
        let tag = self.client.send_piece(ask(), &body, self.digest, (start, size), None).await?;
        tag.ok_or_else(|| self.client.failed(&ask(), S3ErrorKind::Incomplete("tag")))
    }
}

/// How much of each part was sent.
struct Sent<F> {
    parts: Mutex<Vec<u64>>,
    tell: F,
}

impl<F: Fn(u64)> Sent<F> {
    fn new(count: usize, tell: F) -> Self {
        Self { parts: Mutex::new(vec![0; count]), tell }
    }

    fn set(&self, part: usize, sent: u64) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts[part] = sent;
        (self.tell)(parts.iter().sum());
    }
}

impl<F> fmt::Debug for Sent<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sent").field("parts", &self.parts).finish_non_exhaustive()
    }
}
