//! What living builds use, so that collection leaves it alone (design D5).
//!
//! ```text
//! leases/<pid>-<random>    flock'ed exclusively while the build lives
//!            since 1700000000.123456789
//!            layer <hex of the layer id>
//!            blob <algorithm>:<hex>
//! leases/gate              see [`crate::gate`]
//! ```
//!
//! The rule for a build is *pin, then look*: it pins what it wants to use, then checks that it exists. Pinning
//! and the taking of victims exclude one another by the gate. So either the collector sees the pin and spares
//! the thing, or it was faster and the build sees that the thing is missing, a cache miss. There is no moment
//! at which something that was seen after pinning can vanish.
//!
//! What a build puts into the store needs no pin, whether it was there already or not: nothing is collected that
//! came, or was touched (by its inode's change time), after the oldest living lease was taken.
//!
//! A lease whose lock can be taken belongs to a dead process, however it died, and is deleted.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_oci::Digest;
use rbuild_solver::LayerId;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::disk_error::{DiskError, OnPath};
use crate::gate::{ClosedGate, Gate};

/// The gate is beside the leases.
pub(crate) const GATE: &str = "gate";

/// A build's claim on what it uses and makes. Clones are the same claim; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Inner>);

/// A lease cannot be taken or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep what the build uses from being collected")]
pub struct LeaseError(#[source] pub(crate) DiskError);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    gate: Arc<Gate>,
    pins: Mutex<Pins>,
}

#[derive(Debug)]
struct Pins {
    file: File,
    layers: HashSet<LayerId>,
    blobs: HashSet<Digest>,
}

impl Lease {
    /// Takes a lease in the store's `leases` directory.
    pub(crate) fn take(dir: &Path, gate: &Arc<Gate>) -> Result<Self, LeaseError> {
        // The collector never sees a lease that is not locked yet, or does not say since when.
        let passing = gate.pass().map_err(LeaseError)?;
        let (path, file) = Self::make(dir).map_err(LeaseError)?;
        drop(passing);
        let pins = Pins { file, layers: HashSet::new(), blobs: HashSet::new() };
        Ok(Self(Arc::new(Inner { path, gate: Arc::clone(gate), pins: Mutex::new(pins) })))
    }

    fn make(dir: &Path) -> Result<(PathBuf, File), DiskError> {
        let prefix = format!("{}-", std::process::id());
        let mut builder = tempfile::Builder::new();
        let (mut file, path) = builder
            .prefix(&prefix)
            .append(true)
            .tempfile_in(dir)
            .on_path("make a lease in", dir)?
            .into_parts();
        flock(&file, FlockOperation::NonBlockingLockExclusive).on_path("lock", &path)?;
        let made = file.metadata().on_path("inspect", &path)?;
        // By the clock of the file system, as the change times that it is compared with.
        let since = format!("since {}.{:09}\n", made.mtime(), made.mtime_nsec());
        file.write_all(since.as_bytes()).on_path("write", &path)?;
        let path = path.keep().map_err(|error| error.error).on_path("keep a lease in", dir)?;
        Ok((path, file))
    }

    /// Pins layers. Check that they exist *after* this.
    pub fn pin_layers(&self, layers: &[LayerId]) -> Result<(), LeaseError> {
        let mut pins = self.0.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<_> = layers.iter().filter(|id| !pins.layers.contains(id)).copied().collect();
        if new.is_empty() {
            return Ok(());
        }
        let lines: String =
            new.iter().flat_map(|id| ["layer ".into(), id.to_string(), "\n".into()]).collect();
        self.0.append(&mut pins, &lines)?;
        pins.layers.extend(new);
        Ok(())
    }

    /// Pins blobs. Check that they exist *after* this.
    pub fn pin_blobs(&self, blobs: &[Digest]) -> Result<(), LeaseError> {
        let mut pins = self.0.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<_> = blobs.iter().filter(|blob| !pins.blobs.contains(blob)).copied().collect();
        if new.is_empty() {
            return Ok(());
        }
        let lines: String =
            new.iter().flat_map(|blob| ["blob ".into(), blob.to_string(), "\n".into()]).collect();
        self.0.append(&mut pins, &lines)?;
        pins.blobs.extend(new);
        Ok(())
    }
}

impl Inner {
    fn append(&self, pins: &mut Pins, lines: &str) -> Result<(), LeaseError> {
        let _passing = self.gate.pass().map_err(LeaseError)?;
        // A full disk may cut the last line; the next one must not grow on it.
        (&pins.file)
            .write_all(lines.as_bytes())
            .inspect_err(|_| drop((&pins.file).write_all(b"\n")))
            .on_path("write", &self.path)
            .map_err(LeaseError)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // If this fails, the next collection sees that nobody holds it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What all living leases say.
#[derive(Debug, Default)]
pub(crate) struct Pinned {
    pub(crate) layers: HashSet<LayerId>,
    pub(crate) blobs: HashSet<Digest>,
    /// When the oldest of them was taken, in seconds and nanoseconds. Absent when there is none.
    pub(crate) since: Option<(i64, i64)>,
}

impl Pinned {
    /// Reads the living leases in a directory and deletes the dead ones. Nothing is pinned meanwhile.
    pub(crate) fn read(dir: &Path, _closed: &ClosedGate) -> Result<Self, LeaseError> {
        Self::read_all(dir).map_err(LeaseError)
    }

    fn read_all(dir: &Path) -> Result<Self, DiskError> {
        let mut pinned = Self::default();
        for entry in std::fs::read_dir(dir).on_path("list", dir)? {
            let entry = entry.on_path("list", dir)?;
            let path = entry.path();
            if entry.file_name() == GATE {
                continue;
            }
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(DiskError::new("open", &path, error)),
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(DiskError::new("delete", &path, error));
                    }
                    _ => {}
                },
                Err(Errno::WOULDBLOCK) => {
                    let text = io::read_to_string(file).on_path("read", &path)?;
                    pinned.add(&text);
                }
                Err(error) => return Err(DiskError::new("lock", &path, error)),
            }
        }
        Ok(pinned)
    }

    /// Adds what one lease says. A line that was cut short is no pin: who wrote it was told that it failed.
    fn add(&mut self, text: &str) {
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("layer", id)) => self.layers.extend(LayerId::parse(id)),
                Some(("blob", digest)) => self.blobs.extend(Digest::parse(digest).ok()),
                Some(("since", time)) => {
                    let parsed = time
                        .split_once('.')
                        .and_then(|(s, n)| Some((s.parse().ok()?, n.parse().ok()?)))
                        // Unreadable: everything might be newer.
                        .unwrap_or((i64::MIN, 0));
                    self.since = Some(self.since.map_or(parsed, |since| since.min(parsed)));
                }
                _ => {}
            }
        }
    }

    /// Whether something with this change time came into the store while a living build was running.
    pub(crate) fn protects(&self, change_time: (i64, i64)) -> bool {
        self.since.is_some_and(|since| change_time >= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(dir: &Path) -> Arc<Gate> {
        Arc::new(Gate::new(dir.join(GATE)))
    }

    #[test]
    fn pins_are_seen_while_the_lease_lives() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (LayerId::derived("a", &[]), LayerId::derived("b", &[]));
        let blob = Digest::of(b"blob");
        let gate = gate(dir.path());
        let lease = Lease::take(dir.path(), &gate).unwrap();
        lease.pin_layers(&[a]).unwrap();
        lease.pin_layers(&[a, b]).unwrap();
        lease.pin_blobs(&[blob]).unwrap();
        let closed = gate.close().unwrap();
        let pinned = Pinned::read(dir.path(), &closed).unwrap();
        assert_eq!(pinned.layers, HashSet::from([a, b]));
        assert_eq!(pinned.blobs, HashSet::from([blob]));
        let now = std::fs::metadata(&lease.0.path).unwrap();
        assert!(pinned.protects((now.ctime(), now.ctime_nsec())));
        assert!(!pinned.protects((now.ctime() - 10, 0)));
        drop(lease);
        let pinned = Pinned::read(dir.path(), &closed).unwrap();
        assert!(pinned.layers.is_empty() && pinned.since.is_none());
        assert!(!pinned.protects((i64::MAX, 0)));
    }

    #[test]
    fn dead_leases_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let id = LayerId::derived("a", &[]);
        let dead = dir.path().join("1-dead");
        std::fs::write(&dead, format!("since 1.0\nlayer {id}\n")).unwrap();
        let closed = gate(dir.path()).close().unwrap();
        assert!(Pinned::read(dir.path(), &closed).unwrap().layers.is_empty());
        assert!(!dead.exists());
    }

    #[test]
    fn cut_lines_pin_nothing_and_unreadable_times_protect_everything() {
        let mut pinned = Pinned::default();
        pinned.add("since 12\nlayer 00ff\nblob sha256:00\nlay");
        assert!(pinned.layers.is_empty() && pinned.blobs.is_empty());
        assert!(pinned.protects((0, 0)));
    }

    #[test]
    fn a_closed_gate_holds_up_pins() {
        let dir = tempfile::tempdir().unwrap();
        let gate = gate(dir.path());
        let lease = Lease::take(dir.path(), &gate).unwrap();
        let closed = gate.close().unwrap();
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                lease.pin_layers(&[LayerId::derived("a", &[])]).unwrap();
                send.send(()).unwrap();
            });
            assert!(Pinned::read(dir.path(), &closed).unwrap().layers.is_empty());
            assert!(receive.try_recv().is_err());
            drop(closed);
            receive.recv().unwrap();
        });
    }
}
