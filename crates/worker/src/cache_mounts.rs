//! Taking the cache mounts of a step.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rbuild_cache::{
    CacheMount, CacheMountKey, CacheMountUse, CacheMounts, FreshCacheMount, RenewCacheMount,
    TakenCacheMount, Tree,
};
use rbuild_solver::{CacheSharing, Selector};

use crate::file::{self, FileError};

/// The longest pause between two looks at a directory that another step uses.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The cache mounts of the store, as one build uses them.
#[derive(Debug)]
pub(crate) struct StepCaches {
    mounts: CacheMounts,
    /// What steps that ignore the cache have had emptied: once a build, since what later steps find in it is new.
    emptied: Mutex<BTreeSet<CacheMountKey>>,
}

/// What a step takes.
#[derive(Debug)]
pub(crate) struct WantedCache {
    pub(crate) sharing: CacheMountUse,
    /// What a new one begins with.
    pub(crate) content: Option<(Arc<Tree>, Selector)>,
}

/// The directories of a step, by key.
pub(crate) type TakenCaches = BTreeMap<CacheMountKey, Arc<CacheMount>>;

impl StepCaches {
    pub(crate) fn new(mounts: CacheMounts) -> Self {
        Self { mounts, emptied: Mutex::default() }
    }

    /// Whether a step that ignores the cache is the first of the build to use this directory.
    pub(crate) fn must_empty(&self, key: &CacheMountKey, ignores_cache: bool) -> bool {
        let emptied = || self.emptied.lock().unwrap_or_else(PoisonError::into_inner);
        ignores_cache && emptied().insert(key.clone())
    }

    /// Takes a directory if nobody who stands in the way uses it. Not for an async thread.
    pub(crate) fn try_take(
        &self,
        key: &CacheMountKey,
        sharing: CacheMountUse,
        renew: RenewCacheMount,
    ) -> Result<TakenCacheMount, FileError> {
        Ok(self.mounts.try_take(key, sharing, renew)?)
    }
}

impl WantedCache {
    /// Makes a new directory what it begins with. Not for an async thread.
    pub(crate) fn begin(&self, fresh: FreshCacheMount) -> Result<CacheMount, FileError> {
        if let Some((tree, selector)) = &self.content {
            fill(tree, selector, fresh.around())?;
        }
        Ok(fresh.ready()?)
    }
}

fn fill(tree: &Tree, selector: &Selector, around: BorrowedFd<'_>) -> Result<(), FileError> {
    file::copy_directory(tree, selector, around, FreshCacheMount::NAME.to_bytes())
}

/// The pauses between looks at what another step uses.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> {
    let doubled = |pause: &Duration| Some((*pause * 2).min(LONGEST_PAUSE));
    std::iter::successors(Some(Duration::from_millis(1)), doubled)
}

/// The store's word for who else may use it.
pub(crate) fn sharing(sharing: CacheSharing) -> CacheMountUse {
    match sharing {
        CacheSharing::Shared => CacheMountUse::Shared,
        CacheSharing::Private => CacheMountUse::Private,
        CacheSharing::Locked => CacheMountUse::Locked,
    }
}
