//! The store's root directory.
//!
//! ```text
//! $root/version       "1\n": the layout of this directory
//!       blobs/        Content: blobs/sha256/<hex>, as in an OCI image layout
//!       layers/       Layers: one overlay directory per layer
//!       index.db      Index: SQLite; can be lost, what it says of blobs and layers is checked against them
//!       locks/        Locks: one flock per thing that is being made
//!       leases/       Lease: one flock per living build, with what it uses
//!       caches/       cache mounts of steps
//!       git/          mirrors of git repositories, made when one is fetched
//!       builds/       what is remembered of the latest builds
//!       contexts/     stat caches of build contexts
//!       logs/         Logs: what steps have printed, a directory per build
//!       tmp/          what is being made, a directory per process
//!       usage         what the store took when it was last measured
//!       uses          what builds have used, until it is moved into the index
//! ```
//!
//! There is no daemon: any number of processes open the same store (design D5).

use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, CWD, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::disk_error::{DiskError, OnPath};
use crate::gate::{ClosedGate, Gate};
use crate::gc;
use crate::lease::{GATE, Pinned};
use crate::read_file::read_small;
use crate::staging::{Staged, Staging};
use crate::{
    Builds, CacheMounts, Content, Index, IndexError, IndexWarning, Layers, Lease, LeaseError,
    Locks, Logs,
};

/// The layout that this version of rbuild writes. Older ones are brought up to it when opened.
const VERSION: u32 = 1;

const LEASES: &str = "leases";

/// Bytes for the names in a store.
const LISTING_BUFFER: usize = 4 << 10;

const DIRECTORIES: [&str; 10] = [
    "blobs/sha256",
    "layers",
    "locks",
    LEASES,
    "contexts",
    "tmp",
    "caches",
    "git",
    "builds",
    "logs",
];

/// An opened store: its parts, to be passed separately to those that use them. All are cheap to clone.
#[derive(Debug)]
pub struct Store {
    /// Blobs by digest.
    pub content: Content,
    /// Layer directories.
    pub layers: Layers,
    /// What is known about both, and the images.
    pub index: Index,
    /// Directories of steps that outlive builds.
    pub cache_mounts: CacheMounts,
    /// What is remembered of the latest builds.
    pub builds: Builds,
    /// Who makes what.
    pub locks: Locks,
    /// What went wrong without keeping the store from working.
    pub warnings: Vec<IndexWarning>,
    root: PathBuf,
    gate: Arc<Gate>,
    staging: Arc<Staging>,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A newer rbuild wrote it.
    #[error(
        "the store `{}` has version {found}, this rbuild knows up to {VERSION}: use the newer rbuild, or \
         another store",
        path.display()
    )]
    Newer {
        /// The store.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The directory holds something else.
    #[error("`{}` is not a store of rbuild's: it contains `{found}`", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// Something that no store contains.
        found: String,
    },
    /// Somebody else may change it while it is used, and has others change and delete what they can reach.
    #[error(
        "the store `{}` belongs to user {owner}, and you are user {user}: run rbuild as that user, or choose another store \
         (--root); or, if you trust all that is in it, make it yours with chown -R",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// One of its directories is not in it, so what is there may not be the store's to delete.
    #[error("`{}` is not a directory; those of a store may not be links", path.display())]
    NotADirectory {
        /// What should be one.
        path: PathBuf,
    },
    /// The file system cannot hold a store.
    #[error(
        "`{}` is on a network file system ({filesystem}), where the locks and the database of a store that \
         several processes share do not hold: choose a local directory",
        path.display()
    )]
    Network {
        /// The directory.
        path: PathBuf,
        /// What it is on.
        filesystem: &'static str,
    },
    /// The user may not write there.
    #[error("the store `{}` is not writable", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What was refused.
        source: DiskError,
    },
    /// The disk is full.
    #[error("there is no space left for the store `{}`", path.display())]
    Full {
        /// The directory.
        path: PathBuf,
        /// What failed.
        source: DiskError,
    },
    /// The disk is full, and the index cannot be opened for that.
    #[error("there is no space left for the index of the store `{}`", path.display())]
    IndexFull {
        /// The store.
        path: PathBuf,
        /// What failed.
        source: IndexError,
    },
    /// The index cannot be opened.
    #[error("cannot open the index of the store `{}`", path.display())]
    Index {
        /// The store.
        path: PathBuf,
        /// Why.
        source: IndexError,
    },
    /// The disk, in another way.
    #[error(transparent)]
    Disk(DiskError),
}

impl Store {
    /// Opens the store in `root`, making it if there is nothing yet, and deletes what dead processes have left
    /// half made.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let failed = |error: DiskError| match &error {
            _ if error.is_denied() => {
                StoreError::NotWritable { path: root.to_owned(), source: error }
            }
            _ if error.is_full() => StoreError::Full { path: root.to_owned(), source: error },
            _ => StoreError::Disk(error),
        };
        let version = root.join("version");
        match read_small(&version) {
            Ok(text) => {
                check_owner(root, &failed)?;
                check_version(root, &String::from_utf8_lossy(&text))?;
                check_filesystem(root, &failed)?;
                // Somebody may have thought that one can be deleted, as all of them can be.
                if !has_directories(root) {
                    make_directories(root, &failed)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(root, &failed)?,
            Err(error) => return Err(failed(DiskError::new("read", &version, error))),
        }
        rustix::fs::access(root, Access::WRITE_OK).on_path("write to", root).map_err(failed)?;

        let staging = Arc::new(Staging::new(root.join("tmp")));
        staging.sweep().map_err(failed)?;
        let gate = Arc::new(Gate::new(root.join(LEASES).join(GATE)));
        let content = Content::new(root.join("blobs"), Arc::clone(&staging), Arc::clone(&gate));
        let layers = Layers::new(root.join("layers"), Arc::clone(&staging), Arc::clone(&gate))
            .map_err(failed)?;
        let builds = Builds::new(root.join("builds"), Arc::clone(&staging));
        let cache_mounts =
            CacheMounts::new(root.join("caches"), Arc::clone(&staging), Arc::clone(&gate));
        let locks = Locks::new(root.join("locks"), Arc::clone(&staging));
        let (index, warnings) = Index::open(root).map_err(|source| {
            let path = root.to_owned();
            if source.is_full() {
                StoreError::IndexFull { path, source }
            } else {
                StoreError::Index { path, source }
            }
        })?;
        Ok(Self {
            content,
            layers,
            index,
            cache_mounts,
            builds,
            locks,
            warnings,
            root: root.to_owned(),
            gate,
            staging,
        })
    }

    /// Whether there is a store in `root`, of whatever version.
    pub fn exists(root: &Path) -> bool {
        root.join("version").exists()
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the stat caches of build contexts are.
    pub fn contexts(&self) -> PathBuf {
        self.root.join("contexts")
    }

    /// What steps have printed.
    pub fn logs(&self) -> Logs {
        Logs::new(self.root.join("logs"))
    }

    /// Where the mirrors of git repositories are, each below the id of its [`crate::LockName::Git`].
    pub fn git_mirrors(&self) -> PathBuf {
        self.root.join("git")
    }

    /// Takes a lease: what a build uses is pinned in it and not collected while it lives.
    pub fn lease(&self) -> Result<Lease, LeaseError> {
        Lease::take(&self.root.join(LEASES), &self.gate)
    }

    /// A place for something that is about to be put into the store.
    pub(crate) fn stage(&self) -> Result<Staged, DiskError> {
        self.staging.stage()
    }

    /// Takes a directory of the store away, so that nobody ever sees it with a part of its files; `None` if there is none.
    pub(crate) fn detach(&self, path: &Path) -> Result<Option<Staged>, DiskError> {
        let staged = self.staging.stage()?;
        match rustix::fs::renameat(CWD, path, staged.parent(), staged.name()) {
            Ok(()) => Ok(Some(staged)),
            Err(Errno::NOENT) => {
                staged.moved();
                Ok(None)
            }
            Err(error) => Err(DiskError::new("move", path, error)),
        }
    }

    /// Keeps builds from putting things into the store and from pinning them, and says what they have pinned.
    pub(crate) fn close_gate(&self) -> Result<(ClosedGate, Pinned), LeaseError> {
        let closed = self.gate.close().map_err(LeaseError)?;
        let pinned = Pinned::read(&self.root.join(LEASES), &closed)?;
        Ok((closed, pinned))
    }
}

fn check_version(root: &Path, text: &str) -> Result<(), StoreError> {
    match text.trim_end().parse::<u32>() {
        Ok(VERSION) => Ok(()),
        Ok(found) if found > VERSION => Err(StoreError::Newer { path: root.to_owned(), found }),
        _ => Err(StoreError::NotAStore {
            path: root.to_owned(),
            found: format!(
                "a file version that says {:?}",
                text.chars().take(20).collect::<String>()
            ),
        }),
    }
}

/// Makes a store where there is none. Other processes may be doing the same; `version` is written last, so a
/// store that has it is whole.
fn make(root: &Path, failed: &dyn Fn(DiskError) -> StoreError) -> Result<(), StoreError> {
    make_directory(root, failed)?;
    check_owner(root, failed)?;
    check_filesystem(root, failed)?;
    for entry in std::fs::read_dir(root).on_path("list", root).map_err(failed)? {
        let entry = entry.on_path("list", root).map_err(failed)?;
        let name = entry.file_name();
        let ours = |known: &&str| known.split('/').next() == name.to_str();
        if !DIRECTORIES.iter().any(ours) && name != "version" {
            // Another process may have finished meanwhile, and be using the store already.
            if root.join("version").exists() {
                return Ok(());
            }
            let found = name.to_string_lossy().into_owned();
            return Err(StoreError::NotAStore { path: root.to_owned(), found });
        }
    }
    rustix::fs::chmod(root, rustix::fs::Mode::RWXU)
        .on_path("change the mode of", root)
        .map_err(failed)?;
    make_directories(root, failed)?;
    let staging = Arc::new(Staging::new(root.join("tmp")));
    let staged = staging.stage().map_err(failed)?;
    // Synced, unlike what can be made again: the store of an empty one would be refused for ever.
    std::fs::File::create_new(staged.path())
        .and_then(|mut file| {
            writeln!(file, "{VERSION}")?;
            file.sync_all()
        })
        .on_path("write", staged.path())
        .map_err(failed)?;
    let version = root.join("version");
    rustix::fs::rename(staged.path(), &version).on_path("rename to", &version).map_err(failed)?;
    staged.moved();
    gc::note_empty(root);
    Ok(())
}

/// Whether all directories are there, as far as one look tells. Those in them are made by whoever misses one.
fn has_directories(root: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(dir) = rustix::fs::openat(CWD, root, flags, Mode::empty()) else { return false };
    let mut buffer = Vec::with_capacity(LISTING_BUFFER);
    let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
    let mut found = 0;
    while let Some(entry) = entries.next() {
        let Ok(entry) = entry else { return false };
        let name = entry.file_name().to_bytes();
        let is_it =
            |known: &&str| known.split('/').next().is_some_and(|first| first.as_bytes() == name);
        if entry.file_type() == FileType::Directory && DIRECTORIES.iter().any(is_it) {
            found += 1;
        }
        if found == DIRECTORIES.len() {
            return true;
        }
    }
    false
}

fn make_directories(
    root: &Path,
    failed: &dyn Fn(DiskError) -> StoreError,
) -> Result<(), StoreError> {
    for directory in DIRECTORIES {
        let path = root.join(directory);
        // The first of two, too: what is in a directory is as it was made here.
        let first = root.join(directory.split('/').next().unwrap_or(directory));
        match rustix::fs::lstat(&first).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Directory) if first == path => {}
            Ok(FileType::Directory) | Err(Errno::NOENT) => make_directory(&path, failed)?,
            Ok(_) => return Err(StoreError::NotADirectory { path: first }),
            Err(error) => return Err(failed(DiskError::new("inspect", &first, error))),
        }
    }
    Ok(())
}

fn check_owner(root: &Path, failed: &dyn Fn(DiskError) -> StoreError) -> Result<(), StoreError> {
    let owner = rustix::fs::stat(root).on_path("inspect", root).map_err(failed)?.st_uid;
    match rustix::process::geteuid().as_raw() {
        user if user == owner => Ok(()),
        user => Err(StoreError::Foreign { path: root.to_owned(), owner, user }),
    }
}

/// Makes a directory that only we may enter, unless it is there.
fn make_directory(path: &Path, failed: &dyn Fn(DiskError) -> StoreError) -> Result<(), StoreError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .on_path("make", path)
        .map_err(failed)
}

/// Refuses file systems on which several processes cannot share a database and locks.
fn check_filesystem(
    root: &Path,
    failed: &dyn Fn(DiskError) -> StoreError,
) -> Result<(), StoreError> {
    let stat = rustix::fs::statfs(root).on_path("inspect the file system of", root);
    match network_filesystem(stat.map_err(failed)?.f_type as u32) {
        None => Ok(()),
        Some(filesystem) => Err(StoreError::Network { path: root.to_owned(), filesystem }),
    }
}

fn network_filesystem(magic: u32) -> Option<&'static str> {
    // include/uapi/linux/magic.h
    match magic {
        0x6969 => Some("NFS"),
        0x517b => Some("SMB"),
        0xff53_4d42 => Some("CIFS"),
        0xfe53_4d42 => Some("SMB2"),
        0x0102_1997 => Some("9P"),
        0x5346_414f => Some("AFS"),
        0x7375_7245 => Some("Coda"),
        _ => None,
    }
}
