//! Compressed layer blobs: telling how one is compressed, and making one.

use std::io::{self, BufReader, Chain, Cursor, Read, Write};

use flate2::read::MultiGzDecoder;
use thiserror::Error;

use super::gzip::GzipEncoder;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const LONGEST_MAGIC: u64 = 6;
const READ_BUFFER: usize = 128 * 1024;

/// How a layer's archive becomes its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    Uncompressed,
    /// gzip (RFC 1952), one member.
    Gzip {
        /// 0 to 9.
        level: u32,
    },
    /// Zstandard (RFC 8878), one frame with a checksum.
    Zstd {
        /// 1 to 22.
        level: i32,
    },
}

impl Compression {
    /// gzip as every tool writes it.
    pub const GZIP: Self = Self::Gzip { level: 6 };
    /// Zstandard as its authors tuned it.
    pub const ZSTD: Self = Self::Zstd { level: 3 };

    /// Names everything that decides the compressed bytes of given content, so that a blob can be told from one
    /// that another encoder would make. Changes when the bytes do; `gzip.rs` has a test that notices.
    pub fn encoder_id(self) -> String {
        match self {
            Self::Uncompressed => "none".to_owned(),
            Self::Gzip { level } => format!("gzip-{level}/{}", super::gzip::ENCODER),
            Self::Zstd { level } => {
                format!("zstd-{level}/{}-mt", zstd::zstd_safe::version_string())
            }
        }
    }
}

/// Compresses what is written to it. The bytes do not depend on how the writes are cut or on the number of
/// threads.
#[derive(Debug)]
pub(crate) struct Encoder<W: Write>(Kind<W>);

enum Kind<W: Write> {
    Uncompressed(W),
    Gzip(GzipEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> std::fmt::Debug for Kind<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Uncompressed(_) => "Uncompressed",
            Self::Gzip(_) => "Gzip",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl<W: Write> Encoder<W> {
    pub(crate) fn new(compression: Compression, out: W) -> io::Result<Self> {
        Ok(Self(match compression {
            Compression::Uncompressed => Kind::Uncompressed(out),
            Compression::Gzip { level } => Kind::Gzip(GzipEncoder::new(out, level)),
            Compression::Zstd { level } => {
                let mut encoder = zstd::Encoder::new(out, level)?;
                // Never zero: the single-threaded encoder cuts its blocks elsewhere and gives other bytes.
                encoder
                    .multithread(u32::try_from(rayon::current_num_threads()).unwrap_or(1).max(1))?;
                encoder.include_checksum(true)?;
                Kind::Zstd(encoder)
            }
        }))
    }

    pub(crate) fn finish(self) -> io::Result<W> {
        match self.0 {
            Kind::Uncompressed(out) => Ok(out),
            Kind::Gzip(encoder) => encoder.finish(),
            Kind::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Uncompressed(out) => out.write(bytes),
            Kind::Gzip(encoder) => encoder.write(bytes),
            Kind::Zstd(encoder) => encoder.write(bytes),
        }
    }

    /// Does nothing: a flush in the middle would change the compressed bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a blob's content, whatever it is compressed with.
pub struct Decoder<R: Read>(Source<R>);

type Rewound<R> = Chain<Cursor<Vec<u8>>, R>;

enum Source<R: Read> {
    Uncompressed(Rewound<R>),
    /// Not `GzDecoder`, which stops after the first member: pigz, bgzip and eStargz write many.
    Gzip(Box<MultiGzDecoder<BufReader<Rewound<R>>>>),
    Zstd(zstd::Decoder<'static, BufReader<Rewound<R>>>),
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Decoder").field(&self.compression_name()).finish()
    }
}

impl<R: Read> Decoder<R> {
    /// Looks at the first bytes of `blob`. What is neither gzip nor Zstandard is taken for an uncompressed
    /// archive.
    pub fn new(mut blob: R) -> Result<Self, CompressionError> {
        let mut magic = Vec::new();
        (&mut blob).take(LONGEST_MAGIC).read_to_end(&mut magic).map_err(CompressionError::Read)?;
        let unsupported = match magic.as_slice() {
            // Six bytes of it, because an archive may start with a file called `BZh`.
            [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A'] => Some("bzip2"),
            XZ => Some("xz"),
            _ => None,
        };
        if let Some(name) = unsupported {
            return Err(CompressionError::Unsupported { name });
        }
        let (is_gzip, is_zstd) = (magic.starts_with(GZIP), magic.starts_with(ZSTD));
        let blob = Cursor::new(magic).chain(blob);
        Ok(Self(if is_gzip {
            Source::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(READ_BUFFER, blob))))
        } else if is_zstd {
            let blob = BufReader::with_capacity(READ_BUFFER, blob);
            Source::Zstd(zstd::Decoder::with_buffer(blob).map_err(CompressionError::Read)?)
        } else {
            Source::Uncompressed(blob)
        }))
    }

    /// What was found: `none`, `gzip` or `zstd`.
    pub fn compression_name(&self) -> &'static str {
        match self.0 {
            Source::Uncompressed(_) => "none",
            Source::Gzip(_) => "gzip",
            Source::Zstd(_) => "zstd",
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Source::Uncompressed(blob) => blob.read(buffer),
            Source::Gzip(blob) => blob.read(buffer),
            Source::Zstd(blob) => blob.read(buffer),
        }
    }
}

/// A blob whose content cannot be read.
#[derive(Debug, Error)]
pub enum CompressionError {
    /// The blob itself could not be read.
    #[error("cannot read the start of the layer blob")]
    Read(#[source] io::Error),
    /// A format that layers may not have.
    #[error(
        "layer blob is compressed with {name}; the OCI image specification knows gzip and zstd"
    )]
    Unsupported {
        /// The format.
        name: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * i / 7 + i / 1000) as u8).collect()
    }

    fn encode(compression: Compression, content: &[u8], chunk: usize) -> Vec<u8> {
        let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
        for chunk in content.chunks(chunk) {
            encoder.write_all(chunk).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap()
    }

    fn decode(blob: &[u8]) -> (Vec<u8>, &'static str) {
        let mut decoder = Decoder::new(blob).unwrap();
        let mut decoded = Vec::new();
        decoder.read_to_end(&mut decoded).unwrap();
        (decoded, decoder.compression_name())
    }

    #[test]
    fn what_is_encoded_is_detected_and_decoded() {
        for (compression, name) in [
            (Compression::Uncompressed, "none"),
            (Compression::GZIP, "gzip"),
            (Compression::ZSTD, "zstd"),
        ] {
            for length in [0, 1, 5, 700_000] {
                let content = content(length);
                let (decoded, found) = decode(&encode(compression, &content, 10_000));
                assert!(decoded == content, "{compression:?} {length}");
                assert_eq!(found, name);
            }
        }
    }

    #[test]
    fn many_members_and_frames_are_one_content() {
        for compression in [Compression::GZIP, Compression::ZSTD] {
            let two = [encode(compression, b"one ", 9), encode(compression, b"two", 9)].concat();
            assert_eq!(decode(&two).0, b"one two");
        }
    }

    #[test]
    fn zstd_bytes_do_not_depend_on_threads_or_writes() {
        let content = content(9_000_000);
        let encode_with = |threads, chunk| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| encode(Compression::ZSTD, &content, chunk))
        };
        let one = encode_with(1, 1_000_000);
        assert!(one == encode_with(2, 1_000_000));
        assert!(one == encode_with(4, 77_777));
    }

    #[test]
    fn foreign_formats_and_truncation_are_refused() {
        assert_eq!(
            Decoder::new(&b"BZh91AY"[..]).unwrap_err().to_string(),
            "layer blob is compressed with bzip2; the OCI image specification knows gzip and zstd"
        );
        assert!(Decoder::new(XZ).is_err());
        for compression in [Compression::GZIP, Compression::ZSTD] {
            let blob = encode(compression, &content(100_000), 5000);
            let mut decoder = Decoder::new(&blob[..blob.len() - 1]).unwrap();
            assert!(decoder.read_to_end(&mut Vec::new()).is_err(), "{compression:?}");
        }
    }
}
