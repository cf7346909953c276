//! The records of a store.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rbuild_oci::Digest;
use rbuild_solver::LayerId;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, linkat, openat};
use rustix::io::Errno;

use super::file_list::{FileList, PickedFiles};
use super::record::{BuildId, BuildRecord};
use crate::disk_error::{DiskError, OnPath};
use crate::names::names_in;
use crate::remove_tree::remove_path;
use crate::staging::Staging;

/// How many builds of a project stay when older ones are removed.
const KEPT_BUILDS: usize = 8;

/// How many there may be until then: removing a few at a time would cost every build.
const MOST_BUILDS: usize = 2 * KEPT_BUILDS;

/// How many projects' builds stay, the latest.
const KEPT_PROJECTS: usize = 64;

/// How many failed steps' files stay in a store, the latest. Of a project it is one.
const MOST_LEFT: usize = 8;

/// How much of a file is written at once.
const BUFFER: usize = 64 << 10;

/// Says which layer a failed step left.
const KEPT: &str = "kept";

/// The builds that a store remembers. Clones are the same.
#[derive(Clone, Debug)]
pub struct Builds {
    dir: PathBuf,
    staging: Arc<Staging>,
}

/// Builds cannot be remembered, or what is remembered of them not be read.
#[derive(Debug, thiserror::Error)]
pub enum BuildsError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A record is none.
    #[error("the record `{}` cannot be read", path.display())]
    Record {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A record of another version.
    #[error("the record `{}` has version {found}, this rbuild knows {}", path.display(), BuildRecord::VERSION)]
    Version {
        /// Its file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// What [`Builds::hold_alone`] gives.
#[derive(Debug)]
pub(crate) struct HeldProject(
    #[expect(dead_code, reason = "closing it releases the lock")] Option<File>,
);

impl Builds {
    pub(crate) fn new(dir: PathBuf, staging: Arc<Staging>) -> Self {
        Self { dir, staging }
    }

    /// Where everything about a project is; it need not exist.
    pub fn folder(&self, project: &str) -> PathBuf {
        self.dir.join(project)
    }

    /// Writes the record of a build, and removes what is too old.
    pub fn write(&self, record: &BuildRecord) -> Result<(), BuildsError> {
        let project = record.subject.project();
        let bytes = serde_json::to_vec(record).expect("records have string keys");
        let name = format!("{}.json", record.id);
        let is_new = !link_new(&self.folder(&project), &name, &bytes)
            && self.put(&project, &name, |out| out.write_all(&bytes))?;
        if is_new {
            self.remove_old_projects(&project)?;
        } else {
            self.remove_old_builds(&project)?;
        }
        Ok(())
    }

    /// Stores the graph that ends in `target`, unless it is there.
    pub fn write_graph(
        &self,
        project: &str,
        target: &Digest,
        encode: impl FnOnce() -> Vec<u8>,
    ) -> Result<(), BuildsError> {
        let name = format!("{}.llb", target.hex());
        if !self.folder(project).join(&name).exists() {
            self.put(project, &name, |out| out.write_all(&encode()))?;
        }
        Ok(())
    }

    /// The graph that ends in `target`, if it is there.
    pub fn graph(&self, project: &str, target: &Digest) -> Result<Option<Vec<u8>>, BuildsError> {
        read(&self.folder(project).join(format!("{}.llb", target.hex())))
    }

    /// Stores what a step read of a folder, under the digest of it, unless it is there.
    pub fn write_files(
        &self,
        project: &str,
        content: &Digest,
        files: &PickedFiles,
    ) -> Result<(), BuildsError> {
        self.put(project, &format!("{}.files", content.hex()), |out| files.write_to(out))?;
        Ok(())
    }

    /// Whether it is known what a step read of a folder when that had this digest.
    pub fn has_files(&self, project: &str, content: &Digest) -> bool {
        self.folder(project).join(format!("{}.files", content.hex())).exists()
    }

    /// What a step read of a folder when that had this digest, if that is known.
    pub fn files(&self, project: &str, content: &Digest) -> Result<Option<FileList>, BuildsError> {
        let bytes = read(&self.folder(project).join(format!("{}.files", content.hex())))?;
        Ok(bytes.and_then(|bytes| FileList::from_bytes(&bytes)))
    }

    /// The builds of a project, the latest first.
    pub fn of_project(&self, project: &str) -> Result<Vec<BuildId>, BuildsError> {
        let mut ids: Vec<BuildId> = names(&self.folder(project))?
            .iter()
            .filter_map(|name| BuildId::parse(name.strip_suffix(".json")?))
            .collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        Ok(ids)
    }

    /// All builds with their projects, the latest first.
    pub fn all(&self) -> Result<Vec<(String, BuildId)>, BuildsError> {
        let mut all = Vec::new();
        for project in names(&self.dir)? {
            let ids = self.of_project(&project)?;
            all.extend(ids.into_iter().map(|id| (project.clone(), id)));
        }
        all.sort_unstable_by(|a, b| b.1.cmp(&a.1));
        Ok(all)
    }

    /// The record of a build; `None` when it has been removed meanwhile.
    pub fn read(&self, project: &str, id: &BuildId) -> Result<Option<BuildRecord>, BuildsError> {
        let path = self.folder(project).join(format!("{id}.json"));
        let Some(bytes) = read(&path)? else { return Ok(None) };
        #[derive(serde::Deserialize)]
        struct Version {
            version: u32,
        }
        let malformed = |source| BuildsError::Record { path: path.clone(), source };
        let Version { version } = serde_json::from_slice(&bytes).map_err(malformed)?;
        if version != BuildRecord::VERSION {
            return Err(BuildsError::Version { path, found: version });
        }
        serde_json::from_slice(&bytes).map(Some).map_err(malformed)
    }

    /// Notes the layer that a failed step of a project left. Returns those that are too many now.
    pub fn keep(&self, project: &str, layer: &LayerId) -> Result<Vec<LayerId>, BuildsError> {
        let mut given_up = self.give_up(project)?.into_iter().collect::<Vec<_>>();
        self.put(project, KEPT, |out| writeln!(out, "{layer}"))?;
        let mut kept: Vec<_> = names(&self.dir)?
            .into_iter()
            .filter_map(|project| {
                let time = self.folder(&project).join(KEPT).metadata().ok()?.modified().ok()?;
                Some((time, project))
            })
            .collect();
        kept.sort_unstable();
        let surplus = kept.len().saturating_sub(MOST_LEFT);
        for (_, project) in kept.into_iter().take(surplus) {
            given_up.extend(self.give_up(&project)?);
        }
        Ok(given_up)
    }

    /// Takes back [`Builds::keep`], unless somebody looks into the layer ([`Builds::hold`]); returns it.
    pub fn give_up(&self, project: &str) -> Result<Option<LayerId>, BuildsError> {
        let path = self.folder(project).join(KEPT);
        let Some(file) = open(&path)? else { return Ok(None) };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(DiskError::new("lock", &path, error).into()),
        }
        let text = io::read_to_string(&file).on_path("read", &path)?;
        remove(&path)?;
        Ok(LayerId::parse(text.trim_end()))
    }

    /// Keeps the layer that a failed step of a project left there while the file is open.
    pub fn hold(&self, project: &str) -> Result<Option<File>, BuildsError> {
        let path = self.folder(project).join(KEPT);
        let Some(file) = open(&path)? else { return Ok(None) };
        flock(&file, FlockOperation::LockShared).on_path("lock", &path)?;
        Ok(Some(file))
    }

    /// The layers that failed steps have left, each with when that was.
    pub(crate) fn kept(&self) -> Result<Vec<(LayerId, SystemTime)>, DiskError> {
        let mut kept = Vec::new();
        for project in names(&self.dir)? {
            let path = self.folder(&project).join(KEPT);
            let Some(file) = open(&path)? else { continue };
            let left = file.metadata().and_then(|metadata| metadata.modified());
            let left = left.on_path("inspect", &path)?;
            let text = io::read_to_string(&file).on_path("read", &path)?;
            kept.extend(LayerId::parse(text.trim_end()).map(|layer| (layer, left)));
        }
        Ok(kept)
    }

    /// Keeps others from [`Builds::hold`] while the result lives; `None` when one of them does that already.
    pub(crate) fn hold_alone(&self, project: &str) -> Result<Option<HeldProject>, DiskError> {
        let path = self.folder(project).join(KEPT);
        let Some(file) = open(&path)? else { return Ok(Some(HeldProject(None))) };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(HeldProject(Some(file)))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(DiskError::new("lock", &path, error)),
        }
    }

    /// Puts a file into a project's folder. Returns whether the folder was made for it.
    fn put(
        &self,
        project: &str,
        name: &str,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<bool, DiskError> {
        let staged = self.staging.stage()?;
        File::create_new(staged.path())
            .and_then(|file| {
                let mut out = BufWriter::with_capacity(BUFFER, file);
                write(&mut out)?;
                out.flush()
            })
            .on_path("write", staged.path())?;
        let folder = self.folder(project);
        let path = folder.join(name);
        let is_new = match rustix::fs::rename(staged.path(), &path) {
            Err(Errno::NOENT) => {
                std::fs::create_dir_all(&folder).on_path("make", &folder)?;
                rustix::fs::rename(staged.path(), &path).on_path("rename to", &path)?;
                true
            }
            renamed => {
                renamed.on_path("rename to", &path)?;
                false
            }
        };
        staged.moved();
        Ok(is_new)
    }

    fn remove_old_builds(&self, project: &str) -> Result<(), BuildsError> {
        let ids = self.of_project(project)?;
        if ids.len() <= MOST_BUILDS {
            return Ok(());
        }
        let folder = self.folder(project);
        let (kept, old) = ids.split_at(KEPT_BUILDS);
        let mut needed = HashSet::new();
        for id in kept {
            // One that cannot be read needs nothing.
            if let Ok(Some(record)) = self.read(project, id) {
                needed.extend(record.graph.map(|digest| format!("{}.llb", digest.hex())));
                let folders = record.steps.iter().flat_map(|step| step.folders.values());
                needed.extend(folders.map(|digest| format!("{}.files", digest.hex())));
            }
        }
        for id in old {
            remove(&folder.join(format!("{id}.json")))?;
            // What others keep of a build is named after it.
            remove_path(&folder.join(format!("{id}.logs")))?;
        }
        for name in names(&folder)? {
            let is_part = name.ends_with(".llb") || name.ends_with(".files");
            if is_part && !needed.contains(&name) {
                remove(&folder.join(name))?;
            }
        }
        Ok(())
    }

    fn remove_old_projects(&self, not: &str) -> Result<(), BuildsError> {
        let mut projects: Vec<_> = names(&self.dir)?
            .into_iter()
            .filter(|project| project != not)
            .filter_map(|project| {
                Some((self.folder(&project).metadata().ok()?.modified().ok()?, project))
            })
            .collect();
        projects.sort_unstable();
        let surplus = (projects.len() + 1).saturating_sub(KEPT_PROJECTS);
        for (_, project) in projects.into_iter().take(surplus) {
            remove_path(&self.folder(&project))?;
        }
        Ok(())
    }
}

/// Makes a file that nobody sees before it is whole, in fewer calls than by a place elsewhere that it is moved from. Fails where there is
/// such a file or no such folder, and on file systems that know no files without names.
fn link_new(folder: &Path, name: &str, bytes: &[u8]) -> bool {
    let write = || {
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        let mut file = File::from(openat(CWD, folder, flags, Mode::from_raw_mode(0o666))?);
        file.write_all(bytes)?;
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        linkat(CWD, own, CWD, folder.join(name), AtFlags::SYMLINK_FOLLOW)?;
        Ok::<(), io::Error>(())
    };
    write().is_ok()
}

fn open(path: &Path) -> Result<Option<File>, DiskError> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.on_path("open", path).map(Some),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, BuildsError> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => Ok(read.on_path("read", path).map(Some)?),
    }
}

fn remove(path: &Path) -> Result<(), DiskError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.on_path("delete", path),
    }
}

/// The names in a folder; none when it is not there.
fn names(folder: &Path) -> Result<Vec<String>, DiskError> {
    let names = match names_in(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.on_path("list", folder)?,
    };
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}
