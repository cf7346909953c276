//! Collection.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rbuild_oci::Digest;
use rbuild_solver::LayerId;

use super::choice::{Choice, Chosen};
use super::filter::ItemFilter;
use super::item::{Item, ItemKind};
use super::limits::{DiskSpace, SpaceLimits};
use super::lineage::Lineage;
use super::outside::{Outside, Taken, outside};
use super::references::References;
use super::stock::Stock;
use super::survey::{CollectError, Survey, measure_layers};
use crate::index::KnownLayer;
use crate::lease::Pinned;
use crate::staging::Staged;
use crate::{IndexError, Store};

/// What is to go. By default what nothing refers to: no image, no cache record, no living build.
#[derive(Clone, Debug, Default)]
pub struct PruneOptions {
    /// Everything that images and living builds do not need is given up: cache records with their layers and blobs, cache
    /// mounts, and all that is remembered, of builds too.
    pub all: bool,
    /// What is given up is one of these. Without conditions: all but what is about builds.
    pub filter: ItemFilter,
    /// What was used within this time is not given up.
    pub keep_duration: Option<Duration>,
    /// Things are given up, the least valuable first, only until what the filter means keeps these limits.
    pub limits: SpaceLimits,
    /// What nothing refers to is given up like everything else, instead of going at once.
    pub spare_garbage: bool,
    /// Images without a name go.
    pub dangling_images: bool,
}

impl PruneOptions {
    /// Whether something that could be used again is given up.
    pub(super) fn gives_up(&self) -> bool {
        self.all
            || self.keep_duration.is_some()
            || !self.filter.is_empty()
            || self.limits.is_any()
            || self.spare_garbage
    }

    /// Whether an item counts for the limits.
    pub(super) fn counts(&self, item: &Item) -> bool {
        self.filter.matches(item)
    }

    /// Whether an item may be given up.
    pub(super) fn means(&self, item: &Item) -> bool {
        let internal = item.kind.is_internal() && !self.all && !self.filter.names(item.kind);
        !item.in_use && !internal && !self.keeps(item.used) && self.filter.matches(item)
    }

    fn keeps(&self, used: Option<SystemTime>) -> bool {
        let Some(used) = used else { return false };
        let unused = SystemTime::now().duration_since(used).unwrap_or_default();
        self.keep_duration.is_some_and(|keep| unused < keep)
    }
}

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Layers whose directories were deleted.
    pub layers: Vec<LayerId>,
    /// Blobs that were deleted.
    pub blobs: Vec<Digest>,
    /// Everything that was deleted.
    pub items: Vec<Item>,
    /// How many cache records were given up.
    pub records: usize,
    /// How many images without a name were removed.
    pub images: usize,
    /// Bytes of whole blocks that were freed.
    pub freed: u64,
}

impl Pruned {
    /// How many things of a kind went.
    pub fn count(&self, kind: ItemKind) -> usize {
        self.items.iter().filter(|item| item.kind == kind).count()
    }

    /// Adds what went at another time.
    pub fn append(&mut self, other: Self) {
        self.layers.extend(other.layers);
        self.blobs.extend(other.blobs);
        self.items.extend(other.items);
        self.records += other.records;
        self.images += other.images;
        self.freed += other.freed;
    }

    fn add(&mut self, item: Item) {
        self.freed += item.size;
        self.items.push(item);
    }
}

/// Deletes what `options` say and nobody uses. Builds may run, and may begin, meanwhile.
///
/// # Errors
///
/// When the store cannot be read or written. What went until then is gone, and the store is whole.
pub fn prune(store: &Store, options: &PruneOptions) -> Result<Pruned, CollectError> {
    // Measured before the gate is closed, since it takes its time.
    measure_layers(store)?;
    let outside = if options.gives_up() { outside(store)? } else { Vec::new() };
    let mut pruned = Pruned::default();
    let mut detached = Vec::new();
    let left = take(store, options, outside, &mut pruned, &mut detached)?;
    for thing in left {
        if let Some(taken) = thing.take(store)? {
            pruned.add(thing.item);
            if let Taken::Staged(staged) = taken {
                staged.discard()?;
            }
        }
    }
    detached.into_iter().try_for_each(Staged::discard)?;
    pruned.layers.sort_unstable();
    pruned.blobs.sort_unstable();
    Ok(pruned)
}

/// Takes everything out of the store for which the gate has to be closed, and returns the rest that is to go.
fn take(
    store: &Store,
    options: &PruneOptions,
    outside: Vec<Outside>,
    pruned: &mut Pruned,
    detached: &mut Vec<Staged>,
) -> Result<Vec<Outside>, CollectError> {
    let (_closed, pinned) = store.close_gate()?;
    if options.dangling_images && options.filter.is_empty() {
        pruned.images = unless_full(store.index.remove_dangling_images())?.unwrap_or(0);
    }
    let survey = Survey::take(store)?;
    let lineage = Lineage::of(&survey.records);
    let lasting = References::without_records(&survey, &pinned);
    let mut stock = Stock::of(&survey, &lineage, &lasting);
    let free = DiskSpace::of(store.root())?.free;
    let choice = Choice::new(options, &survey, &lineage, &stock, &pinned, &outside);
    let Chosen { references, records, outside: chosen } = choice.run(free);

    // On a full disk the index cannot shrink before files are gone. Records whose layers are missing find nothing, so
    // the other order is as safe; it only keeps builds waiting for longer.
    let deleted = unless_full(store.index.delete_records(&records))?;
    for id in survey.layers.keys().filter(|id| references.layer(id) == 0) {
        if let Some(staged) = store.layers.detach(id)? {
            detached.push(staged);
            pruned.layers.push(*id);
            stock.layers.remove(id).into_iter().for_each(|item| pruned.add(item));
        }
    }
    for digest in survey.blobs.keys().filter(|digest| references.blob(digest) == 0) {
        if store.content.remove(digest)? {
            pruned.blobs.push(*digest);
            stock.blobs.remove(digest).into_iter().for_each(|item| pruned.add(item));
        }
    }
    let mut rest = Vec::new();
    for (_, thing) in outside.into_iter().enumerate().filter(|(at, _)| chosen.contains(at)) {
        if !thing.needs_gate() {
            rest.push(thing);
        } else if let Some(Taken::Staged(staged)) = thing.take(store)? {
            detached.push(staged);
            pruned.add(thing.item);
        }
    }
    pruned.records = match deleted {
        Some(records) => records,
        None => {
            detached.drain(..).try_for_each(Staged::discard)?;
            store.index.delete_records(&records)?
        }
    };
    let known = survey.known.values();
    let forgotten: Vec<LayerId> = known
        .filter(|layer| is_forgotten(layer, &references, &pinned))
        .map(|layer| layer.id)
        .collect();
    store.index.delete_layers(&forgotten)?;
    Ok(rest)
}

/// What an index gave, or nothing when it had no room to write.
fn unless_full<T>(written: Result<T, IndexError>) -> Result<Option<T>, IndexError> {
    match written {
        Err(error) if error.is_full() => Ok(None),
        written => written.map(Some),
    }
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
