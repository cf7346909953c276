//! The buckets that this process knows, and who it is to them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::{S3Bucket, S3Client, S3Credentials, S3Limits};
use crate::Proxies;
use crate::http::{HttpClients, HttpOptions, TlsFiles};

/// How buckets are reached.
#[derive(Clone, Debug, Default)]
pub struct BucketsOptions {
    /// The proxies of the environment.
    pub proxies: Proxies,
    /// PEM files with authorities to trust besides the system's.
    pub certificates: Vec<PathBuf>,
    /// Who asks for what earlier builds have found in buckets that this one does not name.
    pub credentials: Option<S3Credentials>,
    /// The server that these credentials are for; `None` for Amazon's. No other gets them.
    pub endpoint: Option<String>,
}

/// Makes clients for buckets, and keeps them. Clones are the same.
#[derive(Clone, Debug)]
pub struct Buckets(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ways: LazyLock<Ways, Box<dyn FnOnce() -> Ways + Send>>,
    known: Mutex<HashMap<S3Bucket, S3Client>>,
}

/// How buckets are reached.
#[derive(Debug)]
struct Ways {
    clients: Arc<HttpClients>,
    tls: TlsFiles,
    credentials: Option<S3Credentials>,
    endpoint: Option<String>,
}

impl Ways {
    fn new(options: BucketsOptions) -> Self {
        let BucketsOptions { proxies, certificates, credentials, endpoint } = options;
        let tls = TlsFiles { authorities: certificates.clone(), ..TlsFiles::default() };
        let clients = Arc::new(HttpClients::new(HttpOptions {
            proxies,
            certificates,
            ..HttpOptions::default()
        }));
        Self { clients, tls, credentials, endpoint }
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Self::new(BucketsOptions::default)
    }
}

impl Buckets {
    /// Nothing is connected to yet, and `options` are asked for when the first bucket is: most builds know none.
    pub fn new(options: impl FnOnce() -> BucketsOptions + Send + 'static) -> Self {
        let ways = LazyLock::new(Box::new(|| Ways::new(options())) as Box<_>);
        Self(Arc::new(Inner { ways, known: Mutex::default() }))
    }

    /// A client for a bucket. What [`Buckets::add`] has not seen does not use it.
    pub fn client(
        &self,
        bucket: S3Bucket,
        credentials: Option<S3Credentials>,
        limits: S3Limits,
    ) -> S3Client {
        let Ways { clients, tls, .. } = &*self.0.ways;
        S3Client::new(bucket, credentials, limits, Arc::clone(clients), tls.clone())
    }

    /// Makes a client the one for its bucket, unless there is one.
    pub fn add(&self, client: &S3Client) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(client.bucket().clone()).or_insert_with(|| client.clone());
    }

    /// The client for a bucket.
    pub(crate) fn of(&self, bucket: &S3Bucket) -> S3Client {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let theirs =
                self.0.ways.endpoint.clone().unwrap_or_else(|| S3Bucket::amazon(&bucket.region));
            let is_same = theirs.trim_end_matches('/') == bucket.endpoint.trim_end_matches('/');
            let credentials = self.0.ways.credentials.clone().filter(|_| is_same);
            self.client(bucket.clone(), credentials, S3Limits::default())
        };
        known.entry(bucket.clone()).or_insert_with(new).clone()
    }
}
