//! gzip members: each is compressed by itself, several side by side, and they are written in their order.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, sync_channel};

use rbuild_oci::Digest;

use super::CHUNK;
use super::toc::Toc;
use crate::layer::gzip::wait;

/// Members that are at work, however small they are.
const MOST: usize = 1024;

/// What begins a member: this many bytes of what an entry of the table is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub(super) entry: usize,
    pub(super) length: usize,
}

/// Compresses members on rayon's threads.
#[derive(Debug)]
pub(super) struct Members<W> {
    out: W,
    level: u32,
    /// The length of what is written.
    position: u64,
    in_flight: VecDeque<Flight>,
    /// Bytes that are at work.
    load: usize,
    most_load: usize,
}

#[derive(Debug)]
struct Flight {
    receiver: Receiver<io::Result<Member>>,
    chunk: Option<Chunk>,
    length: usize,
}

struct Member {
    bytes: Vec<u8>,
    chunk: Option<Digest>,
}

impl<W: Write> Members<W> {
    pub(super) fn new(out: W, level: u32) -> Self {
        let most_load = (2 * rayon::current_num_threads() + 1) * CHUNK;
        Self { out, level, position: 0, in_flight: VecDeque::new(), load: 0, most_load }
    }

    /// Makes a member of `content`. Where a chunk begins, and what it is, `toc` learns when the member is written.
    pub(super) fn add(
        &mut self,
        content: Vec<u8>,
        chunk: Option<Chunk>,
        toc: &mut Toc,
    ) -> io::Result<()> {
        while self.in_flight.len() >= MOST || self.load > self.most_load {
            self.write_oldest(toc)?;
        }
        let (sender, receiver) = sync_channel(1);
        let (level, length) = (self.level, content.len());
        rayon::spawn_fifo(move || {
            let digest = chunk.map(|Chunk { length, .. }| Digest::of(&content[..length]));
            let member = compressed(&content, level).map(|bytes| Member { bytes, chunk: digest });
            // The receiver is gone when the encoder was dropped: nobody wants the member.
            drop(sender.send(member));
        });
        self.in_flight.push_back(Flight { receiver, chunk, length });
        self.load += length;
        Ok(())
    }

    /// Writes all members, and says how long they are.
    pub(super) fn write_all(&mut self, toc: &mut Toc) -> io::Result<u64> {
        while !self.in_flight.is_empty() {
            self.write_oldest(toc)?;
        }
        Ok(self.position)
    }

    pub(super) fn into_inner(self) -> W {
        self.out
    }

    fn write_oldest(&mut self, toc: &mut Toc) -> io::Result<()> {
        let Some(Flight { receiver, chunk, length }) = self.in_flight.pop_front() else {
            return Ok(());
        };
        let member = wait(&receiver)?;
        if let (Some(chunk), Some(digest)) = (chunk, member.chunk) {
            toc.place(chunk.entry, self.position, digest);
        }
        self.out.write_all(&member.bytes)?;
        self.position += member.bytes.len() as u64;
        self.load -= length;
        Ok(())
    }
}

fn compressed(content: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let level = flate2::Compression::new(level);
    let mut member = flate2::write::GzEncoder::new(Vec::new(), level);
    member.write_all(content)?;
    member.finish()
}
