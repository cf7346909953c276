//! The local [`CacheStore`]: records of the index whose layers can really be used.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rbuild_oci::Digest;
use rbuild_solver::{CacheKey, CacheRecord, CacheStore, LayerId, NewRecord, Presence};

use crate::index::layers_of;
use crate::{
    BlobFacts, Content, ContentError, DeferredLayers, Index, IndexError, Layers, LayersError,
    Lease, LeaseError, LockError, LockGuard, LockName, Locks, Store,
};

/// The records of a store, for one build. Clones are the same records and the same lease.
#[derive(Clone, Debug)]
pub struct LocalRecords {
    content: Content,
    layers: Layers,
    index: Index,
    locks: Locks,
    lease: Lease,
    /// Layers of which there was everything after they were pinned, and therefore stays so.
    seen: Arc<Mutex<HashSet<LayerId>>>,
    deferred: DeferredLayers,
}

/// A record cannot be looked up, stored or locked.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The layers.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// The blobs.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The locks.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl LocalRecords {
    /// The records of `store`. What is found is pinned in `lease`.
    pub fn new(store: &Store, lease: Lease) -> Self {
        Self {
            content: store.content.clone(),
            layers: store.layers.clone(),
            index: store.index.clone(),
            locks: store.locks.clone(),
            lease,
            seen: Arc::default(),
            deferred: DeferredLayers::default(),
        }
    }

    /// The same records, for those who have `deferred` layers at hand.
    #[must_use]
    pub fn with_deferred(self, deferred: DeferredLayers) -> Self {
        Self { deferred, ..self }
    }

    fn seen(&self) -> MutexGuard<'_, HashSet<LayerId>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is of a layer: its directory, or one of its blobs, or a place to fetch one from, or nothing but its record.
    fn presence(&self, id: &LayerId) -> Result<Option<Presence>, RecordsError> {
        if self.layers.contains(id)? {
            return Ok(Some(Presence::Files));
        }
        let Some(facts) = self.index.layer(id)? else { return Ok(None) };
        if self.deferred.has_any(&[*id]) {
            return Ok(Some(Presence::Planned));
        }
        let is_deferred = facts.is_deferred();
        let blobs: Vec<Digest> = facts.blobs.iter().map(|blob| blob.descriptor.digest).collect();
        self.lease.pin_blobs(&blobs)?;
        // Of a layer that was deferred no directory is made from an archive: that has no fractions of seconds, and others yet where
        // its times were changed.
        let of_use = |blob: &&BlobFacts| !is_deferred || blob.has_own_times();
        for blob in facts.blobs.iter().filter(of_use) {
            let descriptor = &blob.descriptor;
            if self.content.contains(&descriptor.digest, descriptor.size)?
                || !self.index.blob_sources(&descriptor.digest)?.is_empty()
            {
                return Ok(Some(if is_deferred { Presence::Archive } else { Presence::Files }));
            }
        }
        Ok(is_deferred.then_some(Presence::Known))
    }
}

impl CacheStore for LocalRecords {
    type Error = RecordsError;
    type Guard = LockGuard;

    /// A record of which a layer has gone is deleted, and not found.
    fn lookup(&self, key: &CacheKey) -> Result<Option<CacheRecord>, RecordsError> {
        let Some((id, outputs)) = self.index.find_record(key)? else { return Ok(None) };
        let layers: Vec<LayerId> = layers_of(&outputs).copied().collect();
        self.lease.pin_layers(&layers)?;
        let mut least = Presence::Files;
        for layer in &layers {
            if self.seen().contains(layer) {
                continue;
            }
            let Some(presence) = self.presence(layer)? else {
                self.index.delete_records(&[id])?;
                return Ok(None);
            };
            least = least.min(presence);
            if presence == Presence::Files {
                self.seen().insert(*layer);
            }
        }
        self.index.count_use(id);
        Ok(Some(CacheRecord { outputs, presence: least }))
    }

    fn store(&self, records: &[NewRecord<'_>]) -> Result<(), RecordsError> {
        Ok(self.index.put_records(records)?)
    }

    async fn lock(&self, key: &CacheKey) -> Result<LockGuard, RecordsError> {
        Ok(self.locks.lock(LockName::Vertex(key)).await?)
    }
}
