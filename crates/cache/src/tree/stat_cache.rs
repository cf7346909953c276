//! Content digests of a folder's files, remembered between builds.
//!
//! ```text
//! header   "rbuild-stats-v1\0", number of records (u64 LE), CRC-32 of the records (u32 LE), 0 (u32)
//! records  72 bytes each, sorted by inode number, all numbers little endian:
//!     0  inode number (u64)          32  mode (u32)
//!     8  size (u64)                  36  age: builds that wrote the file and did not see the entry (u32)
//!    16  modification time (i64 ns)  40  content digest (32 bytes)
//!    24  change time (i64 ns)
//! ```
//!
//! The key is the inode and its state, not the path: content does not depend on names, and a fixed size makes the
//! file usable as it was read. An inode number that is used again comes with another change time. The file is
//! replaced as a whole by a rename; a file that is cut short or damaged counts as empty, so nothing is synced.

use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::meta::Meta;

const MAGIC: &[u8; 16] = b"rbuild-stats-v1\0";
const HEADER: usize = 32;
const RECORD: usize = 72;

/// How much is written at once.
const BUFFER: usize = 64 << 10;

/// After how many written files an entry that no build saw is dropped.
const OLDEST: u32 = 16;

/// See [`StatCache::is_large`].
const LARGE: usize = 8192;

/// The remembered digests of one folder.
#[derive(Debug)]
pub struct StatCache {
    file: PathBuf,
    /// The records as they were read, checked.
    old: Vec<u8>,
    /// Per old record, whether this build found it to be right.
    seen: Box<[AtomicBool]>,
    /// What this build learned, in the order in which it did. One list, as there may be any number.
    new: Mutex<Vec<[u8; RECORD]>>,
}

/// The remembered digests could not be written; builds go on, only slower.
#[derive(Debug, thiserror::Error)]
#[error("cannot write `{}`", path.display())]
pub struct StatCacheError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: std::io::Error,
}

impl StatCache {
    /// Reads the file in `dir` (the store's directory for these) that belongs to `folder`, an absolute path. If
    /// there is none, or none that can be used, nothing is remembered yet.
    pub fn load(dir: &Path, folder: &Path) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let name = rbuild_oci::Digest::of(folder.as_os_str().as_bytes()).hex();
        let file = dir.join(&name[..32]);
        let old = std::fs::read(&file).ok().and_then(checked_records).unwrap_or_default();
        let seen = (0..old.len() / RECORD).map(|_| AtomicBool::new(false)).collect();
        Self { file, old, seen, new: Mutex::default() }
    }

    /// How many files it remembers from earlier builds.
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether it knows so many files that to free what is known of them takes milliseconds.
    pub fn is_large(&self) -> bool {
        let new = self.new.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.len() + new > LARGE
    }

    /// The digest of a file in exactly this state.
    pub(super) fn lookup(&self, meta: &Meta) -> Option<[u8; 32]> {
        let (mut low, mut high) = (0, self.seen.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let record = &self.old[middle * RECORD..][..RECORD];
            match number(record, 0).cmp(&meta.ino) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    if record[..36] != state(meta) {
                        return None;
                    }
                    self.seen[middle].store(true, Ordering::Relaxed);
                    return record[40..].try_into().ok();
                }
            }
        }
        None
    }

    /// Remembers a digest. Only for files whose every later change shows in their state.
    pub(super) fn insert(&self, meta: &Meta, digest: [u8; 32]) {
        let mut record = [0; RECORD];
        record[..36].copy_from_slice(&state(meta));
        record[40..].copy_from_slice(&digest);
        self.new.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    }

    /// Writes what was learned, if anything was. Of two builds that do so at once the last one's is kept.
    pub fn save(&self) -> Result<(), StatCacheError> {
        let mut new = std::mem::take(&mut *self.new.lock().unwrap_or_else(PoisonError::into_inner));
        if new.is_empty() {
            return Ok(());
        }
        // What was learned last of an inode comes first, and is kept.
        new.reverse();
        new.sort_by_key(inode);
        new.dedup_by_key(|record| inode(record));
        self.write(&new).map_err(|source| StatCacheError { path: self.file.clone(), source })
    }

    /// Writes new records, sorted by inode number, and those of the old ones that are kept.
    fn write(&self, new: &[[u8; RECORD]]) -> std::io::Result<()> {
        let parent = self.file.parent().unwrap_or(Path::new("/"));
        let mut out = BufWriter::with_capacity(BUFFER, tempfile::NamedTempFile::new_in(parent)?);
        out.write_all(&[0; HEADER])?;
        let (mut count, mut checksum) = (0_u64, crc32fast::Hasher::new());
        let mut put = |record: &[u8; RECORD]| {
            count += 1;
            checksum.update(record);
            out.write_all(record)
        };
        let mut new = new.iter().peekable();
        for (old, seen) in self.old.chunks_exact(RECORD).zip(&self.seen) {
            let mut kept = [0; RECORD];
            kept.copy_from_slice(old);
            while let Some(record) = new.next_if(|record| inode(record) < inode(&kept)) {
                put(record)?;
            }
            let is_replaced = new.peek().is_some_and(|record| inode(record) == inode(&kept));
            let age = if seen.load(Ordering::Relaxed) { 0 } else { age(old) + 1 };
            if !is_replaced && age <= OLDEST {
                kept[36..40].copy_from_slice(&age.to_le_bytes());
                put(&kept)?;
            }
        }
        new.try_for_each(put)?;
        let mut header = [0; HEADER];
        header[..16].copy_from_slice(MAGIC);
        header[16..24].copy_from_slice(&count.to_le_bytes());
        header[24..28].copy_from_slice(&checksum.finalize().to_le_bytes());
        let mut file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header)?;
        file.persist(&self.file)?;
        Ok(())
    }
}

fn inode(record: &[u8; RECORD]) -> u64 {
    number(record, 0)
}

/// The records of a file; `None` when it is not whole or not of this version.
fn checked_records(mut file: Vec<u8>) -> Option<Vec<u8>> {
    let (header, records) = file.split_at_checked(HEADER)?;
    let count = usize::try_from(number(header, 16)).ok()?;
    let checksum = u32::from_le_bytes(header[24..28].try_into().ok()?);
    let is_whole = header.starts_with(MAGIC)
        && count.checked_mul(RECORD) == Some(records.len())
        && crc32fast::hash(records) == checksum;
    is_whole.then(|| file.split_off(HEADER))
}

/// The first 36 bytes of a record: what a file must still be like.
fn state(meta: &Meta) -> [u8; 36] {
    let mut state = [0; 36];
    state[..8].copy_from_slice(&meta.ino.to_le_bytes());
    state[8..16].copy_from_slice(&meta.size.to_le_bytes());
    state[16..24].copy_from_slice(&meta.mtime.to_le_bytes());
    state[24..32].copy_from_slice(&meta.ctime.to_le_bytes());
    state[32..].copy_from_slice(&meta.mode.to_le_bytes());
    state
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

fn age(record: &[u8]) -> u32 {
    let mut age = [0; 4];
    age.copy_from_slice(&record[36..40]);
    u32::from_le_bytes(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(ino: u64, ctime: i64) -> Meta {
        Meta {
            mode: 0o100_644,
            uid: 0,
            gid: 0,
            size: 5,
            mtime: 1,
            ctime,
            ino,
            dev: 1,
            rdev: 0,
            nlink: 1,
        }
    }

    #[test]
    fn remembers_across_openings() {
        let dir = tempfile::tempdir().unwrap();
        let load = || StatCache::load(dir.path(), Path::new("/some/folder"));
        let first = load();
        for ino in (0..1000).rev() {
            first.insert(&meta(ino, 7), [ino as u8; 32]);
        }
        assert_eq!(first.lookup(&meta(3, 7)), None);
        first.save().unwrap();
        let second = load();
        for ino in 0..1000 {
            assert_eq!(second.lookup(&meta(ino, 7)), Some([ino as u8; 32]));
        }
        assert_eq!(second.lookup(&meta(1000, 7)), None);
        assert_eq!(second.lookup(&meta(5, 8)), None, "another change time");
        second.insert(&meta(5, 8), [9; 32]);
        second.save().unwrap();
        let third = load();
        assert_eq!(third.lookup(&meta(5, 8)), Some([9; 32]));
        assert_eq!(third.lookup(&meta(5, 7)), None);
        assert_eq!(third.lookup(&meta(6, 7)), Some([6; 32]));
        assert_eq!(StatCache::load(dir.path(), Path::new("/other")).lookup(&meta(6, 7)), None);
    }

    #[test]
    fn what_no_build_sees_is_forgotten_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let load = || StatCache::load(dir.path(), Path::new("/f"));
        let first = load();
        first.insert(&meta(1, 1), [1; 32]);
        first.insert(&meta(2, 1), [2; 32]);
        first.save().unwrap();
        for build in 0..=i64::from(OLDEST) {
            let cache = load();
            assert_eq!(cache.lookup(&meta(2, 1)), Some([2; 32]), "seen by build {build}");
            cache.insert(&meta(3, build), [3; 32]);
            cache.save().unwrap();
        }
        assert_eq!(load().lookup(&meta(1, 1)), None);
        assert_eq!(load().lookup(&meta(2, 1)), Some([2; 32]));
    }

    #[test]
    fn damaged_files_count_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let load = || StatCache::load(dir.path(), Path::new("/f"));
        let first = load();
        first.insert(&meta(1, 1), [1; 32]);
        first.save().unwrap();
        let whole = std::fs::read(&first.file).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&first.file, &whole[..cut]).unwrap();
            assert_eq!(load().lookup(&meta(1, 1)), None, "cut at {cut}");
        }
        for flipped in [0, 17, 24, 40, 103] {
            let mut damaged = whole.clone();
            damaged[flipped] ^= 1;
            std::fs::write(&first.file, damaged).unwrap();
            assert_eq!(load().lookup(&meta(1, 1)), None, "damaged at {flipped}");
        }
    }
}
