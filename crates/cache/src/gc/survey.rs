//! Everything that is in a store, at one moment.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rbuild_oci::{Descriptor, Digest, Index as ImageIndex, Manifest};
use rbuild_solver::LayerId;

use super::disk_size::disk_size;
use crate::disk_error::OnPath;
use crate::index::KnownLayer;
use crate::part_error::from_parts;
use crate::{
    BuildsError, Content, ContentError, DiskError, Image, IndexError, LayersError, LeaseError,
    LockError, PartError, Store, StoredRecord,
};

/// The largest manifest or index that is read; registries refuse larger ones as well.
const MAX_DOCUMENT: u64 = 4 << 20;

/// How deep indexes in indexes are followed.
const MAX_NESTING: u32 = 4;

/// The store cannot be measured or collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A part of the store.
    #[error(transparent)]
    Store(#[from] PartError),
    /// What is remembered of builds.
    #[error(transparent)]
    Builds(#[from] BuildsError),
    /// Other files.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

from_parts!(CollectError: ContentError, LayersError, IndexError, LeaseError, LockError);

/// What is there.
#[derive(Debug)]
pub(super) struct Survey {
    /// Layer directories.
    pub(super) layers: HashMap<LayerId, Found>,
    pub(super) blobs: HashMap<Digest, Found>,
    /// What the index knows of layers, with or without a directory.
    pub(super) known: HashMap<LayerId, KnownLayer>,
    /// Least recently used first.
    pub(super) records: Vec<StoredRecord>,
    /// Each with the blobs that it holds.
    pub(super) images: Vec<(Image, HashSet<Digest>)>,
    /// What failed steps have left, and when.
    pub(super) left: HashMap<LayerId, SystemTime>,
}

/// A layer directory or a blob.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Bytes of whole blocks; 0 for a layer that was not measured.
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    pub(super) change_time: (i64, i64),
}

impl Found {
    /// When it was put into the store, or last found there by who wanted to.
    pub(super) fn changed(&self) -> SystemTime {
        let (seconds, nanoseconds) = self.change_time;
        let since = Duration::new(
            u64::try_from(seconds).unwrap_or_default(),
            u32::try_from(nanoseconds).unwrap_or_default(),
        );
        SystemTime::UNIX_EPOCH + since
    }
}

impl Survey {
    pub(super) fn take(store: &Store) -> Result<Self, CollectError> {
        // Before what they may hold, so that everything that they hold is seen.
        let records = store.index.records()?;
        let known: HashMap<_, _> =
            store.index.all_layers()?.into_iter().map(|layer| (layer.id, layer)).collect();
        let mut images = Vec::new();
        for image in store.index.images()? {
            let mut held = HashSet::new();
            hold_documents(&store.content, &image.descriptor, MAX_NESTING, &mut held)?;
            images.push((image, held));
        }
        let mut layers = HashMap::new();
        for id in store.layers.list()? {
            let path = store.layers.path(&id);
            let metadata = match path.symlink_metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(DiskError::new("inspect", &path, error).into()),
            };
            let size = known.get(&id).and_then(|layer| layer.disk_size).unwrap_or(0);
            let change_time = (metadata.ctime(), metadata.ctime_nsec());
            layers.insert(id, Found { size, change_time });
        }
        let mut blobs = HashMap::new();
        store.content.visit(|digest, metadata| {
            let change_time = (metadata.ctime(), metadata.ctime_nsec());
            blobs.insert(digest, Found { size: metadata.blocks() * 512, change_time });
        })?;
        let left = store.builds.kept()?.into_iter().collect();
        Ok(Self { layers, blobs, known, records, images, left })
    }
}

/// Adds a manifest's or an index's digest and everything that it names. What is missing, or is no such document,
/// names nothing.
fn hold_documents(
    content: &Content,
    descriptor: &Descriptor,
    nesting: u32,
    held: &mut HashSet<Digest>,
) -> Result<(), ContentError> {
    let kind = &descriptor.media_type;
    if !held.insert(descriptor.digest) || nesting == 0 || !(kind.is_index() || kind.is_manifest()) {
        return Ok(());
    }
    let bytes = match content.read(&descriptor.digest, MAX_DOCUMENT) {
        Ok(bytes) => bytes,
        Err(ContentError::Missing(_) | ContentError::TooLarge { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    if kind.is_index() {
        let Ok(index) = serde_json::from_slice::<ImageIndex>(&bytes) else { return Ok(()) };
        for entry in &index.manifests {
            hold_documents(content, entry, nesting - 1, held)?;
        }
    } else if let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) {
        held.insert(manifest.config.digest);
        held.extend(manifest.layers.iter().map(|layer| layer.digest));
    }
    Ok(())
}

/// Measures the layers that were not measured yet, side by side, and remembers what they take: they never change.
pub(super) fn measure_layers(store: &Store) -> Result<(), CollectError> {
    let measured: HashSet<LayerId> = store
        .index
        .all_layers()?
        .into_iter()
        .filter(|layer| layer.disk_size.is_some())
        .map(|layer| layer.id)
        .collect();
    let new: Vec<LayerId> =
        store.layers.list()?.into_iter().filter(|id| !measured.contains(id)).collect();
    let sizes: Vec<Option<(LayerId, u64)>> =
        new.par_iter().map(|id| measure(store, id)).collect::<Result<_, CollectError>>()?;
    let sizes: Vec<(LayerId, u64)> = sizes.into_iter().flatten().collect();
    if sizes.is_empty() {
        return Ok(());
    }
    match store.index.set_disk_sizes(&sizes) {
        // Sizes are worth remembering, and not worth failing for: on a full disk this is how room is made.
        Err(error) if !error.is_full() => Err(error.into()),
        _ => Ok(()),
    }
}

/// What a layer takes, unless another process is deleting it.
fn measure(store: &Store, id: &LayerId) -> Result<Option<(LayerId, u64)>, CollectError> {
    let dir = match store.layers.open(id) {
        Ok(dir) => dir,
        Err(LayersError::Missing(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match disk_size(dir.as_fd()) {
        Ok(size) => Ok(Some((*id, size))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(DiskError::new("measure", &store.layers.path(id), error).into()),
    }
}

/// What a directory that others may be changing takes, 0 when that cannot be said.
pub(crate) fn directory_size(path: &Path) -> Result<u64, DiskError> {
    let dir = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        dir => dir.on_path("open", path)?,
    };
    match disk_size(dir.as_fd()) {
        Err(rustix::io::Errno::NOENT) => Ok(0),
        other => other.on_path("measure", path),
    }
}
