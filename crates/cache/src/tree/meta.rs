//! What the kernel says of a file.

use rustix::fs::{FileType, Stat};

/// The part of a file's status that matters to a build, and the part that tells whether it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Owner; 0 throughout in a context.
    pub uid: u32,
    /// Group; 0 throughout in a context.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Modification time in nanoseconds since the epoch.
    pub mtime: i64,
    /// Change time in nanoseconds since the epoch.
    pub ctime: i64,
    /// Inode number.
    pub ino: u64,
    /// Device that the inode is on.
    pub dev: u64,
    /// The device that a device node stands for.
    pub rdev: u64,
    /// Names of the inode.
    pub nlink: u64,
}

impl From<&Stat> for Meta {
    #[expect(clippy::unnecessary_cast, reason = "the types of these fields differ by architecture")]
    fn from(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode as u32,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            mtime: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            ino: stat.st_ino as u64,
            dev: stat.st_dev as u64,
            rdev: stat.st_rdev as u64,
            nlink: stat.st_nlink as u64,
        }
    }
}

impl Meta {
    /// Its type.
    pub fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Permission bits, with set-id and sticky.
    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type() == FileType::Directory
    }

    /// Whether this is the same file in the same state. The owner is not looked at (a change of it shows in the
    /// change time), nor what a directory or a new link of the file changes.
    pub(super) fn is_same_state(&self, other: &Self) -> bool {
        (self.ino, self.dev, self.mode, self.size, self.mtime, self.ctime)
            == (other.ino, other.dev, other.mode, other.size, other.mtime, other.ctime)
    }
}

/// Times beyond the years 1677 to 2262 are moved to the ends.
fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
