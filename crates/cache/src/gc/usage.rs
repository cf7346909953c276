//! What the store takes.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rbuild_solver::LayerId;

use super::references::References;
use super::survey::{CollectError, Found, Survey, directory_size, measure_layers};
use crate::{DiskError, Store};

/// What the store takes on the disk, in bytes of whole blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Blobs.
    pub blobs: KindUsage,
    /// Layer directories.
    pub layers: KindUsage,
    /// Cache mounts.
    pub cache_mounts: KindUsage,
    /// How many cache records there are.
    pub records: u64,
    /// How many images there are.
    pub images: u64,
    /// How many of the images have no name.
    pub dangling_images: u64,
    /// What the index takes.
    pub index: u64,
    /// What stat caches of build contexts take.
    pub contexts: u64,
    /// What steps have printed.
    pub logs: KindUsage,
    /// What is remembered of builds, without what failed steps have left.
    pub builds: u64,
    /// What is being made right now.
    pub pending: u64,
    /// Each layer directory, least recently used first.
    pub each_layer: Vec<LayerUsage>,
    /// Each cache mount, least recently used first.
    pub each_cache_mount: Vec<CacheMountUsage>,
}

/// What the things of one kind take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindUsage {
    /// How many there are.
    pub count: u64,
    /// What they take.
    pub size: u64,
    /// How much of it is held by more than one.
    pub shared: u64,
    /// How much of it pruning everything would free.
    pub reclaimable: u64,
}

impl KindUsage {
    fn add(&mut self, found: &Found, holders: u32, lasting: bool) {
        self.count += 1;
        self.size += found.size;
        self.shared += if holders > 1 { found.size } else { 0 };
        self.reclaimable += if lasting { 0 } else { found.size };
    }
}

/// What one cache mount takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMountUsage {
    /// The name that the build gave it.
    pub id: String,
    /// What it takes.
    pub size: u64,
    /// When a step used it last.
    pub used: SystemTime,
    /// Whether a step uses it right now.
    pub in_use: bool,
}

/// What one layer directory takes, and why it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerUsage {
    /// Which one.
    pub id: LayerId,
    /// What made it, as far as that is known.
    pub description: String,
    /// What it takes.
    pub size: u64,
    /// When it became known.
    pub created: Option<SystemTime>,
    /// When a cache record that holds it was last used.
    pub used: Option<SystemTime>,
    /// How many outputs of cache records hold it.
    pub records: u32,
    /// Whether a living build uses it.
    pub in_use: bool,
}

impl Usage {
    /// Measures the store.
    pub fn measure(store: &Store) -> Result<Self, CollectError> {
        measure_layers(store)?;
        // Nothing is taken, so the gate need not stay closed: the picture may be a moment old.
        let (_, pinned) = store.close_gate()?;
        let survey = Survey::take(store)?;
        let lasting = References::without_records(&survey, &pinned);
        let mut held = References::without_records(&survey, &pinned);
        let mut used = HashMap::new();
        for record in &survey.records {
            held.hold_record(record);
            // The most recently used ones come last.
            used.extend(record.layers().map(|id| (*id, record.used)));
        }
        let mut layers = KindUsage::default();
        let mut each_layer = Vec::with_capacity(survey.layers.len());
        for (id, found) in &survey.layers {
            layers.add(found, held.layer(id), lasting.layer(id) > 0);
            let known = survey.known.get(id);
            each_layer.push(LayerUsage {
                id: *id,
                description: known.map(|layer| layer.description.clone()).unwrap_or_default(),
                size: found.size,
                created: known.map(|layer| layer.created),
                used: used.get(id).copied(),
                records: held.layer(id) - lasting.layer(id),
                in_use: lasting.layer(id) > 0,
            });
        }
        each_layer.sort_by_key(|layer| (layer.used, layer.created, layer.id));
        let mut blobs = KindUsage::default();
        for (digest, found) in &survey.blobs {
            blobs.add(found, held.blob(digest), lasting.blob(digest) > 0);
        }
        let each_cache_mount = measure_cache_mounts(store)?;
        let mut cache_mounts = KindUsage::default();
        for mount in &each_cache_mount {
            cache_mounts.count += 1;
            cache_mounts.size += mount.size;
            cache_mounts.reclaimable += if mount.in_use { 0 } else { mount.size };
        }
        let logs = store.logs().usage()?;
        let dangling = survey.images.iter().filter(|(image, _)| image.name.is_none());
        Ok(Self {
            blobs,
            layers,
            cache_mounts,
            records: survey.records.len() as u64,
            images: survey.images.len() as u64,
            dangling_images: dangling.count() as u64,
            index: index_size(store)?,
            contexts: directory_size(&store.contexts())?,
            logs: KindUsage {
                count: logs.builds,
                size: logs.size,
                shared: 0,
                reclaimable: logs.reclaimable,
            },
            builds: directory_size(&store.root().join("builds"))?,
            pending: directory_size(&store.root().join("tmp"))?,
            each_layer,
            each_cache_mount,
        })
    }

    /// What everything takes together.
    pub fn total(&self) -> u64 {
        let kinds = self.blobs.size + self.layers.size + self.cache_mounts.size;
        kinds + self.index + self.contexts + self.builds + self.logs.size + self.pending
    }

    /// What pruning everything would free.
    pub fn reclaimable(&self) -> u64 {
        let kinds =
            self.blobs.reclaimable + self.layers.reclaimable + self.cache_mounts.reclaimable;
        kinds + self.contexts + self.builds + self.logs.reclaimable
    }
}

fn measure_cache_mounts(store: &Store) -> Result<Vec<CacheMountUsage>, DiskError> {
    let mounts = store.cache_mounts.list()?;
    let measured = mounts.par_iter().map(|mount| {
        Ok(CacheMountUsage {
            size: directory_size(&mount.path)?,
            in_use: store.cache_mounts.is_used(mount)?,
            id: mount.id.clone(),
            used: mount.used,
        })
    });
    measured.collect()
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
