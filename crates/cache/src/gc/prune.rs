//! Collection.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rbuild_oci::Digest;
use rbuild_solver::LayerId;

use super::references::References;
use super::survey::{CollectError, Survey, directory_size, measure_layers};
use crate::disk_error::OnPath;
use crate::index::KnownLayer;
use crate::lease::Pinned;
use crate::remove_tree::remove_path;
use crate::staging::Staged;
use crate::{IndexError, LockName, Store, StoredRecord};

/// What is to go. By default what nothing refers to: no image, no cache record, no living build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Cache records go as well, so that only images and what living builds use remain; and stat caches of
    /// build contexts, and mirrors of git repositories. Cache mounts go, too, unless `keep_storage` is given, which
    /// they do not count for.
    pub all: bool,
    /// Cache records, and with `all` cache mounts, that were used within this time stay, the others go.
    pub keep_duration: Option<Duration>,
    /// Cache records go, least recently used first, only until blobs and layers take no more than these bytes.
    pub keep_storage: Option<u64>,
    /// Images without a name go.
    pub dangling_images: bool,
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
    let mut pruned = Pruned::default();
    let (mut detached, mut cache_mounts) = (Vec::new(), Vec::new());
    {
        let (_closed, pinned) = store.close_gate()?;
        if options.dangling_images {
            pruned.images = unless_full(store.index.remove_dangling_images())?.unwrap_or(0);
        }
        let survey = Survey::take(store)?;
        let mut references = References::without_records(&survey, &pinned);
        survey.records.iter().for_each(|record| references.hold_record(record));

        let given_up = give_up_records(&survey.records, &mut references, options);
        // On a full disk the index cannot shrink before files are gone. Records whose layers are missing find nothing,
        // so the other order is as safe; it only keeps builds waiting for longer.
        let deleted = unless_full(store.index.delete_records(&given_up))?;
        for (id, found) in survey.layers.iter().filter(|(id, _)| references.layer(id) == 0) {
            if let Some(staged) = store.layers.detach(id)? {
                detached.push(staged);
                pruned.layers.push(*id);
                pruned.freed += found.size;
            }
        }
        for (digest, found) in survey.blobs.iter().filter(|(blob, _)| references.blob(blob) == 0) {
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
        if options.all && options.keep_storage.is_none() {
            for mount in store.cache_mounts.list()? {
                if is_kept(mount.used, options.keep_duration) {
                    continue;
                }
                if let Some(staged) = store.cache_mounts.collect(&mount)? {
                    cache_mounts.push(staged);
                }
            }
        }
    }
    pruned.cache_mounts = cache_mounts.len();
    for staged in &cache_mounts {
        pruned.freed += directory_size(staged.path())?;
    }
    for staged in detached.into_iter().chain(cache_mounts) {
        staged.discard()?;
    }
    if options.all {
        remove_contexts(store)?;
        remove_mirrors(store)?;
    }
    pruned.layers.sort_unstable();
    pruned.blobs.sort_unstable();
    Ok(pruned)
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

/// Releases the records that go, and returns their rows.
fn give_up_records(
    records: &[StoredRecord],
    references: &mut References<'_>,
    options: &PruneOptions,
) -> Vec<i64> {
    let PruneOptions { all, keep_duration, keep_storage, .. } = *options;
    if !all && keep_duration.is_none() && keep_storage.is_none() {
        return Vec::new();
    }
    let is_old = |record: &StoredRecord| !is_kept(record.used, keep_duration);
    let mut given_up = Vec::new();
    for record in records.iter().filter(|record| is_old(record)) {
        if keep_storage.is_some_and(|keep| references.size() <= keep) {
            break;
        }
        references.release_record(record);
        given_up.push(record.id);
    }
    given_up
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
