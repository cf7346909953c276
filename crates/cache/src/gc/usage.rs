//! What the store takes.

use std::os::unix::fs::MetadataExt;

use super::item::{Item, ItemKind};
use super::lineage::Lineage;
use super::outside::outside;
use super::references::References;
use super::stock::Stock;
use super::survey::{CollectError, Survey, directory_size, measure_layers};
use crate::{DiskError, Store};

/// What the store takes on the disk, in bytes of whole blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// All that can be listed, by kind and the least recently used first.
    pub items: Vec<Item>,
    /// How many cache records there are.
    pub records: u64,
    /// How many images there are.
    pub images: u64,
    /// How many of the images have no name.
    pub dangling_images: u64,
    /// What the index takes.
    pub index: u64,
    /// What is being made right now.
    pub pending: u64,
}

/// What the things of one kind take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindUsage {
    /// How many there are.
    pub count: u64,
    /// What they take.
    pub size: u64,
    /// How much of it images have as well.
    pub shared: u64,
    /// How much of it pruning everything would free.
    pub reclaimable: u64,
}

impl KindUsage {
    /// What these take together.
    pub fn of<'a>(items: impl IntoIterator<Item = &'a Item>) -> Self {
        let mut usage = Self::default();
        for item in items {
            usage.count += 1;
            usage.size += item.size;
            usage.shared += if item.shared { item.size } else { 0 };
            usage.reclaimable += if item.in_use { 0 } else { item.size };
        }
        usage
    }
}

impl Usage {
    /// Measures the store.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn measure(store: &Store) -> Result<Self, CollectError> {
        measure_layers(store)?;
        // Nothing is taken, so the gate need not stay closed: the picture may be a moment old.
        let (_, pinned) = store.close_gate()?;
        let survey = Survey::take(store)?;
        let lineage = Lineage::of(&survey.records);
        let lasting = References::without_records(&survey, &pinned);
        let Stock { layers, blobs } = Stock::of(&survey, &lineage, &lasting);
        let outside = outside(store)?.into_iter().map(|thing| thing.item);
        let mut items: Vec<Item> =
            layers.into_values().chain(blobs.into_values()).chain(outside).collect();
        items.sort_by(|one, other| {
            let place = |item: &Item| (item.kind, item.used, item.created);
            place(one).cmp(&place(other)).then_with(|| one.id.cmp(&other.id))
        });
        let dangling = survey.images.iter().filter(|(image, _)| image.name.is_none());
        Ok(Self {
            items,
            records: survey.records.len() as u64,
            images: survey.images.len() as u64,
            dangling_images: dangling.count() as u64,
            index: index_size(store)?,
            pending: directory_size(&store.root().join("tmp"))?,
        })
    }

    /// What the things of a kind take.
    pub fn of(&self, kind: ItemKind) -> KindUsage {
        KindUsage::of(self.items.iter().filter(|item| item.kind == kind))
    }

    /// What everything takes together.
    pub fn total(&self) -> u64 {
        KindUsage::of(&self.items).size + self.index + self.pending
    }

    /// What pruning everything would free.
    pub fn reclaimable(&self) -> u64 {
        KindUsage::of(&self.items).reclaimable
    }
}

/// What the database and its log take.
fn index_size(store: &Store) -> Result<u64, DiskError> {
    let mut size = 0;
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let path = store.root().join(name);
        match path.metadata() {
            Ok(metadata) => size += metadata.blocks() * 512,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(DiskError::new("inspect", &path, error)),
        }
    }
    Ok(size)
}
