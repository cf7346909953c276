//! Images as one archive: the OCI image layout in a tar, and Docker's `docker load` form, which is the same
//! with a `manifest.json` (section 4.2 of the behaviour reference).

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read as _, Write};

use rbuild_cache::{
    Content, ContentError, DocumentWalk, DocumentWalkError, EntryKind, TarEntry, TarWriteError,
    TarWriter,
};
use rbuild_oci::{Descriptor, Digest, Index, Manifest, Reference};
use serde_json::json;

use crate::index::NamedDocument;
use crate::output_file::{FileDestination, OutputFile, OutputFileError};

/// Annotation of an entry of an index: the whole name of the image.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";
/// The same: its tag.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The largest manifest or index that is read; registries refuse larger ones as well.
const MAX_DOCUMENT: u64 = 4 << 20;

/// Which archive is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveForm {
    /// An OCI image layout.
    Oci,
    /// The same, and what `docker load` reads. It holds one image.
    Docker,
}

/// Why an archive could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The place it goes to.
    #[error(transparent)]
    Output(#[from] OutputFileError),
    /// A blob that the image names.
    #[error("cannot read blob `{digest}` of the image")]
    Blob {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<ContentError>,
    },
    /// A manifest or index.
    #[error("`{digest}` of the image is no such document as it is described as")]
    Document {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An index that is not followed.
    #[error("what the image consists of is not believed")]
    Walk(#[from] DocumentWalkError),
    /// Docker's form has no place for an index.
    #[error("docker exporter does not currently support exporting manifest lists")]
    ManifestList,
    /// Writing.
    #[error("cannot write the archive")]
    Write(#[from] TarWriteError),
}

/// Writes an image, or the images of an index, under `names`; all their blobs must be in `content`.
pub(crate) fn write_archive(
    document: &NamedDocument,
    names: &[Reference],
    form: ArchiveForm,
    content: &Content,
    epoch: Option<i64>,
    destination: &FileDestination,
) -> Result<(), ArchiveError> {
    let out = OutputFile::create(destination)?;
    let form = (form, epoch.unwrap_or(0));
    Ok(write_archive_to(out, document, names, form, content, &HashSet::new())?.commit()?)
}

/// What takes an archive.
pub(crate) trait ArchiveOutput: Write + Sized {
    /// Writes the next `size` bytes of a file, or what there is. Returns how many they were.
    fn copy(&mut self, file: &mut File, size: u64) -> io::Result<u64>;
}

impl ArchiveOutput for &mut dyn Write {
    fn copy(&mut self, file: &mut File, size: u64) -> io::Result<u64> {
        const BUFFER: usize = 128 << 10;
        io::copy(&mut BufReader::with_capacity(BUFFER, file.take(size)), self)
    }
}

/// Writes the archive to `out`, but for blobs that are `without`. Its entries have the time `mtime`.
pub(crate) fn write_archive_to<W: ArchiveOutput>(
    out: W,
    document: &NamedDocument,
    names: &[Reference],
    (form, mtime): (ArchiveForm, i64),
    content: &Content,
    without: &HashSet<Digest>,
) -> Result<W, ArchiveError> {
    let top = &document.descriptor;
    let (blobs, manifest) = blobs_of(top, content)?;
    let docker_manifest = match (form, manifest) {
        (ArchiveForm::Oci, _) => None,
        (ArchiveForm::Docker, Some(manifest)) => Some(docker_manifest(&manifest, names)),
        (ArchiveForm::Docker, None) => return Err(ArchiveError::ManifestList),
    };
    let mut archive = Archive { tar: TarWriter::new(out, None), mtime };
    archive.directory("blobs")?;
    archive.directory("blobs/sha256")?;
    for (digest, size) in blobs.into_iter().filter(|(digest, _)| !without.contains(digest)) {
        let fail = |source| ArchiveError::Blob { digest, source: Box::new(source) };
        let mut file = content.open(&digest, Some(size)).map_err(fail)?;
        archive.copy(&blob_path(&digest), size, &mut file)?;
    }
    let index = Index::new(index_entries(top, names));
    let index = serde_json::to_vec(&index).expect("an index serialises");
    archive.file("index.json", &index)?;
    if let Some(manifest) = docker_manifest {
        archive.file("manifest.json", manifest.to_string().as_bytes())?;
    }
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(archive.tar.finish()?)
}

/// All blobs of an image or index with their sizes, and the manifest of what is no index. By digest, and each once, as an image may
/// name one layer twice.
pub(crate) fn blobs_of(
    top: &Descriptor,
    content: &Content,
) -> Result<(BTreeMap<Digest, u64>, Option<Manifest>), ArchiveError> {
    let mut walk = DocumentWalk::new(top.clone());
    let mut found = BTreeMap::new();
    let mut only = None;
    while let Some(descriptor) = walk.next() {
        let digest = descriptor.digest;
        let bytes = content
            .read(&digest, MAX_DOCUMENT)
            .map_err(|source| ArchiveError::Blob { digest, source: Box::new(source) })?;
        let fail = |source| ArchiveError::Document { digest, source };
        let size = bytes.len() as u64;
        walk.read(&descriptor, size)?;
        found.insert(digest, size);
        if descriptor.media_type.is_index() {
            walk.enter(&serde_json::from_slice(&bytes).map_err(fail)?)?;
            continue;
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(fail)?;
        let blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
        found.extend(blobs.map(|blob| (blob.digest, blob.size)));
        only = Some(manifest);
    }
    Ok((found, only.filter(|_| !top.media_type.is_index())))
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// What a layout's index lists of an image or index: one entry a name, or one without.
pub(crate) fn index_entries(top: &Descriptor, names: &[Reference]) -> Vec<Descriptor> {
    let named = |name: &Reference| {
        let name = name.with_default_tag();
        let mut entry = top.clone();
        entry.annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
        let tag = name.tag().unwrap_or("latest").to_owned();
        entry.annotations.insert(REF_NAME.to_owned(), tag);
        entry
    };
    match names {
        [] => vec![top.clone()],
        names => names.iter().map(named).collect(),
    }
}

/// `manifest.json` of `docker save`, which `docker load` reads.
fn docker_manifest(manifest: &Manifest, names: &[Reference]) -> serde_json::Value {
    let tags: Vec<String> = names.iter().map(|name| name.with_default_tag().familiar()).collect();
    json!([{
        "Config": blob_path(&manifest.config.digest),
        "RepoTags": if tags.is_empty() { serde_json::Value::Null } else { json!(tags) },
        "Layers": manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect::<Vec<_>>(),
    }])
}

struct Archive<W> {
    tar: TarWriter<W>,
    mtime: i64,
}

impl<W: ArchiveOutput> Archive<W> {
    fn directory(&mut self, path: &str) -> Result<(), TarWriteError> {
        self.tar.append(&self.entry(path, EntryKind::Directory, 0o755))
    }

    fn file(&mut self, path: &str, mut bytes: &[u8]) -> Result<(), TarWriteError> {
        let entry = self.entry(path, EntryKind::File { size: bytes.len() as u64 }, 0o644);
        self.tar.append_file(&entry, &mut bytes)
    }

    fn copy(&mut self, path: &str, size: u64, file: &mut File) -> Result<(), TarWriteError> {
        let entry = self.entry(path, EntryKind::File { size }, 0o644);
        self.tar.append_copied(&entry, |out, size| out.copy(file, size))
    }

    fn entry<'a>(&self, path: &'a str, kind: EntryKind<'a>, mode: u32) -> TarEntry<'a> {
        let path = path.as_bytes();
        TarEntry { path, kind, mode, uid: 0, gid: 0, mtime: self.mtime, xattrs: &[] }
    }
}
