//! What the outside sees of a running solve (design D9).

use std::sync::Arc;
use std::time::SystemTime;

use crate::CacheKey;
use rbuild_oci::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Log bytes that may wait to be drawn. A step that prints faster than somebody reads is slowed down, as by a
/// pipe, rather than filling memory.
const LOG_BYTES_IN_FLIGHT: usize = 1 << 20;

/// Something that happened. Vertices are named by digest; work that is no vertex of the graph (resolving an
/// image, exporting) has a digest made from its name.
#[derive(Debug)]
pub enum Event {
    /// A vertex is known and may be needed.
    Added {
        /// Which.
        vertex: Digest,
        /// What people read.
        name: String,
        /// What it works on.
        inputs: Vec<Digest>,
    },
    /// A vertex has its fast key: it may be looked up, and is not at work yet.
    Keyed {
        /// Which.
        vertex: Digest,
        /// Its key.
        key: CacheKey,
        /// By position of the input: the digest of what it uses of a local folder.
        folders: Vec<(usize, Digest)>,
        /// Whether a known result may not be used.
        ignores_cache: bool,
    },
    /// Work on a vertex began.
    Started {
        /// Which.
        vertex: Digest,
        /// What its result is known by: equal for equal inputs. Absent where there is no such thing.
        key: Option<Digest>,
        /// When.
        at: SystemTime,
    },
    /// A vertex is done.
    Completed {
        /// Which.
        vertex: Digest,
        /// When.
        at: SystemTime,
        /// Whether the result was known already.
        cached: bool,
        /// Why it failed, or `None`. A cancelled vertex says `context canceled`.
        error: Option<String>,
    },
    /// How far a part of a vertex's work is.
    Status(StatusUpdate),
    /// Output of a step.
    Log(LogChunk),
    /// Something that the user should know but that stops nothing.
    Warning {
        /// The vertex it is about, if any.
        vertex: Option<Digest>,
        /// One line.
        message: String,
    },
}

/// How far a part of a vertex's work is, such as one layer of a pull.
#[derive(Clone, Debug)]
pub struct StatusUpdate {
    /// The vertex.
    pub vertex: Digest,
    /// Which part, as people read it (`sha256:... `, `exporting layers`).
    pub id: String,
    /// How much is done; bytes where `total` is.
    pub current: u64,
    /// How much there is; 0 when that is unknown.
    pub total: u64,
    /// When the part began.
    pub started: SystemTime,
    /// When it was done.
    pub completed: Option<SystemTime>,
}

/// Which stream a step wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// A piece of a step's output: raw bytes, cut anywhere.
#[derive(Debug)]
pub struct LogChunk {
    /// The vertex.
    pub vertex: Digest,
    /// Which stream.
    pub stream: LogStream,
    /// What was written.
    pub bytes: Vec<u8>,
    /// When it was read.
    pub at: SystemTime,
    /// Returned when the chunk is dropped: how memory stays bounded.
    #[expect(dead_code, reason = "held for its drop")]
    permit: Option<OwnedSemaphorePermit>,
}

/// The sending end of a progress channel.
#[derive(Clone, Debug)]
pub struct Progress {
    sender: Option<mpsc::UnboundedSender<Event>>,
    log_budget: Arc<Semaphore>,
}

/// The receiving end of a progress channel; ends when all senders are gone.
pub type ProgressReceiver = mpsc::UnboundedReceiver<Event>;

impl Progress {
    /// A channel. Only log output is numerous, and that is bounded; so the rest never waits.
    pub fn channel() -> (Self, ProgressReceiver) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (
            Self {
                sender: Some(sender),
                log_budget: Arc::new(Semaphore::new(LOG_BYTES_IN_FLIGHT)),
            },
            receiver,
        )
    }

    /// A channel that nobody reads.
    pub fn discard() -> Self {
        Self { sender: None, log_budget: Arc::new(Semaphore::new(LOG_BYTES_IN_FLIGHT)) }
    }

    /// Sends an event; without a receiver it is dropped.
    pub fn send(&self, event: Event) {
        if let Some(sender) = &self.sender {
            // The receiver may be gone at the end of a build; nobody misses the event then.
            let _ = sender.send(event);
        }
    }

    /// Sends output of a step, waiting while too much of it is unread.
    pub async fn log(&self, vertex: Digest, stream: LogStream, bytes: Vec<u8>) {
        let at = SystemTime::now();
        let weight = bytes.len().clamp(1, LOG_BYTES_IN_FLIGHT) as u32;
        let permit = Arc::clone(&self.log_budget).acquire_many_owned(weight).await.ok();
        self.send(Event::Log(LogChunk { vertex, stream, bytes, at, permit }));
    }

    /// Announces work that is no vertex of a graph and begins it; its digest is the returned one.
    pub fn start(&self, name: &str) -> Digest {
        let vertex = Digest::of(name.as_bytes());
        self.send(Event::Added { vertex, name: name.to_owned(), inputs: Vec::new() });
        self.send(Event::Started { vertex, key: None, at: SystemTime::now() });
        vertex
    }

    /// Tells the user something that stops nothing.
    pub fn warn(&self, message: impl Into<String>) {
        self.send(Event::Warning { vertex: None, message: message.into() });
    }

    /// Ends work that [`Progress::start`] began.
    pub fn complete(&self, vertex: Digest, cached: bool, error: Option<String>) {
        self.send(Event::Completed { vertex, at: SystemTime::now(), cached, error });
    }
}
