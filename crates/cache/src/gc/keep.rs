//! Keeps a store within limits while builds come and go.
//!
//! ```text
//! usage        "v1 <bytes that the store took> <free bytes of its disk> <seconds since 1970>\n": the last measurement; a new store
//!              begins with one of nothing
//! locks/usage  flock of who is measuring or collecting
//! ```
//!
//! Measuring a store takes longer than a build that has nothing to do, so a build asks the file system how much is free, which
//! takes microseconds, and adds what became less since the last measurement to what was measured: more than that the store can
//! hardly take. Only when that is more than it may take, or the disk has more than then, as others have freed some and so hide
//! what the store took, or an hour has passed, the store is measured again.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::filter::ItemFilter;
use super::item::ItemKind;
use super::limits::{DiskSpace, SpaceLimits};
use super::prune::{PruneOptions, Pruned, prune};
use super::survey::CollectError;
use super::usage::{KindUsage, Usage};
use crate::Store;
use crate::disk_error::{DiskError, OnPath};
use crate::lock::open_lock_file;
use crate::read_file::read_small;

const FILE: &str = "usage";

const HOUR: Duration = Duration::from_secs(3600);

/// What caches of steps, contexts and repositories may take when they were not used for two days (BuildKit's first rule).
const IDLE_CACHES: u64 = 512_000_000;

/// For how long a measurement is good when the disk does not fill.
const MEASURED_EVERY: Duration = HOUR;

/// By how many bytes the disk has to empty before a measurement is no longer believed.
const FREED_BY_OTHERS: u64 = 16 << 20;

/// To how many times its size a store is not expected to grow within [`MEASURED_EVERY`] while others hide that.
const FAR_GROWTH: u64 = 4;

/// By how many bytes the disk has to fill before a collection that could not free enough is tried again.
const WORTH_TRYING: u64 = 64 << 20;

/// What keeping the limits came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What went.
    pub pruned: Pruned,
    /// By how much the store exceeds its limits all the same: images and living builds need it.
    pub excess: u64,
}

/// The limits of one store, kept by one process.
#[derive(Debug)]
pub struct SpaceKeeper {
    limits: SpaceLimits,
    root: PathBuf,
    file: PathBuf,
    lock: PathBuf,
    /// What this process found last, when that was too much and could not be helped.
    stuck: Option<Measured>,
}

/// The last measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measured {
    used: u64,
    free: u64,
    at: SystemTime,
}

impl std::fmt::Display for Measured {
    /// As it is in the file.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        writeln!(f, "v1 {} {} {at}", self.used, self.free)
    }
}

/// Notes of a store that was just made that it takes nothing: the build that makes it need not measure what it has put there.
pub(crate) fn note_empty(root: &Path) {
    // A store of which nothing is noted is measured.
    let Ok(disk) = DiskSpace::of(root) else { return };
    let measured = Measured { used: 0, free: disk.free, at: SystemTime::now() };
    let _ = std::fs::write(root.join(FILE), measured.to_string());
}

impl SpaceKeeper {
    /// Keeps these limits of the store in `root`.
    pub fn new(root: &Path, limits: SpaceLimits) -> Self {
        let (root, file) = (root.to_owned(), root.join(FILE));
        let lock = root.join("locks/usage");
        Self { limits, root, file, lock, stuck: None }
    }

    /// Whether the limits may be exceeded, so that [`SpaceKeeper::keep`] has something to do. Takes microseconds.
    ///
    /// # Errors
    ///
    /// When the file system does not say how much is free.
    pub fn is_due(&self) -> Result<bool, DiskError> {
        if !self.limits.is_any() {
            return Ok(false);
        }
        let disk = DiskSpace::of(&self.root)?;
        Ok(self.must_measure(self.measured(), disk, SystemTime::now()))
    }

    /// Collects if the limits may be exceeded. Another process that is doing so already is not waited for.
    ///
    /// # Errors
    ///
    /// When the store cannot be measured or collected.
    pub fn keep(&mut self, store: &Store) -> Result<Kept, CollectError> {
        if !self.is_due()? {
            return Ok(Kept::default());
        }
        let lock = open_lock_file(&self.lock)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Kept::default()),
            Err(error) => return Err(DiskError::new("lock", &self.lock, error).into()),
        }
        let mut pruned = Pruned::default();
        let mut usage = Usage::measure(store)?;
        for rule in rules(self.limits) {
            if exceeds(&rule, &usage, DiskSpace::of(store.root())?.free) {
                pruned.append(prune(store, &rule)?);
                usage = Usage::measure(store)?;
            }
        }
        let used = KindUsage::of(&usage.items).size;
        let disk = DiskSpace::of(store.root())?;
        let measured = Measured { used, free: disk.free, at: SystemTime::now() };
        let excess = used - self.limits.allowed(used, disk.free);
        self.stuck = (excess > 0).then_some(measured);
        self.remember(store, measured)?;
        Ok(Kept { pruned, excess })
    }

    /// Whether the store has to be measured.
    fn must_measure(&self, measured: Option<Measured>, disk: DiskSpace, now: SystemTime) -> bool {
        let Some(measured) = measured else { return true };
        // A clock that was set back is as good as one that has gone on.
        let age = now.duration_since(measured.at).unwrap_or(Duration::MAX);
        if age > MEASURED_EVERY {
            return true;
        }
        if disk.free > measured.free.saturating_add(FREED_BY_OTHERS) {
            // On a disk that others work on this is always so; a store that was small may wait for its hour.
            let much = measured.used.saturating_mul(FAR_GROWTH);
            return measured.used == 0 || self.limits.allowed(much, disk.free) < much;
        }
        let grown = measured.free.saturating_sub(disk.free);
        if let Some(stuck) = self.stuck
            && stuck.free.saturating_sub(disk.free) < WORTH_TRYING
        {
            return false;
        }
        let used = measured.used.saturating_add(grown);
        self.limits.allowed(used, disk.free) < used
    }

    /// The last measurement; `None` when there is none that can be read.
    fn measured(&self) -> Option<Measured> {
        let text = String::from_utf8(read_small(&self.file).ok()?).ok()?;
        let mut words = text.strip_prefix("v1 ")?.split_whitespace();
        let mut number = || words.next()?.parse::<u64>().ok();
        let (used, free, at) = (number()?, number()?, number()?);
        Some(Measured { used, free, at: UNIX_EPOCH + Duration::from_secs(at) })
    }

    fn remember(&self, store: &Store, measured: Measured) -> Result<(), DiskError> {
        let staged = store.stage()?;
        if std::fs::write(staged.path(), measured.to_string()).is_err() {
            // A full disk: the store is measured again.
            return Ok(());
        }
        rustix::fs::rename(staged.path(), &self.file).on_path("rename to", &self.file)?;
        staged.moved();
        Ok(())
    }
}

/// BuildKit's rules, in its order: what is soon made again and was not used for two days, what was not used for sixty, and then
/// whatever is least valuable.
fn rules(limits: SpaceLimits) -> [PruneOptions; 3] {
    let idle = [ItemKind::Context, ItemKind::CacheMount, ItemKind::Repository];
    let most = SpaceLimits { max_used: Some(IDLE_CACHES), ..SpaceLimits::default() };
    [
        PruneOptions {
            filter: ItemFilter::of_kinds(&idle),
            keep_duration: Some(48 * HOUR),
            limits: most,
            spare_garbage: true,
            ..PruneOptions::default()
        },
        PruneOptions {
            keep_duration: Some(60 * 24 * HOUR),
            limits,
            spare_garbage: true,
            ..PruneOptions::default()
        },
        PruneOptions { all: true, limits, spare_garbage: true, ..PruneOptions::default() },
    ]
}

/// Whether there is something that a rule takes.
fn exceeds(rule: &PruneOptions, usage: &Usage, free: u64) -> bool {
    let counted = KindUsage::of(usage.items.iter().filter(|item| rule.counts(item))).size;
    rule.limits.allowed(counted, free) < counted && usage.items.iter().any(|item| rule.means(item))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn keeper(limits: SpaceLimits) -> SpaceKeeper {
        SpaceKeeper::new(Path::new("store"), limits)
    }

    #[test]
    fn a_store_is_measured_when_it_may_have_grown_too_large() {
        let now = SystemTime::now();
        let keeper = keeper(SpaceLimits {
            reserved: Some(GB),
            max_used: Some(10 * GB),
            min_free: Some(20 * GB),
        });
        let measured = |used, free| Some(Measured { used: used * GB, free: free * GB, at: now });
        let due = |measured, free| {
            keeper.must_measure(measured, DiskSpace { total: 100 * GB, free: free * GB }, now)
        };
        assert!(due(None, 50));
        assert!(!due(measured(9, 50), 50));
        assert!(!due(measured(5, 50), 46), "the disk has less, but not too little");
        assert!(due(measured(9, 50), 48), "it may have taken what the disk has less");
        assert!(due(measured(5, 21), 19), "others may have, and now the disk is full");
        assert!(!due(measured(0, 19), 19), "what is reserved is its own");
        assert!(due(measured(5, 50), 51), "who frees space hides what the store took");
        assert!(!due(measured(1, 50), 51), "but that is far from too much");
        assert!(due(measured(0, 50), 51), "of a new store nothing is known then");
        let later = now + 2 * HOUR;
        assert!(keeper.must_measure(
            measured(1, 50),
            DiskSpace { total: 100 * GB, free: 50 * GB },
            later
        ));
    }

    #[test]
    fn a_new_store_is_not_measured() {
        let dir = tempfile::tempdir().unwrap();
        let limits = SpaceLimits { max_used: Some(GB), ..SpaceLimits::default() };
        let keeper = SpaceKeeper::new(dir.path(), limits);
        assert_eq!(keeper.measured(), None);
        Store::open(dir.path()).unwrap();
        assert_eq!(keeper.measured().map(|measured| measured.used), Some(0));
    }

    #[test]
    fn what_cannot_be_helped_is_not_tried_all_the_time() {
        let now = SystemTime::now();
        let measured = Measured { used: 5 * GB, free: GB, at: now };
        let mut keeper = keeper(SpaceLimits { min_free: Some(2 * GB), ..SpaceLimits::default() });
        let disk = DiskSpace { total: 100 * GB, free: GB };
        assert!(keeper.must_measure(Some(measured), disk, now));
        keeper.stuck = Some(measured);
        assert!(!keeper.must_measure(Some(measured), disk, now));
        let fuller = DiskSpace { free: GB - WORTH_TRYING, ..disk };
        assert!(keeper.must_measure(Some(measured), fuller, now));
    }
}
