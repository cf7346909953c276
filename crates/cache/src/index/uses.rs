//! Which records builds have used, noted beside the database until somebody looks.
//!
//! ```text
//! uses        a line a build: "<milliseconds since 1970> <record>:<times> <record>:<times>...\n"
//! ```
//!
//! Nearly every build has nothing else to write. In the database it would be a page of its log for each, which all builds after it
//! read when they open it, and every thirtieth would have to flush to the disk. Nothing but collection asks for it, so what is lost
//! here costs little, and nothing is: a line that was cut is skipped, and one that is written while others are taken may go.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rustix::fs::OFlags;

use super::value::now;
use crate::disk_error::{DiskError, OnPath};
use crate::read_file::read_small;

/// Most bytes of the file; some thousand builds.
const MOST_BYTES: u64 = 1 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct UsesFile(PathBuf);

impl UsesFile {
    /// The one of the store in `root`.
    pub(super) fn new(root: &Path) -> Self {
        Self(root.join("uses"))
    }

    /// Adds how often records were used. Says whether the file has become long.
    pub(super) fn append(&self, used: &HashMap<i64, i64>) -> Result<bool, DiskError> {
        let mut line = now().to_string();
        for (record, times) in used {
            let _ = write!(line, " {record}:{times}");
        }
        line.push('\n');
        let mut options = OpenOptions::new();
        // A pipe that nobody reads is not waited for.
        let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
        options.append(true).create(true).mode(0o600).custom_flags(flags.bits().cast_signed());
        let mut file = options.open(&self.0).on_path("open", &self.0)?;
        file.write_all(line.as_bytes()).on_path("write", &self.0)?;
        Ok(file.metadata().on_path("inspect", &self.0)?.len() > MOST_BYTES)
    }

    /// Moves what it says into the database, in the running transaction.
    pub(super) fn take(&self, connection: &Connection) -> rusqlite::Result<()> {
        // If it cannot be read or deleted, records are taken for older or more used than they are.
        if !self.exists() {
            return Ok(());
        }
        let Ok(text) = read_small(&self.0) else { return Ok(()) };
        let _ = std::fs::remove_file(&self.0);
        let mut update = connection.prepare_cached(
            "UPDATE records SET used = max(used, ?1), uses = uses + ?2 WHERE id = ?3",
        )?;
        for (record, (used, uses)) in sums(&String::from_utf8_lossy(&text), now()) {
            update.execute([used, uses, record])?;
        }
        Ok(())
    }

    /// Whether there is anything in it.
    pub(super) fn exists(&self) -> bool {
        std::fs::symlink_metadata(&self.0).is_ok_and(|metadata| metadata.is_file())
    }
}

/// When each record was used last, and how often. A line that was cut, and has grown together with the next one, has numbers in it that
/// are too large.
fn sums(text: &str, now: i64) -> HashMap<i64, (i64, i64)> {
    let mut sums: HashMap<i64, (i64, i64)> = HashMap::new();
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let mut words = line.split(' ');
        let time = words.next().and_then(|time| time.parse::<i64>().ok());
        let Some(time) = time.filter(|time| *time <= now) else { continue };
        for word in words {
            let Some((record, times)) = word.split_once(':') else { continue };
            let (Ok(record), Ok(times)) = (record.parse(), times.parse::<u32>()) else { continue };
            let (used, uses) = sums.entry(record).or_default();
            *used = time.max(*used);
            *uses = uses.saturating_add(times.into());
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_summed_and_broken_ones_skipped() {
        let text = "5 1:2 2:1\n\nx 1:9\n7 1:1 3 4:x\n5 9:1795926652153\n51795926652153 9:1\n9 1:1";
        let mut sums: Vec<_> = sums(text, 100).into_iter().collect();
        sums.sort_unstable();
        assert_eq!(sums, [(1, (7, 3)), (2, (5, 1))]);
    }

    #[test]
    fn a_pipe_in_its_place_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mode = rustix::fs::Mode::RWXU;
        let path = dir.path().join("uses");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let uses = UsesFile::new(dir.path());
        uses.append(&HashMap::from([(1, 1)])).unwrap_err();
        assert!(!uses.exists());
    }
}
