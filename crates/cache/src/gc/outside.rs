//! What is in a store beside layers and blobs: it can be listed and measured while builds go on.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rbuild_oci::Digest;

use super::item::{Item, ItemKind};
use super::survey::{CollectError, directory_size};
use crate::cache_mounts::FoundCacheMount;
use crate::disk_error::OnPath;
use crate::staging::Staged;
use crate::{DiskError, LockName, Store};

/// One of them.
#[derive(Debug)]
pub(super) struct Outside {
    pub(super) item: Item,
    place: Place,
}

#[derive(Debug)]
enum Place {
    CacheMount(FoundCacheMount),
    Context(PathBuf),
    Repository(PathBuf),
    Log(String),
    Builds(String),
}

/// What was taken out of the store, and is deleted when nobody waits for it.
#[derive(Debug)]
pub(super) enum Taken {
    /// Files that are out of the way.
    Staged(Staged),
    /// It is gone.
    Gone,
}

/// Lists and measures all of them.
pub(super) fn outside(store: &Store) -> Result<Vec<Outside>, CollectError> {
    let mut found = cache_mounts(store)?;
    found.extend(contexts(store)?);
    found.extend(repositories(store)?);
    found.extend(logs(store)?);
    found.extend(builds(store)?);
    Ok(found)
}

impl Outside {
    /// Whether it is taken while no build can enter the store; the others are taken without stopping anybody.
    pub(super) fn needs_gate(&self) -> bool {
        matches!(self.place, Place::CacheMount(_))
    }

    /// Takes it out of the store; `None` when somebody uses it, or it is gone already.
    pub(super) fn take(&self, store: &Store) -> Result<Option<Taken>, CollectError> {
        Ok(match &self.place {
            Place::CacheMount(mount) => store.cache_mounts.collect(mount)?.map(Taken::Staged),
            Place::Context(path) => match std::fs::remove_file(path) {
                Ok(()) => Some(Taken::Gone),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(DiskError::new("delete", path, error).into()),
            },
            Place::Repository(path) => {
                let Some(_lock) = lock_mirror(store, path)? else { return Ok(None) };
                store.detach(path)?.map(Taken::Staged)
            }
            Place::Log(id) => store.logs().remove_build(id)?.map(|_| Taken::Gone),
            Place::Builds(project) => {
                let Some(_hold) = store.builds.hold_alone(project)? else { return Ok(None) };
                store.detach(&store.builds.folder(project))?.map(Taken::Staged)
            }
        })
    }
}

/// An item of which only the place is known.
fn item(kind: ItemKind, id: String, size: u64, used: Option<SystemTime>) -> Item {
    Item {
        id,
        kind,
        name: None,
        parents: Vec::new(),
        description: String::new(),
        size,
        created: None,
        used,
        uses: 0,
        in_use: false,
        shared: false,
    }
}

fn cache_mounts(store: &Store) -> Result<Vec<Outside>, CollectError> {
    let mounts = store.cache_mounts.list()?;
    let measured = mounts.par_iter().map(|mount| {
        let id = file_name(&mount.path);
        let size = directory_size(&mount.path)?;
        let item = Item {
            name: Some(mount.id.clone()),
            description: format!("cached mount {}", mount.id),
            in_use: store.cache_mounts.is_used(mount)?,
            ..item(ItemKind::CacheMount, id, size, Some(mount.used))
        };
        Ok(Outside { item, place: Place::CacheMount(mount.clone()) })
    });
    measured.collect()
}

fn contexts(store: &Store) -> Result<Vec<Outside>, CollectError> {
    let mut found = Vec::new();
    for path in entries(store.contexts())? {
        let metadata = match path.metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            metadata => metadata.on_path("inspect", &path)?,
        };
        let (size, used) = (metadata.blocks() * 512, metadata.modified().ok());
        let item = Item {
            description: "digests of the files of a build context".to_owned(),
            ..item(ItemKind::Context, file_name(&path), size, used)
        };
        found.push(Outside { item, place: Place::Context(path) });
    }
    Ok(found)
}

fn repositories(store: &Store) -> Result<Vec<Outside>, CollectError> {
    let mut found = Vec::new();
    for path in entries(store.git_mirrors())? {
        let used = modified(&path);
        let item = Item {
            description: "mirror of a git repository".to_owned(),
            in_use: lock_mirror(store, &path)?.is_none(),
            ..item(ItemKind::Repository, file_name(&path), directory_size(&path)?, used)
        };
        found.push(Outside { item, place: Place::Repository(path) });
    }
    Ok(found)
}

fn logs(store: &Store) -> Result<Vec<Outside>, CollectError> {
    let logs = store.logs();
    let mut found = Vec::new();
    for id in logs.ids()? {
        let build = logs.build(&id)?;
        let item = Item {
            description: match &build {
                Some(build) => format!("what the steps of `{}` have printed", build.title),
                None => "what the steps of a build have printed".to_owned(),
            },
            created: build.as_ref().map(|build| build.started),
            in_use: build.as_ref().is_some_and(|build| build.is_running),
            ..item(ItemKind::Log, id.clone(), logs.size_of(&id)?, logs.written(&id))
        };
        found.push(Outside { item, place: Place::Log(id) });
    }
    Ok(found)
}

fn builds(store: &Store) -> Result<Vec<Outside>, CollectError> {
    let mut found = Vec::new();
    for path in entries(store.root().join("builds"))? {
        let project = file_name(&path);
        // What is damaged can be given up as well as anything.
        let latest = store.builds.of_project(&project).ok().and_then(|ids| ids.first().cloned());
        let latest = latest.and_then(|id| store.builds.read(&project, &id).ok().flatten());
        let item = Item {
            description: match &latest {
                Some(record) => format!("records of builds of {}", record.subject.context),
                None => "records of builds".to_owned(),
            },
            ..item(ItemKind::Builds, project.clone(), directory_size(&path)?, modified(&path))
        };
        found.push(Outside { item, place: Place::Builds(project) });
    }
    Ok(found)
}

fn entries(folder: PathBuf) -> Result<Vec<PathBuf>, CollectError> {
    let listed = match std::fs::read_dir(&folder) {
        // Stores of before there were any.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.on_path("list", &folder)?,
    };
    let mut paths = Vec::new();
    for entry in listed {
        paths.push(entry.on_path("list", &folder)?.path());
    }
    paths.sort_unstable();
    Ok(paths)
}

/// The lock on a mirror, unless somebody is using it.
fn lock_mirror(
    store: &Store,
    path: &std::path::Path,
) -> Result<Option<crate::LockGuard>, CollectError> {
    let Ok(id) = Digest::parse(&format!("sha256:{}", file_name(path))) else { return Ok(None) };
    Ok(store.locks.try_lock(LockName::Git(&id))?)
}

fn modified(path: &std::path::Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}

fn file_name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
