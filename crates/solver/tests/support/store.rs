use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use rbuild_solver::{CacheKey, CacheRecord, CacheStore, LayerId, NewRecord, Output, Presence};
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard};

/// A record, with the name it was stored under.
type Record = (Vec<Output>, String);

/// A store in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    records: Mutex<HashMap<CacheKey, Record>>,
    locks: Mutex<HashMap<CacheKey, Arc<AsyncMutex<()>>>>,
    lookups: Mutex<usize>,
    /// What was stored without being made.
    deferred: Mutex<HashSet<LayerId>>,
    /// Told of each call of `lock`.
    pub(crate) locking: Notify,
    /// Whether every call fails.
    pub(crate) broken: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the store is broken")]
pub(crate) struct StoreError;

impl MemoryStore {
    /// How often `lookup` was called since the last time.
    pub(crate) fn take_lookups(&self) -> usize {
        std::mem::take(&mut *self.lookups.lock().unwrap())
    }

    /// The names of what is stored.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.records.lock().unwrap().values().map(|(_, name)| name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Whether `users` hold or wait for locks of one key.
    pub(crate) fn is_contended(&self, users: usize) -> bool {
        // One count is that of the table.
        self.locks.lock().unwrap().values().any(|lock| Arc::strong_count(lock) > users)
    }

    /// Changes all stored outputs.
    pub(crate) fn damage(&self, change: impl Fn(&mut Vec<Output>)) {
        self.records.lock().unwrap().values_mut().for_each(|(outputs, _)| change(outputs));
    }
}

impl CacheStore for MemoryStore {
    type Error = StoreError;
    type Guard = OwnedMutexGuard<()>;

    fn lookup(&self, key: &CacheKey) -> Result<Option<CacheRecord>, StoreError> {
        *self.lookups.lock().unwrap() += 1;
        if self.broken {
            return Err(StoreError);
        }
        let (records, deferred) = (self.records.lock().unwrap(), self.deferred.lock().unwrap());
        Ok(records.get(key).map(|(outputs, _)| {
            let is_deferred = layers(outputs).any(|layer| deferred.contains(layer));
            let presence = if is_deferred { Presence::Known } else { Presence::Files };
            CacheRecord { outputs: outputs.clone(), presence }
        }))
    }

    fn store(&self, records: &[NewRecord<'_>]) -> Result<(), StoreError> {
        for record in records {
            assert_eq!(record.parts.key(), record.key, "the parts make the key");
            let value = (record.outputs.to_vec(), record.name.to_owned());
            self.records.lock().unwrap().insert(record.key, value);
            if record.deferred {
                self.deferred.lock().unwrap().extend(layers(record.outputs));
            }
        }
        Ok(())
    }

    async fn lock(&self, key: &CacheKey) -> Result<Self::Guard, StoreError> {
        let lock = Arc::clone(self.locks.lock().unwrap().entry(*key).or_default());
        self.locking.notify_one();
        Ok(lock.lock_owned().await)
    }
}

fn layers(outputs: &[Output]) -> impl Iterator<Item = &LayerId> {
    outputs.iter().flat_map(|output| match output {
        Output::Snapshot(snapshot) => snapshot.layers(),
        Output::Local(_) => &[],
    })
}
