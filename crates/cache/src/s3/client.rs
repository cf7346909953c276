//! One request: signed, sent, and sent again.

use std::sync::Arc;
use std::time::Duration;

use rbuild_oci::Digest;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED};
use reqwest::{Method, Response, Url};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::sync::Semaphore;

use super::sign::Signing;
use super::{S3Bucket, S3Credentials, S3Error, S3ErrorKind};
use crate::RetryPolicy;
use crate::http::{
    BodyStream, HttpClients, TlsFiles, TransportError, broken, is_transient, retry_after, shorten,
};

/// Answers that are documents of S3's.
const LONGEST_ANSWER: usize = 64 << 10;
/// Metadata of a document: its digest. Entity tags are of the server's own making.
pub(super) const DIGEST: &str = "x-amz-meta-digest";
/// Codes of answers that may be others the next time, whatever their status is.
const TRANSIENT: [&str; 4] = ["InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout"];

/// How much is asked of a bucket.
#[derive(Clone, Debug)]
pub struct S3Limits {
    /// What is tried again, and when.
    pub retry: RetryPolicy,
    /// Requests that send something at a time.
    pub uploads: usize,
}

impl Default for S3Limits {
    fn default() -> Self {
        Self { retry: RetryPolicy::default(), uploads: 4 }
    }
}

/// Asks for objects of a bucket, and writes them. Clones share connections and limits.
#[derive(Clone, Debug)]
pub struct S3Client(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) bucket: S3Bucket,
    /// `None` to ask as nobody.
    credentials: Option<S3Credentials>,
    pub(super) retry: RetryPolicy,
    pub(super) uploads: Semaphore,
    clients: Arc<HttpClients>,
    tls: TlsFiles,
}

/// What is known of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct S3Object {
    /// Its bytes.
    pub size: u64,
    /// When it was written, if the server says so.
    pub modified: Option<OffsetDateTime>,
    /// Its digest, if whoever wrote it has said it.
    pub digest: Option<Digest>,
}

/// A request before it is signed.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    /// What it is for, as errors say it.
    pub(super) action: &'static str,
    pub(super) method: Method,
    pub(super) key: &'a str,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    /// What is sent, with its SHA-256 digest.
    pub(super) body: Option<(&'a BodyStream, Digest)>,
}

impl<'a> Ask<'a> {
    pub(super) fn new(action: &'static str, method: Method, key: &'a str) -> Self {
        let (query, headers) = (String::new(), HeaderMap::new());
        Self { action, method, key, query, headers, body: None }
    }

    /// The same request with a header whose value has no characters but those of an encoded text.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).expect("encoded text is fit for a header");
        self.headers.insert(HeaderName::from_static(name), value);
        self
    }
}

impl S3Client {
    pub(super) fn new(
        bucket: S3Bucket,
        credentials: Option<S3Credentials>,
        limits: S3Limits,
        clients: Arc<HttpClients>,
        tls: TlsFiles,
    ) -> Self {
        let uploads = Semaphore::new(limits.uploads.max(1));
        Self(Arc::new(Inner { bucket, credentials, retry: limits.retry, uploads, clients, tls }))
    }

    /// The bucket.
    pub fn bucket(&self) -> &S3Bucket {
        &self.0.bucket
    }

    /// What is known of an object; `None` if there is none.
    pub async fn head(&self, key: &str) -> Result<Option<S3Object>, S3Error> {
        let response = match self.send(&Ask::new("look for", Method::HEAD, key)).await {
            Err(error) if matches!(*error.kind, S3ErrorKind::Missing) => return Ok(None),
            response => response?,
        };
        let text = |name: HeaderName| response.headers().get(name)?.to_str().ok();
        let size = text(CONTENT_LENGTH).and_then(|size| size.parse().ok());
        let modified =
            text(LAST_MODIFIED).and_then(|time| OffsetDateTime::parse(time, &Rfc2822).ok());
        let digest = text(HeaderName::from_static(DIGEST));
        let digest = digest.and_then(|digest| Digest::parse(digest).ok());
        Ok(Some(S3Object { size: size.unwrap_or_default(), modified, digest }))
    }

    pub(super) fn failed(&self, ask: &Ask<'_>, kind: S3ErrorKind) -> S3Error {
        let bucket = self.0.bucket.bucket.clone();
        S3Error { action: ask.action, key: ask.key.to_owned(), bucket, kind: Box::new(kind) }
    }

    /// Sends a request until it succeeds, or makes no sense any more.
    pub(super) async fn send(&self, ask: &Ask<'_>) -> Result<Response, S3Error> {
        let mut attempt = 1;
        loop {
            match self.try_send(ask).await {
                Ok(response) => return Ok(response),
                Err((kind, asked)) => self.wait(ask, &mut attempt, kind, asked).await?,
            }
        }
    }

    /// As [`S3Client::send`], and reads the document that is the answer. It may be an error although its status is none.
    pub(super) async fn answer(&self, ask: &Ask<'_>) -> Result<String, S3Error> {
        let mut attempt = 1;
        loop {
            let failure = match self.try_send(ask).await {
                Ok(response) => match read_text(response).await {
                    Ok(text) => match said(&text).filter(|_| text.contains("<Error>")) {
                        None => return Ok(text),
                        said => (S3ErrorKind::Status { status: 200, said }, None),
                    },
                    Err(kind) => (kind, None),
                },
                Err(failure) => failure,
            };
            self.wait(ask, &mut attempt, failure.0, failure.1).await?;
        }
    }

    /// Waits before the next attempt, or gives up with the failure's error.
    pub(super) async fn wait(
        &self,
        ask: &Ask<'_>,
        attempt: &mut u32,
        kind: S3ErrorKind,
        asked: Option<Duration>,
    ) -> Result<(), S3Error> {
        // Who said nothing once more has nothing to say.
        let is_silent = matches!(kind, S3ErrorKind::Transport(TransportError::NoAnswer { .. }));
        let may_go_better = may_go_better(&kind) && !(is_silent && *attempt > 1);
        let delay = self.0.retry.delay(*attempt, asked).filter(|_| may_go_better);
        let Some(delay) = delay else { return Err(self.failed(ask, kind)) };
        *attempt += 1;
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// Makes one attempt. The answer's status is a success.
    pub(super) async fn try_send(
        &self,
        ask: &Ask<'_>,
    ) -> Result<Response, (S3ErrorKind, Option<Duration>)> {
        let response = self.send_once(ask).await.map_err(|kind| (kind, None))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let asked = retry_after(&response);
        Err((self.refused(ask, response).await, asked))
    }

    async fn send_once(&self, ask: &Ask<'_>) -> Result<Response, S3ErrorKind> {
        let Inner { bucket, credentials, clients, tls, .. } = &*self.0;
        let mut url =
            bucket.url(ask.key).ok_or_else(|| S3ErrorKind::Endpoint(bucket.endpoint.clone()))?;
        if !ask.query.is_empty() {
            url.set_query(Some(&ask.query));
        }
        let mut headers = ask.headers.clone();
        if let Some(credentials) = credentials {
            let payload = ask.body.map_or_else(|| Digest::of(b""), |(_, payload)| payload);
            let now = OffsetDateTime::now_utc();
            let signing = Signing { credentials, region: &bucket.region, now };
            let signed = signing.sign(ask.method.as_str(), &url, &mut headers, &payload);
            signed.map_err(|_| S3ErrorKind::Credentials)?;
        }
        let request = |client: reqwest::Client| {
            client.request(ask.method.clone(), url.clone()).headers(headers)
        };
        match ask.body {
            Some((body, _)) => {
                let request = request(clients.for_uploads(&url, tls)?).body(body.body());
                Ok(body.watch(&url, self.0.retry.idle_limit, request.send()).await?)
            }
            None => {
                let mut request = request(clients.with(&url, tls)?);
                if matches!(ask.method, Method::POST | Method::PUT) {
                    request = request.header(CONTENT_LENGTH, "0");
                }
                if !matches!(ask.method, Method::GET | Method::HEAD) {
                    // Some servers copy all of an object before they answer.
                    return Ok(request
                        .send()
                        .await
                        .map_err(|error| clients.broken(&url, error))?);
                }
                let limit = self.0.retry.answer_limit;
                match tokio::time::timeout(limit, request.send()).await {
                    Ok(answer) => Ok(answer.map_err(|error| clients.broken(&url, error))?),
                    Err(_) => {
                        let host = url.host_str().unwrap_or_default().to_owned();
                        Err(TransportError::NoAnswer { host, seconds: limit.as_secs() }.into())
                    }
                }
            }
        }
    }

    /// Why an answer is no success.
    async fn refused(&self, ask: &Ask<'_>, response: Response) -> S3ErrorKind {
        let status = response.status().as_u16();
        let region = response.headers().get("x-amz-bucket-region");
        let region = region.and_then(|region| region.to_str().ok()).map(shorten);
        let text = read_text(response).await.unwrap_or_default();
        let said = said(&text);
        let region = region.or_else(|| element(&text, "Region").map(|text| shorten(&text)));
        match (status, region) {
            (301 | 307 | 400, Some(region)) if region != self.0.bucket.region => {
                S3ErrorKind::Region(region)
            }
            (401 | 403, _) => S3ErrorKind::Denied(said, self.0.credentials.is_some()),
            (404, _)
                if matches!(ask.method, Method::GET | Method::HEAD)
                    && said.as_deref().is_none_or(|said| !said.starts_with("NoSuchBucket")) =>
            {
                S3ErrorKind::Missing
            }
            _ => S3ErrorKind::Status { status, said },
        }
    }
}

/// Whether it may go better the next time.
fn may_go_better(kind: &S3ErrorKind) -> bool {
    match kind {
        S3ErrorKind::Transport(error) => error.is_transient(),
        S3ErrorKind::Status { status, said } => {
            let code = said.as_deref().and_then(|said| said.split(':').next());
            is_transient(*status) || code.is_some_and(|code| TRANSIENT.contains(&code))
        }
        _ => false,
    }
}

/// A document, as far as it is sensible.
async fn read_text(mut response: Response) -> Result<String, S3ErrorKind> {
    let url: Url = response.url().clone();
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > LONGEST_ANSWER => {
                return Err(S3ErrorKind::TooLarge(LONGEST_ANSWER as u64));
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => return Err(broken(&url, error).into()),
        }
    }
}

/// `Code: message` of a document that is an error.
fn said(document: &str) -> Option<String> {
    let parts = [element(document, "Code"), element(document, "Message")];
    let said: Vec<String> = parts.into_iter().flatten().collect();
    (!said.is_empty()).then(|| shorten(&said.join(": ")))
}

/// The text of the first element of this name. The documents that are read are small and flat.
pub(super) fn element(document: &str, name: &str) -> Option<String> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let plain = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    Some(plain.replace("&#39;", "'").replace("&apos;", "'").replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read() {
        let text = "<?xml?>\n<Error><Code>SlowDown</Code><Message>a &amp;lt; b\n</Message></Error>";
        assert_eq!(said(text).as_deref(), Some("SlowDown: a &lt; b "));
        assert!(may_go_better(&S3ErrorKind::Status { status: 200, said: said(text) }));
        assert_eq!(said("<html>"), None);
        assert_eq!(element("<a>1", "a"), None);
    }
}
