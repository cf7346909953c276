//! From packs of another machine to a cache mount.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, TryStreamExt as _};
use rbuild_oci::Descriptor;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use tokio::sync::OnceCell;

use super::export::shown;
use super::index::{LARGEST_INDEX, MountIndex, MountIndexError, PackedMount};
use super::pack::ArchiveReader;
use crate::{
    ApplyError, ApplyForm, ApplyOptions, BlobSource, CacheMountError, CacheMountKey, CacheName,
    ContentError, FreshCacheMount, ImageError, ImageSource, IndexError, PullProgress, apply,
};

/// Packs that are fetched at a time.
const PARALLEL: usize = 6;

/// Indexes of caches that were imported. Clones are the same notes.
#[derive(Clone, Debug, Default)]
pub(crate) struct RemoteMounts(Arc<Mutex<Vec<Arc<NotedIndex>>>>);

/// An index that is read when it is needed for the first time.
#[derive(Debug)]
struct NotedIndex {
    descriptor: Descriptor,
    place: BlobSource,
    /// `None` if it cannot be had.
    index: OnceCell<Option<Arc<MountIndex>>>,
}

/// Why a mount of a cache cannot be used.
#[derive(Debug, thiserror::Error)]
enum MountError {
    #[error(transparent)]
    Fetch(#[from] ImageError),
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error(transparent)]
    Places(#[from] IndexError),
    #[error(transparent)]
    Index(#[from] MountIndexError),
    #[error("the index of its cache mounts has {0} bytes, at most {LARGEST_INDEX} are believed")]
    TooLarge(u64),
    #[error("it has {size} bytes, and the disk of the store has {free} left")]
    Space { size: u64, free: u64 },
    #[error("cannot {0} its directory")]
    Directory(&'static str, #[source] io::Error),
    #[error("cannot unpack it")]
    Unpack(#[from] ApplyError),
}

impl RemoteMounts {
    pub(crate) fn note(&self, descriptor: Descriptor, place: BlobSource) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.push(Arc::new(NotedIndex { descriptor, place, index: OnceCell::new() }));
    }

    fn all(&self) -> Vec<Arc<NotedIndex>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl NotedIndex {
    async fn get(&self, images: &ImageSource, progress: &PullProgress) -> Option<Arc<MountIndex>> {
        let read = || async {
            match self.read(images, progress).await {
                Ok(index) => Some(Arc::new(index)),
                Err(error) => {
                    progress
                        .warn(format!("cache mounts of a cache are not used: {}", reasons(&error)));
                    None
                }
            }
        };
        self.index.get_or_init(read).await.clone()
    }

    async fn read(
        &self,
        images: &ImageSource,
        progress: &PullProgress,
    ) -> Result<MountIndex, MountError> {
        let Descriptor { digest, size, .. } = self.descriptor;
        if size > LARGEST_INDEX {
            return Err(MountError::TooLarge(size));
        }
        images.index.add_blob_source(&[digest], &self.place)?;
        images.ensure_blob(&self.descriptor, progress).await?;
        let index = MountIndex::parse(&images.content.read(&digest, LARGEST_INDEX)?)?;
        let packs: Vec<_> = index.packs.iter().map(|pack| pack.blob).collect();
        images.index.add_blob_source(&packs, &self.place)?;
        Ok(index)
    }
}

impl ImageSource {
    /// Whether a cache with cache mounts was imported.
    pub fn has_remote_mounts(&self) -> bool {
        !self.mounts.all().is_empty()
    }

    /// Makes a new cache mount what the first imported cache that has it says. Returns whether one has it; if it cannot be had, that is a
    /// warning.
    pub async fn fill_mount(
        &self,
        key: &CacheMountKey,
        fresh: &FreshCacheMount,
        progress: &PullProgress,
    ) -> Result<bool, CacheMountError> {
        let name = key.name();
        for noted in self.mounts.all() {
            let Some(index) = noted.get(self, progress).await else { continue };
            if index.mount(&name).is_none() {
                continue;
            }
            match self.fill(index, name.clone(), fresh, progress).await {
                Ok(()) => return Ok(true),
                Err(error) => {
                    progress.warn(format!(
                        "cache mount {:?} of a cache is not used: {}",
                        shown(&key.id),
                        reasons(&error)
                    ));
                    fresh.begin_anew()?;
                }
            }
        }
        Ok(false)
    }

    async fn fill(
        &self,
        index: Arc<MountIndex>,
        name: String,
        fresh: &FreshCacheMount,
        progress: &PullProgress,
    ) -> Result<(), MountError> {
        let around = fresh.around().try_clone_to_owned();
        let around = around.map_err(|error| MountError::Directory("open", error))?;
        let mount = index.mount(&name).expect("the caller has found it");
        let space = rustix::fs::fstatvfs(&around)
            .map_err(|error| MountError::Directory("inspect", error.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if mount.size > free {
            return Err(MountError::Space { size: mount.size, free });
        }
        let places = index.places();
        let packs = index.packs_of(mount, &places);
        stream::iter(packs.iter().map(Ok))
            .try_for_each_concurrent(PARALLEL, |pack| self.ensure_blob(pack, progress))
            .await?;
        let images = self.clone();
        let unpack = move || {
            let mount = index.mount(&name).expect("it was there before");
            let archive = ArchiveReader::new(images.content.clone(), &index, &places, mount);
            images.unpack_mount(archive, mount, &around)
        };
        match tokio::task::spawn_blocking(unpack).await {
            Ok(unpacked) => unpacked,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn unpack_mount(
        &self,
        archive: ArchiveReader<'_>,
        mount: &PackedMount,
        around: &OwnedFd,
    ) -> Result<(), MountError> {
        let failed = |what| move |error: Errno| MountError::Directory(what, error.into());
        let name = FreshCacheMount::NAME;
        rustix::fs::mkdirat(around, name, Mode::RWXU).map_err(failed("make"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root =
            rustix::fs::openat(around, name, flags, Mode::empty()).map_err(failed("open"))?;
        let options = ApplyOptions {
            form: ApplyForm::Plain,
            ignore_chown_errors: self.options.ignore_chown_errors,
            owner: None,
            limits: self.options.limits,
        };
        apply(archive, root.as_fd(), &options)?;
        let owner = (Uid::from_raw(mount.uid), Gid::from_raw(mount.gid));
        match rustix::fs::fchown(&root, Some(owner.0), Some(owner.1)) {
            Err(Errno::INVAL | Errno::PERM) if self.options.ignore_chown_errors => {}
            changed => changed.map_err(failed("set the owner of"))?,
        }
        let mode = Mode::from_raw_mode(mount.mode & 0o7777);
        rustix::fs::fchmod(&root, mode).map_err(failed("set the mode of"))
    }

    /// What the caches that were imported, and the one under `name`, have of cache mounts, the latter first. What cannot be read is
    /// left out: it will be packed anew.
    pub async fn remote_mounts(
        &self,
        name: &CacheName,
        progress: &PullProgress,
    ) -> Vec<Arc<MountIndex>> {
        let mut noted = self.mounts.all();
        if let Ok(Some((descriptor, place))) = self.mount_index_of(name).await {
            match noted.iter().position(|noted| noted.descriptor.digest == descriptor.digest) {
                Some(position) => noted.swap(0, position),
                None => {
                    let index = OnceCell::new();
                    noted.insert(0, Arc::new(NotedIndex { descriptor, place, index }));
                }
            }
        }
        let mut found = Vec::new();
        for noted in noted {
            found.extend(noted.get(self, progress).await);
        }
        found
    }
}

/// An error and what caused it, in one line.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
