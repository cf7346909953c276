//! The events of one vertex at work.

use std::time::SystemTime;

use rbuild_oci::Digest;

use crate::{Event, Progress};

/// A vertex that was reported as started, and is reported as completed exactly once: as cancelled when this is
/// dropped before its end is known.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    progress: &'a Progress,
    vertex: Digest,
    completed: bool,
}

impl<'a> Running<'a> {
    /// `key` is what its result is known by.
    pub(crate) fn start(progress: &'a Progress, vertex: Digest, key: Option<Digest>) -> Self {
        progress.send(Event::Started { vertex, key, at: SystemTime::now() });
        Self { progress, vertex, completed: false }
    }

    pub(crate) fn complete(mut self, cached: bool) {
        self.end(cached, None);
    }

    pub(crate) fn fail(mut self, error: String) {
        self.end(false, Some(error));
    }

    fn end(&mut self, cached: bool, error: Option<String>) {
        self.completed = true;
        self.progress.complete(self.vertex, cached, error);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.completed {
            self.end(false, Some("context canceled".to_owned()));
        }
    }
}
