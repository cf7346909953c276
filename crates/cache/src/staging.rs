//! Where this process prepares what it is about to put into the store.
//!
//! Everything pending lives in `tmp/<pid>-<random>/`, one directory per process, made at the first need and
//! held by an exclusive `flock` on the directory itself. The kernel releases the lock when the process dies in
//! whatever way, so a directory that can be locked belongs to nobody and is deleted by whoever opens the store
//! next. The pid in the name is for people: nothing is ever concluded from it, so its reuse does no harm.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, fstat};
use rustix::io::Errno;

use crate::disk_error::{DiskError, OnPath};
use crate::names::names_in;
use crate::remove_tree::{remove_path, remove_tree};

/// The pending things of one opened store.
#[derive(Debug)]
pub(crate) struct Staging {
    parent: PathBuf,
    own: OnceLock<OwnDirectory>,
    making: Mutex<()>,
    next: AtomicU64,
    remover: OnceLock<Option<Remover>>,
}

#[derive(Debug)]
struct OwnDirectory {
    path: PathBuf,
    /// Holds the lock.
    dir: OwnedFd,
}

/// Deletes things while the build goes on. On a file system that tells its device of freed blocks at once (`discard`) it takes
/// milliseconds to delete the few directories that overlayfs has worked in, and every step has some.
#[derive(Debug)]
struct Remover {
    names: Sender<CString>,
    thread: JoinHandle<()>,
}

impl Remover {
    /// Starts to delete what it is told to in a directory; `None` where no thread can be had.
    fn start(own: &OwnDirectory) -> Option<Self> {
        let dir = own.dir.try_clone().ok()?;
        let (names, queue) = mpsc::channel::<CString>();
        let remove = move || {
            for name in queue {
                // What remains goes with the directory.
                let _ = remove_tree(dir.as_fd(), &name);
            }
        };
        let thread = std::thread::Builder::new().name("remover".to_owned()).spawn(remove).ok()?;
        Some(Self { names, thread })
    }
}

impl Staging {
    /// Prepares to stage below `parent`, the store's `tmp` directory. Touches nothing yet.
    pub(crate) fn new(parent: PathBuf) -> Self {
        Self {
            parent,
            own: OnceLock::new(),
            making: Mutex::new(()),
            next: AtomicU64::new(0),
            remover: OnceLock::new(),
        }
    }

    /// A place in this process's directory that nobody has used.
    pub(crate) fn stage(self: &Arc<Self>) -> Result<Staged, DiskError> {
        let own = self.own()?;
        let number = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let path = own.path.join(&number);
        let name = CString::new(number).expect("digits");
        Ok(Staged { staging: Arc::clone(self), name, path, end: End::Removed })
    }

    fn own(&self) -> Result<&OwnDirectory, DiskError> {
        if let Some(own) = self.own.get() {
            return Ok(own);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = self.own.get() {
            return Ok(own);
        }
        let made = self.make()?;
        Ok(self.own.get_or_init(|| made))
    }

    fn make(&self) -> Result<OwnDirectory, DiskError> {
        loop {
            let prefix = format!("{}-", std::process::id());
            let path = tempfile::Builder::new()
                .prefix(&prefix)
                .tempdir_in(&self.parent)
                .on_path("make a directory in", &self.parent)?
                .keep();
            let Some(dir) = lock_directory(&path)? else { continue };
            return Ok(OwnDirectory { path, dir });
        }
    }

    /// Has something in the own directory deleted in the background; fails where that is not possible.
    fn remove_later(&self, name: &CStr) -> Result<(), ()> {
        let own = self.own.get().ok_or(())?;
        let remover = self.remover.get_or_init(|| Remover::start(own)).as_ref().ok_or(())?;
        remover.names.send(name.to_owned()).map_err(drop)
    }

    /// Deletes what processes that are no more have left. Returns how many of them there were.
    pub(crate) fn sweep(&self) -> Result<usize, DiskError> {
        let mut swept = 0;
        for name in names_in(&self.parent).on_path("list", &self.parent)? {
            let path = self.parent.join(name);
            if self.own.get().is_some_and(|own| own.path == path) {
                continue;
            }
            if let Some(_lock) = lock_directory(&path)? {
                remove_path(&path)?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Some(Remover { names, thread }) = self.remover.take().flatten() {
            drop(names);
            let _ = thread.join();
        }
        if let Some(own) = self.own.get() {
            // What remains is deleted by the next process that opens the store.
            let _ = remove_path(&own.path);
        }
    }
}

/// Opens and locks a directory, unless somebody else has it locked or has deleted it.
fn lock_directory(path: &Path) -> Result<Option<OwnedFd>, DiskError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(dir) => dir,
        // Gone already, or nothing that a store makes.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(DiskError::new("open", path, error)),
    };
    match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(DiskError::new("lock", path, error)),
    }
    // It may have been deleted between opening and locking; then its directory has no links left.
    let links = fstat(&dir).on_path("inspect", path)?.st_nlink;
    Ok((links > 0).then_some(dir))
}

/// A place for something pending. What is made there is deleted on drop, unless it was moved into the store.
#[derive(Debug)]
pub(crate) struct Staged {
    staging: Arc<Staging>,
    name: CString,
    path: PathBuf,
    end: End,
}

/// What becomes of something pending.
#[derive(Debug)]
enum End {
    Removed,
    /// Whoever drops it does not wait for that.
    RemovedLater,
    /// It is elsewhere.
    Moved,
}

impl Staged {
    /// The directory that it is in.
    pub(crate) fn parent(&self) -> BorrowedFd<'_> {
        self.staging.own.get().expect("staging precedes its places").dir.as_fd()
    }

    /// Its name in there.
    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Says that it was renamed to where it belongs.
    pub(crate) fn moved(mut self) {
        self.end = End::Moved;
    }

    /// Has it deleted in the background once it is dropped: for small things, as their space is not free at once.
    pub(crate) fn removed_later(mut self) -> Self {
        self.end = End::RemovedLater;
        self
    }

    /// Deletes it now, and says when that fails.
    pub(crate) fn discard(mut self) -> Result<(), DiskError> {
        self.end = End::Moved;
        remove_tree(self.parent(), &self.name).on_path("delete", &self.path)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let queued = match self.end {
            End::Moved => return,
            End::Removed => Err(()),
            End::RemovedLater => self.staging.remove_later(&self.name),
        };
        if queued.is_err() {
            // What remains goes with the process's directory.
            let _ = remove_tree(self.parent(), &self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_the_dead_and_spares_the_living() {
        let dir = tempfile::tempdir().unwrap();
        // Another opening of the store, in this process or not, is another owner.
        let living = Arc::new(Staging::new(dir.path().to_owned()));
        let held = living.stage().unwrap();
        std::fs::write(held.path(), "pending").unwrap();
        std::fs::create_dir_all(dir.path().join("1-dead/tree/deep")).unwrap();
        let other = Staging::new(dir.path().to_owned());
        assert_eq!(other.sweep().unwrap(), 1);
        assert!(!dir.path().join("1-dead").exists());
        assert_eq!(std::fs::read(held.path()).unwrap(), b"pending");
        drop((living, held));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_removed_later_is_gone_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Arc::new(Staging::new(dir.path().to_owned()));
        let places: Vec<Staged> =
            (0..20).map(|_| staging.stage().unwrap().removed_later()).collect();
        for place in &places {
            std::fs::create_dir_all(place.path().join("work/incompat")).unwrap();
        }
        let (kept, path) = (staging.stage().unwrap(), places[0].path().to_owned());
        std::fs::write(kept.path(), "pending").unwrap();
        drop(places);
        staging.remover.get().unwrap();
        assert_eq!(std::fs::read(kept.path()).unwrap(), b"pending");
        drop((staging, kept));
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_is_made_before_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::new(dir.path().to_owned());
        assert_eq!(staging.sweep().unwrap(), 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
