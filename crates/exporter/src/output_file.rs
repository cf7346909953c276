//! Where an archive goes: a file that appears whole or not at all, or standard output.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

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
    pending: Option<(NamedTempFile, PathBuf)>,
}

impl OutputFile {
    pub(crate) fn create(destination: &FileDestination) -> Result<Self, OutputFileError> {
        const BUFFER: usize = 1 << 20;
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
                let folder = match path.parent() {
                    Some(parent) if !parent.as_os_str().is_empty() => parent,
                    _ => Path::new("."),
                };
                let fail = |source| OutputFileError::Create { folder: folder.to_owned(), source };
                let pending = tempfile::Builder::new()
                    .prefix(".rbuild-")
                    .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
                    .tempfile_in(folder)
                    .map_err(fail)?;
                let file = pending.as_file().try_clone().map_err(fail)?;
                let out = BufWriter::with_capacity(BUFFER, file);
                Ok(Self { out, pending: Some((pending, path.clone())) })
            }
        }
    }

    /// Makes the archive visible.
    pub(crate) fn commit(mut self) -> Result<(), OutputFileError> {
        self.out.flush().map_err(OutputFileError::Write)?;
        if let Some((pending, path)) = self.pending.take() {
            pending
                .persist(&path)
                .map_err(|error| OutputFileError::Rename { path, source: error.error })?;
        }
        Ok(())
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
