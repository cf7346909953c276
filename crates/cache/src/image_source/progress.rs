//! How far the transfer of a blob is.

use std::time::{Duration, Instant, SystemTime};

use rbuild_oci::{Descriptor, Digest};
use rbuild_solver::{Event, Progress, StatusUpdate};

/// Between two reports of one blob. People cannot read faster.
const INTERVAL: Duration = Duration::from_millis(100);

/// Where pulls and pushes report: the vertex that they are for.
#[derive(Clone, Debug)]
pub struct PullProgress {
    /// The channel.
    pub progress: Progress,
    /// Who needs the transfer.
    pub vertex: Digest,
}

impl PullProgress {
    /// Reports to nobody.
    pub fn discard() -> Self {
        Self { progress: Progress::discard(), vertex: Digest::of(b"") }
    }

    pub(crate) fn warn(&self, message: String) {
        self.progress.send(Event::Warning { vertex: Some(self.vertex), message });
    }

    pub(crate) fn blob(&self, descriptor: &Descriptor) -> BlobProgress {
        self.transfer(&descriptor.digest.to_string(), descriptor.size)
    }

    /// Begins a report of `total` bytes; 0 is an unknown number.
    pub(crate) fn transfer(&self, id: &str, total: u64) -> BlobProgress {
        let now = SystemTime::now();
        let status = StatusUpdate {
            vertex: self.vertex,
            id: id.to_owned(),
            current: 0,
            total,
            started: now,
            completed: None,
        };
        self.progress.send(Event::Status(status.clone()));
        BlobProgress { progress: self.progress.clone(), status, reported: Instant::now() }
    }
}

/// The progress of one blob or file.
#[derive(Clone, Debug)]
pub(crate) struct BlobProgress {
    progress: Progress,
    status: StatusUpdate,
    reported: Instant,
}

impl BlobProgress {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.status.current += bytes as u64;
        if self.reported.elapsed() >= INTERVAL {
            self.reported = Instant::now();
            self.progress.send(Event::Status(self.status.clone()));
        }
    }

    /// As [`BlobProgress::add`], for one that may begin again.
    pub(crate) fn set(&mut self, position: u64) {
        self.status.current = position;
        self.add(0);
    }

    pub(crate) fn complete(mut self) {
        self.status.completed = Some(SystemTime::now());
        self.progress.send(Event::Status(self.status));
    }
}
