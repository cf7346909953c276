//! eStargz: layers of which a runtime can fetch single files (the format's specification is `docs/estargz.md` of
//! containerd's stargz-snapshotter).
//!
//! ```text
//! gzip member           headers of the first entries
//! gzip member           content of a file, or 4 MiB of it, then the headers up to the next content
//! ..
//! gzip member           the end of the archive
//! gzip member           an archive with one file, `stargz.index.json`: the table of contents
//! empty gzip member     51 bytes; an extra field says where the member before it begins
//! ```
//!
//! For whoever knows nothing of it this is a layer compressed with gzip. The table comes after the end of the archive, as in
//! what BuildKit writes: then it is no file of the layer for those who unpack it, and the files stay the same, also through a
//! cache. For that reason there is no landmark either, which is a file that tells a runtime what to fetch first. The diff id
//! is that of all bytes, the table's archive included.

mod encoder;
mod members;
mod toc;

pub(super) use encoder::{EstargzEncoder, Finished};

/// Annotation of a layer: the digest of its table of contents, by which a runtime verifies what it fetches.
pub const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";

/// Annotation of a layer: the length of what its blob decompresses to.
pub const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";

/// Names the bytes that come out: the length of chunks and the deflate implementation.
pub(super) const ENCODER: &str = "chunks-4m-zlib-rs-0.6";

/// The most bytes of a file in one member, which is what a runtime fetches at least.
const CHUNK: usize = 4 << 20;

/// The table's name, which no file of a layer can have.
const TOC_NAME: &[u8] = b"stargz.index.json";
