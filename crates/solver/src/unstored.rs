//! Records that wait to be stored, several at once.
//!
//! A build of thousands of small vertices would else write to the disk for each. What waits is found by this solve as if it were stored;
//! for all others its vertex is still being executed, as its lock is held until then.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{CacheKey, CacheRecord, KeyParts, LastLayer, Output, Presence, VertexId};

/// So many are stored at once at most.
const MOST: usize = 128;
/// No record waits longer while others come.
const LONGEST: Duration = Duration::from_millis(50);
/// After so long without another they are stored.
pub(crate) const IDLE: Duration = Duration::from_millis(5);

/// What waits. `G` are locks.
#[derive(Debug)]
pub(crate) struct Unstored<G>(Mutex<Waiting<G>>);

/// One record.
#[derive(Debug)]
pub(crate) struct UnstoredRecord {
    pub(crate) vertex: VertexId,
    pub(crate) key: CacheKey,
    pub(crate) parts: KeyParts,
    pub(crate) outputs: Vec<Output>,
    pub(crate) last: LastLayer,
    pub(crate) duration: Duration,
}

#[derive(Debug)]
pub(crate) struct Waiting<G> {
    pub(crate) records: Vec<UnstoredRecord>,
    by_key: HashMap<CacheKey, usize>,
    /// Dropped when the records are stored.
    locks: Vec<G>,
    since: Option<Instant>,
}

impl<G> Default for Unstored<G> {
    fn default() -> Self {
        Self(Mutex::new(Waiting::default()))
    }
}

impl<G> Default for Waiting<G> {
    fn default() -> Self {
        Self { records: Vec::new(), by_key: HashMap::new(), locks: Vec::new(), since: None }
    }
}

impl<G> Unstored<G> {
    pub(crate) fn add(&self, record: UnstoredRecord) {
        let mut waiting = self.waiting();
        waiting.since.get_or_insert_with(Instant::now);
        let position = waiting.records.len();
        waiting.by_key.insert(record.key, position);
        waiting.records.push(record);
    }

    /// Holds a lock until what waits is stored.
    pub(crate) fn hold(&self, lock: G) {
        let mut waiting = self.waiting();
        if !waiting.records.is_empty() {
            waiting.locks.push(lock);
        }
    }

    /// The record under a key.
    pub(crate) fn get(&self, key: &CacheKey) -> Option<CacheRecord> {
        let waiting = self.waiting();
        let record = &waiting.records[*waiting.by_key.get(key)?];
        let presence = match record.last {
            LastLayer::Files => Presence::Files,
            LastLayer::Archive => Presence::Archive,
            LastLayer::Nothing => Presence::Known,
        };
        Some(CacheRecord { outputs: record.outputs.clone(), presence })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting().records.is_empty()
    }

    /// Whether what waits should be stored although there is more to do.
    pub(crate) fn is_due(&self) -> bool {
        let waiting = self.waiting();
        waiting.records.len() >= MOST
            || waiting.since.is_some_and(|since| since.elapsed() >= LONGEST)
    }

    /// Takes all that waits, to store it and then to drop it.
    pub(crate) fn take(&self) -> Waiting<G> {
        std::mem::take(&mut *self.waiting())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<G>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
