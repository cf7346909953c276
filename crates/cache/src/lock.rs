//! One maker at a time, among all tasks of all processes.
//!
//! ```text
//! locks/<kind>-<hex>     exists while somebody makes it or waits for it
//! ```
//!
//! A lock is an exclusive `flock` on a file, so it goes with its process, however that ends. Whoever releases
//! it deletes the file first, while it still has the lock; whoever gets a lock checks that its file still has a
//! link, and begins again if not. So files do not pile up, and two holders cannot have two files of one name.
//!
//! Waiting is polling, with pauses that grow to 50 ms. A thread in a blocking `flock` could not be told that
//! its task is gone: it would hold up the end of the runtime, and take a lock that nobody wants.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rbuild_oci::Digest;
use rbuild_solver::{CacheKey, LayerId};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, fstat};
use rustix::io::Errno;

use crate::disk_error::{DiskError, OnPath};

/// The locks of a store. Clones are the same locks.
#[derive(Clone, Debug)]
pub struct Locks {
    root: Arc<Path>,
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
    path: PathBuf,
    /// Closing it releases the lock.
    _file: File,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        // If this fails, the file is merely used again.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Locks {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root: root.into() }
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
        let path = self.root.join(name.file());
        loop {
            let file = open_lock_file(&path).map_err(LockError)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(LockError(DiskError::new("lock", &path, error))),
            }
            // Its last holder may have deleted it since it was opened.
            if fstat(&file).on_path("inspect", &path).map_err(LockError)?.st_nlink > 0 {
                return Ok(Some(LockGuard { path, _file: file }));
            }
        }
    }
}

/// Opens a file for locking, making it when needed.
pub(crate) fn open_lock_file(path: &Path) -> Result<File, DiskError> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, path, flags, Mode::from_raw_mode(0o666));
    file.map(File::from).on_path("open", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> CacheKey {
        CacheKey(Digest::of(b"key"))
    }

    #[tokio::test]
    async fn one_at_a_time_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::new(dir.path().to_owned());
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
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn who_stops_waiting_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::new(dir.path().to_owned());
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
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::new(dir.path().to_owned());
        let digest = Digest::of(b"x");
        let id = LayerId::parse(&digest.hex()).unwrap();
        let _blob = locks.try_lock(LockName::Blob(&digest)).unwrap().unwrap();
        let _layer = locks.try_lock(LockName::Layer(&id)).unwrap().unwrap();
        let error = Locks::new(dir.path().join("none")).try_lock(LockName::Blob(&digest));
        assert!(matches!(error, Err(LockError(_))));
    }
}
