//! One maker at a time, among all tasks of all processes.
//!
//! ```text
//! locks/<kind>-<hex>     exists while somebody makes it or waits for it
//! ```
//!
//! A lock is an exclusive `flock` on the file of that name, so it goes with its process, however that ends. Whoever gets the `flock` checks
//! that the name still leads to the file, and begins again if not: so two holders cannot have two files of one name.
//!
//! Files do not pile up, nor are they deleted. Whoever releases a lock takes its file away from the name, still locked, and puts it under
//! the next name that has none. Some file systems make files slowly where many were deleted just before (ext4 without a journal), and a
//! build of thousands of small steps takes a lock for each.
//!
//! Waiting is polling, with pauses that grow to 50 ms. A thread in a blocking `flock` could not be told that
//! its task is gone: it would hold up the end of the runtime, and take a lock that nobody wants.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rbuild_oci::Digest;
use rbuild_solver::{CacheKey, LayerId};
use rustix::fs::{
    AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat, openat, renameat,
    renameat_with, statat,
};
use rustix::io::Errno;

use crate::disk_error::{DiskError, OnPath};
use crate::staging::{Staged, Staging};

/// The locks of a store. Clones are the same locks.
#[derive(Clone, Debug)]
pub struct Locks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    staging: Arc<Staging>,
    /// Files that no lock needs at the moment.
    spare: Mutex<Vec<SpareFile>>,
}

/// A locked file that is nobody's lock.
#[derive(Debug)]
struct SpareFile {
    file: File,
    staged: Staged,
}

/// What a lock is for. Locks of different kinds never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockName<'a> {
    /// Executing the vertex with this key.
    Vertex(&'a CacheKey),
    /// Fetching or making this blob.
    Blob(&'a Digest),
    /// Unpacking this layer.
    Layer(&'a LayerId),
    /// Fetching what has this id.
    Download(&'a Digest),
    /// Using the mirror of a git repository, which has this id.
    Git(&'a Digest),
}

impl LockName<'_> {
    fn file(&self) -> String {
        match self {
            Self::Vertex(key) => format!("vertex-{}", key.0.hex()),
            Self::Blob(digest) => format!("blob-{}", digest.hex()),
            Self::Layer(id) => format!("layer-{id}"),
            Self::Download(id) => format!("download-{}", id.hex()),
            Self::Git(id) => format!("git-{}", id.hex()),
        }
    }
}

/// A lock cannot be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot take a lock of the store")]
pub struct LockError(#[source] DiskError);

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct LockGuard {
    shared: Arc<Shared>,
    path: PathBuf,
    /// Closing it releases the lock. `None` only while this is dropped.
    file: Option<File>,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        let staged = self.shared.staging.stage().ok();
        let spare = staged.zip(self.file.take()).and_then(|(staged, file)| {
            match renameat(CWD, &self.path, staged.parent(), staged.name()) {
                Ok(()) => Some(SpareFile { file, staged }),
                Err(_) => {
                    staged.moved();
                    // Without the name nobody waits for a file that stays locked no longer than this.
                    let _ = std::fs::remove_file(&self.path);
                    None
                }
            }
        });
        self.shared.spare().extend(spare);
    }
}

impl Shared {
    fn spare(&self) -> MutexGuard<'_, Vec<SpareFile>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file under a name of this process's own, locked.
    fn spare_file(&self) -> Result<SpareFile, DiskError> {
        if let Some(spare) = self.spare().pop() {
            return Ok(spare);
        }
        let staged = self.staging.stage()?;
        let flags = LOCK_FILE | OFlags::CREATE | OFlags::EXCL;
        let file = openat(staged.parent(), staged.name(), flags, Mode::from_raw_mode(0o666))
            .on_path("make", staged.path())?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).on_path("lock", staged.path())?;
        Ok(SpareFile { file: file.into(), staged })
    }
}

impl Locks {
    pub(crate) fn new(root: PathBuf, staging: Arc<Staging>) -> Self {
        Self(Arc::new(Shared { root, staging, spare: Mutex::default() }))
    }

    /// Waits until nobody else holds the lock. A waiting future that is dropped leaves nothing behind.
    pub async fn lock(&self, name: LockName<'_>) -> Result<LockGuard, LockError> {
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(guard) = self.try_lock(name)? {
                return Ok(guard);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Takes the lock if nobody holds it. Another task of this process counts as somebody.
    pub fn try_lock(&self, name: LockName<'_>) -> Result<Option<LockGuard>, LockError> {
        let path = self.0.root.join(name.file());
        let taken = self.take(&path).map_err(LockError)?;
        Ok(taken.map(|file| LockGuard { shared: Arc::clone(&self.0), path, file: Some(file) }))
    }

    fn take(&self, path: &Path) -> Result<Option<File>, DiskError> {
        loop {
            match openat(CWD, path, LOCK_FILE, Mode::empty()) {
                // Somebody holds it, or ended without releasing it.
                Ok(file) => match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) if leads_to(path, &file)? => return Ok(Some(file.into())),
                    Ok(()) => {}
                    Err(Errno::WOULDBLOCK) => return Ok(None),
                    Err(error) => return Err(DiskError::new("lock", path, error)),
                },
                Err(Errno::NOENT) => {
                    let SpareFile { file, staged } = self.0.spare_file()?;
                    let flags = RenameFlags::NOREPLACE;
                    match renameat_with(staged.parent(), staged.name(), CWD, path, flags) {
                        Ok(()) => {
                            staged.moved();
                            return Ok(Some(file));
                        }
                        Err(Errno::EXIST) => self.0.spare().push(SpareFile { file, staged }),
                        Err(error) => return Err(DiskError::new("rename a lock to", path, error)),
                    }
                }
                Err(error) => return Err(DiskError::new("open", path, error)),
            }
        }
    }
}

const LOCK_FILE: OFlags = OFlags::WRONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Whether a path is a name of an open file.
fn leads_to(path: &Path, file: impl AsFd) -> Result<bool, DiskError> {
    let opened = fstat(file).on_path("inspect", path)?;
    match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => Ok((there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(DiskError::new("inspect", path, error)),
    }
}

/// Opens a file for locking, making it when needed.
pub(crate) fn open_lock_file(path: &Path) -> Result<File, DiskError> {
    let file = openat(CWD, path, LOCK_FILE | OFlags::CREATE, Mode::from_raw_mode(0o666));
    file.map(File::from).on_path("open", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locks() -> (tempfile::TempDir, Locks) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["locks", "tmp"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let staging = Arc::new(Staging::new(dir.path().join("tmp")));
        let locks = Locks::new(dir.path().join("locks"), staging);
        (dir, locks)
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let entries = std::fs::read_dir(dir.path().join("locks")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn key() -> CacheKey {
        CacheKey(Digest::of(b"key"))
    }

    #[tokio::test]
    async fn one_at_a_time_and_nothing_is_left() {
        let (dir, locks) = locks();
        let counter = Arc::new(std::sync::Mutex::new((0, 0)));
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let (locks, counter) = (locks.clone(), Arc::clone(&counter));
                async move {
                    let _guard = locks.lock(LockName::Vertex(&key())).await.unwrap();
                    let inside = {
                        let mut counter = counter.lock().unwrap();
                        counter.0 += 1;
                        counter.0
                    };
                    assert_eq!(inside, 1);
                    tokio::task::yield_now().await;
                    let mut counter = counter.lock().unwrap();
                    counter.0 -= 1;
                    counter.1 += 1;
                }
            })
            .collect();
        futures_util::future::join_all(tasks).await;
        assert_eq!(*counter.lock().unwrap(), (0, 20));
        assert_eq!(names(&dir).len(), 0);
    }

    #[tokio::test]
    async fn who_stops_waiting_holds_nothing() {
        let (_dir, locks) = locks();
        let key = key();
        let name = LockName::Vertex(&key);
        let held = locks.try_lock(name).unwrap().unwrap();
        assert!(locks.try_lock(name).unwrap().is_none());
        let waiting = locks.lock(name);
        assert!(tokio::time::timeout(Duration::from_millis(5), waiting).await.is_err());
        drop(held);
        assert!(locks.try_lock(name).unwrap().is_some());
    }

    #[test]
    fn kinds_do_not_meet() {
        let (dir, locks) = locks();
        let digest = Digest::of(b"x");
        let id = LayerId::parse(&digest.hex()).unwrap();
        let _blob = locks.try_lock(LockName::Blob(&digest)).unwrap().unwrap();
        let _layer = locks.try_lock(LockName::Layer(&id)).unwrap().unwrap();
        drop(dir);
        let error = locks.try_lock(LockName::Download(&digest));
        assert!(matches!(error, Err(LockError(_))));
    }

    #[test]
    fn a_file_serves_one_lock_after_another() {
        let (dir, locks) = locks();
        let digests: Vec<Digest> = (0..10).map(|n: u8| Digest::of(&[n])).collect();
        let inode = |file: &File| fstat(file).unwrap().st_ino;
        let mut inodes = std::collections::HashSet::new();
        for digest in &digests {
            let held = locks.try_lock(LockName::Blob(digest)).unwrap().unwrap();
            inodes.insert(inode(held.file.as_ref().unwrap()));
            assert_eq!(names(&dir), [format!("blob-{}", digest.hex())]);
        }
        assert_eq!(inodes.len(), 1);
        let held: Vec<_> =
            digests.iter().map(|digest| locks.try_lock(LockName::Blob(digest)).unwrap()).collect();
        assert!(held.iter().all(Option::is_some));
        assert_eq!(names(&dir).len(), 10);
        drop(held);
        assert_eq!(names(&dir).len(), 0);
        assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 1);
        drop(locks);
        assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn whoever_still_has_the_file_of_a_released_lock_does_not_hold_it() {
        let (dir, locks) = locks();
        let (digest, other) = (Digest::of(b"x"), Digest::of(b"y"));
        let held = locks.try_lock(LockName::Blob(&digest)).unwrap().unwrap();
        // As another process opens it just before it is released.
        let opened = File::options().write(true).open(&held.path).unwrap();
        drop(held);
        let held = locks.try_lock(LockName::Blob(&other)).unwrap().unwrap();
        let path = dir.path().join("locks").join(LockName::Blob(&digest).file());
        assert!(flock(&opened, FlockOperation::NonBlockingLockExclusive).is_err());
        assert!(!leads_to(&path, &opened).unwrap());
        drop((held, locks));
        flock(&opened, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(!leads_to(&path, &opened).unwrap());
    }

    #[test]
    fn what_a_dead_holder_left_is_taken_over() {
        let (dir, locks) = locks();
        let digest = Digest::of(b"x");
        let path = dir.path().join("locks").join(LockName::Blob(&digest).file());
        std::fs::write(&path, "").unwrap();
        let held = locks.try_lock(LockName::Blob(&digest)).unwrap().unwrap();
        assert!(locks.try_lock(LockName::Blob(&digest)).unwrap().is_none());
        drop(held);
        assert!(!path.exists());
    }
}
