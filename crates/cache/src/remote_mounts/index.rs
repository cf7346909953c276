//! The index of packs and mounts.

use std::collections::HashSet;

use rbuild_oci::{Descriptor, Digest};
use serde::{Deserialize, Serialize};

use super::chunks::LARGEST_CHUNK;

/// The media type of a [`MountIndex`].
pub(crate) const MOUNT_INDEX_TYPE: &str = "application/vnd.rbuild.cachemounts.v1+json";
/// The media type of a pack.
pub(super) const PACK_TYPE: &str = "application/vnd.rbuild.cachemounts.pack.v1+zstd";
/// What an index may have; one of a terabyte has less.
pub(super) const LARGEST_INDEX: u64 = 64 << 20;
const LARGEST_PACK: u64 = 64 << 20;
const MOST_CHUNKS_OF_MOUNTS: usize = 16_000_000;

/// Which chunk is where, and of which chunks mounts are made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountIndex {
    /// The packs. Their chunks are numbered through, from 0.
    pub(super) packs: Vec<Pack>,
    /// The mounts, by id.
    pub(super) mounts: Vec<PackedMount>,
}

/// A blob of chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pack {
    pub(super) blob: Digest,
    pub(super) size: u64,
    /// The chunks in the order in which they are in the blob, one behind the other.
    pub(super) chunks: Vec<PackedChunk>,
}

/// A chunk: its digest, its bytes, and how many its frame has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PackedChunk(pub(super) Digest, pub(super) u32, pub(super) u32);

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PackedMount {
    /// What finds it, with what it began with: the name that its directory has in a store.
    pub(super) key: String,
    /// What the build calls it.
    pub(super) id: String,
    /// Mode, owner and group of its root.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The bytes of its archive.
    pub(super) size: u64,
    /// Numbers of the chunks that are its archive.
    pub(super) chunks: Vec<u32>,
}

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkPlace {
    pub(super) digest: Digest,
    /// Position of its pack.
    pub(super) pack: usize,
    pub(super) offset: u64,
    pub(super) stored: u32,
    pub(super) length: u32,
}

/// An index that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MountIndexError {
    /// Not JSON of the right shape.
    #[error("the index of its cache mounts cannot be understood")]
    Json(#[from] serde_json::Error),
    /// Sizes that no pack has.
    #[error("pack `{0}` does not have the sizes of a pack")]
    Pack(Digest),
    /// A chunk that is not there.
    #[error("cache mount {id:?} is made of chunk {chunk}, which is not in the index")]
    NoSuchChunk {
        /// Whose.
        id: String,
        /// Which.
        chunk: u32,
    },
    /// A mount whose parts are not its whole.
    #[error("cache mount {id:?} has {size} bytes, its chunks another number")]
    Size {
        /// Whose.
        id: String,
        /// What the index says.
        size: u64,
    },
    /// More than any mounts have.
    #[error("its cache mounts have more than {MOST_CHUNKS_OF_MOUNTS} chunks")]
    TooMany,
}

impl MountIndex {
    /// Reads an index and checks that it contradicts itself nowhere.
    pub fn parse(bytes: &[u8]) -> Result<Self, MountIndexError> {
        let index: Self = serde_json::from_slice(bytes)?;
        for pack in &index.packs {
            let stored: u64 = pack.chunks.iter().map(|chunk| u64::from(chunk.2)).sum();
            let fits = |chunk: &PackedChunk| (1..=LARGEST_CHUNK).contains(&(chunk.1 as usize));
            if stored != pack.size || stored > LARGEST_PACK || !pack.chunks.iter().all(fits) {
                return Err(MountIndexError::Pack(pack.blob));
            }
        }
        if index.mounts.iter().map(|mount| mount.chunks.len()).sum::<usize>()
            > MOST_CHUNKS_OF_MOUNTS
        {
            return Err(MountIndexError::TooMany);
        }
        let lengths: Vec<u64> =
            index.packs.iter().flat_map(|pack| &pack.chunks).map(|chunk| chunk.1.into()).collect();
        for mount in &index.mounts {
            let mut left = mount.size;
            let wrong = || MountIndexError::Size { id: mount.id.clone(), size: mount.size };
            for chunk in &mount.chunks {
                let missing =
                    || MountIndexError::NoSuchChunk { id: mount.id.clone(), chunk: *chunk };
                let length = lengths.get(*chunk as usize).ok_or_else(missing)?;
                left = left.checked_sub(*length).ok_or_else(wrong)?;
            }
            if left > 0 {
                return Err(wrong());
            }
        }
        Ok(index)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain documents serialise")
    }

    /// Whether it has something under a key.
    pub(super) fn mount(&self, key: &str) -> Option<&PackedMount> {
        self.mounts.iter().find(|mount| mount.key == key)
    }

    /// Where each chunk is, by its number.
    pub(super) fn places(&self) -> Vec<ChunkPlace> {
        let mut places = Vec::new();
        for (position, pack) in self.packs.iter().enumerate() {
            let mut offset = 0;
            for PackedChunk(digest, length, stored) in pack.chunks.iter().copied() {
                places.push(ChunkPlace { digest, pack: position, offset, stored, length });
                offset += u64::from(stored);
            }
        }
        places
    }

    /// The packs that a mount needs, each once.
    pub(super) fn packs_of(&self, mount: &PackedMount, places: &[ChunkPlace]) -> Vec<Descriptor> {
        let mut seen = HashSet::new();
        let packs = mount.chunks.iter().map(|chunk| places[*chunk as usize].pack);
        packs.filter(|pack| seen.insert(*pack)).map(|pack| self.packs[pack].descriptor()).collect()
    }
}

impl Pack {
    pub(super) fn descriptor(&self) -> Descriptor {
        Descriptor::new(PACK_TYPE.into(), self.blob, self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> MountIndex {
        let chunk = |name: &str, length| PackedChunk(Digest::of(name.as_bytes()), length, 10);
        let pack = |name: &str, chunks: Vec<PackedChunk>| Pack {
            blob: Digest::of(name.as_bytes()),
            size: 10 * chunks.len() as u64,
            chunks,
        };
        let packs = vec![
            pack("one", vec![chunk("a", 100), chunk("b", 200)]),
            pack("two", vec![chunk("c", 50)]),
        ];
        let mount = PackedMount {
            key: "k".to_owned(),
            id: "/id".to_owned(),
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 300,
            chunks: vec![1, 2, 2],
        };
        MountIndex { packs, mounts: vec![mount] }
    }

    #[test]
    fn what_is_written_is_read() {
        let index = index();
        assert_eq!(MountIndex::parse(&index.to_bytes()).unwrap(), index);
        let places = index.places();
        assert_eq!((places[1].pack, places[1].offset), (0, 10));
        assert_eq!((places[2].pack, places[2].offset, places[2].length), (1, 0, 50));
        let packs = index.packs_of(index.mount("k").unwrap(), &places);
        assert_eq!(packs.len(), 2);
        assert!(index.mount("other").is_none());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let check = |change: &dyn Fn(&mut MountIndex), reason: &str| {
            let mut index = index();
            change(&mut index);
            let error = MountIndex::parse(&index.to_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        };
        check(&|index| index.packs[0].size = 21, "sizes of a pack");
        check(&|index| index.packs[0].chunks[0].1 = u32::MAX, "sizes of a pack");
        check(&|index| index.packs[0].chunks[0].1 = 0, "sizes of a pack");
        check(&|index| index.mounts[0].chunks[0] = 3, "chunk 3, which is not");
        check(&|index| index.mounts[0].size = 301, "another number");
        check(&|index| index.mounts[0].size = 299, "another number");
        assert!(MountIndex::parse(b"[").is_err());
    }
}
