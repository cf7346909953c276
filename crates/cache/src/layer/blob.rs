//! From an archive to the blob that an image names and back, hashed on the way.

use std::io::{self, Read, Write};

use rbuild_oci::{DiffId, Hasher};

use super::background_hasher::BackgroundHasher;
use super::compression::{Compression, CompressionError, Decoder, Encoder};

/// Takes an archive's bytes, hashes them, and writes the blob.
#[derive(Debug)]
pub struct LayerBlobWriter<W: Write> {
    archive: BackgroundHasher,
    encoder: Encoder<W>,
}

impl<W: Write> LayerBlobWriter<W> {
    /// Starts a blob in `out`.
    pub fn new(out: W, compression: Compression) -> io::Result<Self> {
        let encoder = Encoder::new(compression, out)?;
        Ok(Self { archive: BackgroundHasher::default(), encoder })
    }

    /// Writes what is left and returns the digest of the archive, and `out` with the whole blob.
    pub fn finish(self) -> io::Result<(DiffId, W)> {
        let out = self.encoder.finish()?;
        Ok((DiffId(self.archive.finish()?), out))
    }
}

impl<W: Write> Write for LayerBlobWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.encoder.write(bytes)?;
        self.archive.update(&bytes[..taken])?;
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

#[cfg(test)]
mod tests {
    use rbuild_oci::Digest;

    use super::*;

    #[test]
    fn the_digest_is_that_of_the_archive() {
        let content = vec![b'x'; 300_000];
        for compression in [Compression::Uncompressed, Compression::GZIP, Compression::ZSTD] {
            let mut writer = LayerBlobWriter::new(Vec::new(), compression).unwrap();
            writer.write_all(&content).unwrap();
            let (diff_id, bytes) = writer.finish().unwrap();
            assert_eq!(diff_id, DiffId(Digest::of(&content)));
            let mut reader = LayerBlobReader::new(bytes.as_slice()).unwrap();
            io::copy(&mut reader, &mut io::sink()).unwrap();
            assert_eq!(reader.diff_id(), diff_id);
        }
    }
}
