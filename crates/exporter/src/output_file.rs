//! Where an archive goes: a file that appears whole or not at all, or standard output.
//!
//! Until it is whole it has no name where the file system can do that, so that nothing is left of it when rbuild is killed. Elsewhere
//! (NFS) it is a file beside the destination that is locked; the next archive in that folder removes those that nobody holds any more.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, linkat, openat};
use tempfile::NamedTempFile;

use crate::archive::ArchiveOutput;

/// How the names of files begin that are not whole yet.
const UNFINISHED: &str = ".rbuild-archive-";

/// A place for one stream of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FileDestination {
    /// Standard output.
    Stdout,
    /// A file; what was there is replaced only once the new one is complete.
    Path(PathBuf),
}

/// Why an archive could not be written to its place.
#[derive(Debug, thiserror::Error)]
pub enum OutputFileError {
    /// Its folder does not take files.
    #[error("cannot create a file in `{}`", folder.display())]
    Create {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The finished file could not take its name.
    #[error("cannot put the finished archive at `{}`", path.display())]
    Rename {
        /// The name.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The place is a directory.
    #[error("`{}` is a directory: give the name of a file", .0.display())]
    Directory(PathBuf),
    /// Writing failed.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

/// An archive that is being written. Dropping it leaves what was at the destination before.
#[derive(Debug)]
pub(crate) struct OutputFile {
    out: BufWriter<File>,
    pending: Option<(Pending, PathBuf)>,
}

/// What becomes the archive.
#[derive(Debug)]
enum Pending {
    /// A file without a name.
    Unnamed,
    /// One beside its destination.
    Named(NamedTempFile),
}

/// How much is written at once. With 1 MiB Linux 6.18 takes three times as long.
const BUFFER: usize = 128 << 10;

impl OutputFile {
    pub(crate) fn create(destination: &FileDestination) -> Result<Self, OutputFileError> {
        match destination {
            FileDestination::Stdout => {
                let stdout = rustix::io::dup(rustix::stdio::stdout())
                    .map_err(|error| OutputFileError::Write(error.into()))?;
                Ok(Self { out: BufWriter::with_capacity(BUFFER, stdout.into()), pending: None })
            }
            FileDestination::Path(path) => {
                if path.is_dir() {
                    return Err(OutputFileError::Directory(path.clone()));
                }
                // A device or a pipe (`/dev/null`, a process substitution) is written to, never replaced.
                if path.exists() && !path.is_file() {
                    let file =
                        File::options().write(true).open(path).map_err(OutputFileError::Write)?;
                    return Ok(Self { out: BufWriter::with_capacity(BUFFER, file), pending: None });
                }
                let folder = folder_of(path);
                let fail = |source| OutputFileError::Create { folder: folder.to_owned(), source };
                let (file, pending) = match unnamed(folder) {
                    Some(file) => (file, Pending::Unnamed),
                    None => {
                        remove_unfinished(folder);
                        let named = named(folder).map_err(fail)?;
                        (named.as_file().try_clone().map_err(fail)?, Pending::Named(named))
                    }
                };
                let out = BufWriter::with_capacity(BUFFER, file);
                Ok(Self { out, pending: Some((pending, path.clone())) })
            }
        }
    }

    /// Makes the archive visible.
    pub(crate) fn commit(mut self) -> Result<(), OutputFileError> {
        self.out.flush().map_err(OutputFileError::Write)?;
        if let Some((pending, path)) = self.pending.take() {
            let fail = |path, source| OutputFileError::Rename { path, source };
            let finished = match pending {
                Pending::Unnamed => {
                    name(self.out.get_ref(), folder_of(&path)).map_err(|e| fail(path.clone(), e))?
                }
                Pending::Named(named) => named.into_temp_path(),
            };
            finished.persist(&path).map_err(|error| fail(path, error.error))?;
        }
        Ok(())
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A file in `folder` that has no name; `None` where there is no such thing, or it could get no name later.
fn unnamed(folder: &Path) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file: File = openat(CWD, folder, flags, Mode::from_raw_mode(0o666)).ok()?.into();
    fs::symlink_metadata(by_number(&file)).ok()?;
    Some(file)
}

/// What the kernel calls an open file.
fn by_number(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Gives a file without a name one for the moment: only a name can replace another.
fn name(file: &File, folder: &Path) -> io::Result<tempfile::TempPath> {
    let link = |at: &Path| {
        let linked = linkat(CWD, by_number(file), CWD, at, AtFlags::SYMLINK_FOLLOW);
        linked.map_err(io::Error::from)
    };
    Ok(tempfile::Builder::new().prefix(UNFINISHED).make_in(folder, link)?.into_temp_path())
}

/// A file with a name, which is locked as long as it is open.
fn named(folder: &Path) -> io::Result<NamedTempFile> {
    loop {
        let named = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(folder)?;
        flock(named.as_file(), FlockOperation::NonBlockingLockExclusive)?;
        // Who looked for forgotten files before it was locked may have removed it.
        if is_still_there(named.path(), named.as_file()) {
            return Ok(named);
        }
    }
}

fn is_still_there(path: &Path, file: &File) -> bool {
    let same = |named: fs::Metadata, open: fs::Metadata| {
        (named.dev(), named.ino()) == (open.dev(), open.ino())
    };
    fs::symlink_metadata(path).ok().zip(file.metadata().ok()).is_some_and(|(a, b)| same(a, b))
}

/// Deletes what those left who were killed. What cannot be deleted does no harm.
fn remove_unfinished(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes());
        if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let Ok(file) = File::options().write(true).open(entry.path()) else { continue };
        let is_free = flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).is_ok();
        if is_free && is_still_there(&entry.path(), &file) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

impl ArchiveOutput for OutputFile {
    /// In the kernel where that can be: what is copied need not go through this process's memory.
    fn copy(&mut self, file: &mut File, size: u64) -> io::Result<u64> {
        self.out.flush()?;
        io::copy(&mut file.take(size), self.out.get_mut())
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        std::fs::write(&path, "old").unwrap();
        let destination = FileDestination::Path(path.clone());
        let mut dropped = OutputFile::create(&destination).unwrap();
        dropped.write_all(b"half").unwrap();
        drop(dropped);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        let mut kept = OutputFile::create(&destination).unwrap();
        kept.write_all(b"new").unwrap();
        kept.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_left_of_one_that_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let names = || fs::read_dir(folder.path()).unwrap().count();
        let mut killed = OutputFile::create(&FileDestination::Path(path.clone())).unwrap();
        killed.write_all(b"half").unwrap();
        killed.flush().unwrap();
        assert_eq!(names() == 0, unnamed(folder.path()).is_some());
        std::mem::forget(killed);
        // Where there are none, the next one looks after it.
        let (dead, living) = (named(folder.path()).unwrap(), named(folder.path()).unwrap());
        let other = folder.path().join(".rbuild-other");
        fs::write(&other, "").unwrap();
        let (file, dead) = dead.keep().unwrap();
        drop(file);
        remove_unfinished(folder.path());
        assert!(!dead.exists() && living.path().exists() && other.exists());
    }

    #[test]
    fn wrong_places_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            OutputFile::create(&FileDestination::Path(folder.path().to_owned())).unwrap_err();
        assert!(error.to_string().contains("is a directory"));
        let missing = FileDestination::Path(folder.path().join("no/such"));
        assert!(
            OutputFile::create(&missing)
                .unwrap_err()
                .to_string()
                .contains("cannot create a file in")
        );
    }
}
