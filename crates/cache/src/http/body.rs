//! Bytes that are read while they are sent.

use std::fmt;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use rbuild_oci::{Algorithm, Digest, Hasher};
use reqwest::{Response, Url};
use tokio::task::JoinHandle;

use super::{TransportError, broken};

/// What is read at a time; while one such piece is sent, the next is read.
const PIECE: u64 = 512 << 10;
/// How many times as long as bytes may stand still, a server may think about a whole body. Some copy it before they answer.
const THINKING: u32 = 5;

type Open = dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + Send + Sync;

/// What a blob's bytes are read from when it is sent. It is opened anew for each attempt.
#[derive(Clone)]
pub struct BlobBody {
    open: Arc<Open>,
    sent: Arc<dyn Fn(u64) + Send + Sync>,
}

impl fmt::Debug for BlobBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobBody").finish_non_exhaustive()
    }
}

impl BlobBody {
    /// A body that `open` opens at a position. It is called in a thread that may block.
    pub fn new(
        open: impl Fn(u64) -> io::Result<Box<dyn Read + Send>> + Send + Sync + 'static,
    ) -> Self {
        Self { open: Arc::new(open), sent: Arc::new(|_| {}) }
    }

    /// A body in memory.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::new(move |position| {
            let start = usize::try_from(position).map_or(bytes.len(), |at| at.min(bytes.len()));
            Ok(Box::new(io::Cursor::new(bytes.slice(start..))))
        })
    }

    /// The same body, which tells how many of its bytes were sent. It begins again with an attempt that begins again.
    #[must_use]
    pub fn reporting(self, sent: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self { sent: Arc::new(sent), ..self }
    }

    /// The SHA-256 digest of the `size` bytes from `start` on, for which they are read.
    pub(crate) async fn sha256(&self, start: u64, size: u64) -> io::Result<Digest> {
        let open = Arc::clone(&self.open);
        let hash = move || {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            let (mut reader, mut left) = (open(start)?, size);
            while left > 0 {
                let (rest, piece) = read_piece(reader, left);
                let piece = piece?;
                hasher.update(&piece);
                (reader, left) = (rest, left - piece.len() as u64);
            }
            Ok(hasher.finish())
        };
        tokio::task::spawn_blocking(hash)
            .await
            .unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
    }
}

/// Why bytes were not sent, or not answered.
#[derive(Debug)]
pub(crate) enum SendError {
    Transport(TransportError),
    /// The blob could not be read.
    Source {
        digest: Digest,
        source: io::Error,
    },
}

/// A part of a [`BlobBody`], as one request sends it.
#[derive(Debug)]
pub(crate) struct BodyStream {
    body: BlobBody,
    /// Of the whole blob, for errors.
    digest: Digest,
    start: u64,
    size: u64,
    state: Arc<State>,
}

/// What is known of a body on its way.
#[derive(Debug, Default)]
struct State {
    sent: AtomicU64,
    /// Why it could not be read: what the client makes of it is a broken connection.
    error: Mutex<Option<io::Error>>,
}

impl BodyStream {
    /// The `size` bytes from `start` on.
    pub(crate) fn new(body: &BlobBody, digest: Digest, start: u64, size: u64) -> Self {
        Self { body: body.clone(), digest, start, size, state: Arc::default() }
    }

    /// The bytes, read anew.
    pub(crate) fn body(&self) -> reqwest::Body {
        self.state.sent.store(0, Ordering::Relaxed);
        let (open, start) = (Arc::clone(&self.body.open), self.start);
        let size = self.size;
        let first = tokio::task::spawn_blocking(move || match open(start) {
            Ok(reader) => read_piece(reader, size),
            Err(error) => (Box::new(io::empty()) as Box<dyn Read + Send>, Err(error)),
        });
        reqwest::Body::wrap(Sending {
            next: Some(first),
            start,
            left: size,
            sent: Arc::clone(&self.body.sent),
            state: Arc::clone(&self.state),
        })
    }

    /// Waits for the answer to a request that sends these bytes, as long as they do not stand still for `idle_limit`.
    pub(crate) async fn watch(
        &self,
        url: &Url,
        idle_limit: Duration,
        request: impl Future<Output = reqwest::Result<Response>>,
    ) -> Result<Response, SendError> {
        let result = tokio::select! {
            result = request => result.map_err(|error| broken(url, error)),
            limit = self.stall(idle_limit) => Err(TransportError::Stalled {
                host: url.host_str().unwrap_or_default().to_owned(),
                seconds: limit.as_secs(),
            }),
        };
        result.map_err(|error| {
            let read = self.state.error.lock().unwrap_or_else(PoisonError::into_inner).take();
            match read {
                Some(source) => SendError::Source { digest: self.digest, source },
                None => SendError::Transport(error),
            }
        })
    }

    /// Ends when nothing moved for too long; returns how long that was.
    async fn stall(&self, idle_limit: Duration) -> Duration {
        let mut before = None;
        loop {
            let sent = self.state.sent.load(Ordering::Relaxed);
            let limit = if sent == self.size { idle_limit * THINKING } else { idle_limit };
            if before == Some((sent, limit)) {
                return limit;
            }
            before = Some((sent, limit));
            tokio::time::sleep(limit).await;
        }
    }
}

type Piece = (Box<dyn Read + Send>, io::Result<Bytes>);

/// The body of one request.
struct Sending {
    /// `None` after the last piece.
    next: Option<JoinHandle<Piece>>,
    start: u64,
    left: u64,
    sent: Arc<dyn Fn(u64) + Send + Sync>,
    state: Arc<State>,
}

fn read_piece(mut reader: Box<dyn Read + Send>, left: u64) -> Piece {
    let wanted = left.min(PIECE);
    let mut piece = Vec::with_capacity(wanted as usize);
    let read = reader.by_ref().take(wanted).read_to_end(&mut piece).and_then(|read| {
        let short = "it has fewer bytes than it should";
        if read as u64 == wanted { Ok(()) } else { Err(io::Error::other(short)) }
    });
    (reader, read.map(|()| piece.into()))
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        let Some(next) = &mut this.next else { return Poll::Ready(None) };
        let (reader, piece) = ready!(Pin::new(next).poll(context))
            .unwrap_or_else(|stopped| (Box::new(io::empty()), Err(io::Error::other(stopped))));
        this.next = None;
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                let told = io::Error::new(error.kind(), "cannot read what is sent");
                *this.state.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return Poll::Ready(Some(Err(told)));
            }
        };
        let length = piece.len() as u64;
        this.left -= length;
        if this.left > 0 {
            let left = this.left;
            this.next = Some(tokio::task::spawn_blocking(move || read_piece(reader, left)));
        }
        let sent = this.state.sent.fetch_add(length, Ordering::Relaxed) + length;
        (this.sent)(this.start + sent);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
