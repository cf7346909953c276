//! Cutting an archive into chunks, where its content says so.

use std::io::{self, Write};

use fastcdc::v2020::FastCDC;

/// Chunks of a few files each: smaller ones find more that is the same, and need more of the index.
const SMALLEST_CHUNK: usize = 16 << 10;
const AVERAGE_CHUNK: usize = 64 << 10;
/// The most bytes of a chunk.
pub(super) const LARGEST_CHUNK: usize = 512 << 10;
/// What is gathered before it is cut, so that what remains is seldom moved.
const BUFFER: usize = 8 * LARGEST_CHUNK;

/// Cuts what is written to it. Where depends on nothing but the bytes.
#[derive(Debug)]
pub(super) struct Chunker<F> {
    buffer: Vec<u8>,
    each: F,
    length: u64,
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Chunker<F> {
    /// Hands each chunk to `each`.
    pub(super) fn new(each: F) -> Self {
        Self { buffer: Vec::with_capacity(BUFFER), each, length: 0 }
    }

    /// Cuts the rest, and returns how many bytes there were.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.cut(1)?;
        Ok(self.length)
    }

    /// Cuts while there are at least as many bytes: what is cut from less may end too early.
    fn cut(&mut self, least: usize) -> io::Result<()> {
        let mut done = 0;
        while self.buffer.len() - done >= least {
            let rest = &self.buffer[done..];
            let mut cutter = FastCDC::new(rest, SMALLEST_CHUNK, AVERAGE_CHUNK, LARGEST_CHUNK);
            let length = cutter.next().map_or(rest.len(), |chunk| chunk.length);
            (self.each)(&rest[..length])?;
            done += length;
        }
        self.buffer.drain(..done);
        self.length += done as u64;
        Ok(())
    }
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Write for Chunker<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BUFFER - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == BUFFER {
            self.cut(LARGEST_CHUNK)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that do not repeat.
    fn noise(length: usize, mut state: u64) -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn cut(bytes: &[u8], step: usize) -> Vec<Vec<u8>> {
        let mut chunks = Vec::new();
        let mut chunker = Chunker::new(|chunk: &[u8]| {
            chunks.push(chunk.to_vec());
            Ok(())
        });
        bytes.chunks(step).try_for_each(|part| chunker.write_all(part)).unwrap();
        assert_eq!(chunker.finish().unwrap(), bytes.len() as u64);
        chunks
    }

    #[test]
    fn the_bytes_alone_decide() {
        let bytes = noise(12 << 20, 1);
        let chunks = cut(&bytes, bytes.len());
        assert_eq!(chunks.concat(), bytes);
        assert!(chunks.iter().all(|chunk| chunk.len() <= LARGEST_CHUNK));
        assert_eq!(cut(&bytes, 10_007), chunks);
        assert_eq!(cut(b"", 1), Vec::<Vec<u8>>::new());
        // What is put in changes the chunks around it.
        let changed = [&bytes[..5 << 20], b"more", &bytes[5 << 20..]].concat();
        let new = cut(&changed, 1 << 20).into_iter().filter(|chunk| !chunks.contains(chunk));
        assert!(new.count() <= 4);
    }
}
