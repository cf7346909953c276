//! The local [`CacheStore`]: records of the index whose layers can really be used.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rbuild_oci::Digest;
use rbuild_solver::{CacheKey, CacheRecord, CacheStore, LayerId, NewRecord};

use crate::index::layers_of;
use crate::{
    Content, ContentError, Index, IndexError, Layers, LayersError, Lease, LeaseError, LockError,
    LockGuard, LockName, Locks, Store,
};

/// The records of a store, for one build. Clones are the same records and the same lease.
#[derive(Clone, Debug)]
pub struct LocalRecords {
    content: Content,
    layers: Layers,
    index: Index,
    locks: Locks,
    lease: Lease,
    /// Layers that were available after they were pinned, and therefore stay so.
    seen: Arc<Mutex<HashSet<LayerId>>>,
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
        }
    }

    fn seen(&self) -> MutexGuard<'_, HashSet<LayerId>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a layer's directory is there, or one of its blobs, or a place to fetch one from.
    fn is_available(&self, id: &LayerId) -> Result<bool, RecordsError> {
        if self.layers.contains(id)? {
            return Ok(true);
        }
        let Some(facts) = self.index.layer(id)? else { return Ok(false) };
        let blobs: Vec<Digest> = facts.blobs.iter().map(|blob| blob.descriptor.digest).collect();
        self.lease.pin_blobs(&blobs)?;
        for blob in &facts.blobs {
            let descriptor = &blob.descriptor;
            if self.content.contains(&descriptor.digest, descriptor.size)?
                || !self.index.blob_sources(&descriptor.digest)?.is_empty()
            {
                return Ok(true);
            }
        }
        Ok(false)
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
        for layer in &layers {
            if self.seen().contains(layer) {
                continue;
            }
            if !self.is_available(layer)? {
                self.index.delete_records(&[id])?;
                return Ok(None);
            }
            self.seen().insert(*layer);
        }
        self.index.count_use(id);
        Ok(Some(CacheRecord { outputs }))
    }

    fn store(&self, record: NewRecord<'_>) -> Result<(), RecordsError> {
        Ok(self.index.put_record(&record)?)
    }

    async fn lock(&self, key: &CacheKey) -> Result<LockGuard, RecordsError> {
        Ok(self.locks.lock(LockName::Vertex(key)).await?)
    }
}
