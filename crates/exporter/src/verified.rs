//! Which blobs of a folder are known to be what they are called.
//!
//! ```text
//! sha256:ab12.. 1048576 1764378000123456789 7340133        digest, size, ctime in nanoseconds, inode
//! ```
//!
//! A line a blob, in the file that writers lock. It counts as long as the file looks the same, so a folder that comes from elsewhere is
//! read once more, and what was damaged on the way is found. A line that makes no sense, such as of a writer who was killed, does
//! not count.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use rbuild_oci::{Descriptor, Digest, VerifyingReader};

/// More than a folder of a hundred thousand blobs needs.
const LARGEST: u64 = 16 << 20;

/// Blobs that were read, or written, by those who wrote to a folder.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    known: HashMap<Digest, Stamp>,
    is_changed: bool,
}

/// How a file looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    changed: i128,
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        let changed = i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec());
        Some(Self { size: found.len(), changed, inode: found.ino() })
    }
}

impl Verified {
    /// What the file says.
    pub(crate) fn read(from: &File) -> Self {
        let mut text = Vec::new();
        let known = match from.take(LARGEST).read_to_end(&mut text) {
            Ok(_) => String::from_utf8_lossy(&text).lines().filter_map(line).collect(),
            Err(_) => HashMap::new(),
        };
        Self { known, is_changed: false }
    }

    /// Whether the file at `path` is this blob. It is read unless that is known.
    pub(crate) fn is(&mut self, path: &Path, blob: &Descriptor) -> bool {
        let Some(stamp) = Stamp::of(path).filter(|stamp| stamp.size == blob.size) else {
            return false;
        };
        if self.known.get(&blob.digest) == Some(&stamp) {
            return true;
        }
        let read = File::open(path).and_then(|file| {
            io::copy(&mut VerifyingReader::new(file, blob.digest, blob.size), &mut io::sink())
        });
        if read.is_ok() {
            self.known.insert(blob.digest, stamp);
            self.is_changed = true;
        }
        read.is_ok()
    }

    /// Notes a blob that was just written.
    pub(crate) fn note(&mut self, path: &Path, digest: Digest) {
        if let Some(stamp) = Stamp::of(path) {
            self.known.insert(digest, stamp);
            self.is_changed = true;
        }
    }

    /// Writes what is known of the blobs that are there, `path` says where. It only saves time, so it need not succeed.
    pub(crate) fn write(&mut self, to: &File, path: impl Fn(&Digest) -> std::path::PathBuf) {
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        self.known.retain(|digest, _| path(digest).exists());
        let line = |(digest, stamp): (&Digest, &Stamp)| {
            format!("{digest} {} {} {}\n", stamp.size, stamp.changed, stamp.inode)
        };
        let text: String = self.known.iter().map(line).collect();
        if to.set_len(0).is_ok() {
            let _ = to.write_all_at(text.as_bytes(), 0);
        }
    }
}

fn line(text: &str) -> Option<(Digest, Stamp)> {
    let mut words = text.split(' ');
    let digest = Digest::parse(words.next()?).ok()?;
    let size = words.next()?.parse().ok()?;
    let changed = words.next()?.parse().ok()?;
    let inode = words.next()?.parse().ok()?;
    words.next().is_none().then_some((digest, Stamp { size, changed, inode }))
}

#[cfg(test)]
mod tests {
    use rbuild_oci::MediaType;

    use super::*;

    #[test]
    fn what_looks_the_same_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let (path, lock) = (folder.path().join("blob"), folder.path().join("lock"));
        let blob = Descriptor::new(MediaType::OciLayer, Digest::of(b"right"), 5);
        let file = File::options().create_new(true).read(true).write(true).open(&lock).unwrap();
        fs::write(&path, "wrong").unwrap();
        assert!(!Verified::read(&file).is(&path, &blob));
        fs::write(&path, "right").unwrap();
        let mut first = Verified::read(&file);
        assert!(first.is(&path, &blob));
        first.write(&file, |_| path.clone());
        let reopened = || Verified::read(&File::open(&lock).unwrap());
        assert_eq!(reopened().known, first.known);
        // Bytes that nobody reads: the stamp is all that counts.
        let mut trusted = reopened();
        let other = folder.path().join("other");
        fs::write(&other, "wrong").unwrap();
        fs::rename(&other, &path).unwrap();
        trusted.note(&path, blob.digest);
        assert!(trusted.is(&path, &blob));
        assert!(!reopened().is(&path, &blob));
        fs::remove_file(&path).unwrap();
        assert!(!trusted.is(&path, &blob));
        trusted.write(&file, |_| path.clone());
        assert!(reopened().known.is_empty());
        assert!(line("sha256:00 1 2 3").is_none() && line("").is_none());
    }
}
