//! What a directory tree takes on the disk.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Bytes of whole blocks, each inode once. One directory is open at a time, however deep the tree is.
pub(crate) fn disk_size(top: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    let mut tally = Tally::default();
    let mut at = openat(top, c".", DIRECTORY, Mode::empty())?;
    tally.add(&rustix::fs::fstat(&at)?);
    let mut left = vec![tally.add_entries(at.as_fd())?];
    while let Some(directories) = left.last_mut() {
        if let Some(name) = directories.pop() {
            at = openat(&at, &name, DIRECTORY, Mode::empty())?;
            left.push(tally.add_entries(at.as_fd())?);
            continue;
        }
        left.pop();
        if !left.is_empty() {
            at = openat(&at, c"..", DIRECTORY, Mode::empty())?;
        }
    }
    Ok(tally.bytes)
}

#[derive(Default)]
struct Tally {
    bytes: u64,
    /// Inodes with several names that were counted.
    linked: HashSet<u64>,
}

impl Tally {
    fn add(&mut self, stat: &Stat) {
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if directory || stat.st_nlink == 1 || self.linked.insert(stat.st_ino) {
            self.bytes += stat.st_blocks as u64 * 512;
        }
    }

    /// Adds what is in a directory and returns the names of the directories among it.
    fn add_entries(&mut self, directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
        let mut directories = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            self.add(&stat);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                directories.push(name.to_owned());
            }
        }
        Ok(directories)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn counts_blocks_and_every_inode_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let file = dir.path().join("a/b/file");
        std::fs::write(&file, vec![1; 100_000]).unwrap();
        std::fs::File::open(&file).unwrap().sync_all().unwrap();
        std::fs::hard_link(&file, dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        let top = std::fs::File::open(dir.path()).unwrap();
        let expected: u64 = ["", "a", "a/b", "a/b/file", "root"]
            .iter()
            .map(|path| dir.path().join(path).symlink_metadata().unwrap().blocks() * 512)
            .sum();
        assert_eq!(disk_size(top.as_fd()).unwrap(), expected);
    }
}
