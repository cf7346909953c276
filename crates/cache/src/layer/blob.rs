//! From an archive to the blob that an image names and back, hashed on the way.

use std::io::{self, Read, Write};

use rbuild_oci::{DiffId, Digest, Hasher};

use super::compression::{Compression, CompressionError, Decoder, Encoder};

/// What is known of a layer blob once it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// Digest of the archive.
    pub diff_id: DiffId,
    /// Length of the archive.
    pub uncompressed_size: u64,
    /// Digest of the blob.
    pub digest: Digest,
    /// Length of the blob.
    pub size: u64,
}

/// Takes an archive's bytes, writes the blob, and hashes both.
#[derive(Debug)]
pub struct LayerBlobWriter<W: Write> {
    archive: Hasher,
    encoder: Encoder<Hashing<W>>,
}

impl<W: Write> LayerBlobWriter<W> {
    /// Starts a blob in `out`.
    pub fn new(out: W, compression: Compression) -> io::Result<Self> {
        let encoder = Encoder::new(compression, Hashing { out, hasher: Hasher::default() })?;
        Ok(Self { archive: Hasher::default(), encoder })
    }

    /// Writes what is left and returns `out` with what it now holds.
    pub fn finish(self) -> io::Result<(LayerBlob, W)> {
        let Hashing { out, hasher } = self.encoder.finish()?;
        let (uncompressed_size, size) = (self.archive.length(), hasher.length());
        let blob = LayerBlob {
            diff_id: DiffId(self.archive.finish()),
            uncompressed_size,
            digest: hasher.finish(),
            size,
        };
        Ok((blob, out))
    }
}

impl<W: Write> Write for LayerBlobWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.encoder.write(bytes)?;
        self.archive.update(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

/// Reads the archive in a blob, whatever layers may be compressed with, and hashes it.
#[derive(Debug)]
pub struct LayerBlobReader<R: Read> {
    decoder: Decoder<R>,
    archive: Hasher,
}

impl<R: Read> LayerBlobReader<R> {
    /// Looks at the first bytes of `blob`. Who wants the blob's own digest verified gives a reader that does.
    pub fn new(blob: R) -> Result<Self, CompressionError> {
        Ok(Self { decoder: Decoder::for_layer(blob)?, archive: Hasher::default() })
    }

    /// The digest of what was read: of the whole archive when it was read to its end, as
    /// [`apply`](super::apply) does.
    pub fn diff_id(self) -> DiffId {
        DiffId(self.archive.finish())
    }
}

impl<R: Read> Read for LayerBlobReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.decoder.read(buffer)?;
        self.archive.update(&buffer[..length]);
        Ok(length)
    }
}

/// Passes bytes on and hashes them.
#[derive(Debug)]
struct Hashing<W> {
    out: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.out.write(bytes)?;
        self.hasher.update(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_digests_are_those_of_the_bytes() {
        let content = vec![b'x'; 300_000];
        for compression in [Compression::Uncompressed, Compression::GZIP, Compression::ZSTD] {
            let mut writer = LayerBlobWriter::new(Vec::new(), compression).unwrap();
            writer.write_all(&content).unwrap();
            let (blob, bytes) = writer.finish().unwrap();
            assert_eq!(blob.diff_id, DiffId(Digest::of(&content)));
            assert_eq!(blob.uncompressed_size, 300_000);
            assert_eq!(blob.digest, Digest::of(&bytes));
            assert_eq!(blob.size, bytes.len() as u64);
            let mut reader = LayerBlobReader::new(bytes.as_slice()).unwrap();
            io::copy(&mut reader, &mut io::sink()).unwrap();
            assert_eq!(reader.diff_id(), blob.diff_id);
        }
    }
}
