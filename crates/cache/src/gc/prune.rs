//! Collection.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rbuild_oci::Digest;
use rbuild_solver::LayerId;

use super::references::References;
use super::survey::{CollectError, Survey, directory_size, measure_layers};
use crate::cache_mounts::FoundCacheMount;
use crate::disk_error::OnPath;
use crate::index::KnownLayer;
use crate::lease::Pinned;
use crate::remove_tree::remove_path;
use crate::staging::Staged;
use crate::{IndexError, LockName, Store, StoredRecord};

/// What is to go. By default what nothing refers to: no image, no cache record, no living build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Cache records and cache mounts go as well, so that only images and what living builds use remain; and stat
    /// caches of build contexts, mirrors of git repositories, and what is remembered of builds; and logs of builds, unless
    /// `keep_storage`, which they do not count for, or `only` is given.
    pub all: bool,
    /// Cache records, cache mounts and logs that were used within this time stay, the others go.
    pub keep_duration: Option<Duration>,
    /// Cache records and cache mounts go, least recently used first, only until blobs, layers and cache mounts take no
    /// more than these bytes together.
    pub keep_storage: Option<u64>,
    /// Images without a name go.
    pub dangling_images: bool,
    /// What is given up is of these kinds, as if `all` were said of them, and everything else stays.
    pub only: Option<PruneKinds>,
}

/// The kinds of what can be given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneKinds {
    /// Cache records, with the layers and blobs that only they hold.
    pub regular: bool,
    /// Cache mounts.
    pub cache_mounts: bool,
    /// What is remembered of build contexts.
    pub contexts: bool,
    /// Mirrors of git repositories.
    pub repositories: bool,
}

impl PruneOptions {
    fn given_up(&self) -> PruneKinds {
        let Self { all, keep_duration, keep_storage, .. } = *self;
        let some = all || keep_duration.is_some() || keep_storage.is_some();
        self.only.unwrap_or(PruneKinds {
            regular: some,
            cache_mounts: some,
            contexts: all,
            repositories: all,
        })
    }

    /// Whether what nobody refers to is removed.
    fn removes_garbage(&self) -> bool {
        self.only.is_none_or(|only| only.regular)
    }
}

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Layers whose directories were deleted.
    pub layers: Vec<LayerId>,
    /// Blobs that were deleted.
    pub blobs: Vec<Digest>,
    /// How many cache mounts were deleted.
    pub cache_mounts: usize,
    /// The logs of how many builds were deleted.
    pub logs: usize,
    /// How many cache records were given up.
    pub records: usize,
    /// How many images without a name were removed.
    pub images: usize,
    /// Bytes of whole blocks that were freed.
    pub freed: u64,
}

/// Deletes what `options` say and nobody uses. Builds may run, and may begin, meanwhile.
pub fn prune(store: &Store, options: &PruneOptions) -> Result<Pruned, CollectError> {
    measure_layers(store)?;
    let kinds = options.given_up();
    // Before the gate is closed, since it takes its time.
    let sizes = match options.keep_storage {
        Some(_) => cache_mount_sizes(store)?,
        None => HashMap::new(),
    };
    let mut pruned = Pruned::default();
    let mut detached = Vec::new();
    let cache_mounts;
    {
        let (_closed, pinned) = store.close_gate()?;
        if options.dangling_images && options.removes_garbage() {
            pruned.images = unless_full(store.index.remove_dangling_images())?.unwrap_or(0);
        }
        let survey = Survey::take(store)?;
        let mut references = References::without_records(&survey, &pinned);
        survey.records.iter().for_each(|record| references.hold_record(record));

        let mut giving = GivingUp { store, options, references, sizes, taken: vec![] };
        let given_up = giving.run(&survey.records, kinds)?;
        let GivingUp { references, taken, .. } = giving;
        cache_mounts = taken;
        if options.removes_garbage() {
            // On a full disk the index cannot shrink before files are gone. Records whose layers are missing find
            // nothing, so the other order is as safe; it only keeps builds waiting for longer.
            let deleted = unless_full(store.index.delete_records(&given_up))?;
            let layers = survey.layers.iter();
            for (id, found) in layers.filter(|(id, _)| references.layer(id) == 0) {
                if let Some(staged) = store.layers.detach(id)? {
                    detached.push(staged);
                    pruned.layers.push(*id);
                    pruned.freed += found.size;
                }
            }
            let blobs = survey.blobs.iter();
            for (digest, found) in blobs.filter(|(blob, _)| references.blob(blob) == 0) {
                if store.content.remove(digest)? {
                    pruned.blobs.push(*digest);
                    pruned.freed += found.size;
                }
            }
            pruned.records = match deleted {
                Some(records) => records,
                None => {
                    detached.drain(..).try_for_each(Staged::discard)?;
                    store.index.delete_records(&given_up)?
                }
            };
            let known = survey.known.values();
            let forgotten: Vec<LayerId> = known
                .filter(|layer| is_forgotten(layer, &references, &pinned))
                .map(|layer| layer.id)
                .collect();
            store.index.delete_layers(&forgotten)?;
        }
    }
    pruned.cache_mounts = cache_mounts.len();
    for staged in &cache_mounts {
        pruned.freed += directory_size(staged.path())?;
    }
    for staged in detached.into_iter().chain(cache_mounts) {
        staged.discard()?;
    }
    if options.all && options.only.is_none() {
        store.builds.clear()?;
    }
    if options.all && options.keep_storage.is_none() && options.only.is_none() {
        let (count, freed) = store.logs().remove(options.keep_duration)?;
        pruned.logs = count;
        pruned.freed += freed;
    }
    if kinds.contexts {
        remove_contexts(store)?;
    }
    if kinds.repositories {
        remove_mirrors(store)?;
    }
    pruned.layers.sort_unstable();
    pruned.blobs.sort_unstable();
    Ok(pruned)
}

fn cache_mount_sizes(store: &Store) -> Result<HashMap<PathBuf, u64>, CollectError> {
    let mounts = store.cache_mounts.list()?;
    let sizes = mounts.into_iter().map(|mount| {
        let size = directory_size(&mount.path)?;
        Ok((mount.path, size))
    });
    sizes.collect()
}

/// What may be given up.
enum Candidate<'a> {
    Record(&'a StoredRecord),
    CacheMount(FoundCacheMount),
}

impl Candidate<'_> {
    fn used(&self) -> SystemTime {
        match self {
            Self::Record(record) => record.used,
            Self::CacheMount(mount) => mount.used,
        }
    }
}

/// Giving up, least recently used first.
struct GivingUp<'a> {
    store: &'a Store,
    options: &'a PruneOptions,
    references: References<'a>,
    /// What cache mounts take.
    sizes: HashMap<PathBuf, u64>,
    /// Cache mounts that were taken out of the store.
    taken: Vec<Staged>,
}

impl GivingUp<'_> {
    /// Releases the records that go and takes the cache mounts that do. Returns the records' rows.
    fn run(
        &mut self,
        records: &[StoredRecord],
        kinds: PruneKinds,
    ) -> Result<Vec<i64>, CollectError> {
        let mut candidates = Vec::new();
        if kinds.regular {
            candidates.extend(records.iter().map(Candidate::Record));
        }
        if kinds.cache_mounts {
            let mounts = self.store.cache_mounts.list()?;
            candidates.extend(mounts.into_iter().map(Candidate::CacheMount));
        }
        candidates.retain(|candidate| !is_kept(candidate.used(), self.options.keep_duration));
        candidates.sort_by_key(Candidate::used);
        let mut given_up = Vec::new();
        for candidate in candidates {
            if self.options.keep_storage.is_some_and(|keep| self.size() <= keep) {
                break;
            }
            match candidate {
                Candidate::Record(record) => {
                    self.references.release_record(record);
                    given_up.push(record.id);
                }
                Candidate::CacheMount(mount) => {
                    if let Some(staged) = self.store.cache_mounts.collect(&mount)? {
                        self.taken.push(staged);
                        self.sizes.remove(&mount.path);
                    }
                }
            }
        }
        Ok(given_up)
    }

    /// What would be left.
    fn size(&self) -> u64 {
        self.references.size() + self.sizes.values().sum::<u64>()
    }
}

/// What an index gave, or nothing when it had no room to write.
fn unless_full<T>(written: Result<T, IndexError>) -> Result<Option<T>, IndexError> {
    match written {
        Err(error) if error.is_full() => Ok(None),
        written => written.map(Some),
    }
}

/// Whether something that was used at that time is to stay.
fn is_kept(used: SystemTime, keep: Option<Duration>) -> bool {
    let unused = SystemTime::now().duration_since(used).unwrap_or_default();
    keep.is_some_and(|keep| unused < keep)
}

/// Whether nothing needs to be known of a layer any more: nobody holds it or a blob of it, and it did not become
/// known since the oldest living build began, by a clock that may be a moment off.
fn is_forgotten(layer: &KnownLayer, references: &References<'_>, pinned: &Pinned) -> bool {
    let known_since = layer.created.duration_since(UNIX_EPOCH).unwrap_or_default();
    let known_since = i64::try_from(known_since.as_secs()).unwrap_or(i64::MAX);
    references.layer(&layer.id) == 0
        && layer.blobs.iter().all(|blob| references.blob(blob) == 0)
        && !pinned.protects((known_since.saturating_add(2), 0))
}

fn remove_contexts(store: &Store) -> Result<(), CollectError> {
    let contexts = store.contexts();
    for entry in std::fs::read_dir(&contexts).on_path("list", &contexts)? {
        remove_path(&entry.on_path("list", &contexts)?.path())?;
    }
    Ok(())
}

/// Removes the mirrors of repositories that nobody is using.
fn remove_mirrors(store: &Store) -> Result<(), CollectError> {
    let mirrors = store.git_mirrors();
    let listed = match std::fs::read_dir(&mirrors) {
        // Stores of before there were any.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        listed => listed.on_path("list", &mirrors)?,
    };
    for entry in listed {
        let path = entry.on_path("list", &mirrors)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let id = Digest::parse(&format!("sha256:{name}")).ok();
        let lock = id.map(|id| store.locks.try_lock(LockName::Git(&id))).transpose()?.flatten();
        if lock.is_some() {
            remove_path(&path)?;
        }
    }
    Ok(())
}
