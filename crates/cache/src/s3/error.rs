//! What can go wrong at a bucket, and what to do about it.

use rbuild_oci::Digest;

use crate::http::{SendError, TransportError};

/// A bucket did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{key}` in the bucket `{bucket}`: {kind}")]
pub struct S3Error {
    /// What was tried.
    pub action: &'static str,
    /// The object.
    pub key: String,
    /// The bucket.
    pub bucket: String,
    /// Why. It is part of the message.
    pub kind: Box<S3ErrorKind>,
}

/// See [`S3Error`].
#[derive(Debug, thiserror::Error)]
pub enum S3ErrorKind {
    /// No answer came.
    #[error("{}", with_cause(.0))]
    Transport(#[from] TransportError),
    /// The server refuses who asks.
    #[error(
        "access denied{}; {}",
        in_words(.0.as_deref()),
        if *.1 {
            "the credentials need s3:GetObject, s3:PutObject, s3:AbortMultipartUpload and s3:ListBucket (without that, what \
             is not there is refused too)"
        } else {
            "no credentials were found: give access_key_id and secret_access_key, AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws/credentials"
        }
    )]
    Denied(Option<String>, bool),
    /// The bucket is elsewhere.
    #[error("it is in the region `{0}`: say region={0}")]
    Region(String),
    /// Any other refusal.
    #[error("the server answered {status}{}", in_words(.said.as_deref()))]
    Status {
        /// The HTTP status.
        status: u16,
        /// The server's own words, shortened.
        said: Option<String>,
    },
    /// There is no such object.
    #[error("it is not there")]
    Missing,
    /// An answer that is longer than any sensible one.
    #[error("it has more than {0} bytes")]
    TooLarge(u64),
    /// An object has another size than it should.
    #[error("it has {actual} bytes there, not {expected}")]
    Size {
        /// What it should have.
        expected: u64,
        /// What the server says, or sent.
        actual: u64,
    },
    /// Bytes that were not asked for.
    #[error("the server sent another range than was asked for")]
    Range,
    /// The address.
    #[error("the endpoint `{0}` and this bucket make no address")]
    Endpoint(String),
    /// An answer without what it must have.
    #[error("the server's answer has no {0}")]
    Incomplete(&'static str),
    /// The credentials have something that no header can carry.
    #[error("the credentials have characters that cannot be sent")]
    Credentials,
    /// What is to be sent cannot be read.
    #[error("blob `{digest}` cannot be read to send it: {source}")]
    Source {
        /// Which blob.
        digest: Digest,
        /// Why.
        source: std::io::Error,
    },
}

impl From<SendError> for S3ErrorKind {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Transport(error) => Self::Transport(error),
            SendError::Source { digest, source } => Self::Source { digest, source },
        }
    }
}

fn in_words(said: Option<&str>) -> String {
    said.map(|said| format!(" ({said})")).unwrap_or_default()
}

fn with_cause(error: &TransportError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
