//! What can go wrong at a registry, and what to do about it.

use std::error::Error;
use std::fmt;

use rbuild_oci::{Digest, MediaType, VerifyError};

use super::{CredentialsError, HostFilesError};
use crate::http::{SendError, TransportError};

/// A registry did not give what it was asked for.
#[derive(Debug)]
pub struct RegistryError {
    /// The registry, as in the reference.
    pub registry: String,
    /// The repository; empty for the registry as such.
    pub repository: String,
    /// What went wrong.
    pub kind: Box<RegistryErrorKind>,
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, repository, kind } = self;
        match repository.as_str() {
            "" => write!(f, "{registry}: {kind}"),
            repository => write!(f, "{registry}/{repository}: {kind}"),
        }
    }
}

impl Error for RegistryError {
    /// What is below the kind, which is part of this message already.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.kind.source()
    }
}

/// What a registry said itself, after what we make of it.
fn failed(helpers: &str) -> String {
    match helpers {
        "" => String::new(),
        helpers => format!(", or see why the credential helper {helpers} fails"),
    }
}

fn quoted(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!("; the registry says: {said}") }
}

/// See [`RegistryError`].
#[derive(Debug, thiserror::Error)]
pub enum RegistryErrorKind {
    /// No answer came.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The registry wants to know who is asking, and nothing is configured.
    #[error(
        "access denied: the repository does not exist or needs a login (log in with `rbuild login {registry}`{}){}",
        failed(.helpers),
        quoted(.said)
    )]
    LoginNeeded {
        /// The name to log in to.
        registry: String,
        /// Credential helpers that may have had a login, and failed.
        helpers: String,
        /// The registry's own words, if it had any.
        said: String,
    },
    /// The registry knows who is asking and refuses.
    #[error(
        "access denied: the configured login is not accepted, or may not read this repository (log in again with \
         `rbuild login {registry}`){}",
        quoted(.said)
    )]
    Denied {
        /// The name to log in to.
        registry: String,
        /// The registry's own words, if it had any.
        said: String,
    },
    /// The registry knows who is asking, and does not let them write.
    #[error(
        "access denied: the configured login may not push to this repository (log in as another user with \
         `rbuild login {registry}`, or see whether the repository has to be created first){}",
        quoted(.said)
    )]
    PushDenied {
        /// The name to log in to.
        registry: String,
        /// The registry's own words, if it had any.
        said: String,
    },
    /// The registry does not accept the login as such.
    #[error("the login was refused (401): `{registry}` does not accept this name and password")]
    LoginRefused {
        /// The registry.
        registry: String,
    },
    /// The configuration of the registry cannot be used.
    #[error("cannot read how the registry is reached")]
    Hosts(#[source] HostFilesError),
    /// The configuration of the registry has nobody to ask this.
    #[error(
        "none of the servers that are configured for `{registry}` may be asked this: see the capabilities in its hosts.toml"
    )]
    NoEndpoint {
        /// The registry.
        registry: String,
    },
    /// The configured credentials cannot be read.
    #[error("cannot read the credentials")]
    Credentials(#[source] CredentialsError),
    /// The registry asks for credentials in a way that is not known, or not safe.
    #[error("cannot answer the registry's challenge `{challenge}`: {reason}")]
    Challenge {
        /// Its `WWW-Authenticate` header, shortened.
        challenge: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The token service gave no token.
    #[error("token service `{service}` answered {status}: {message}")]
    Token {
        /// Its address.
        service: String,
        /// The HTTP status.
        status: u16,
        /// What it said, shortened.
        message: String,
    },
    /// There is no such tag or manifest.
    #[error("`{reference}` not found: there is no such repository, tag or digest{}", quoted(.said))]
    ManifestUnknown {
        /// The tag or digest.
        reference: String,
        /// The registry's own words, if it had any.
        said: String,
    },
    /// A manifest names a blob that the registry does not have.
    #[error("blob `{0}` is missing at the registry")]
    BlobUnknown(Digest),
    /// The registry limits how often one may ask.
    #[error("the registry limits requests (429): wait, or log in with `rbuild login {registry}`")]
    TooManyRequests {
        /// The name to log in to.
        registry: String,
    },
    /// What was said without encryption was not understood.
    #[error(
        "the server answered 400 to plain HTTP, as those do that speak HTTPS: if it does, put `server = \"https://{registry}\"` \
         into ~/.config/rbuild/certs.d/{registry}/hosts.toml, or its authority's certificate there as ca.crt"
    )]
    NotEncrypted {
        /// The registry, or the mirror.
        registry: String,
    },
    /// Any other refusal.
    #[error("the registry answered {status} to `{method} {path}`: {message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// What was asked.
        method: &'static str,
        /// Of what.
        path: String,
        /// The registry's own words, shortened.
        message: String,
    },
    /// A redirect that is not followed.
    #[error("redirect to `{location}` is not followed: {reason}")]
    Redirect {
        /// Where to.
        location: String,
        /// Why not.
        reason: &'static str,
    },
    /// A document is larger than any sensible one.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// Which document.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// A blob has another size at the registry than in its manifest.
    #[error("blob `{digest}` has {actual} bytes at the registry, the manifest says {expected}")]
    BlobSize {
        /// Which blob.
        digest: Digest,
        /// What the manifest says.
        expected: u64,
        /// What the registry says.
        actual: u64,
    },
    /// What was sent is not what was asked for.
    #[error("{what} is not what was asked for")]
    Verify {
        /// Which document.
        what: String,
        /// The difference.
        source: VerifyError,
    },
    /// What is to be sent cannot be read.
    #[error("cannot read blob `{digest}` to send it")]
    Source {
        /// Which blob.
        digest: Digest,
        /// Why.
        source: std::io::Error,
    },
    /// The registry opened an upload and did not say where.
    #[error("the registry began an upload of blob `{0}` without saying where to send it")]
    NoUploadLocation(Digest),
    /// The registry did not say that it has what was sent.
    #[error("the registry took {what} but does not say that it is stored")]
    NotStored {
        /// Which blob or document.
        what: String,
    },
    /// The registry stored something else.
    #[error("the registry stored {what} as `{actual}`, but `{expected}` was sent")]
    StoredOther {
        /// Which blob or document.
        what: String,
        /// What was sent.
        expected: Digest,
        /// What the registry says it has.
        actual: Digest,
    },
    /// A document's type cannot be told to a registry.
    #[error("`{0}` is no media type")]
    MediaType(MediaType),
}

impl From<SendError> for RegistryErrorKind {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Transport(error) => Self::Transport(error),
            SendError::Source { digest, source } => Self::Source { digest, source },
        }
    }
}
