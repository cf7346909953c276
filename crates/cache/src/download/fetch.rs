//! Asking the server, or not.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rbuild_oci::Digest;
use rbuild_solver::LayerId;
use reqwest::header::{
    AUTHORIZATION, ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::{Response, StatusCode, Url};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::receive::{Bounds, Received, receive};
use super::{Download, DownloadError, DownloadErrorKind};
use crate::http::{
    HttpClients, HttpOptions, MOST_REDIRECTS, Proxies, RetryPolicy, is_transient, location,
    retry_after, shorten,
};
use crate::image_source::PullProgress;
use crate::index::StoredDownload;
use crate::{Index, Layers, Lease, LockName, Locks, Store};

/// The longest `ETag` and `Last-Modified` that are remembered.
const LONGEST_VALIDATOR: usize = 1024;

/// How files are fetched.
#[derive(Clone, Debug)]
pub struct DownloadsOptions {
    /// Proxies, never used for the loopback.
    pub proxies: Proxies,
    /// PEM files with authorities to trust besides the system's.
    pub certificates: Vec<PathBuf>,
    /// What is tried again, and when.
    pub retry: RetryPolicy,
    /// The largest file that is fetched, in bytes.
    pub limit: u64,
    /// The slowest that a body may come.
    pub slowest: Pace,
}

/// So many bytes in so much time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How many bytes.
    pub bytes: u64,
    /// In which time.
    pub every: Duration,
}

impl Default for DownloadsOptions {
    fn default() -> Self {
        Self {
            proxies: Proxies::default(),
            certificates: Vec::new(),
            retry: RetryPolicy::default(),
            limit: 16 << 30,
            slowest: Pace { bytes: 6000, every: Duration::from_secs(60) },
        }
    }
}

/// Fetches files into the store. Clones share connections, and what was fetched.
#[derive(Clone, Debug)]
pub struct Downloads(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clients: HttpClients,
    options: DownloadsOptions,
    layers: Layers,
    index: Index,
    locks: Locks,
    lease: Lease,
    /// What this build knows: it sees one state of each file.
    fetched: Mutex<HashMap<Download, Downloaded>>,
}

/// A file that is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// The layer with nothing but the file.
    pub layer: LayerId,
    /// The digest of the content.
    pub content: Digest,
    /// When the server says that it was changed, in seconds since 1970.
    pub modified: Option<i64>,
}

impl Downloads {
    /// Fetches into `store`; what is used is pinned in `lease`.
    pub fn new(store: &Store, lease: Lease, options: DownloadsOptions) -> Self {
        let http = HttpOptions {
            proxies: options.proxies.clone(),
            certificates: options.certificates.clone(),
            idle_limit: options.retry.idle_limit,
        };
        Self(Arc::new(Inner {
            clients: HttpClients::new(http),
            options,
            layers: store.layers.clone(),
            index: store.index.clone(),
            locks: store.locks.clone(),
            lease,
            fetched: Mutex::default(),
        }))
    }

    /// The identity of a file: equal identities, equal files. Fetches it unless a checksum says what it is.
    pub async fn key(
        &self,
        download: &Download,
        progress: &PullProgress,
    ) -> Result<Digest, DownloadError> {
        if let Some(id) = download.checksum_id() {
            return Ok(id);
        }
        let file = self.fetch(download, progress).await?;
        Ok(download.file_id(&file.content, file.modified))
    }

    /// Fetches a file, unless the store has it and the server has no newer one.
    pub async fn fetch(
        &self,
        download: &Download,
        progress: &PullProgress,
    ) -> Result<Downloaded, DownloadError> {
        let fetched = self.0.fetch(download, progress).await;
        fetched.map_err(|kind| DownloadError { url: download.shown(), kind: Box::new(kind) })
    }
}

/// What a server said.
enum Answer {
    /// What is there is the newest.
    Unchanged,
    New(Response),
}

impl Inner {
    async fn fetch(
        &self,
        download: &Download,
        progress: &PullProgress,
    ) -> Result<Downloaded, DownloadErrorKind> {
        let known = || self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = known().get(download) {
            return Ok(*file);
        }
        let id = download.id();
        let _lock = self.locks.lock(LockName::Download(&id)).await?;
        if let Some(file) = known().get(download) {
            return Ok(*file);
        }
        let stored = self.stored(&id)?;
        let checked = stored.as_ref().filter(|stored| Some(stored.content) == download.checksum);
        let file = match checked {
            Some(stored) => stored.file(),
            None => self.ask(download, &id, stored.as_ref(), progress).await?,
        };
        known().insert(download.clone(), file);
        Ok(file)
    }

    /// What was fetched before and is still there.
    fn stored(&self, id: &Digest) -> Result<Option<StoredDownload>, DownloadErrorKind> {
        let Some(stored) = self.index.download(id)? else { return Ok(None) };
        self.lease.pin_layers(&[stored.layer])?;
        Ok(self.layers.contains(&stored.layer)?.then_some(stored))
    }

    async fn ask(
        &self,
        download: &Download,
        id: &Digest,
        stored: Option<&StoredDownload>,
        progress: &PullProgress,
    ) -> Result<Downloaded, DownloadErrorKind> {
        let mut attempt = 1;
        loop {
            let (kind, retry_after) = match self.try_once(download, id, stored, progress).await {
                Ok(file) => return Ok(file),
                Err(failure) => failure,
            };
            let is_transient = match &kind {
                DownloadErrorKind::Transport(error) => error.is_transient(),
                DownloadErrorKind::Status { status } => is_transient(*status),
                _ => false,
            };
            let delay = self.options.retry.delay(attempt, retry_after);
            let Some(delay) = delay.filter(|_| is_transient) else { return Err(kind) };
            attempt += 1;
            tokio::time::sleep(delay).await;
        }
    }

    async fn try_once(
        &self,
        download: &Download,
        id: &Digest,
        stored: Option<&StoredDownload>,
        progress: &PullProgress,
    ) -> Result<Downloaded, (DownloadErrorKind, Option<Duration>)> {
        let response = match self.get(download, stored).await? {
            Answer::Unchanged => {
                let stored = stored.ok_or((DownloadErrorKind::Status { status: 304 }, None))?;
                // It is what the server has, but not what was asked for.
                return match download.checksum {
                    Some(expected) if expected != stored.content => Err((
                        DownloadErrorKind::Checksum { actual: stored.content, expected },
                        None,
                    )),
                    _ => Ok(stored.file()),
                };
            }
            Answer::New(response) => response,
        };
        self.store(download, id, response, progress).await.map_err(|kind| (kind, None))
    }

    /// Asks for a file, through redirects.
    async fn get(
        &self,
        download: &Download,
        stored: Option<&StoredDownload>,
    ) -> Result<Answer, (DownloadErrorKind, Option<Duration>)> {
        let fail = |kind| (kind, None);
        let condition = stored.and_then(|stored| {
            let tag = stored.etag.as_ref().map(|tag| (IF_NONE_MATCH, tag));
            tag.or(stored.last_modified.as_ref().map(|time| (IF_MODIFIED_SINCE, time)))
        });
        let home = download.url.origin();
        let mut url = download.url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let client = self.clients.of(&url).map_err(|error| fail(error.into()))?;
            let mut request = client.get(url.clone());
            if let Some((name, value)) = &condition {
                request = request.header(name, value.as_str());
            }
            if let Some(value) = download.authorization.as_ref().filter(|_| url.origin() == home) {
                request = request.header(AUTHORIZATION, value.clone());
            }
            let response = request
                .send()
                .await
                .map_err(|error| fail(self.clients.broken(&url, error).into()))?;
            match response.status() {
                StatusCode::NOT_MODIFIED => return Ok(Answer::Unchanged),
                // A part was not asked for.
                status if status.is_success() && status != StatusCode::PARTIAL_CONTENT => {
                    return Ok(Answer::New(response));
                }
                status if status.is_redirection() => {
                    url = next(download, &url, &response).map_err(fail)?;
                }
                status => {
                    let kind = DownloadErrorKind::Status { status: status.as_u16() };
                    return Err((kind, retry_after(&response)));
                }
            }
        }
        Err(fail(DownloadErrorKind::Redirect {
            location: shorten(url.as_str()),
            reason: "there were ten redirects before it",
        }))
    }

    async fn store(
        &self,
        download: &Download,
        id: &Digest,
        response: Response,
        progress: &PullProgress,
    ) -> Result<Downloaded, DownloadErrorKind> {
        // What is longer is no name for a state, and would be said to the server again and again.
        let text = |name: HeaderName| {
            header(response.headers(), &name).filter(|text| text.len() <= LONGEST_VALIDATOR)
        };
        let (etag, last_modified) = (text(ETAG), text(LAST_MODIFIED));
        let modified = last_modified.as_deref().and_then(seconds);
        let mut bar = progress.transfer(download.name(), response.content_length().unwrap_or(0));
        let most = Bounds { limit: self.options.limit, slowest: self.options.slowest };
        let Received { layer, content } =
            receive(response, download, modified, &self.layers, most, |bytes| bar.add(bytes))
                .await?;
        bar.complete();
        let file_id = download.file_id(&content, modified);
        let Digest::Sha256(bytes) = file_id else { unreachable!("derived ids are SHA-256") };
        let layer_id = LayerId::new(bytes);
        layer.commit(&layer_id)?;
        let stored = StoredDownload { etag, last_modified, content, modified, layer: layer_id };
        self.index.put_download(id, &download.shown(), &stored)?;
        Ok(stored.file())
    }
}

impl StoredDownload {
    fn file(&self) -> Downloaded {
        Downloaded { layer: self.layer, content: self.content, modified: self.modified }
    }
}

/// Where a redirect leads, if it may be followed.
fn next(download: &Download, from: &Url, response: &Response) -> Result<Url, DownloadErrorKind> {
    let Some(next) = location(from, response) else {
        return Err(DownloadErrorKind::Redirect {
            location: header(response.headers(), &reqwest::header::LOCATION)
                .map_or_else(String::new, |text| shorten(&text)),
            reason: "it is not an HTTP address",
        });
    };
    let is_downgrade = from.scheme() == "https" && next.scheme() == "http";
    if is_downgrade && download.checksum.is_none() {
        return Err(DownloadErrorKind::Redirect {
            location: shorten(next.as_str()),
            reason: "it leads from HTTPS to HTTP, and no checksum says what has to come",
        });
    }
    Ok(next)
}

fn header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`; what reads otherwise counts as not given.
fn seconds(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &Rfc2822).ok().map(OffsetDateTime::unix_timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_headers() {
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds("yesterday"), None);
    }
}
