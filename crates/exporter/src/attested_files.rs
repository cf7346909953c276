//! The files of a result together with what is said of them, as files beside them (section 4.7 of the behaviour reference).

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rbuild_cache::{LayersError, PendingLayer, View, ViewError, open_in_root};
use rbuild_oci::{Digest, Hasher};
use rbuild_solver::Snapshot;
use rustix::fs::{Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::attestation::{Attestation, Subject};
use crate::layers::ExportStore;
use crate::walk::{WalkError, walk_files};

/// Why attestations could not be put beside files.
#[derive(Debug, thiserror::Error)]
pub enum AttestedFilesError {
    /// What is said is said of every file.
    #[error("cannot hash the result's files")]
    Hash(#[from] WalkError),
    /// A file of the result has the name.
    #[error(
        "the result has a file `/{0}`, which is where an attestation goes; `attestation-prefix=` gives it another name"
    )]
    Taken(String),
    /// Writing one.
    #[error("cannot write attestation `{name}`")]
    Write {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store.
    #[error("cannot make a folder for attestations")]
    Layer(#[from] LayersError),
    /// The result's files.
    #[error("cannot merge the layers of the result")]
    Merge(#[from] ViewError),
}

/// A snapshot's files with attestations beside them.
#[derive(Debug)]
pub(crate) struct AttestedFiles {
    /// Before what it shows.
    view: View,
    _attestations: Option<PendingLayer>,
}

impl AttestedFiles {
    /// Opens the files of `snapshot` with `attestations`, which may be none; their times are `epoch` if there is one.
    pub(crate) fn open(
        store: ExportStore<'_>,
        snapshot: &Snapshot,
        attestations: &[Attestation],
        epoch: Option<i64>,
    ) -> Result<Self, AttestedFilesError> {
        let view = View::open(store.overlay, store.layers, snapshot)?;
        if attestations.is_empty() {
            return Ok(Self { view, _attestations: None });
        }
        let subjects = subjects(view.root())?;
        let pending = store.layers.begin()?;
        for attestation in attestations {
            let name = &attestation.file_name;
            if is_taken(view.root(), name) {
                return Err(AttestedFilesError::Taken(name.clone()));
            }
            write(pending.dir(), name, &attestation.statement(&subjects), epoch)
                .map_err(|source| AttestedFilesError::Write { name: name.clone(), source })?;
        }
        let mut directories = Vec::new();
        for layer in snapshot.layers() {
            directories.push(store.layers.open(layer)?);
        }
        keep_root(view.root(), pending.dir())
            .map_err(|source| AttestedFilesError::Write { name: "/".to_owned(), source })?;
        let mut layers: Vec<BorrowedFd<'_>> = directories.iter().map(OwnedFd::as_fd).collect();
        layers.push(pending.dir());
        let view = View::of_directories(store.overlay, &layers)?;
        Ok(Self { view, _attestations: Some(pending) })
    }

    /// The root directory.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.view.root()
    }
}

/// All files, by their paths.
fn subjects(root: BorrowedFd<'_>) -> Result<Vec<Subject>, WalkError> {
    let mut subjects = Vec::new();
    walk_files(root, |directory, name, path| {
        let digest = digest(directory, name)?;
        subjects.push(Subject { name: String::from_utf8_lossy(&path).into_owned(), digest });
        Ok(())
    })?;
    subjects.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(subjects)
}

fn digest(directory: &OwnedFd, name: &CStr) -> io::Result<Digest> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
    let mut hasher = Hasher::new(rbuild_oci::Algorithm::Sha256);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match io::Read::read(&mut file, &mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_taken(root: BorrowedFd<'_>, name: &str) -> bool {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    !matches!(open_in_root(root, name, flags, ResolveFlags::BENEATH), Err(Errno::NOENT))
}

/// Writes a file that only its owner reads.
fn write(
    directory: BorrowedFd<'_>,
    name: &str,
    bytes: &[u8],
    epoch: Option<i64>,
) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    let mut file = File::from(rustix::fs::openat(directory, name, flags, mode)?);
    file.write_all(bytes)?;
    if let Some(epoch) = epoch {
        set_time(file.as_fd(), epoch)?;
    }
    Ok(())
}

fn set_time(file: BorrowedFd<'_>, seconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access: time, last_modification: time })?)
}

/// Gives the folder the owner, mode and time of the root that it is put on top of.
fn keep_root(root: BorrowedFd<'_>, folder: BorrowedFd<'_>) -> io::Result<()> {
    let stat = rustix::fs::fstat(root)?;
    let (user, group) =
        (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(folder, Some(user), Some(group))?;
    rustix::fs::fchmod(folder, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    set_time(folder, stat.st_mtime)
}
