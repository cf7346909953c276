//! gzip on all cores, with the same bytes every time.
//!
//! The content is cut into blocks of 128 KiB. Each is deflated on its own, with the 32 KiB before it as
//! dictionary, and ends at a byte border (`Sync`); put together they are one ordinary gzip member. Every block
//! gets a fresh compressor, so that nothing hangs on which thread did what before. `gzp`, which does the same,
//! gives other bytes on every run. A block that would not get smaller is stored as it is (RFC 1951, 3.2.4): deflate
//! would spend more time on it than on any other.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use flate2::{Compress, FlushCompress, Status};

use super::incompressible::is_incompressible;

/// Names the bytes that come out: format of the blocks and deflate implementation.
pub(super) const ENCODER: &str = "blocks-128k-stored-zlib-rs-0.6";

const BLOCK: usize = 128 * 1024;
const DICTIONARY: usize = 32 * 1024;
/// The longest stored block of deflate.
const STORED: usize = 65535;
/// Deflate, no time, no name, no statement about speed, system "unknown".
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Compresses what is written to it on rayon's threads. Holds at most a few blocks for each thread.
#[derive(Debug)]
pub(super) struct GzipEncoder<W> {
    out: W,
    level: u32,
    /// The block being filled, with the end of the block before it in front.
    filling: Vec<u8>,
    dictionary: usize,
    in_flight: VecDeque<Receiver<io::Result<Deflated>>>,
    limit: usize,
    checksum: crc32fast::Hasher,
    length: u64,
    header_written: bool,
}

#[derive(Debug)]
struct Deflated {
    bytes: Vec<u8>,
    checksum: crc32fast::Hasher,
}

impl<W: Write> GzipEncoder<W> {
    pub(super) fn new(out: W, level: u32) -> Self {
        Self {
            out,
            level,
            filling: Vec::with_capacity(BLOCK),
            dictionary: 0,
            in_flight: VecDeque::new(),
            limit: 2 * rayon::current_num_threads() + 1,
            checksum: crc32fast::Hasher::new(),
            length: 0,
            header_written: false,
        }
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.dispatch(FlushCompress::Finish)?;
        while !self.in_flight.is_empty() {
            self.write_oldest()?;
        }
        self.out.write_all(&self.checksum.finalize().to_le_bytes())?;
        // The format keeps the length modulo 2^32.
        self.out.write_all(&(self.length as u32).to_le_bytes())?;
        Ok(self.out)
    }

    /// Hands the filled block to a thread.
    fn dispatch(&mut self, flush: FlushCompress) -> io::Result<()> {
        while self.in_flight.len() >= self.limit {
            self.write_oldest()?;
        }
        let block: Arc<[u8]> = Arc::from(self.filling.as_slice());
        let (dictionary, level) = (self.dictionary, self.level);
        let keep = self.filling.len().saturating_sub(DICTIONARY);
        self.filling.drain(..keep);
        self.dictionary = self.filling.len();
        let (sender, receiver) = sync_channel(1);
        rayon::spawn_fifo(move || {
            let (dictionary, content) = block.split_at(dictionary);
            // The receiver is gone when the encoder was dropped: nobody wants the block.
            drop(sender.send(deflate(dictionary, content, level, flush)));
        });
        self.in_flight.push_back(receiver);
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(receiver) = self.in_flight.pop_front() else { return Ok(()) };
        let deflated = wait(&receiver)?;
        if !self.header_written {
            self.out.write_all(&HEADER)?;
            self.header_written = true;
        }
        self.checksum.combine(&deflated.checksum);
        self.out.write_all(&deflated.bytes)
    }
}

impl<W: Write> Write for GzipEncoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.dictionary + BLOCK - self.filling.len();
        let taken = bytes.len().min(room);
        // A full block is sent off only when more follows, because the last one has to say that it is the last.
        if taken == 0 && !bytes.is_empty() {
            self.dispatch(FlushCompress::Sync)?;
            return self.write(bytes);
        }
        self.filling.extend_from_slice(&bytes[..taken]);
        self.length += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for a block or another result. On a thread of the pool it does the pool's work meanwhile, or a pool of one thread would
/// wait for itself.
pub(super) fn wait<T>(receiver: &Receiver<io::Result<T>>) -> io::Result<T> {
    let lost = || io::Error::other("a compression thread panicked");
    loop {
        match receiver.try_recv() {
            Ok(done) => return done,
            Err(TryRecvError::Disconnected) => return Err(lost()),
            Err(TryRecvError::Empty) => {}
        }
        if rayon::yield_now() != Some(rayon::Yield::Executed) {
            return receiver.recv().unwrap_or_else(|_| Err(lost()));
        }
    }
}

fn deflate(
    dictionary: &[u8],
    content: &[u8],
    level: u32,
    flush: FlushCompress,
) -> io::Result<Deflated> {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(content);
    if level > 0 && is_incompressible(content) {
        return Ok(Deflated { bytes: stored(content, flush == FlushCompress::Finish), checksum });
    }
    let mut compress = Compress::new(flate2::Compression::new(level), false);
    if !dictionary.is_empty() {
        compress.set_dictionary(dictionary)?;
    }
    let mut bytes = Vec::with_capacity(content.len() / 2 + 1024);
    loop {
        let consumed = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        if bytes.spare_capacity_mut().len() < 64 {
            bytes.reserve(BLOCK / 4);
        }
        let status = compress.compress_vec(&content[consumed..], &mut bytes, flush)?;
        let all_in = compress.total_in() == content.len() as u64;
        // A flush is complete when the compressor left room in the output.
        let done = match flush {
            FlushCompress::Finish => status == Status::StreamEnd,
            _ => all_in && !bytes.spare_capacity_mut().is_empty(),
        };
        if done {
            return Ok(Deflated { bytes, checksum });
        }
    }
}

/// The content in stored blocks, which begin and end at byte borders.
fn stored(content: &[u8], is_last: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 5 * (content.len() / STORED + 1));
    let mut parts = content.chunks(STORED).peekable();
    while let Some(part) = parts.next() {
        bytes.push(u8::from(is_last && parts.peek().is_none()));
        // At most `STORED`.
        let length = part.len() as u16;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&(!length).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::layer::incompressible::tests::random;

    /// Words from a small vocabulary, so that there is something to compress, and bytes that hardly compress.
    fn content(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        let mut bytes = Vec::with_capacity(length + 16);
        while bytes.len() < length {
            if random() % 8 == 0 {
                bytes.extend_from_slice(&random().to_le_bytes());
            } else {
                bytes.extend_from_slice(format!("word{} ", random() % 500).as_bytes());
            }
        }
        bytes.truncate(length);
        bytes
    }

    fn encode(content: &[u8], level: u32, chunk: usize) -> Vec<u8> {
        let mut encoder = GzipEncoder::new(Vec::new(), level);
        for chunk in content.chunks(chunk) {
            encoder.write_all(chunk).unwrap();
        }
        encoder.finish().unwrap()
    }

    fn encode_with(threads: usize, content: &[u8], chunk: usize) -> Vec<u8> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| encode(content, 6, chunk))
    }

    #[test]
    fn bytes_do_not_depend_on_threads_or_writes() {
        let content = content(3_000_000);
        let one = encode_with(1, &content, 1_000_000);
        assert!(one == encode_with(2, &content, 1000));
        assert!(one == encode_with(4, &content, 333_333));
        assert!(one == encode(&content, 6, 4096));
    }

    #[test]
    fn a_reader_of_one_member_gets_everything() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 5 * BLOCK + 17] {
            for level in [0, 1, 6, 9] {
                let content = content(length);
                let mut decoded = Vec::new();
                flate2::read::GzDecoder::new(encode(&content, level, 70_000).as_slice())
                    .read_to_end(&mut decoded)
                    .unwrap();
                assert!(decoded == content, "{length} bytes at level {level}");
            }
        }
    }

    #[test]
    fn incompressible_blocks_are_stored() {
        for length in [BLOCK, 2 * BLOCK, 3 * BLOCK + STORED, 3 * BLOCK + 20_000] {
            let content = random(length);
            let encoded = encode(&content, 6, BLOCK);
            let mut decoded = Vec::new();
            flate2::read::GzDecoder::new(encoded.as_slice()).read_to_end(&mut decoded).unwrap();
            assert!(decoded == content, "{length}");
            let most = HEADER.len() + 8 + 5 * 3 * length.div_ceil(BLOCK);
            assert!(encoded.len() <= length + most, "{length}");
        }
    }

    /// Too short to be looked at, so deflate makes it longer.
    #[test]
    fn short_random_content_outgrows_its_buffer() {
        let content = random(10_000);
        let encoded = encode(&content, 6, BLOCK);
        assert!(encoded.len() > content.len());
        let mut decoded = Vec::new();
        flate2::read::GzDecoder::new(encoded.as_slice()).read_to_end(&mut decoded).unwrap();
        assert!(decoded == content);
    }

    #[test]
    fn stored_and_deflated_blocks_follow_one_another() {
        let content = [content(BLOCK), random(BLOCK), content(BLOCK), random(BLOCK / 2)].concat();
        let mut decoded = Vec::new();
        flate2::read::GzDecoder::new(encode(&content, 6, 4096).as_slice())
            .read_to_end(&mut decoded)
            .unwrap();
        assert!(decoded == content);
    }

    /// Fails when zlib-rs or the cutting of the blocks starts to give other bytes: then [`ENCODER`] has to
    /// change with the digest here.
    #[test]
    fn golden_digest() {
        let digest = |content: &[u8]| rbuild_oci::Digest::of(&encode(content, 6, 50_000));
        assert_eq!(
            digest(&content(1_000_000)).hex(),
            "11b1fbd18d2819ca232423017b2927cd8a697e133c7a473cac0916149fff189f"
        );
        assert_eq!(
            digest(&[content(300_000), random(300_000)].concat()).hex(),
            "3d09764e452f89a9692982d97e629ec35c4e6a6bf7c98015ac304504061b4fc3"
        );
    }
}
