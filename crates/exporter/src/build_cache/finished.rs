//! What there is of a build's vertices.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use rbuild_cache::{IndexError, LocalRecords, RecordsError, StoredKey};
use rbuild_oci::Digest;
use rbuild_solver::{CacheKey, CacheStore as _, KeyParts, Output, Presence, Snapshot};

use crate::layers::{ExportStore, LayerError};

/// The records of a build's vertices.
#[derive(Clone, Debug, Default)]
pub struct FinishedRecords(pub(super) Vec<Finished>);

/// The record of a vertex.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub(super) key: CacheKey,
    pub(super) parts: KeyParts,
    /// What finds it whatever its inputs were made from.
    pub(super) slow_keys: Vec<StoredKey>,
    pub(super) outputs: Vec<Snapshot>,
    pub(super) name: String,
    pub(super) duration: Duration,
}

/// A cache cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CacheExportError {
    /// A record.
    #[error("cannot look up what was built")]
    Records(#[from] RecordsError),
    /// The index.
    #[error("cannot look up what was built")]
    Index(#[from] IndexError),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The documents.
    #[error("cannot keep the documents of the cache")]
    Documents(#[from] rbuild_cache::ContentError),
    /// The claim on them.
    #[error("cannot keep the documents of the cache from being collected")]
    Pin(#[from] rbuild_cache::LeaseError),
}

impl FinishedRecords {
    /// Finds the records under fast keys, and pins their layers. A key that finds nothing, or what can no longer be
    /// had, is passed over.
    pub fn collect(
        store: ExportStore<'_>,
        records: &LocalRecords,
        keys: &[CacheKey],
    ) -> Result<Self, CacheExportError> {
        let mut found = BTreeMap::new();
        for key in keys {
            let record = records.lookup(key)?;
            let Some(record) = record.filter(|record| record.presence >= Presence::Archive) else {
                continue;
            };
            let snapshot = |output: Output| match output {
                Output::Snapshot(snapshot) => Some(snapshot),
                Output::Local(_) => None,
            };
            let outputs: Option<Vec<Snapshot>> = record.outputs.into_iter().map(snapshot).collect();
            let Some(outputs) = outputs.filter(|outputs| !outputs.is_empty()) else { continue };
            let Some(stored) = store.index.record(key)? else { continue };
            let all = store.index.keys_of(&stored)?;
            let Some(own) = all.iter().find(|known| known.key == *key).cloned() else { continue };
            // A source's: what it has is not taken from a cache.
            if own.parts.inputs.is_empty() {
                continue;
            }
            let slow_keys = all
                .into_iter()
                .filter(|known| known.parts.by_content && known.parts.op == own.parts.op)
                .collect();
            let finished = Finished {
                key: *key,
                parts: own.parts,
                slow_keys,
                outputs,
                name: stored.name,
                duration: stored.duration,
            };
            found.insert(*key, finished);
        }
        Ok(Self(found.into_values().collect()))
    }

    /// Leaves only what consists of layers of `image` (`mode=min`).
    pub fn retain_layers_of(&mut self, images: &[Snapshot]) {
        let layers: HashSet<_> = images.iter().flat_map(Snapshot::layers).collect();
        let is_of_images =
            |snapshot: &Snapshot| snapshot.layers().iter().all(|layer| layers.contains(layer));
        let (kept, left_out): (Vec<_>, Vec<_>) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|record| record.outputs.iter().all(is_of_images));
        self.0 = kept;
        // Elsewhere nothing is called as they are called here.
        let left_out = left_out.iter().flat_map(|record| &record.outputs);
        let foreign: HashSet<Digest> =
            left_out.filter(|output| !is_of_images(output)).map(Snapshot::digest).collect();
        for record in &mut self.0 {
            record.slow_keys.retain(|key| key.parts.inputs.iter().all(|of| !foreign.contains(of)));
        }
    }

    /// The states that a cache of the records has, each once.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let mut seen = HashSet::new();
        let all = self.0.iter().flat_map(|record| &record.outputs);
        all.filter(|snapshot| seen.insert(*snapshot)).cloned().collect()
    }

    /// The first output of the record under a key.
    pub fn first_output(&self, key: &CacheKey) -> Option<&Snapshot> {
        self.0.iter().find(|record| record.key == *key)?.outputs.first()
    }
}
