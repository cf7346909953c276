//! A cache in a folder: an OCI layout that grows.
//!
//! Blobs come first and the index last, each renamed into place, so that who reads at the same time sees the cache before or
//! after. Two that write at the same time take turns at the index.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rbuild_cache::{Content, ContentError};
use rbuild_oci::{Descriptor, Digest, Index};
use rustix::fs::FlockOperation;
use tempfile::NamedTempFile;

use super::CacheDocuments;

const NAME: &str = "org.opencontainers.image.ref.name";

/// A folder for caches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CacheLayout {
    /// Where; it is made when missing.
    pub folder: PathBuf,
    /// The name of this cache in it.
    pub tag: String,
    /// Whether all other caches in it are removed.
    pub reset: bool,
}

/// A cache cannot be written to a folder.
#[derive(Debug, thiserror::Error)]
pub enum CacheLayoutError {
    /// A file.
    #[error("cannot {action} `{}`", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is there is no index.
    #[error("`{}` is not the index of an OCI layout", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A blob of the store.
    #[error("cannot read blob `{digest}`")]
    Blob {
        /// Which.
        digest: Digest,
        /// Why.
        source: Box<ContentError>,
    },
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheLayoutError {
    move |source| CacheLayoutError::File { action, path: path.to_owned(), source }
}

/// The blobs of layers that are not in the folder.
pub fn missing_blobs(layout: &CacheLayout, documents: &CacheDocuments) -> Vec<Descriptor> {
    documents.blobs.iter().filter(|blob| !layout.has(blob)).cloned().collect()
}

/// Writes a cache to a folder. Blobs that are there stay; the others must be in `content`.
pub fn write_cache_layout(
    content: &Content,
    documents: &CacheDocuments,
    layout: &CacheLayout,
) -> Result<(), CacheLayoutError> {
    let blobs = layout.folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(at("create", &blobs))?;
    let _turn = layout.take_turn()?;
    for blob in missing_blobs(layout, documents) {
        let digest = blob.digest;
        let mut file = content
            .open(&digest, Some(blob.size))
            .map_err(|source| CacheLayoutError::Blob { digest, source: Box::new(source) })?;
        layout.write(&layout.blob(&digest), |out| io::copy(&mut file, out).map(|_| ()))?;
    }
    for (descriptor, bytes) in [
        (&documents.config, &documents.config_bytes),
        (&documents.descriptor, &documents.manifest_bytes),
    ] {
        if !layout.has(descriptor) {
            layout.write(&layout.blob(&descriptor.digest), |out| out.write_all(bytes))?;
        }
    }
    let marker = layout.folder.join("oci-layout");
    if !marker.exists() {
        let text = br#"{"imageLayoutVersion":"1.0.0"}"#;
        layout.write(&marker, |out| out.write_all(text))?;
    }
    let mut entries = if layout.reset { Vec::new() } else { layout.entries()? };
    let mut entry = documents.descriptor.clone();
    entry.annotations.insert(NAME.to_owned(), layout.tag.clone());
    entries.retain(|other| other.annotations.get(NAME) != Some(&layout.tag));
    entries.push(entry);
    let index = serde_json::to_vec(&Index::new(entries)).expect("an index serialises");
    layout.write(&layout.index(), |out| out.write_all(&index))?;
    if layout.reset {
        layout.remove_others(documents)?;
    }
    Ok(())
}

impl CacheLayout {
    fn index(&self) -> PathBuf {
        self.folder.join("index.json")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// Whether a blob is there, as far as its size says. Who reads it verifies it.
    fn has(&self, blob: &Descriptor) -> bool {
        fs::metadata(self.blob(&blob.digest))
            .is_ok_and(|found| found.is_file() && found.len() == blob.size)
    }

    /// Keeps other writers out until the file is closed.
    fn take_turn(&self) -> Result<File, CacheLayoutError> {
        let path = self.folder.join("index.json.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(at("create", &path))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(|error| at("lock", &path)(error.into()))?;
        Ok(file)
    }

    fn entries(&self) -> Result<Vec<Descriptor>, CacheLayoutError> {
        let path = self.index();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Index>(&bytes)
                .map(|index| index.manifests)
                .map_err(|source| CacheLayoutError::Index { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(at("read", &path)(error)),
        }
    }

    /// Writes a file that appears whole.
    fn write(
        &self,
        path: &Path,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), CacheLayoutError> {
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(at("create", folder))?;
        let mut pending: NamedTempFile = tempfile::Builder::new()
            .prefix(".rbuild-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)
            .map_err(at("create a file in", folder))?;
        write(pending.as_file_mut()).map_err(at("write", path))?;
        pending.persist(path).map_err(|error| at("write", path)(error.error))?;
        Ok(())
    }

    /// Removes blobs that the cache does not have. What is not called like a blob stays.
    fn remove_others(&self, documents: &CacheDocuments) -> Result<(), CacheLayoutError> {
        let own = [documents.config.digest, documents.descriptor.digest];
        let keep: HashSet<String> =
            documents.blobs.iter().map(|blob| blob.digest).chain(own).map(|d| d.hex()).collect();
        let folder = self.folder.join("blobs/sha256");
        for entry in fs::read_dir(&folder).map_err(at("read", &folder))? {
            let entry = entry.map_err(at("read", &folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_blob = Digest::parse(&format!("sha256:{name}")).is_ok();
            if is_blob && !keep.contains(&name) {
                let path = entry.path();
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(at("remove", &path)(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}
