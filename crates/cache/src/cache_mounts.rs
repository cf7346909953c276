//! Directories that outlive builds: what `RUN --mount=type=cache` shows a step.
//!
//! ```text
//! caches/<key>.<n>/        what steps have left there
//! caches/<key>.<n>.lock    flock while a step uses it; its text is the id that the Dockerfile gave
//! ```
//!
//! The key is the SHA-256 of the id and of the content that the directory began with. `n` is 0, and higher where steps that did not want to
//! wait ran at the same time. A user holds the lock, shared or not; it ends with the user's process, however that ends, so there are
//! no stale ones. The time of the lock file is that of the last use.

use std::ffi::CStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rbuild_oci::{Digest, Hasher};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, openat};
use rustix::io::Errno;

use crate::disk_error::{DiskError, OnPath};
use crate::gate::Gate;
use crate::gc::disk_size;
use crate::layer::tree;
use crate::lock::open_lock_file;
use crate::staging::{Staged, Staging};

/// How many directories one key may have.
const MOST: u32 = 1000;

/// The cache mounts of a store. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct CacheMounts {
    root: Arc<Path>,
    staging: Arc<Staging>,
    /// Collection closes it: a lock that changes from one kind to the other is free for a moment.
    gate: Arc<Gate>,
}

/// Which directory is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CacheMountKey {
    /// The name that the build gives it.
    pub id: String,
    /// What it begins with; `None` for nothing.
    pub content: Option<Digest>,
}

impl CacheMountKey {
    pub(crate) fn name(&self) -> String {
        let mut hasher = Hasher::default();
        hasher.update(b"rbuild.cachemount.v1");
        hasher.update(&(self.id.len() as u64).to_le_bytes());
        hasher.update(self.id.as_bytes());
        if let Some(content) = &self.content {
            hasher.update(content.as_bytes());
        }
        hasher.finish().hex()
    }
}

/// Who else may use a directory at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheMountUse {
    /// All who also share it. Where somebody has it to himself, another directory is taken.
    Shared,
    /// Nobody. Where somebody uses it, another directory is taken.
    Private,
    /// Nobody. Where somebody uses it, that has to be waited for.
    Locked,
}

/// When what is in a directory is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewCacheMount {
    /// Never.
    Never,
    /// If there is nothing in it, and nobody uses it.
    IfEmpty,
    /// Always.
    Always,
}

/// The cache mounts cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the cache mounts of the store")]
pub struct CacheMountError(#[source] pub(crate) DiskError);

/// An answer to who wants a directory.
#[derive(Debug)]
pub enum TakenCacheMount {
    /// It is there.
    Ready(CacheMount),
    /// It is new, and may be filled.
    Fresh(FreshCacheMount),
    /// Another one uses it.
    Busy,
}

/// A directory that is held until this is dropped.
#[derive(Debug)]
pub struct CacheMount {
    dir: OwnedFd,
    /// Closing it releases the lock.
    _lock: File,
}

impl CacheMount {
    /// The directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// A directory that nobody has seen yet, held without sharing.
#[derive(Debug)]
pub struct FreshCacheMount {
    staged: Staged,
    around: OwnedFd,
    path: PathBuf,
    lock: File,
    sharing: CacheMountUse,
    gate: Arc<Gate>,
}

impl FreshCacheMount {
    /// The name that the directory has in [`FreshCacheMount::around`].
    pub const NAME: &CStr = c"cache";

    /// Where the directory may be made as it is to begin with; else it will be empty.
    pub fn around(&self) -> BorrowedFd<'_> {
        self.around.as_fd()
    }

    /// Removes what was made of it.
    pub(crate) fn begin_anew(&self) -> Result<(), CacheMountError> {
        let removed = tree::remove(self.around(), Self::NAME);
        removed.on_path("empty", self.staged.path()).map_err(CacheMountError)
    }

    /// Puts it into the store.
    ///
    /// # Errors
    /// When the disk refuses. Then it is gone.
    pub fn ready(self) -> Result<CacheMount, CacheMountError> {
        let _passing = self.gate.pass().map_err(CacheMountError)?;
        let staged = self.staged.path();
        match mkdirat(&self.around, Self::NAME, Mode::from_raw_mode(0o755)) {
            // The mask of the process may say otherwise.
            Ok(()) => rustix::fs::chmodat(
                &self.around,
                Self::NAME,
                Mode::from_raw_mode(0o755),
                rustix::fs::AtFlags::empty(),
            ),
            Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error),
        }
        .and_then(|()| rustix::fs::renameat(&self.around, Self::NAME, CWD, &self.path))
        .on_path("make", staged)
        .map_err(CacheMountError)?;
        if self.sharing == CacheMountUse::Shared {
            flock(&self.lock, FlockOperation::LockShared)
                .on_path("lock", &self.path)
                .map_err(CacheMountError)?;
        }
        let dir = open_dir(&self.path).map_err(CacheMountError)?;
        Ok(CacheMount { dir, _lock: self.lock })
    }
}

/// A directory and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundCacheMount {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The name that the build gave it.
    pub(crate) id: String,
    /// When a step used it last.
    pub(crate) used: SystemTime,
}

impl CacheMounts {
    pub(crate) fn new(root: PathBuf, staging: Arc<Staging>, gate: Arc<Gate>) -> Self {
        Self { root: root.into(), staging, gate }
    }

    /// Takes a directory, if nobody who stands in the way uses it. One that is renewed is as if it had not been there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn try_take(
        &self,
        key: &CacheMountKey,
        sharing: CacheMountUse,
        renew: RenewCacheMount,
    ) -> Result<TakenCacheMount, CacheMountError> {
        let _passing = self.gate.pass().map_err(CacheMountError)?;
        let name = key.name();
        let most = if sharing == CacheMountUse::Locked { 1 } else { MOST };
        for number in 0..most {
            let path = self.root.join(format!("{name}.{number}"));
            match self.take(&path, key, sharing, renew).map_err(CacheMountError)? {
                // Who fills a new one that is to be shared, or empties it, is soon done.
                TakenCacheMount::Busy
                    if sharing == CacheMountUse::Shared
                        && (renew == RenewCacheMount::Always
                            || path.symlink_metadata().is_err()) =>
                {
                    return Ok(TakenCacheMount::Busy);
                }
                TakenCacheMount::Busy => {}
                taken => return Ok(taken),
            }
        }
        Ok(TakenCacheMount::Busy)
    }

    fn take(
        &self,
        path: &Path,
        key: &CacheMountKey,
        sharing: CacheMountUse,
        mut renew: RenewCacheMount,
    ) -> Result<TakenCacheMount, DiskError> {
        loop {
            let lock_path = lock_path(path);
            let mut lock = open_lock_file(&lock_path)?;
            let is_there = || path.symlink_metadata().is_ok();
            let renews = match renew {
                RenewCacheMount::Never => false,
                RenewCacheMount::IfEmpty => is_there() && is_empty(path)?,
                RenewCacheMount::Always => true,
            };
            let shares = sharing == CacheMountUse::Shared && !renews && is_there();
            let operation = match shares {
                true => FlockOperation::NonBlockingLockShared,
                false => FlockOperation::NonBlockingLockExclusive,
            };
            match flock(&lock, operation) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) if renews && renew == RenewCacheMount::IfEmpty => {
                    renew = RenewCacheMount::Never;
                    continue;
                }
                Err(Errno::WOULDBLOCK) => return Ok(TakenCacheMount::Busy),
                Err(error) => return Err(DiskError::new("lock", &lock_path, error)),
            }
            // It may have been collected since it was opened, or the directory since it was looked for.
            if fstat(&lock).on_path("inspect", &lock_path)?.st_nlink == 0 || (shares && !is_there())
            {
                continue;
            }
            // The text never changes, and writing it anew sets the time.
            lock.write_all(key.id.as_bytes()).on_path("write", &lock_path)?;
            let renews =
                renews && is_there() && (renew == RenewCacheMount::Always || is_empty(path)?);
            if renews {
                self.detach(path)?.discard()?;
            }
            if is_there() {
                if sharing == CacheMountUse::Shared && !shares {
                    flock(&lock, FlockOperation::LockShared).on_path("lock", &lock_path)?;
                }
                let dir = open_dir(path)?;
                return Ok(TakenCacheMount::Ready(CacheMount { dir, _lock: lock }));
            }
            let staged = self.staging.stage()?;
            mkdirat(staged.parent(), staged.name(), Mode::RWXU).on_path("make", staged.path())?;
            let around = open_dir(staged.path())?;
            let path = path.to_owned();
            return Ok(TakenCacheMount::Fresh(FreshCacheMount {
                staged,
                around,
                path,
                lock,
                sharing,
                gate: Arc::clone(&self.gate),
            }));
        }
    }

    /// All that are there, the one that was used last first.
    pub(crate) fn newest_first(&self) -> Result<Vec<FoundCacheMount>, CacheMountError> {
        let mut found = self.list().map_err(CacheMountError)?;
        found.reverse();
        Ok(found)
    }

    /// Keeps everybody from a directory, to read it; `None` if somebody uses it, or it is gone.
    pub(crate) fn hold(
        &self,
        found: &FoundCacheMount,
    ) -> Result<Option<HeldCacheMount>, CacheMountError> {
        let Some(lock) = lock_to_collect(&found.path).map_err(CacheMountError)? else {
            return Ok(None);
        };
        if found.path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let dir = open_dir(&found.path).map_err(CacheMountError)?;
        Ok(Some(HeldCacheMount { mount: CacheMount { dir, _lock: lock }, found: found.clone() }))
    }

    /// All that are there.
    pub(crate) fn list(&self) -> Result<Vec<FoundCacheMount>, DiskError> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.root).on_path("list", &self.root)? {
            let path = entry.on_path("list", &self.root)?.path();
            if path.extension().is_some_and(|extension| extension == "lock") {
                continue;
            }
            let lock = lock_path(&path);
            let id = match std::fs::read(&lock) {
                Ok(id) => String::from_utf8_lossy(&id).into_owned(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(DiskError::new("read", &lock, error)),
            };
            let used = lock.metadata().and_then(|metadata| metadata.modified());
            found.push(FoundCacheMount { path, id, used: used.unwrap_or(SystemTime::UNIX_EPOCH) });
        }
        found.sort_by(|one, other| (one.used, &one.path).cmp(&(other.used, &other.path)));
        Ok(found)
    }

    /// Whether a step uses it right now.
    pub(crate) fn is_used(&self, mount: &FoundCacheMount) -> Result<bool, DiskError> {
        Ok(lock_to_collect(&mount.path)?.is_none())
    }

    /// Takes a directory out of the store unless a step uses it.
    pub(crate) fn collect(&self, mount: &FoundCacheMount) -> Result<Option<Staged>, DiskError> {
        let Some(_lock) = lock_to_collect(&mount.path)? else { return Ok(None) };
        let staged = match mount.path.symlink_metadata() {
            Ok(_) => Some(self.detach(&mount.path)?),
            Err(_) => None,
        };
        let lock = lock_path(&mount.path);
        std::fs::remove_file(&lock).on_path("delete", &lock)?;
        Ok(staged)
    }

    fn detach(&self, path: &Path) -> Result<Staged, DiskError> {
        let staged = self.staging.stage()?;
        rustix::fs::renameat(CWD, path, staged.parent(), staged.name()).on_path("move", path)?;
        Ok(staged)
    }
}

/// A directory that nobody else uses while this exists.
#[derive(Debug)]
pub(crate) struct HeldCacheMount {
    mount: CacheMount,
    found: FoundCacheMount,
}

impl HeldCacheMount {
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.mount.dir()
    }

    pub(crate) fn id(&self) -> &str {
        &self.found.id
    }

    pub(crate) fn key(&self) -> &str {
        self.found.key()
    }

    /// Bytes of whole blocks.
    pub(crate) fn disk_size(&self) -> Result<u64, CacheMountError> {
        disk_size(self.dir()).on_path("measure", &self.found.path).map_err(CacheMountError)
    }

    /// Mode, owner and group of the directory.
    pub(crate) fn root(&self) -> Result<(u32, u32, u32), CacheMountError> {
        let stat = fstat(self.dir()).on_path("inspect", &self.found.path);
        let stat = stat.map_err(CacheMountError)?;
        Ok((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid))
    }
}

impl FoundCacheMount {
    /// [`CacheMountKey::name`] of what it was made for.
    pub(crate) fn key(&self) -> &str {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.split_once('.').map_or(name, |(key, _)| key)
    }
}

fn is_empty(path: &Path) -> Result<bool, DiskError> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DiskError::new("list", path, error)),
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

fn lock_to_collect(path: &Path) -> Result<Option<File>, DiskError> {
    let path = lock_path(path);
    let lock = open_lock_file(&path)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(DiskError::new("lock", &path, error)),
    }
    // Collected by another one.
    let links = fstat(&lock).on_path("inspect", &path)?.st_nlink;
    Ok((links > 0).then_some(lock))
}

fn open_dir(path: &Path) -> Result<OwnedFd, DiskError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).on_path("open", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        mounts: CacheMounts,
        dir: tempfile::TempDir,
    }

    fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        for name in ["caches", "tmp"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let staging = Arc::new(Staging::new(dir.path().join("tmp")));
        let gate = Arc::new(Gate::new(dir.path().join("gate")));
        World { mounts: CacheMounts::new(dir.path().join("caches"), staging, gate), dir }
    }

    fn key(id: &str) -> CacheMountKey {
        CacheMountKey { id: id.to_owned(), content: None }
    }

    impl World {
        /// Takes a directory; `None` if it is busy.
        fn take(&self, id: &str, sharing: CacheMountUse, empty: bool) -> Option<CacheMount> {
            let renew = if empty { RenewCacheMount::Always } else { RenewCacheMount::Never };
            self.renew(id, sharing, renew)
        }

        fn renew(
            &self,
            id: &str,
            sharing: CacheMountUse,
            renew: RenewCacheMount,
        ) -> Option<CacheMount> {
            match self.mounts.try_take(&key(id), sharing, renew).unwrap() {
                TakenCacheMount::Ready(mount) => Some(mount),
                TakenCacheMount::Fresh(fresh) => Some(fresh.ready().unwrap()),
                TakenCacheMount::Busy => None,
            }
        }
    }

    fn inode(mount: &CacheMount) -> u64 {
        fstat(mount.dir()).unwrap().st_ino
    }

    fn touch(mount: &CacheMount, name: &str) {
        let flags = OFlags::CREATE | OFlags::WRONLY;
        drop(openat(mount.dir(), name, flags, Mode::RWXU).unwrap());
    }

    fn has(mount: &CacheMount, name: &str) -> bool {
        rustix::fs::statat(mount.dir(), name, rustix::fs::AtFlags::empty()).is_ok()
    }

    #[test]
    fn sharing_is_as_asked() {
        use CacheMountUse::{Locked, Private, Shared};
        let world = world();
        let one = world.take("a", Shared, false).unwrap();
        let two = world.take("a", Shared, false).unwrap();
        assert_eq!(inode(&one), inode(&two));
        assert!(world.take("a", Locked, false).is_none());
        let private = world.take("a", Private, false).unwrap();
        assert_ne!(inode(&private), inode(&one));
        let another = world.take("a", Private, false).unwrap();
        assert_ne!(inode(&private), inode(&another));
        let other = world.take("b", Locked, false).unwrap();
        assert_ne!(inode(&other), inode(&one));
        drop((one, two));
        let locked = world.take("a", Locked, false).unwrap();
        assert!(world.take("a", Locked, false).is_none());
        // Sharing does not wait for who has one to himself, and those who share get the same other one.
        drop((private, another));
        let shared = world.take("a", Shared, false).unwrap();
        assert_ne!(inode(&shared), inode(&locked));
        assert_eq!(inode(&shared), inode(&world.take("a", Shared, false).unwrap()));
        drop((locked, shared));
        assert!(world.take("a", Private, false).is_some());
        assert_eq!(world.mounts.list().unwrap().len(), 4);
    }

    #[test]
    fn an_empty_one_is_renewed_if_nobody_uses_it() {
        use CacheMountUse::Shared;
        let world = world();
        let used = world.take("a", Shared, false).unwrap();
        let same = world.renew("a", Shared, RenewCacheMount::IfEmpty).unwrap();
        assert_eq!(inode(&same), inode(&used));
        drop((used, same));
        let taken = world.mounts.try_take(&key("a"), Shared, RenewCacheMount::IfEmpty).unwrap();
        let TakenCacheMount::Fresh(fresh) = taken else { panic!("{taken:?}") };
        let mount = fresh.ready().unwrap();
        touch(&mount, "file");
        drop(mount);
        assert!(has(&world.renew("a", Shared, RenewCacheMount::IfEmpty).unwrap(), "file"));
    }

    #[test]
    fn what_is_held_is_nobody_elses() {
        let world = world();
        let mount = world.take("a", CacheMountUse::Shared, false).unwrap();
        let found = world.mounts.newest_first().unwrap();
        assert!(world.mounts.hold(&found[0]).unwrap().is_none());
        drop(mount);
        let held = world.mounts.hold(&found[0]).unwrap().unwrap();
        assert_eq!((held.id(), held.key()), ("a", &*key("a").name()));
        assert_eq!(held.root().unwrap().0, 0o755);
        assert!(world.take("a", CacheMountUse::Locked, false).is_none());
    }

    #[test]
    fn content_stays_until_it_is_emptied() {
        let world = world();
        let mount = world.take("a", CacheMountUse::Shared, false).unwrap();
        touch(&mount, "file");
        assert!(world.take("a", CacheMountUse::Shared, true).is_none(), "another one uses it");
        drop(mount);
        let mount = world.take("a", CacheMountUse::Shared, false).unwrap();
        assert!(has(&mount, "file"));
        drop(mount);
        let mount = world.take("a", CacheMountUse::Shared, true).unwrap();
        assert!(!has(&mount, "file"));
        // It is shared again.
        assert!(world.take("a", CacheMountUse::Shared, false).is_some());
        assert!(world.dir.path().join("tmp").read_dir().unwrap().count() <= 1);
    }

    #[test]
    fn what_a_fresh_one_begins_with_is_seen_whole_or_not_at_all() {
        let world = world();
        let take = || {
            world.mounts.try_take(&key("a"), CacheMountUse::Shared, RenewCacheMount::Never).unwrap()
        };
        let TakenCacheMount::Fresh(fresh) = take() else { panic!("it is new") };
        mkdirat(fresh.around(), FreshCacheMount::NAME, Mode::RWXU).unwrap();
        assert!(matches!(take(), TakenCacheMount::Busy));
        // Whoever fills it dies.
        drop(fresh);
        let TakenCacheMount::Fresh(fresh) = take() else { panic!("it is new again") };
        mkdirat(fresh.around(), FreshCacheMount::NAME, Mode::RWXU).unwrap();
        let mount = fresh.ready().unwrap();
        assert_eq!(fstat(mount.dir()).unwrap().st_mode & 0o777, 0o700);
        let other = CacheMountKey { content: Some(Digest::of(b"x")), ..key("a") };
        let other =
            world.mounts.try_take(&other, CacheMountUse::Shared, RenewCacheMount::Never).unwrap();
        assert!(matches!(other, TakenCacheMount::Fresh(_)));
    }

    #[test]
    fn collection_spares_what_is_used() {
        let world = world();
        let mount = world.take("some/id", CacheMountUse::Shared, false).unwrap();
        touch(&mount, "file");
        let found = world.mounts.list().unwrap();
        assert_eq!(found[0].id, "some/id");
        assert!(world.mounts.is_used(&found[0]).unwrap());
        assert!(world.mounts.collect(&found[0]).unwrap().is_none());
        drop(mount);
        assert!(!world.mounts.is_used(&found[0]).unwrap());
        world.mounts.collect(&found[0]).unwrap().unwrap().discard().unwrap();
        assert_eq!(world.dir.path().join("caches").read_dir().unwrap().count(), 0);
        assert!(!has(&world.take("some/id", CacheMountUse::Shared, false).unwrap(), "file"));
    }
}
