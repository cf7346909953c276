//! Compressed layer blobs and archives: telling how one is compressed, reading it, and making one.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Chain, Cursor, Read, Write};

use bzip2::bufread::MultiBzDecoder;
use lzma_rust2::XzReader;
use rbuild_oci::{Digest, LayerCompression, MediaType};
use thiserror::Error;
use zstd::zstd_safe::CParameter;

use super::estargz::{EstargzEncoder, Finished, TOC_DIGEST, UNCOMPRESSED_SIZE};
use super::gunzip::Gunzip;
use super::gzip::GzipEncoder;

pub(super) const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const LONGEST_MAGIC: u64 = 6;
/// How much memory an xz stream may ask for, in KiB: `xz -9` asks for 65 MiB, a hostile header for 4 GiB.
const XZ_MEMORY: u32 = 512 * 1024;
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
    /// gzip, a member for each piece of a file, and a table of them (module `estargz`).
    Estargz {
        /// 0 to 9.
        level: u32,
    },
    /// Zstandard (RFC 8878), one frame with a checksum.
    Zstd {
        /// 1 to 22.
        level: i32,
    },
}

impl Default for Compression {
    fn default() -> Self {
        Self::GZIP
    }
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
            Self::Estargz { level } => format!("estargz-{level}/{}", super::estargz::ENCODER),
            Self::Zstd { level } => {
                let version = zstd::zstd_safe::version_string();
                format!("zstd-{level}/{version}-mt-{}", zstd_job(level))
            }
        }
    }
}

/// What one thread compresses at a time, in bytes; 0 is the library's choice, four windows.
fn zstd_job(level: i32) -> u32 {
    // Several of these are in memory for each thread. At level 3 the library's choice is 8 MiB, which makes blobs smaller by a
    // 370th part. From level 16 on, a job begins with half a window or more of what is before it, so short ones cost time.
    if level < 16 { 2 << 20 } else { 0 }
}

/// Compresses what is written to it. The bytes do not depend on how the writes are cut or on the number of
/// threads.
#[derive(Debug)]
pub(crate) struct Encoder<W: Write>(Kind<W>);

enum Kind<W: Write> {
    Uncompressed(W),
    Gzip(GzipEncoder<W>),
    Estargz(Box<EstargzEncoder<W>>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> std::fmt::Debug for Kind<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Uncompressed(_) => "Uncompressed",
            Self::Gzip(_) => "Gzip",
            Self::Estargz(_) => "Estargz",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl<W: Write> Encoder<W> {
    pub(crate) fn new(compression: Compression, out: W) -> io::Result<Self> {
        Ok(Self(match compression {
            Compression::Uncompressed => Kind::Uncompressed(out),
            Compression::Gzip { level } => Kind::Gzip(GzipEncoder::new(out, level)),
            Compression::Estargz { level } => {
                Kind::Estargz(Box::new(EstargzEncoder::new(out, level)))
            }
            Compression::Zstd { level } => {
                let mut encoder = zstd::Encoder::new(out, level)?;
                // Never zero: the single-threaded encoder cuts its blocks elsewhere and gives other bytes.
                encoder
                    .multithread(u32::try_from(rayon::current_num_threads()).unwrap_or(1).max(1))?;
                encoder.set_parameter(CParameter::JobSize(zstd_job(level)))?;
                encoder.include_checksum(true)?;
                Kind::Zstd(encoder)
            }
        }))
    }

    /// Whether it adds to the archive, and so has to say what became of it.
    pub(crate) fn is_extending(&self) -> bool {
        matches!(self.0, Kind::Estargz(_))
    }

    /// The archive may have a table of contents that it got for another blob.
    pub(crate) fn leave_out_table(&mut self) {
        if let Kind::Estargz(encoder) = &mut self.0 {
            encoder.leave_out_table();
        }
    }

    pub(crate) fn finish(self) -> io::Result<Encoded<W>> {
        let plain = |out| Encoded { out, extended: None };
        match self.0 {
            Kind::Uncompressed(out) => Ok(plain(out)),
            Kind::Gzip(encoder) => encoder.finish().map(plain),
            Kind::Zstd(encoder) => encoder.finish().map(plain),
            Kind::Estargz(encoder) => {
                let Finished { out, archive, length, toc } = encoder.finish()?;
                let annotations = BTreeMap::from([
                    (TOC_DIGEST.to_owned(), toc.to_string()),
                    (UNCOMPRESSED_SIZE.to_owned(), length.to_string()),
                ]);
                Ok(Encoded { out, extended: Some(Extended { archive, annotations }) })
            }
        }
    }
}

/// What was compressed.
#[derive(Debug)]
pub(crate) struct Encoded<W> {
    pub(crate) out: W,
    /// Of formats that add something to the archive.
    pub(crate) extended: Option<Extended>,
}

/// What became of an archive.
#[derive(Debug)]
pub(crate) struct Extended {
    pub(crate) archive: Digest,
    /// What the layer's descriptor has to say.
    pub(crate) annotations: BTreeMap<String, String>,
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Uncompressed(out) => out.write(bytes),
            Kind::Gzip(encoder) => encoder.write(bytes),
            Kind::Estargz(encoder) => encoder.write(bytes),
            Kind::Zstd(encoder) => encoder.write(bytes),
        }
    }

    /// Does nothing: a flush in the middle would change the compressed bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the content of a layer blob or of an archive, which it may be compressed with.
pub struct Decoder<R: Read>(Source<R>);

type Rewound<R> = Chain<Cursor<Vec<u8>>, R>;

enum Source<R: Read> {
    Uncompressed(Rewound<R>),
    Gzip(Box<Gunzip<BufReader<Rewound<R>>>>),
    /// Many streams too, which is what pbzip2 writes.
    Bzip2(Box<MultiBzDecoder<BufReader<Rewound<R>>>>),
    Xz(Box<XzReader<BufReader<Rewound<R>>>>),
    Zstd(zstd::Decoder<'static, BufReader<Rewound<R>>>),
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detected {
    Uncompressed,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Detected {
    fn of(magic: &[u8]) -> Self {
        match magic {
            // Six bytes of it, because an archive may start with a file called `BZh`.
            [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A'] => Self::Bzip2,
            XZ => Self::Xz,
            _ if magic.starts_with(GZIP) => Self::Gzip,
            _ if magic.starts_with(ZSTD) => Self::Zstd,
            _ => Self::Uncompressed,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Uncompressed => "none",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Decoder").field(&self.compression_name()).finish()
    }
}

impl<R: Read> Decoder<R> {
    /// For a layer blob: none, gzip or Zstandard, by its first bytes. What is none of the known formats is taken for
    /// an uncompressed archive.
    pub fn for_layer(blob: R) -> Result<Self, CompressionError> {
        let (detected, blob) = detect(blob).map_err(CompressionError::Read)?;
        match detected {
            Detected::Bzip2 | Detected::Xz => {
                Err(CompressionError::Unsupported { name: detected.name() })
            }
            _ => Self::of(detected, blob).map_err(CompressionError::Read),
        }
    }

    /// For an archive of the user's: those, bzip2 and xz.
    pub fn for_archive(archive: R) -> io::Result<Self> {
        let (detected, archive) = detect(archive)?;
        Self::of(detected, archive)
    }

    fn of(detected: Detected, blob: Rewound<R>) -> io::Result<Self> {
        let buffered = |blob| BufReader::with_capacity(READ_BUFFER, blob);
        Ok(Self(match detected {
            Detected::Uncompressed => Source::Uncompressed(blob),
            Detected::Gzip => Source::Gzip(Box::new(Gunzip::new(buffered(blob)))),
            Detected::Bzip2 => Source::Bzip2(Box::new(MultiBzDecoder::new(buffered(blob)))),
            Detected::Xz => {
                let reader = XzReader::new_mem_limit(buffered(blob), true, XZ_MEMORY);
                Source::Xz(Box::new(reader))
            }
            Detected::Zstd => Source::Zstd(zstd::Decoder::with_buffer(buffered(blob))?),
        }))
    }

    /// What was found: `none`, `gzip`, `bzip2`, `xz` or `zstd`.
    pub fn compression_name(&self) -> &'static str {
        let detected = match self.0 {
            Source::Uncompressed(_) => Detected::Uncompressed,
            Source::Gzip(_) => Detected::Gzip,
            Source::Bzip2(_) => Detected::Bzip2,
            Source::Xz(_) => Detected::Xz,
            Source::Zstd(_) => Detected::Zstd,
        };
        detected.name()
    }

    /// Whether a blob of this media type is compressed like this. Types that say nothing of it fit all.
    pub(crate) fn fits(&self, media_type: &MediaType) -> bool {
        let said = match media_type.layer_compression() {
            None => return true,
            Some(LayerCompression::None) => Detected::Uncompressed,
            Some(LayerCompression::Gzip) => Detected::Gzip,
            Some(LayerCompression::Zstd) => Detected::Zstd,
        };
        self.compression_name() == said.name()
    }
}

fn detect<R: Read>(mut blob: R) -> io::Result<(Detected, Rewound<R>)> {
    let mut magic = Vec::new();
    (&mut blob).take(LONGEST_MAGIC).read_to_end(&mut magic)?;
    Ok((Detected::of(&magic), Cursor::new(magic).chain(blob)))
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Source::Uncompressed(blob) => blob.read(buffer),
            Source::Gzip(blob) => blob.read(buffer),
            Source::Bzip2(blob) => blob.read(buffer),
            Source::Xz(blob) => blob.read(buffer),
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
        encoder.finish().unwrap().out
    }

    fn decode(blob: &[u8]) -> (Vec<u8>, &'static str) {
        let mut decoder = Decoder::for_layer(blob).unwrap();
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
            Decoder::for_layer(&b"BZh91AY"[..]).unwrap_err().to_string(),
            "layer blob is compressed with bzip2; the OCI image specification knows gzip and zstd"
        );
        assert!(Decoder::for_layer(XZ).is_err());
        for compression in [Compression::GZIP, Compression::ZSTD] {
            let blob = encode(compression, &content(100_000), 5000);
            let mut decoder = Decoder::for_layer(&blob[..blob.len() - 1]).unwrap();
            assert!(decoder.read_to_end(&mut Vec::new()).is_err(), "{compression:?}");
        }
    }

    fn bzip2(content: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(content: &[u8]) -> Vec<u8> {
        let options = lzma_rust2::XzOptions::with_preset(0);
        let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn archives_may_be_compressed_in_more_ways() {
        let content = content(300_000);
        for (name, one) in [("bzip2", bzip2(&content)), ("xz", xz(&content))] {
            for (blob, times) in [(one.clone(), 1), ([&one[..], &one].concat(), 2)] {
                let mut decoder = Decoder::for_archive(blob.as_slice()).unwrap();
                assert_eq!(decoder.compression_name(), name);
                let mut decoded = Vec::new();
                decoder.read_to_end(&mut decoded).unwrap();
                assert!(decoded == content.repeat(times), "{name} {times}");
            }
            for cut in [one.len() - 1, one.len() / 2, 20] {
                let mut decoder = Decoder::for_archive(&one[..cut]).unwrap();
                assert!(decoder.read_to_end(&mut Vec::new()).is_err(), "{name} {cut}");
            }
        }
    }

    #[test]
    fn damaged_streams_are_errors_and_nothing_worse() {
        for mut blob in [bzip2(&content(20_000)), xz(&content(20_000))] {
            for at in (6..blob.len()).step_by(997) {
                blob[at] ^= 0x55;
                let mut decoder = Decoder::for_archive(blob.as_slice()).unwrap().take(1 << 20);
                let _ = decoder.read_to_end(&mut Vec::new());
                blob[at] ^= 0x55;
            }
        }
    }
}
