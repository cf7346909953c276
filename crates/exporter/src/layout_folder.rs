//! An OCI image layout in a folder, which grows.
//!
//! Blobs come first and the index last, each renamed into place, so that who reads at the same time sees it before or after.
//! Those who write at the same time take turns.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rbuild_cache::{Content, ContentError};
use rbuild_oci::{Descriptor, Digest, Index};
use rustix::fs::FlockOperation;
use tempfile::NamedTempFile;

use crate::verified::Verified;

/// How names of files begin that are not whole yet.
const UNFINISHED: &str = ".rbuild-";

/// A layout to write to. Other writers are kept out until it is dropped.
#[derive(Debug)]
pub(crate) struct LayoutFolder<'a> {
    folder: &'a Path,
    turn: File,
    verified: Verified,
}

/// An image, or a cache, cannot be written to a folder.
#[derive(Debug, thiserror::Error)]
pub enum LayoutFolderError {
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

pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayoutFolderError {
    move |source| LayoutFolderError::File { action, path: path.to_owned(), source }
}

fn blob_path(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join("blobs").join(digest.algorithm().name()).join(digest.hex())
}

/// Deletes what those left who were killed before a blob was whole. Whoever writes one has the turn.
fn remove_unfinished(blobs: &Path) -> io::Result<()> {
    for entry in fs::read_dir(blobs)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl<'a> LayoutFolder<'a> {
    /// Makes the folder a layout where it is none, and waits for its turn.
    pub(crate) fn open(folder: &'a Path) -> Result<Self, LayoutFolderError> {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(at("create", &blobs))?;
        let path = folder.join("index.json.lock");
        let turn = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(at("create", &path))?;
        rustix::fs::flock(&turn, FlockOperation::LockExclusive)
            .map_err(|error| at("lock", &path)(error.into()))?;
        let verified = Verified::read(&turn);
        let layout = Self { folder, turn, verified };
        remove_unfinished(&blobs).map_err(at("clear", &blobs))?;
        let marker = folder.join("oci-layout");
        if !marker.exists() {
            let text = br#"{"imageLayoutVersion":"1.0.0"}"#;
            layout.write(&marker, |out| out.write_all(text))?;
        }
        Ok(layout)
    }

    /// Whether a blob is there, and is what it is called.
    pub(crate) fn has(&mut self, blob: &Descriptor) -> bool {
        self.verified.is(&blob_path(self.folder, &blob.digest), blob)
    }

    /// Copies a blob of `content`, unless it is there.
    pub(crate) fn copy(
        &mut self,
        content: &Content,
        blob: &Descriptor,
    ) -> Result<(), LayoutFolderError> {
        if self.has(blob) {
            return Ok(());
        }
        let digest = blob.digest;
        let mut file = content
            .open(&digest, Some(blob.size))
            .map_err(|source| LayoutFolderError::Blob { digest, source: Box::new(source) })?;
        let path = blob_path(self.folder, &digest);
        self.write(&path, |out| io::copy(&mut file, out).map(|_| ()))?;
        self.verified.note(&path, digest);
        Ok(())
    }

    /// Writes a document, unless it is there.
    pub(crate) fn put(
        &mut self,
        descriptor: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), LayoutFolderError> {
        if self.has(descriptor) {
            return Ok(());
        }
        let path = blob_path(self.folder, &descriptor.digest);
        self.write(&path, |out| out.write_all(bytes))?;
        self.verified.note(&path, descriptor.digest);
        Ok(())
    }

    /// What the index lists.
    pub(crate) fn entries(&self) -> Result<Vec<Descriptor>, LayoutFolderError> {
        let path = self.folder.join("index.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Index>(&bytes)
                .map(|index| index.manifests)
                .map_err(|source| LayoutFolderError::Index { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(at("read", &path)(error)),
        }
    }

    /// Makes the index list these.
    pub(crate) fn set_entries(
        &mut self,
        entries: Vec<Descriptor>,
    ) -> Result<(), LayoutFolderError> {
        let index = serde_json::to_vec(&Index::new(entries)).expect("an index serialises");
        self.write(&self.folder.join("index.json"), |out| out.write_all(&index))?;
        self.remember();
        Ok(())
    }

    /// Keeps what is known of the blobs for who writes next.
    pub(crate) fn remember(&mut self) {
        self.verified.write(&self.turn, |digest| blob_path(self.folder, digest));
    }

    /// Writes a file that appears whole.
    fn write(
        &self,
        path: &Path,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), LayoutFolderError> {
        let folder = path.parent().unwrap_or(self.folder);
        fs::create_dir_all(folder).map_err(at("create", folder))?;
        let mut pending: NamedTempFile = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)
            .map_err(at("create a file in", folder))?;
        write(pending.as_file_mut()).map_err(at("write", path))?;
        pending.persist(path).map_err(|error| at("write", path)(error.error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_finished_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = folder.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(".rbuild-abcdef"), "half").unwrap();
        fs::write(blobs.join("kept"), "").unwrap();
        drop(LayoutFolder::open(folder.path()).unwrap());
        let left: Vec<_> =
            fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
    }
}
