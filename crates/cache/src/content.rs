//! Blobs by digest.
//!
//! ```text
//! blobs/<algorithm>/<hex>     as in an OCI image layout
//! ```
//!
//! A blob is written under a temporary name, hashed on the way, and renamed into place when it is complete, so
//! that what has a blob's name is that blob. It is *not* flushed to the disk one by one: that would cost a
//! thousand small layers some seconds and everything in the store can be made or fetched again. After a
//! power cut a blob may therefore be short; that is seen by its size ([`Content::contains`],
//! [`Content::open`]), and it is deleted and counts as missing. What a user would miss, an image put into the
//! local image store, is flushed with one [`Content::sync`] before its name is written.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_oci::{Algorithm, Digest, Hasher, VerifyError};
use rustix::fs::{AtFlags, CWD, utimensat};
use rustix::io::Errno;

use crate::BlobBody;
use crate::disk_error::{DiskError, OnPath};
use crate::gate::{Gate, TOUCHED};
use crate::read_file::read_own;
use crate::staging::{Staged, Staging};

/// The blobs of a store. Clones are the same blobs.
#[derive(Clone, Debug)]
pub struct Content {
    root: Arc<Path>,
    staging: Arc<Staging>,
    gate: Arc<Gate>,
}

/// Why a blob cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// There is no such blob, or only a damaged one, which was deleted.
    #[error("blob `{0}` is not in the store")]
    Missing(Digest),
    /// It is larger than the caller is ready to hold in memory.
    #[error("blob `{digest}` has {size} bytes, at most {limit} were expected")]
    TooLarge {
        /// Which one.
        digest: Digest,
        /// How large it is.
        size: u64,
        /// How large it may be.
        limit: u64,
    },
    /// What was written is not what was promised.
    #[error("blob `{expected}` is not what was promised")]
    Mismatch {
        /// What was promised.
        expected: Digest,
        /// The difference.
        source: VerifyError,
    },
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Content {
    pub(crate) fn new(root: PathBuf, staging: Arc<Staging>, gate: Arc<Gate>) -> Self {
        Self { root: root.into(), staging, gate }
    }

    /// Where a blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.algorithm().name()).join(digest.hex())
    }

    /// The size of a blob, if it is there.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, ContentError> {
        let path = self.path(digest);
        match std::fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DiskError::new("inspect", &path, error).into()),
        }
    }

    /// Whether a blob is there with this size. One of another size that is damaged is deleted.
    pub fn contains(&self, digest: &Digest, size: u64) -> Result<bool, ContentError> {
        match self.size(digest)? {
            None => Ok(false),
            Some(actual) if actual == size => Ok(true),
            Some(_) => {
                self.remove_if_damaged(digest)?;
                Ok(false)
            }
        }
    }

    /// Deletes a blob that is not what its name says. A size that it has not may also be a lie of who named the
    /// blob, and then it stays.
    fn remove_if_damaged(&self, digest: &Digest) -> Result<(), ContentError> {
        let path = self.path(digest);
        let mut hasher = Hasher::new(digest.algorithm());
        let read = File::open(&path).and_then(|mut file| io::copy(&mut file, &mut hasher));
        match read {
            Ok(_) if hasher.finish() == *digest => Ok(()),
            Ok(_) => self.remove(digest).map(drop),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(DiskError::new("read", &path, error).into()),
        }
    }

    /// Opens a blob for reading. When its size is known and it has another one, it is missing, and if damaged deleted.
    ///
    /// The digest is not verified again: that was done when it was written. A caller that distrusts the disk
    /// reads through [`rbuild_oci::VerifyingReader`].
    pub fn open(&self, digest: &Digest, size: Option<u64>) -> Result<File, ContentError> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ContentError::Missing(*digest));
            }
            Err(error) => return Err(DiskError::new("open", &path, error).into()),
        };
        if let Some(size) = size
            && file.metadata().on_path("inspect", &path)?.len() != size
        {
            self.remove_if_damaged(digest)?;
            return Err(ContentError::Missing(*digest));
        }
        Ok(file)
    }

    /// A blob as what is sent to somebody. It is opened when that is done.
    pub(crate) fn body(&self, digest: Digest, size: u64) -> BlobBody {
        let content = self.clone();
        BlobBody::new(move |position| {
            let mut file = content.open(&digest, Some(size)).map_err(io::Error::other)?;
            file.seek(SeekFrom::Start(position))?;
            Ok(Box::new(file))
        })
    }

    /// Reads a small blob, a document, and verifies it. A damaged one is deleted and missing.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ContentError> {
        let path = self.path(digest);
        let file = self.open(digest, None)?;
        let Some(bytes) = read_own(&file, limit).on_path("read", &path)? else {
            let size = file.metadata().on_path("inspect", &path)?.len();
            return Err(ContentError::TooLarge { digest: *digest, size, limit });
        };
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        if hasher.finish() != *digest {
            self.remove(digest)?;
            return Err(ContentError::Missing(*digest));
        }
        Ok(bytes)
    }

    /// Starts a blob that will be known by its SHA-256 digest.
    pub fn begin(&self) -> Result<BlobWriter, ContentError> {
        self.begin_with(Algorithm::Sha256)
    }

    /// Starts a blob that will be known by a digest of this algorithm.
    pub fn begin_with(&self, algorithm: Algorithm) -> Result<BlobWriter, ContentError> {
        let staged = self.staging.stage()?;
        let path = staged.path();
        let file =
            File::options().write(true).create_new(true).open(path).on_path("create", path)?;
        let file = BufWriter::with_capacity(64 * 1024, file);
        Ok(BlobWriter { content: self.clone(), hasher: Hasher::new(algorithm), file, staged })
    }

    /// Writes a blob that is in memory; it is not written again when it is there already.
    pub fn put(&self, bytes: &[u8]) -> Result<(Digest, u64), ContentError> {
        let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
        {
            let _passing = self.gate.pass()?;
            if self.contains(&digest, size)? {
                self.touch(&digest)?;
                return Ok((digest, size));
            }
        }
        let mut writer = self.begin()?;
        writer.write_all(bytes).on_path("write", writer.staged.path())?;
        writer.commit(Some((digest, size)))
    }

    /// Makes a blob as young, to collection, as one that was just written.
    fn touch(&self, digest: &Digest) -> Result<(), DiskError> {
        let path = self.path(digest);
        utimensat(CWD, &path, &TOUCHED, AtFlags::empty()).on_path("touch", &path)
    }

    /// Deletes a blob. Whether there was one.
    pub fn remove(&self, digest: &Digest) -> Result<bool, ContentError> {
        let path = self.path(digest);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(DiskError::new("delete", &path, error).into()),
        }
    }

    /// Calls `visit` with every blob's digest and what the file system says of it.
    pub(crate) fn visit(
        &self,
        mut visit: impl FnMut(Digest, &std::fs::Metadata),
    ) -> Result<(), ContentError> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir = self.root.join(algorithm.name());
            let entries = match std::fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(DiskError::new("list", &dir, error).into()),
            };
            for entry in entries {
                let entry = entry.on_path("list", &dir)?;
                let name = entry.file_name();
                let Some(hex) = name.to_str() else { continue };
                let Ok(digest) = Digest::parse(&format!("{}:{hex}", algorithm.name())) else {
                    continue;
                };
                match entry.metadata() {
                    Ok(metadata) => visit(digest, &metadata),
                    // Deleted since it was listed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        return Err(DiskError::new("inspect", &entry.path(), error).into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Flushes everything that was written to the store's file system to the disk.
    pub fn sync(&self) -> Result<(), ContentError> {
        let root = File::open(&self.root).on_path("open", &self.root)?;
        rustix::fs::syncfs(root).on_path("flush the file system of", &self.root)?;
        Ok(())
    }
}

/// A blob that is being written. Dropping it discards it.
#[derive(Debug)]
pub struct BlobWriter {
    content: Content,
    hasher: Hasher,
    file: BufWriter<File>,
    staged: Staged,
}

impl BlobWriter {
    /// How many bytes were written.
    pub fn written(&self) -> u64 {
        self.hasher.length()
    }

    /// The digest of what was written so far.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Makes the blob visible under its digest and returns that and the size.
    ///
    /// With `expected`, fails and discards it when it is anything else. If there was such a blob already (some
    /// other process was faster), it is replaced by its equal.
    pub fn commit(
        mut self,
        expected: Option<(Digest, u64)>,
    ) -> Result<(Digest, u64), ContentError> {
        self.file.flush().on_path("write", self.staged.path())?;
        let size = self.hasher.length();
        let actual = self.hasher.finish();
        if let Some((digest, promised)) = expected {
            let source = if size < promised {
                Some(VerifyError::Short { expected: promised, actual: size })
            } else if size > promised {
                Some(VerifyError::Long { expected: promised })
            } else if actual != digest {
                Some(VerifyError::Digest { expected: digest, actual })
            } else {
                None
            };
            if let Some(source) = source {
                return Err(ContentError::Mismatch { expected: digest, source });
            }
        }
        let target = self.content.path(&actual);
        let _passing = self.content.gate.pass()?;
        let mut renamed = rustix::fs::rename(self.staged.path(), &target);
        if renamed == Err(Errno::NOENT) {
            let dir = self.content.root.join(actual.algorithm().name());
            std::fs::create_dir_all(&dir).on_path("make", &dir)?;
            renamed = rustix::fs::rename(self.staged.path(), &target);
        }
        renamed.on_path("rename a blob to", &target)?;
        self.staged.moved();
        Ok((actual, size))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn content(dir: &Path) -> Content {
        std::fs::create_dir_all(dir.join("tmp")).unwrap();
        Content::new(
            dir.join("blobs"),
            Arc::new(Staging::new(dir.join("tmp"))),
            Arc::new(Gate::new(dir.join("gate"))),
        )
    }

    fn pending(dir: &Path) -> usize {
        std::fs::read_dir(dir.join("tmp"))
            .unwrap()
            .map(|own| std::fs::read_dir(own.unwrap().path()).unwrap().count())
            .sum()
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let content = content(dir.path());
        let mut writer = content.begin().unwrap();
        writer.write_all(b"hel").unwrap();
        writer.write_all(b"lo").unwrap();
        assert_eq!(writer.written(), 5);
        let (digest, size) = writer.commit(None).unwrap();
        assert_eq!((digest, size), (Digest::of(b"hello"), 5));
        assert_eq!(content.read(&digest, 5).unwrap(), b"hello");
        assert_eq!(content.put(b"hello").unwrap(), (digest, 5));
        assert!(content.path(&digest).ends_with(format!("blobs/sha256/{}", digest.hex())));
        let mut text = String::new();
        content.open(&digest, Some(5)).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert_eq!(pending(dir.path()), 0);
        let mut seen = Vec::new();
        content.visit(|digest, metadata| seen.push((digest, metadata.len()))).unwrap();
        assert_eq!(seen, [(digest, 5)]);
    }

    #[test]
    fn sha512_is_a_digest_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let content = content(dir.path());
        let mut writer = content.begin_with(Algorithm::Sha512).unwrap();
        writer.write_all(b"hello").unwrap();
        let (digest, _) = writer.commit(None).unwrap();
        assert_eq!(digest.algorithm(), Algorithm::Sha512);
        assert_eq!(content.read(&digest, 100).unwrap(), b"hello");
    }

    #[test]
    fn who_lies_about_a_size_does_not_delete_the_blob() {
        let dir = tempfile::tempdir().unwrap();
        let content = content(dir.path());
        let (digest, _) = content.put(b"hello").unwrap();
        assert!(!content.contains(&digest, 4).unwrap());
        assert!(matches!(content.open(&digest, Some(4)), Err(ContentError::Missing(_))));
        assert!(content.contains(&digest, 5).unwrap());
        std::fs::write(content.path(&digest), b"hell").unwrap();
        assert!(!content.contains(&digest, 5).unwrap());
        assert_eq!(content.size(&digest).unwrap(), None, "a damaged one is deleted");
    }

    #[test]
    fn promises_are_kept_or_nothing_is_stored() {
        let dir = tempfile::tempdir().unwrap();
        let content = content(dir.path());
        let right = Digest::of(b"hello");
        for (promised, said) in [
            ((right, 6), "content ends after 5 bytes, expected 6"),
            ((right, 4), "content goes on after its 4 bytes"),
            ((Digest::of(b""), 5), "content has digest"),
        ] {
            let mut writer = content.begin().unwrap();
            writer.write_all(b"hello").unwrap();
            let error = writer.commit(Some(promised)).unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains(said), "{source}");
        }
        assert_eq!(content.size(&right).unwrap(), None);
        drop(content.begin().unwrap());
        assert_eq!(pending(dir.path()), 0);
    }

    #[test]
    fn damaged_blobs_are_missing_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let content = content(dir.path());
        let (digest, size) = content.put(b"hello").unwrap();
        let damages: [&dyn Fn() -> bool; 3] = [
            &|| !content.contains(&digest, size).unwrap(),
            &|| matches!(content.open(&digest, Some(size)), Err(ContentError::Missing(_))),
            &|| matches!(content.read(&digest, 100), Err(ContentError::Missing(_))),
        ];
        for missing in damages {
            content.put(b"hello").unwrap();
            std::fs::write(content.path(&digest), "hel").unwrap();
            assert!(missing());
            assert_eq!(content.size(&digest).unwrap(), None);
        }
        // `put` repairs.
        std::fs::write(content.path(&digest), "hel").unwrap();
        content.put(b"hello").unwrap();
        assert!(content.contains(&digest, size).unwrap());
    }

    #[test]
    fn documents_have_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let content = content(dir.path());
        let (digest, _) = content.put(b"hello").unwrap();
        let error = content.read(&digest, 4).unwrap_err();
        assert!(error.to_string().contains("has 5 bytes, at most 4"), "{error}");
        assert!(content.contains(&digest, 5).unwrap());
    }
}
