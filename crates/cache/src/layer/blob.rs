//! From an archive to the blob that an image names and back, hashed on the way.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use rbuild_oci::{DiffId, Hasher, MediaType};

use super::background_hasher::BackgroundHasher;
use super::compression::{Compression, CompressionError, Decoder, Encoded, Encoder};
use super::read_ahead::read_ahead;

/// Takes an archive's bytes, hashes them, and writes the blob.
#[derive(Debug)]
pub struct LayerBlobWriter<W: Write> {
    /// `None` where the encoder does it.
    archive: Option<BackgroundHasher>,
    encoder: Encoder<W>,
}

impl<W: Write> LayerBlobWriter<W> {
    /// Starts a blob in `out`.
    pub fn new(out: W, compression: Compression) -> io::Result<Self> {
        let encoder = Encoder::new(compression, out)?;
        let archive = (!encoder.is_extending()).then(BackgroundHasher::default);
        Ok(Self { archive, encoder })
    }

    /// As [`LayerBlobWriter::new`], for an archive that was in a blob before: what that blob's format has added is left out
    /// where this one adds the same.
    pub fn anew(out: W, compression: Compression) -> io::Result<Self> {
        let mut writer = Self::new(out, compression)?;
        writer.encoder.leave_out_table();
        Ok(writer)
    }

    /// Writes what is left and returns what was written.
    pub fn finish(self) -> io::Result<FinishedBlob<W>> {
        let Encoded { out, extended } = self.encoder.finish()?;
        let (archive, annotations) = match (extended, self.archive) {
            (Some(extended), _) => (extended.archive, extended.annotations),
            (None, hasher) => (hasher.unwrap_or_default().finish()?, BTreeMap::new()),
        };
        Ok(FinishedBlob { diff_id: DiffId(archive), annotations, out })
    }
}

/// A blob that is written.
#[derive(Debug)]
pub struct FinishedBlob<W> {
    /// The digest of the archive in the blob. eStargz adds to what was written.
    pub diff_id: DiffId,
    /// What the layer's descriptor has to say besides.
    pub annotations: BTreeMap<String, String>,
    /// Where the whole blob is.
    pub out: W,
}

impl<W: Write> Write for LayerBlobWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.encoder.write(bytes)?;
        if let Some(archive) = &mut self.archive {
            archive.update(&bytes[..taken])?;
        }
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

    /// Calls `with` with a reader that decompresses some pieces ahead, in a thread of its own. The archive is hashed where it is used: for
    /// whoever unpacks it, the thread that decompresses is the slower one.
    pub(crate) fn read_ahead<T>(&mut self, with: impl FnOnce(&mut dyn Read) -> T) -> T
    where
        R: Send,
    {
        let Self { decoder, archive } = self;
        read_ahead(decoder, |ahead| with(&mut Hashed { read: ahead, hasher: archive }))
    }

    /// Whether the blob is compressed as a media type says.
    pub(crate) fn fits(&self, media_type: &MediaType) -> bool {
        self.decoder.fits(media_type)
    }

    /// The digest of what was read: of the whole archive when it was read to its end, as
    /// [`apply`](fn@super::apply) does.
    pub fn diff_id(self) -> DiffId {
        DiffId(self.archive.finish())
    }
}

impl<R: Read> Read for LayerBlobReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Hashed { read: &mut self.decoder, hasher: &mut self.archive }.read(buffer)
    }
}

/// Hashes what is read.
struct Hashed<'a, R: ?Sized> {
    read: &'a mut R,
    hasher: &'a mut Hasher,
}

impl<R: Read + ?Sized> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.read.read(buffer)?;
        self.hasher.update(&buffer[..length]);
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
            let FinishedBlob { diff_id, out: bytes, .. } = writer.finish().unwrap();
            assert_eq!(diff_id, DiffId(Digest::of(&content)));
            let mut reader = LayerBlobReader::new(bytes.as_slice()).unwrap();
            io::copy(&mut reader, &mut io::sink()).unwrap();
            assert_eq!(reader.diff_id(), diff_id);
            let mut reader = LayerBlobReader::new(bytes.as_slice()).unwrap();
            reader.read_ahead(|ahead| io::copy(ahead, &mut io::sink())).unwrap();
            assert_eq!(reader.diff_id(), diff_id);
        }
    }
}
