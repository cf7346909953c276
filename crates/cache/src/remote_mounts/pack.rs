//! Packs: chunks into blobs, and back.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::FileExt as _;

use rayon::prelude::*;
use rbuild_oci::Digest;

use super::index::{ChunkPlace, MountIndex, Pack, PackedChunk, PackedMount};
use crate::{Content, ContentError, Lease, LeaseError};

/// Bytes of chunks that one pack gets: what a changed file costs to store is the same for all sizes, what it costs a registry is not.
const FULL: usize = 8 << 20;
const LEVEL: i32 = 3;

/// A pack cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A chunk.
    #[error("cannot compress a chunk")]
    Compress(#[source] io::Error),
    /// The blob.
    #[error("cannot store a pack")]
    Store(#[from] ContentError),
    /// Its bytes.
    #[error("cannot write a pack")]
    Write(#[source] io::Error),
    /// The claim on it.
    #[error("cannot keep a pack from being collected")]
    Pin(#[from] LeaseError),
}

/// Makes packs of chunks that are in none yet.
#[derive(Debug)]
pub(super) struct Packer<'a> {
    content: &'a Content,
    lease: &'a Lease,
    waiting: Vec<(Digest, Vec<u8>)>,
    waiting_bytes: usize,
    packs: Vec<Pack>,
}

impl<'a> Packer<'a> {
    pub(super) fn new(content: &'a Content, lease: &'a Lease) -> Self {
        Self { content, lease, waiting: Vec::new(), waiting_bytes: 0, packs: Vec::new() }
    }

    pub(super) fn add(&mut self, digest: Digest, chunk: &[u8]) -> Result<(), PackError> {
        self.waiting.push((digest, chunk.to_vec()));
        self.waiting_bytes += chunk.len();
        if self.waiting_bytes >= FULL { self.pack() } else { Ok(()) }
    }

    /// All packs, whose chunks are in the order in which they came.
    pub(super) fn finish(mut self) -> Result<Vec<Pack>, PackError> {
        if !self.waiting.is_empty() {
            self.pack()?;
        }
        Ok(self.packs)
    }

    fn pack(&mut self) -> Result<(), PackError> {
        let chunks = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let compress = |(_, chunk): &(Digest, Vec<u8>)| zstd::bulk::compress(chunk, LEVEL);
        let frames: Vec<Vec<u8>> = chunks
            .par_iter()
            .map(compress)
            .collect::<Result<_, _>>()
            .map_err(PackError::Compress)?;
        let bytes = frames.concat();
        let blob = Digest::of(&bytes);
        self.lease.pin_blobs(&[blob])?;
        if !self.content.contains(&blob, bytes.len() as u64)? {
            let mut writer = self.content.begin()?;
            writer.write_all(&bytes).map_err(PackError::Write)?;
            writer.commit(Some((blob, bytes.len() as u64)))?;
        }
        let entry = |((digest, chunk), frame): (&(Digest, Vec<u8>), &Vec<u8>)| {
            PackedChunk(*digest, chunk.len() as u32, frame.len() as u32)
        };
        let chunks = chunks.iter().zip(&frames).map(entry).collect();
        self.packs.push(Pack { blob, size: bytes.len() as u64, chunks });
        Ok(())
    }
}

/// Why a chunk cannot be had.
#[derive(Debug, thiserror::Error)]
enum ChunkError {
    #[error("cannot decompress chunk `{digest}`")]
    Frame { digest: Digest, source: io::Error },
    #[error("chunk `{0}` is another one")]
    Other(Digest),
}

/// The archive of a mount, whose packs are in the store. Each chunk is verified before it is handed out.
#[derive(Debug)]
pub(super) struct ArchiveReader<'a> {
    content: Content,
    index: &'a MountIndex,
    places: &'a [ChunkPlace],
    chunks: std::slice::Iter<'a, u32>,
    open: HashMap<usize, File>,
    chunk: io::Cursor<Vec<u8>>,
}

/// Packs that are open at the same time.
const MOST_OPEN: usize = 64;

impl<'a> ArchiveReader<'a> {
    /// Reads `mount` of `index`, whose chunks are at `places`.
    pub(super) fn new(
        content: Content,
        index: &'a MountIndex,
        places: &'a [ChunkPlace],
        mount: &'a PackedMount,
    ) -> Self {
        let (open, chunk) = (HashMap::new(), io::Cursor::new(Vec::new()));
        Self { content, index, places, chunks: mount.chunks.iter(), open, chunk }
    }

    fn read_chunk(&mut self, place: ChunkPlace) -> io::Result<Vec<u8>> {
        let mut frame = vec![0; place.stored as usize];
        self.pack(place.pack)?.read_exact_at(&mut frame, place.offset)?;
        let digest = place.digest;
        let chunk = zstd::bulk::decompress(&frame, place.length as usize)
            .map_err(|source| io::Error::other(ChunkError::Frame { digest, source }))?;
        if chunk.len() != place.length as usize || Digest::of(&chunk) != digest {
            return Err(io::Error::other(ChunkError::Other(digest)));
        }
        Ok(chunk)
    }

    fn pack(&mut self, position: usize) -> io::Result<&File> {
        if self.open.len() >= MOST_OPEN && !self.open.contains_key(&position) {
            self.open.clear();
        }
        match self.open.entry(position) {
            std::collections::hash_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let pack = &self.index.packs[position];
                let file = self.content.open(&pack.blob, Some(pack.size));
                Ok(vacant.insert(file.map_err(io::Error::other)?))
            }
        }
    }
}

impl Read for ArchiveReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.chunk.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(number) = self.chunks.next() else { return Ok(0) };
            self.chunk = io::Cursor::new(self.read_chunk(self.places[*number as usize])?);
        }
    }
}
