//! Sources that are fetched: git repositories and files by HTTP.

use rbuild_cache::{Download, Downloads, DownloadsOptions, Lease, PullProgress, Store};
use rbuild_oci::Digest;
use rbuild_solver::{Snapshot, SourceOp};

use crate::git::{GitOptions, GitRequest, GitSource};
use crate::logins::{header_login, http_login};
use crate::operation_error::OperationError;
use crate::secrets::{Provided, Secrets};

/// Fetches sources into the store. Clones share what they know: within a build, a source has one state.
#[derive(Clone, Debug)]
pub struct RemoteSources {
    downloads: Downloads,
    git: GitSource,
    secrets: Secrets,
}

/// What a source is, by what others know it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceIdentity {
    /// The id of a git commit.
    Commit(String),
    /// The digest of a file.
    Content(Digest),
}

/// A source that can be fetched.
enum Remote {
    Git(GitRequest),
    Http(Download),
}

impl RemoteSources {
    /// Fetches into `store`; what is used is pinned in `lease`. Of `provided` hosts are told what is meant for them.
    pub fn new(
        store: &Store,
        lease: Lease,
        http: DownloadsOptions,
        git: GitOptions,
        provided: &Provided,
    ) -> Self {
        Self {
            downloads: Downloads::new(store, lease.clone(), http),
            git: GitSource::new(store, lease, git, provided.clone()),
            secrets: provided.secrets.clone(),
        }
    }

    /// The identity of a source: equal identities, equal files.
    pub async fn key(
        &self,
        source: &SourceOp,
        progress: &PullProgress,
    ) -> Result<Digest, OperationError> {
        Ok(match self.remote(source)? {
            Remote::Git(request) => self.git.key(&request).await?,
            Remote::Http(download) => self.downloads.key(&download, progress).await?,
        })
    }

    /// The files of a source.
    pub async fn fetch(
        &self,
        source: &SourceOp,
        progress: &PullProgress,
    ) -> Result<Snapshot, OperationError> {
        let layer = match self.remote(source)? {
            Remote::Git(request) => self.git.fetch(&request).await?,
            Remote::Http(download) => self.downloads.fetch(&download, progress).await?.layer,
        };
        Ok(Snapshot::new(vec![layer]))
    }

    /// The time of a source, in seconds since 1970: of a commit when it was made, of a file when it was last changed,
    /// if the server says so.
    pub async fn time(
        &self,
        source: &SourceOp,
        progress: &PullProgress,
    ) -> Result<Option<i64>, OperationError> {
        Ok(match self.remote(source)? {
            Remote::Git(request) => Some(self.git.time(&request).await?),
            Remote::Http(download) => self.downloads.fetch(&download, progress).await?.modified,
        })
    }

    /// What a source turns out to be, by what others know it by.
    pub async fn identity(
        &self,
        source: &SourceOp,
        progress: &PullProgress,
    ) -> Result<SourceIdentity, OperationError> {
        let checksum = source.attrs.get("http.checksum").and_then(|text| Digest::parse(text).ok());
        Ok(match (self.remote(source)?, checksum) {
            (Remote::Git(request), _) => SourceIdentity::Commit(self.git.commit(&request).await?),
            (Remote::Http(_), Some(checksum)) => SourceIdentity::Content(checksum),
            (Remote::Http(download), None) => {
                SourceIdentity::Content(self.downloads.fetch(&download, progress).await?.content)
            }
        })
    }

    fn remote(&self, source: &SourceOp) -> Result<Remote, OperationError> {
        Ok(match source.split().0 {
            "git" => Remote::Git(GitRequest::of(source)?),
            "http" | "https" => {
                let mut download = Download::of(source)?;
                let named = source.attrs.get("http.authheadersecret");
                let login = match named.filter(|name| !name.is_empty()) {
                    Some(name) => header_login(&self.secrets, name)?,
                    None => http_login(&self.secrets, &download.host())?,
                };
                if let Some(login) = login {
                    download.authorize(login.value());
                }
                Remote::Http(download)
            }
            _ => return Err(OperationError::UnsupportedSource(source.identifier.clone())),
        })
    }
}
