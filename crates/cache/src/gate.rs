//! Keeps collection and what enters the store apart.
//!
//! Putting something into the store, finding it there already, and pinning it are done while *passing* the gate,
//! a shared `flock` for some microseconds. Collection looks around and takes its victims while the gate is
//! *closed*, an exclusive one. So whatever a build does comes before the collector's look, which sees it, or
//! after its taking, and then the build sees what is gone.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, flock};
use rustix::io::Errno;

use crate::disk_error::{DiskError, OnPath};
use crate::lock::open_lock_file;

/// The times of something that is found in the store by who was about to put it there: its access time is now,
/// and with it its change time, which is what collection goes by.
pub(crate) const TOUCHED: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
};

/// The gate of a store.
#[derive(Debug)]
pub(crate) struct Gate {
    path: PathBuf,
    state: Mutex<State>,
}

/// A lock belongs to the open file, which all threads share: the first takes it and the last gives it back.
#[derive(Debug, Default)]
struct State {
    file: Option<File>,
    passing: u32,
}

impl Gate {
    /// The gate that is the file `path`. Touches nothing yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, state: Mutex::default() }
    }

    /// Waits while the gate is closed, and keeps it open until the result is dropped.
    pub(crate) fn pass(&self) -> Result<Passing<'_>, DiskError> {
        let mut state = self.state();
        if state.passing == 0 {
            let file = match state.file.take() {
                Some(file) => file,
                None => open_lock_file(&self.path)?,
            };
            lock(&file, FlockOperation::LockShared).on_path("lock", &self.path)?;
            state.file = Some(file);
        }
        state.passing += 1;
        Ok(Passing(self))
    }

    /// Waits for those who are passing, and keeps others from it until the result is dropped.
    pub(crate) fn close(&self) -> Result<ClosedGate, DiskError> {
        let file = open_lock_file(&self.path)?;
        lock(&file, FlockOperation::LockExclusive).on_path("lock", &self.path)?;
        Ok(ClosedGate { _file: file })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(file: &File, operation: FlockOperation) -> rustix::io::Result<()> {
    loop {
        match flock(file, operation) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// The gate is open while this lives.
#[derive(Debug)]
pub(crate) struct Passing<'a>(&'a Gate);

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.passing -= 1;
        if state.passing == 0
            && let Some(file) = &state.file
            && flock(file, FlockOperation::Unlock).is_err()
        {
            // Closing it releases the lock as well.
            state.file = None;
        }
    }
}

/// The gate is closed while this lives.
#[derive(Debug)]
pub(crate) struct ClosedGate {
    _file: File,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_several_threads_opens_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let gate = Gate::new(dir.path().join("gate"));
        let file = open_lock_file(&dir.path().join("gate")).unwrap();
        let is_free = || {
            let free = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            flock(&file, FlockOperation::Unlock).unwrap();
            free
        };
        let (first, second) = (gate.pass().unwrap(), gate.pass().unwrap());
        drop(first);
        assert!(!is_free());
        drop(second);
        assert!(is_free());
        let closed = gate.close().unwrap();
        assert!(flock(&file, FlockOperation::NonBlockingLockShared).is_err());
        drop(closed);
        drop(gate.pass().unwrap());
        assert!(is_free());
    }
}
