//! The control group of one step.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, fstat};

use super::oom;
use super::settings::{Setting, Version};

/// What the names of groups begin with.
const PREFIX: &str = "rbuild-";

/// A step's groups, one in each hierarchy that limits it. They are removed when this is dropped, if the step has ended.
#[derive(Debug, Default)]
pub(crate) struct StepGroup {
    pub(super) directories: Vec<GroupDirectory>,
    /// Where the kernel counts whom it killed for want of memory.
    pub(super) memory: Option<(PathBuf, Version)>,
}

impl StepGroup {
    /// Per directory its path, and the file to which a process writes `0` to move itself there.
    pub(crate) fn entrances(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        let open = |directory: &GroupDirectory| {
            let file = File::options().write(true).open(directory.path.join("cgroup.procs"))?;
            Ok((directory.path.display().to_string(), OwnedFd::from(file)))
        };
        self.directories.iter().map(open).collect()
    }

    /// How many of its processes the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        self.memory.as_ref().map_or(0, |(path, version)| oom::in_group(path, *version))
    }
}

/// A directory in a hierarchy, which nobody sweeps while it is held.
#[derive(Debug)]
pub(super) struct GroupDirectory {
    pub(super) path: PathBuf,
    _lock: File,
}

impl GroupDirectory {
    /// Makes one in `base`. `number` is this process's own.
    pub(super) fn make(base: &Path, number: u64) -> io::Result<Self> {
        let path = base.join(format!("{PREFIX}{}-{number}", std::process::id()));
        // Another build may take it for left behind before it is locked.
        for _ in 0..10 {
            match fs::create_dir(&path) {
                // Of an earlier process with our number, and of no living one.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            if let Some(lock) = lock(&path)? {
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }

    /// Writes a setting; says whether the kernel has its file.
    pub(super) fn set(&self, setting: &Setting) -> io::Result<bool> {
        match write(&self.path.join(setting.file), &setting.text) {
            Err(error) if setting.optional && error.kind() == io::ErrorKind::NotFound => Ok(false),
            written => written.map(|()| true),
        }
    }
}

impl Drop for GroupDirectory {
    fn drop(&mut self) {
        // While the step's processes are ending the kernel refuses; the sandbox process, or the next build, removes it.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Writes to a file of a control group: one write, and never makes it.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    rustix::io::write(&file, text.as_bytes())?;
    Ok(())
}

/// Opens and locks a group's directory, unless somebody else holds or has removed it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let directory = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match flock(directory.as_fd(), FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        locked => locked?,
    }
    let is_there = fs::metadata(path)
        .is_ok_and(|there| fstat(&directory).is_ok_and(|open| same(&there, &open)));
    Ok(is_there.then_some(directory))
}

fn same(there: &fs::Metadata, open: &rustix::fs::Stat) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    there.ino() == open.st_ino && there.dev() == open.st_dev
}

/// Removes the groups in `base` that belong to no living build.
pub(super) fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX))
            && let Ok(Some(_lock)) = lock(&entry.path())
        {
            // One whose processes are still ending is left for the next sweep.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Removes a step's groups when its build cannot any more.
pub(crate) fn remove_abandoned<'a>(paths: impl Iterator<Item = &'a str>) {
    for path in paths {
        let _ = fs::remove_dir(path);
    }
}
