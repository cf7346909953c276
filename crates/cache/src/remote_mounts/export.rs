//! From cache mounts of the store to packs and an index.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use rbuild_oci::{Descriptor, Digest};

use super::chunks::Chunker;
use super::index::{MOUNT_INDEX_TYPE, MountIndex, Pack, PackedMount};
use super::pack::{PackError, Packer};
use crate::cache_mounts::{CacheMountError, CacheMounts, HeldCacheMount};
use crate::{
    Content, ContentError, DiffError, Lease, LeaseError, TarWriteError, TarWriter, write_tree,
};

/// The parts of a store that an export of mounts uses.
#[derive(Clone, Copy, Debug)]
pub struct MountStore<'a> {
    /// The mounts.
    pub mounts: &'a CacheMounts,
    /// Where packs are made.
    pub content: &'a Content,
    /// Keeps them from being collected.
    pub lease: &'a Lease,
}

/// Which mounts are exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedMounts {
    /// Those with these ids.
    Ids(BTreeSet<String>),
    /// Those that a Dockerfile calls so, in whatever namespace (`BUILDKIT_CACHE_MOUNT_NS`).
    Names(Vec<String>),
}

/// Mounts that were exported.
#[derive(Clone, Debug)]
pub struct ExportedMounts {
    /// The index and the packs, for the manifest of the cache; nothing if there is no mount. The index is in the store, and so are
    /// packs that are new.
    pub blobs: Vec<Descriptor>,
    /// What is said of mounts that were left out.
    pub warnings: Vec<String>,
}

/// Mounts cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum MountExportError {
    /// The directories.
    #[error(transparent)]
    Mounts(#[from] CacheMountError),
    /// The files of one.
    #[error("cannot archive cache mount {id:?}")]
    Files {
        /// Whose.
        id: String,
        /// Why.
        source: DiffError,
    },
    /// Its archive.
    #[error("cannot archive cache mount {id:?}")]
    Archive {
        /// Whose.
        id: String,
        /// Why.
        source: TarWriteError,
    },
    /// The packs.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The index.
    #[error("cannot store the index of cache mounts")]
    Index(#[from] ContentError),
    /// The claim on it.
    #[error("cannot keep the index of cache mounts from being collected")]
    Pin(#[from] LeaseError),
    /// More than an index can name.
    #[error("the cache mounts have too many chunks")]
    TooMany,
}

impl WantedMounts {
    /// Whether a mount with this id is one of them.
    fn has(&self, id: &str) -> bool {
        match self {
            Self::Ids(ids) => ids.contains(id),
            Self::Names(names) => names.iter().any(|name| is_called(id, name)),
        }
    }
}

/// Whether `id`, which has a namespace in front of it, is `name`.
fn is_called(id: &str, name: &str) -> bool {
    id == name || id.split_once('/').is_some_and(|(_, own)| own == name)
}

/// Exports mounts: those of the store, and those of `previous` caches that this machine has not had. Chunks that are in packs of
/// `previous` stay there.
///
/// At most `most` bytes are exported: of this machine's mounts, which are counted as they take the disk, what was used last
/// before the others, and what is left of others' archives. A mount that a step uses is not waited for.
pub fn export_mounts(
    store: MountStore<'_>,
    wanted: &WantedMounts,
    previous: &[Arc<MountIndex>],
    most: u64,
) -> Result<ExportedMounts, MountExportError> {
    let held = Held::take(store.mounts, wanted, most)?;
    let carried = Carried::of(previous, wanted, &held);
    let mut warnings = [held.warnings.clone(), carried.warnings.clone()].concat();
    let packs: Vec<&Pack> = previous.iter().flat_map(|index| &index.packs).collect();
    let mut index = packed(store, &held, &carried, &packs)?;
    if is_mostly_waste(&index) {
        let needed = |pack: &&Pack| carried.packs.contains(&pack.blob);
        let packs: Vec<&Pack> = packs.into_iter().filter(needed).collect();
        index = packed(store, &held, &carried, &packs)?;
    }
    let is_there = |id: &str| index.mounts.iter().any(|mount| mount.id == id);
    for id in held.in_use.iter().filter(|id| !is_there(id)) {
        warnings.push(format!("cache mount {:?} is in use and is not exported", shown(id)));
    }
    if let WantedMounts::Names(names) = wanted {
        let known = held.left_out.iter().chain(&held.in_use).chain(&carried.left_out);
        let known: Vec<&String> = known.chain(index.mounts.iter().map(|mount| &mount.id)).collect();
        for name in names.iter().filter(|name| !known.iter().any(|id| is_called(id, name))) {
            warnings.push(format!("there is no cache mount {name:?} to export"));
        }
    }
    if index.mounts.is_empty() {
        return Ok(ExportedMounts { blobs: Vec::new(), warnings });
    }
    let bytes = index.to_bytes();
    let descriptor =
        Descriptor::new(MOUNT_INDEX_TYPE.into(), Digest::of(&bytes), bytes.len() as u64);
    store.lease.pin_blobs(&[descriptor.digest])?;
    store.content.put(&bytes)?;
    let packs = index.packs.iter().map(Pack::descriptor);
    let blobs = std::iter::once(descriptor).chain(packs).collect();
    Ok(ExportedMounts { blobs, warnings })
}

/// The mounts of the store, which nobody can change meanwhile.
struct Held {
    mounts: Vec<HeldCacheMount>,
    /// Ids of those that are too large.
    left_out: BTreeSet<String>,
    /// Ids of those that steps of other builds have.
    in_use: BTreeSet<String>,
    /// What may still be exported.
    left: u64,
    warnings: Vec<String>,
}

impl Held {
    fn take(
        mounts: &CacheMounts,
        wanted: &WantedMounts,
        most: u64,
    ) -> Result<Self, CacheMountError> {
        let mut held = Self {
            mounts: Vec::new(),
            left_out: BTreeSet::new(),
            in_use: BTreeSet::new(),
            left: most,
            warnings: Vec::new(),
        };
        let mut seen = HashSet::new();
        for found in mounts.newest_first()?.iter().filter(|found| wanted.has(&found.id)) {
            if seen.contains(found.key()) {
                continue;
            }
            let Some(mount) = mounts.hold(found)? else {
                held.in_use.insert(found.id.clone());
                continue;
            };
            let size = mount.disk_size()?;
            seen.insert(mount.key().to_owned());
            match held.left.checked_sub(size) {
                Some(rest) => {
                    held.left = rest;
                    held.mounts.push(mount);
                }
                None => {
                    held.warnings.push(too_large(mount.id(), size, held.left));
                    held.left_out.insert(mount.id().to_owned());
                }
            }
        }
        Ok(held)
    }
}

fn too_large(id: &str, size: u64, left: u64) -> String {
    let id = shown(id);
    format!("cache mount {id:?} has {size} bytes and is not exported: mounts-max leaves {left}")
}

/// A mount's id as the Dockerfile has it, without the empty namespace before it.
pub(super) fn shown(id: &str) -> &str {
    id.strip_prefix('/').unwrap_or(id)
}

/// Whether less than half of what the packs hold is still used.
fn is_mostly_waste(index: &MountIndex) -> bool {
    let used: HashSet<u32> = index.mounts.iter().flat_map(|mount| &mount.chunks).copied().collect();
    let places = index.places();
    let used: u64 = used.iter().map(|chunk| u64::from(places[*chunk as usize].stored)).sum();
    used * 2 < index.packs.iter().map(|pack| pack.size).sum()
}

/// A mount while it is not known which numbers its chunks get.
#[derive(Clone)]
struct Archived {
    mount: PackedMount,
    chunks: Vec<Digest>,
}

/// What other machines know of mounts that this one has not had, or cannot read now.
struct Carried {
    mounts: Vec<Archived>,
    /// What they are in.
    packs: HashSet<Digest>,
    /// Ids of those that are too large.
    left_out: BTreeSet<String>,
    warnings: Vec<String>,
}

impl Carried {
    fn of(previous: &[Arc<MountIndex>], wanted: &WantedMounts, held: &Held) -> Self {
        let mut carried = Self {
            mounts: Vec::new(),
            packs: HashSet::new(),
            left_out: BTreeSet::new(),
            warnings: Vec::new(),
        };
        let mut left = held.left;
        let mut seen: HashSet<&str> = held.mounts.iter().map(HeldCacheMount::key).collect();
        for index in previous {
            let places = index.places();
            for mount in &index.mounts {
                let is_wanted = wanted.has(&mount.id) && !held.left_out.contains(&mount.id);
                if is_wanted && seen.insert(&mount.key) {
                    let Some(rest) = left.checked_sub(mount.size) else {
                        carried.warnings.push(too_large(&mount.id, mount.size, left));
                        carried.left_out.insert(mount.id.clone());
                        continue;
                    };
                    left = rest;
                    let places = mount.chunks.iter().map(|chunk| places[*chunk as usize]);
                    carried.packs.extend(places.clone().map(|place| index.packs[place.pack].blob));
                    let chunks = places.map(|place| place.digest).collect();
                    carried.mounts.push(Archived { mount: mount.clone(), chunks });
                }
            }
        }
        carried
    }
}

/// Archives what is held. What is in `packs` stays there, and the rest gets new ones.
fn packed(
    store: MountStore<'_>,
    held: &Held,
    carried: &Carried,
    packs: &[&Pack],
) -> Result<MountIndex, MountExportError> {
    let mut known: HashSet<Digest> =
        packs.iter().flat_map(|pack| &pack.chunks).map(|chunk| chunk.0).collect();
    let mut packer = Packer::new(store.content, store.lease);
    let mut archived = carried.mounts.clone();
    for mount in &held.mounts {
        archived.push(archive(mount, &mut known, &mut packer)?);
    }
    archived.sort_by(|one, other| {
        (&one.mount.id, &one.mount.key).cmp(&(&other.mount.id, &other.mount.key))
    });
    let new = packer.finish()?;
    numbered(archived, packs.iter().copied().chain(&new))
}

/// Archives a mount, and packs the chunks that are not `known`.
fn archive(
    mount: &HeldCacheMount,
    known: &mut HashSet<Digest>,
    packer: &mut Packer<'_>,
) -> Result<Archived, MountExportError> {
    let mut chunks = Vec::new();
    let mut failed = None;
    let chunker = Chunker::new(|chunk: &[u8]| {
        let digest = Digest::of(chunk);
        chunks.push(digest);
        if known.insert(digest)
            && let Err(error) = packer.add(digest, chunk)
        {
            failed = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        Ok(())
    });
    let id = || mount.id().to_owned();
    let mut tar = TarWriter::new(chunker, None);
    let written = write_tree(mount.dir().as_fd(), "", &mut tar)
        .map_err(|source| MountExportError::Files { id: id(), source })
        .and_then(|()| {
            tar.finish().map_err(|source| MountExportError::Archive { id: id(), source })
        })
        .and_then(|chunker| {
            let end =
                |error| MountExportError::Archive { id: id(), source: TarWriteError::Write(error) };
            chunker.finish().map_err(end)
        });
    if let Some(error) = failed {
        return Err(error.into());
    }
    let size = written?;
    let (mode, uid, gid) = mount.root()?;
    let (key, id) = (mount.key().to_owned(), id());
    let mount = PackedMount { key, id, mode, uid, gid, size, chunks: Vec::new() };
    Ok(Archived { mount, chunks })
}

/// Keeps the packs that are used, in their order, and gives chunks their numbers.
fn numbered<'a>(
    archived: Vec<Archived>,
    packs: impl Iterator<Item = &'a Pack>,
) -> Result<MountIndex, MountExportError> {
    let mut wanted: HashSet<Digest> =
        archived.iter().flat_map(|archived| &archived.chunks).copied().collect();
    let mut index = MountIndex::default();
    let mut numbers: HashMap<Digest, u32> = HashMap::new();
    let mut next = 0_u32;
    for pack in packs {
        // What an earlier pack has is not wanted of another one.
        if !pack.chunks.iter().any(|chunk| wanted.contains(&chunk.0)) {
            continue;
        }
        for chunk in &pack.chunks {
            if wanted.remove(&chunk.0) {
                numbers.insert(chunk.0, next);
            }
            next = next.checked_add(1).ok_or(MountExportError::TooMany)?;
        }
        index.packs.push(pack.clone());
    }
    index.mounts = archived
        .into_iter()
        .map(|Archived { mount, chunks }| {
            let chunks = chunks.iter().map(|chunk| numbers[chunk]).collect();
            PackedMount { chunks, ..mount }
        })
        .collect();
    Ok(index)
}
