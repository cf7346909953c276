//! Reading what a step has printed.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::time::SystemTime;

use super::format::{HEAD, read_head};
use crate::disk_error::{DiskError, OnPath};

/// The largest record that is believed in; steps are read in pieces of 64 KiB.
const LARGEST: usize = 64 << 20;

/// Where a piece of a log comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrintedBy {
    /// The step's standard output.
    Stdout,
    /// The step's standard error.
    Stderr,
    /// rbuild itself.
    Remark,
}

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    /// Where it comes from.
    pub by: PrintedBy,
    /// When.
    pub at: SystemTime,
    /// What.
    pub bytes: Vec<u8>,
}

/// What a step has printed, piece by piece.
pub struct OutputReader {
    path: std::path::PathBuf,
    reader: zstd::stream::read::Decoder<'static, BufReader<File>>,
}

impl std::fmt::Debug for OutputReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputReader").field("path", &self.path).finish_non_exhaustive()
    }
}

impl OutputReader {
    /// Opens a step's file; `None` if it printed nothing.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, DiskError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.on_path("open", path)?,
        };
        let reader = zstd::stream::read::Decoder::new(file).on_path("read", path)?;
        Ok(Some(Self { path: path.to_owned(), reader }))
    }

    /// The next piece; `None` at the end, which is also where the build was killed while it wrote.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is damaged.
    pub fn next_piece(&mut self) -> Result<Option<Printed>, DiskError> {
        let mut head = [0; HEAD];
        if !fill(&mut self.reader, &mut head).on_path("read", &self.path)? {
            return Ok(None);
        }
        let (stream, at, length) = read_head(&head);
        if length > LARGEST {
            let damaged = io::Error::new(io::ErrorKind::InvalidData, "a record is too large");
            return Err(DiskError::new("read", &self.path, damaged));
        }
        let mut bytes = vec![0; length];
        if !fill(&mut self.reader, &mut bytes).on_path("read", &self.path)? {
            return Ok(None);
        }
        let by = match stream {
            1 => PrintedBy::Stdout,
            2 => PrintedBy::Stderr,
            _ => PrintedBy::Remark,
        };
        Ok(Some(Printed { by, at, bytes }))
    }
}

/// Fills a buffer; says whether there was enough.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        filled => filled.map(|()| true),
    }
}
