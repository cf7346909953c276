//! What is known of the vertices of a running build: the one state that every renderer draws from.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::time::SystemTime;

use rbuild_oci::Digest;
use rbuild_solver::{LogStream, StatusUpdate};

use crate::printable;

/// Lines of a step's output that are kept for the error report.
const TAIL_LINES: usize = 10;
/// A line longer than this is cut in pieces, so that output without line ends does not fill memory.
const LONGEST_LINE: usize = 64 << 10;

/// One vertex as seen from outside.
#[derive(Debug)]
pub(crate) struct VertexView {
    pub(crate) digest: Digest,
    pub(crate) name: String,
    pub(crate) inputs: Vec<Digest>,
    pub(crate) started: Option<SystemTime>,
    pub(crate) completed: Option<SystemTime>,
    pub(crate) cached: bool,
    pub(crate) error: Option<String>,
    pub(crate) statuses: Vec<StatusUpdate>,
    pub(crate) tail: VecDeque<String>,
    partial: Vec<u8>,
}

impl VertexView {
    pub(crate) fn is_running(&self) -> bool {
        self.started.is_some() && self.completed.is_none()
    }

    pub(crate) fn was_cancelled(&self) -> bool {
        self.error.as_deref() == Some(CANCELLED)
    }

    /// Hands on the whole lines of output, keeping what has no end yet, and remembers the last ones. Of much output this
    /// is what takes the time, so a line is not copied more often than it must be.
    fn lines(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest);
            let (piece, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
            rest = after;
            let is_whole = end.is_some();
            if is_whole && self.partial.is_empty() {
                each(remember(&mut self.tail, piece));
                continue;
            }
            self.partial.extend_from_slice(piece);
            if is_whole || self.partial.len() >= LONGEST_LINE {
                each(remember(&mut self.tail, &self.partial));
                self.partial.clear();
            }
        }
    }

    fn flush_partial(&mut self) -> Option<String> {
        if self.partial.is_empty() {
            return None;
        }
        let line = remember(&mut self.tail, &self.partial).to_owned();
        self.partial.clear();
        Some(line)
    }
}

/// Puts a line, made fit to print, at the end of a tail.
fn remember<'a>(tail: &'a mut VecDeque<String>, line: &[u8]) -> &'a str {
    let mut kept =
        if tail.len() == TAIL_LINES { tail.pop_front() } else { None }.unwrap_or_default();
    kept.clear();
    let line = match std::str::from_utf8(line) {
        Ok(line) => Cow::Borrowed(line),
        Err(_) => String::from_utf8_lossy(line),
    };
    kept.push_str(&printable::output(line.trim_end_matches('\n')));
    tail.push_back(kept);
    tail.back().expect("it was just put there")
}

/// The error text of a vertex that was stopped because another one failed.
pub(crate) const CANCELLED: &str = "context canceled";

/// All vertices, in the order in which they became known.
#[derive(Debug, Default)]
pub(crate) struct Vertices {
    list: Vec<VertexView>,
    by_digest: HashMap<Digest, usize>,
}

impl Vertices {
    pub(crate) fn list(&self) -> &[VertexView] {
        &self.list
    }

    pub(crate) fn index(&self, digest: &Digest) -> Option<usize> {
        self.by_digest.get(digest).copied()
    }

    pub(crate) fn add(&mut self, digest: Digest, name: String, inputs: Vec<Digest>) -> usize {
        if let Some(index) = self.index(&digest) {
            return index;
        }
        self.by_digest.insert(digest, self.list.len());
        self.list.push(VertexView {
            digest,
            name,
            inputs,
            started: None,
            completed: None,
            cached: false,
            error: None,
            statuses: Vec::new(),
            tail: VecDeque::new(),
            partial: Vec::new(),
        });
        self.list.len() - 1
    }

    pub(crate) fn start(&mut self, index: usize, at: SystemTime) {
        let vertex = &mut self.list[index];
        vertex.started.get_or_insert(at);
        // What failed may be tried again.
        if vertex.error.take().is_some() {
            vertex.completed = None;
        }
    }

    /// Marks a vertex as done and returns the last line of its output if that had no end.
    pub(crate) fn complete(
        &mut self,
        index: usize,
        at: SystemTime,
        cached: bool,
        error: Option<String>,
    ) -> Option<String> {
        let vertex = &mut self.list[index];
        vertex.started.get_or_insert(at);
        vertex.completed = Some(at);
        vertex.cached = cached;
        vertex.error = error;
        vertex.flush_partial()
    }

    pub(crate) fn status(&mut self, index: usize, update: StatusUpdate) {
        let statuses = &mut self.list[index].statuses;
        match statuses.iter_mut().find(|status| status.id == update.id) {
            Some(status) => *status = update,
            None => statuses.push(update),
        }
    }

    /// Takes output of a step and hands on the lines that it completes.
    pub(crate) fn log(
        &mut self,
        index: usize,
        _stream: LogStream,
        bytes: &[u8],
        each: impl FnMut(&str),
    ) {
        self.list[index].lines(bytes, each);
    }

    /// The vertex that made the build fail: the first that failed by itself.
    pub(crate) fn failed(&self) -> Option<&VertexView> {
        self.list.iter().find(|vertex| vertex.error.is_some() && !vertex.was_cancelled())
    }
}
