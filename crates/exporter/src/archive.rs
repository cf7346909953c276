//! Images as one archive: the OCI image layout in a tar, and Docker's `docker load` form, which is the same
//! with a `manifest.json` (section 4.2 of the behaviour reference).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use rbuild_cache::{Content, ContentError, EntryKind, TarEntry, TarWriteError, TarWriter};
use rbuild_oci::{Descriptor, Digest, Index, Reference};
use serde_json::json;

use crate::image::Image;
use crate::output_file::{FileDestination, OutputFile, OutputFileError};

/// Annotation of an entry of an index: the whole name of the image.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";
/// The same: its tag.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Which archive is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveForm {
    /// An OCI image layout.
    Oci,
    /// The same, and what `docker load` reads.
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
    /// Writing.
    #[error("cannot write the archive")]
    Write(#[from] TarWriteError),
}

/// Writes `image` under `names`; its layer blobs must be in `content`.
pub(crate) fn write_archive(
    image: &Image,
    names: &[Reference],
    form: ArchiveForm,
    content: &Content,
    epoch: Option<i64>,
    destination: &FileDestination,
) -> Result<(), ArchiveError> {
    let mut archive = Archive {
        tar: TarWriter::new(OutputFile::create(destination)?, None),
        mtime: epoch.unwrap_or(0),
    };
    archive.directory("blobs")?;
    archive.directory("blobs/sha256")?;
    // By digest, and each once: an image may name one layer twice.
    let mut blobs: BTreeMap<Digest, Source<'_>> =
        image.manifest.layers.iter().map(|layer| (layer.digest, Source::Content(layer))).collect();
    blobs.insert(image.manifest.config.digest, Source::Bytes(&image.config_bytes));
    blobs.insert(image.descriptor.digest, Source::Bytes(&image.manifest_bytes));
    for (digest, source) in blobs {
        let path = blob_path(&digest);
        match source {
            Source::Bytes(bytes) => archive.file(&path, bytes)?,
            Source::Content(layer) => {
                let fail = |source| ArchiveError::Blob { digest, source: Box::new(source) };
                let mut file = content.open(&digest, Some(layer.size)).map_err(fail)?;
                archive.stream(&path, layer.size, &mut file)?;
            }
        }
    }
    archive.file(
        "index.json",
        &serde_json::to_vec(&Index::new(index_entries(image, names))).expect("an index serialises"),
    )?;
    if form == ArchiveForm::Docker {
        archive.file("manifest.json", docker_manifest(image, names).to_string().as_bytes())?;
    }
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.tar.finish()?.commit()?;
    Ok(())
}

enum Source<'a> {
    Bytes(&'a [u8]),
    Content(&'a Descriptor),
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// What a layout's index lists of an image: one entry a name, or one without.
pub(crate) fn index_entries(image: &Image, names: &[Reference]) -> Vec<Descriptor> {
    let mut entry = image.descriptor.clone();
    if let Some(created) = &image.created {
        entry.annotations.insert("org.opencontainers.image.created".to_owned(), created.clone());
    }
    let named = |name: &Reference| {
        let name = name.with_default_tag();
        let mut entry = entry.clone();
        entry.annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
        let tag = name.tag().unwrap_or("latest").to_owned();
        entry.annotations.insert(REF_NAME.to_owned(), tag);
        entry
    };
    match names {
        [] => vec![entry],
        names => names.iter().map(named).collect(),
    }
}

/// `manifest.json` of `docker save`, which `docker load` reads.
fn docker_manifest(image: &Image, names: &[Reference]) -> serde_json::Value {
    let tags: Vec<String> = names.iter().map(|name| name.with_default_tag().familiar()).collect();
    json!([{
        "Config": blob_path(&image.manifest.config.digest),
        "RepoTags": if tags.is_empty() { serde_json::Value::Null } else { json!(tags) },
        "Layers": image.manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect::<Vec<_>>(),
    }])
}

struct Archive<W> {
    tar: TarWriter<W>,
    mtime: i64,
}

impl<W: Write> Archive<W> {
    fn directory(&mut self, path: &str) -> Result<(), TarWriteError> {
        self.entry(path, EntryKind::Directory, 0o755, &mut io::empty())
    }

    fn file(&mut self, path: &str, mut bytes: &[u8]) -> Result<(), TarWriteError> {
        self.stream(path, bytes.len() as u64, &mut bytes)
    }

    fn stream(
        &mut self,
        path: &str,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), TarWriteError> {
        self.entry(path, EntryKind::File { size }, 0o644, content)
    }

    fn entry(
        &mut self,
        path: &str,
        kind: EntryKind<'_>,
        mode: u32,
        content: &mut dyn Read,
    ) -> Result<(), TarWriteError> {
        let path = path.as_bytes();
        let entry = TarEntry { path, kind, mode, uid: 0, gid: 0, mtime: self.mtime, xattrs: &[] };
        self.tar.append_file(&entry, content)
    }
}
