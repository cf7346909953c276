//! The builds whose logs are kept.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rbuild_oci::Digest;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::format::{BUILD_FILE, Line, time};
use super::output::OutputReader;
use super::writer::BuildLog;
use crate::BuildId;
use crate::disk_error::{DiskError, OnPath};
use crate::names::names_in;
use crate::remove_tree::remove_path;

/// Most builds that are kept.
const MOST_BUILDS: usize = 1000;
/// Most bytes that all logs together take.
const MOST_BYTES: u64 = 512 << 20;

/// The logs in a store.
#[derive(Clone, Debug)]
pub struct Logs {
    directory: PathBuf,
    limit: u64,
}

/// A build whose log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBuild {
    /// Its id.
    pub id: String,
    /// What people know it by.
    pub title: String,
    /// When it began.
    pub started: SystemTime,
    /// When it was over; `None` if it is not, or was killed.
    pub ended: Option<SystemTime>,
    /// Whether it failed.
    pub failed: bool,
    /// Whether it is running now.
    pub is_running: bool,
    /// Its steps, in the order in which they began.
    pub steps: Vec<KeptStep>,
    directory: PathBuf,
}

/// A step of a [`KeptBuild`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptStep {
    /// Its name.
    pub name: String,
    /// Its vertex.
    pub vertex: Digest,
    /// What the cache knows it by.
    pub key: Option<Digest>,
    /// The number under which plain progress showed it.
    pub number: Option<u32>,
    /// When it began.
    pub started: Option<SystemTime>,
    /// When it was over.
    pub completed: Option<SystemTime>,
    /// Whether its result was known.
    pub cached: bool,
    /// Why it failed.
    pub error: Option<String>,
    /// How much it printed.
    pub bytes: u64,
    index: u32,
}

impl Logs {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, limit: MOST_BYTES }
    }

    /// The same, with room for fewer bytes.
    #[must_use]
    pub fn with_limit(self, limit: u64) -> Self {
        Self { limit, ..self }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Begins the log of a build. Nothing is made before one of its steps is known.
    #[must_use]
    pub fn begin(&self, id: &BuildId, title: String) -> BuildLog {
        BuildLog::new(self.clone(), id, title)
    }

    /// The ids of the builds that are kept, oldest first.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read.
    pub fn ids(&self) -> Result<Vec<String>, DiskError> {
        let names = match names_in(&self.directory) {
            // A store of before there were any.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            names => names.on_path("list", &self.directory)?,
        };
        let mut ids: Vec<String> =
            names.into_iter().filter_map(|name| name.into_string().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Reads what is known of a build; `None` if it is not kept.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn build(&self, id: &str) -> Result<Option<KeptBuild>, DiskError> {
        let directory = self.directory.join(id);
        let path = directory.join(BUILD_FILE);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.on_path("read", &path)?,
        };
        let is_running = is_locked(&path)?;
        Ok(Some(KeptBuild::parse(id, directory, is_running, &text)))
    }

    /// Finds the log of the run that made what a cached step found: the build and the step.
    ///
    /// # Errors
    ///
    /// When logs cannot be read.
    pub fn maker_of(&self, cached: &KeptStep) -> Result<Option<(KeptBuild, KeptStep)>, DiskError> {
        let Some(key) = cached.key else { return Ok(None) };
        for id in self.ids()?.iter().rev() {
            let Some(build) = self.build(id)? else { continue };
            let made = build.steps.iter().find(|step| {
                step.key == Some(key)
                    && !step.cached
                    && step.error.is_none()
                    && step.completed.is_some()
            });
            if let Some(step) = made.cloned() {
                return Ok(Some((build, step)));
            }
        }
        Ok(None)
    }

    /// What the log of a build takes, in bytes of whole blocks.
    pub(crate) fn size_of(&self, id: &str) -> Result<u64, DiskError> {
        crate::gc::directory_size(&self.directory.join(id))
    }

    /// When something was last written to the log of a build.
    pub(crate) fn written(&self, id: &str) -> Option<SystemTime> {
        let path = self.directory.join(id).join(BUILD_FILE);
        path.metadata().and_then(|metadata| metadata.modified()).ok()
    }

    /// Removes the oldest builds until what remains is within the bounds. `has_grown` says whether there is new output.
    pub(super) fn make_room(&self, has_grown: bool) -> Result<(), DiskError> {
        let ids = self.ids()?;
        // Measuring them all takes longer than a build that has nothing to do.
        if !has_grown && ids.len() <= MOST_BUILDS {
            return Ok(());
        }
        let mut sizes = Vec::with_capacity(ids.len());
        for id in &ids {
            sizes.push(crate::gc::directory_size(&self.directory.join(id))?);
        }
        let (mut count, mut size) = (ids.len(), sizes.iter().sum::<u64>());
        // Whoever looks will look for the latest.
        for (id, own) in ids.iter().zip(sizes).take(ids.len().saturating_sub(1)) {
            if count <= MOST_BUILDS && size <= self.limit {
                break;
            }
            if self.remove_build(id)?.is_some() {
                count -= 1;
                size -= own;
            }
        }
        Ok(())
    }

    /// Removes a build that is over, and says what it took.
    pub(crate) fn remove_build(&self, id: &str) -> Result<Option<u64>, DiskError> {
        let directory = self.directory.join(id);
        if is_locked(&directory.join(BUILD_FILE))? {
            return Ok(None);
        }
        let size = crate::gc::directory_size(&directory)?;
        remove_path(&directory)?;
        Ok(Some(size))
    }
}

/// Whether the build that writes this file lives.
fn is_locked(path: &Path) -> Result<bool, DiskError> {
    let file = match File::open(path) {
        // Half made, or half removed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file.on_path("open", path)?,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(DiskError::new("lock", path, error)),
    }
}

impl KeptBuild {
    fn parse(id: &str, directory: PathBuf, is_running: bool, text: &[u8]) -> Self {
        let mut build = Self {
            id: id.to_owned(),
            title: String::new(),
            started: SystemTime::UNIX_EPOCH,
            ended: None,
            failed: false,
            is_running,
            steps: Vec::new(),
            directory,
        };
        let mut by_index = std::collections::BTreeMap::new();
        for line in text.split(|byte| *byte == b'\n') {
            // One that was cut, or that a later version wrote.
            let Ok(line) = serde_json::from_slice::<Line>(line) else { continue };
            match (line.step, line.vertex) {
                (Some(index), Some(vertex)) => {
                    by_index.insert(index, step(index, vertex, line));
                }
                _ => {
                    build.title = line.title.unwrap_or(build.title);
                    build.started = line.started.map_or(build.started, time);
                    build.ended = line.ended.map(time).or(build.ended);
                    build.failed = line.failed.unwrap_or(build.failed);
                }
            }
        }
        build.steps = by_index.into_values().collect();
        build
    }

    /// What a step of this build printed; `None` if it printed nothing.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened.
    pub fn output(&self, step: &KeptStep) -> Result<Option<OutputReader>, DiskError> {
        OutputReader::open(&self.directory.join(format!("{}.zst", step.index)))
    }
}

fn step(index: u32, vertex: Digest, line: Line) -> KeptStep {
    KeptStep {
        name: line.name.unwrap_or_default(),
        vertex,
        key: line.key,
        number: line.number,
        started: line.started.map(time),
        completed: line.completed.map(time),
        cached: line.cached,
        error: line.error,
        bytes: line.bytes.unwrap_or(0),
        index,
    }
}

#[cfg(test)]
mod tests {
    use rbuild_solver::LogStream;

    use super::*;
    use crate::logs::PrintedBy;

    fn vertex(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn printed(build: &KeptBuild, step: &KeptStep) -> Vec<(PrintedBy, String)> {
        let mut reader = build.output(step).unwrap().unwrap();
        let mut all = Vec::new();
        while let Some(piece) = reader.next_piece().unwrap() {
            all.push((piece.by, String::from_utf8(piece.bytes).unwrap()));
        }
        all
    }

    #[test]
    fn what_steps_print_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned());
        let now = SystemTime::now();
        let (a, b, key) = (vertex("a"), vertex("b"), Some(vertex("key")));
        let mut log = logs.begin(&BuildId::of_now(), "app".to_owned());
        assert_eq!(logs.ids().unwrap(), Vec::<String>::new());
        log.started(a, "RUN a", key, now);
        log.numbered(a, 7);
        log.output(a, LogStream::Stdout, now, b"one\n").unwrap();
        log.output(a, LogStream::Stderr, now, b"two\n").unwrap();
        log.completed(a, now, false, None).unwrap();
        log.started(b, "RUN b", None, now);
        log.completed(b, now, false, Some("it broke")).unwrap();
        log.end(true).unwrap();

        let ids = logs.ids().unwrap();
        let build = logs.build(&ids[0]).unwrap().unwrap();
        assert_eq!((build.title.as_str(), build.failed, build.is_running), ("app", true, false));
        let [a, b] = build.steps.as_slice() else { panic!("{build:?}") };
        assert_eq!((a.name.as_str(), a.number, a.bytes), ("RUN a", Some(7), 8));
        assert_eq!(b.error.as_deref(), Some("it broke"));
        let expected =
            [(PrintedBy::Stdout, "one\n".to_owned()), (PrintedBy::Stderr, "two\n".to_owned())];
        assert_eq!(printed(&build, a), expected);
        assert!(build.output(b).unwrap().is_none());

        let cached = KeptStep { cached: true, ..a.clone() };
        assert_eq!(logs.maker_of(&cached).unwrap().unwrap().1, *a);
        assert!(logs.maker_of(b).unwrap().is_none());
        let size = logs.size_of(&ids[0]).unwrap();
        assert_eq!(logs.remove_build(&ids[0]).unwrap(), Some(size));
        assert!(logs.build(&ids[0]).unwrap().is_none());
    }

    #[test]
    fn a_build_that_was_killed_leaves_what_it_had_written() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned());
        let now = SystemTime::now();
        let mut log = logs.begin(&BuildId::of_now(), String::new());
        log.started(vertex("a"), "RUN a", None, now);
        log.output(vertex("a"), LogStream::Stdout, now, b"first\n").unwrap();
        log.flush().unwrap();
        let id = logs.ids().unwrap().pop().unwrap();
        assert!(logs.build(&id).unwrap().unwrap().is_running);
        assert_eq!(logs.remove_build(&id).unwrap(), None);
        log.output(vertex("a"), LogStream::Stdout, now, b"second\n").unwrap();
        log.flush().unwrap();
        drop(log);

        let file = dir.path().join(&id).join("0.zst");
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 3]).unwrap();
        let lines = dir.path().join(&id).join(BUILD_FILE);
        let text = fs::read(&lines).unwrap();
        fs::write(&lines, [&text[..], b"{\"step\":1,\"ver"].concat()).unwrap();
        let build = logs.build(&id).unwrap().unwrap();
        assert!(!build.is_running && build.ended.is_none());
        assert_eq!(build.steps.len(), 1);
        assert_eq!(printed(&build, &build.steps[0]), [(PrintedBy::Stdout, "first\n".to_owned())]);
    }

    #[test]
    fn the_oldest_go_first_and_one_build_cannot_take_more_than_all_may() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned()).with_limit(64 << 10);
        let now = SystemTime::now();
        fs::create_dir(dir.path().join("20000101-000000-aaaaaa")).unwrap();
        fs::write(dir.path().join("20000101-000000-aaaaaa/0.zst"), [0; 5000]).unwrap();
        let mut log = logs.begin(&BuildId::of_now(), String::new());
        // Noise does not compress.
        let mut noise = 1_u32;
        let bytes: Vec<u8> = (0..200_000)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                noise.to_le_bytes()[3]
            })
            .collect();
        for _ in 0..5 {
            log.output(vertex("a"), LogStream::Stdout, now, &bytes).unwrap();
        }
        log.completed(vertex("a"), now, false, None).unwrap();
        log.end(false).unwrap();
        let ids = logs.ids().unwrap();
        assert!(!ids.contains(&"20000101-000000-aaaaaa".to_owned()));
        let sizes = ids.iter().map(|id| logs.size_of(id).unwrap());
        assert!(sizes.sum::<u64>() < 300_000);
    }
}
