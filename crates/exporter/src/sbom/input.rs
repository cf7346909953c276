//! How files are read: whole if they are small, else by their lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use super::budget::Budget;
use super::package::Package;

/// The longest line that is read to its end.
const MOST_LINE: u64 = 64 << 10;
/// The largest file that is read by its lines.
const MOST_LINES: u64 = 64 << 20;
/// The largest document of JSON that is read.
const MOST_DOCUMENT: u64 = 8 << 20;

/// Why a file, or the rest of it, was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// There is no sense in it, or too much; says which.
    #[error("{0}")]
    Said(String),
}

impl From<serde_json::Error> for ReadError {
    fn from(error: serde_json::Error) -> Self {
        Self::Said(error.to_string().lines().next().unwrap_or_default().to_owned())
    }
}

/// The packages that a file tells of, as far as there is room for them.
#[derive(Debug)]
pub(super) struct Packages<'a> {
    path: &'a str,
    budget: &'a mut Budget,
    list: Vec<Package>,
}

impl<'a> Packages<'a> {
    /// None yet of the file at `path`.
    pub(super) fn new(path: &'a str, budget: &'a mut Budget) -> Self {
        Self { path, budget, list: Vec::new() }
    }

    /// Adds one.
    pub(super) fn push(&mut self, package: Package) -> Result<(), ReadError> {
        if !self.budget.keep_package(&package, self.path) {
            let message = "its layer tells of more packages than are listed";
            return Err(ReadError::Said(message.to_owned()));
        }
        self.list.push(package);
        Ok(())
    }

    /// Adds several.
    pub(super) fn extend(
        &mut self,
        packages: impl IntoIterator<Item = Package>,
    ) -> Result<(), ReadError> {
        packages.into_iter().try_for_each(|package| self.push(package))
    }

    /// The last one is replaced by the next.
    pub(super) fn pop(&mut self) {
        self.list.pop();
    }

    /// Takes bytes that are about to be read.
    pub(super) fn read(&mut self, bytes: u64) -> Result<(), ReadError> {
        if self.budget.read(bytes) {
            return Ok(());
        }
        Err(ReadError::Said("its layer has more to read than is read".to_owned()))
    }

    /// All of them.
    pub(super) fn finish(self) -> Vec<Package> {
        self.list
    }
}

/// The lines of a file, whatever their encoding. Of a longer one than honest files have, the end is not seen.
#[derive(Debug)]
pub(super) struct Lines<R> {
    file: R,
    bytes: Vec<u8>,
    text: String,
}

impl<R: BufRead> Lines<R> {
    /// Those of `file`.
    pub(super) fn new(file: R) -> Self {
        Self { file, bytes: Vec::new(), text: String::new() }
    }

    /// The next one, without its end.
    pub(super) fn next(&mut self) -> io::Result<Option<&str>> {
        self.bytes.clear();
        self.file.by_ref().take(MOST_LINE).read_until(b'\n', &mut self.bytes)?;
        match self.bytes.last() {
            None => return Ok(None),
            Some(b'\n') => {
                let end = if self.bytes.ends_with(b"\r\n") { 2 } else { 1 };
                self.bytes.truncate(self.bytes.len() - end);
            }
            Some(_) => self.skip_line()?,
        }
        self.text.clear();
        self.text.push_str(&String::from_utf8_lossy(&self.bytes));
        Ok(Some(&self.text))
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let bytes = self.file.fill_buf()?;
            let (skipped, is_end) = match bytes.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (bytes.len(), bytes.is_empty()),
            };
            self.file.consume(skipped);
            if is_end {
                return Ok(());
            }
        }
    }
}

/// The lines of a file that is not too large.
pub(super) fn lines_of(
    file: File,
    packages: &mut Packages<'_>,
) -> Result<Lines<BufReader<File>>, ReadError> {
    packages.read(size(&file, MOST_LINES)?)?;
    Ok(Lines::new(BufReader::new(file)))
}

/// The bytes of a small file.
pub(super) fn bytes_of(file: File, packages: &mut Packages<'_>) -> Result<Vec<u8>, ReadError> {
    packages.read(size(&file, MOST_DOCUMENT)?)?;
    let mut bytes = Vec::new();
    file.take(MOST_DOCUMENT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn size(file: &File, most: u64) -> Result<u64, ReadError> {
    let size = file.metadata()?.len();
    if size > most {
        return Err(ReadError::Said(format!("it is larger than {} MiB", most >> 20)));
    }
    Ok(size)
}

/// What `read` finds in a text.
#[cfg(test)]
pub(super) fn found<'t>(
    text: &'t str,
    read: impl FnOnce(&mut Lines<&'t [u8]>, &mut Packages<'_>) -> Result<(), ReadError>,
) -> Vec<Package> {
    let mut budget = Budget::default();
    let mut packages = Packages::new("", &mut budget);
    read(&mut Lines::new(text.as_bytes()), &mut packages).unwrap();
    packages.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_any_length() {
        let long = io::BufReader::new(io::repeat(b'0').take(8 << 20));
        let file = b"a\r\n\nb\xff\n".chain(long).chain(&b"\nlast"[..]);
        let mut lines = Lines::new(file);
        assert_eq!(lines.next().unwrap(), Some("a"));
        assert_eq!(lines.next().unwrap(), Some(""));
        assert_eq!(lines.next().unwrap(), Some("b\u{fffd}"));
        assert_eq!(lines.next().unwrap().map(str::len), Some(MOST_LINE as usize));
        assert_eq!(lines.next().unwrap(), Some("last"));
        assert_eq!(lines.next().unwrap(), None);
        assert!(lines.bytes.capacity() as u64 <= 2 * MOST_LINE, "{}", lines.bytes.capacity());
    }

    #[test]
    fn large_files_are_not_read() {
        let file = tempfile::tempfile().unwrap();
        let mut budget = Budget::default();
        let mut packages = Packages::new("", &mut budget);
        let said = |error: ReadError| error.to_string();
        for (size, bytes, lines) in [
            (MOST_DOCUMENT, Ok(MOST_DOCUMENT), Ok(())),
            (MOST_LINES, Err("it is larger than 8 MiB"), Ok(())),
            (1 << 40, Err("it is larger than 8 MiB"), Err("it is larger than 64 MiB")),
        ] {
            file.set_len(size).unwrap();
            let again = || file.try_clone().unwrap();
            let read = bytes_of(again(), &mut packages).map(|bytes| bytes.len() as u64);
            assert_eq!(read.map_err(said), bytes.map_err(str::to_owned));
            let opened = lines_of(again(), &mut packages).map(|_| ());
            assert_eq!(opened.map_err(said), lines.map_err(str::to_owned));
        }
        file.set_len(MOST_LINES).unwrap();
        let opened = || lines_of(file.try_clone().unwrap(), &mut packages).map(|_| ());
        let failed = std::iter::repeat_with(opened).find_map(Result::err).unwrap();
        assert_eq!(failed.to_string(), "its layer has more to read than is read");
    }
}
