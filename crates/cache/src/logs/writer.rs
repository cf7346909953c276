//! The log of a running build.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rbuild_oci::Digest;
use rbuild_solver::LogStream;
use rustix::fs::{FlockOperation, flock};

use super::builds::Logs;
use super::format::{BUILD_FILE, Line, VERSION, milliseconds, push_head};
use crate::BuildId;
use crate::disk_error::{DiskError, OnPath};

/// Output that waits to be compressed, per step.
const MOST_WAITING: usize = 128 << 10;
/// How long it waits.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// The fastest of zstd's usual levels.
const LEVEL: i32 = 1;

/// What a build and its steps say of themselves, on the way to the disk. Nothing is made before a step is known.
pub struct BuildLog {
    /// Where it will be.
    directory: PathBuf,
    logs: Logs,
    title: String,
    began: SystemTime,
    place: Option<Place>,
    steps: Vec<Step>,
    by_vertex: HashMap<Digest, usize>,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    compressed: Vec<u8>,
    written: u64,
    flushed: Instant,
}

/// The directory, once it is made.
#[derive(Debug)]
struct Place {
    directory: PathBuf,
    /// `build.jsonl`, locked.
    lines: File,
}

impl Place {
    fn append(&self, lines: &[u8]) -> Result<(), DiskError> {
        (&self.lines).write_all(lines).on_path("write to", &self.directory)
    }
}

#[derive(Debug, Default)]
struct Step {
    line: Line,
    /// Whether the line has to be written.
    is_new: bool,
    waiting: Vec<u8>,
    bytes: u64,
    file: Option<File>,
    is_cut: bool,
}

impl std::fmt::Debug for BuildLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildLog").field("place", &self.place).finish_non_exhaustive()
    }
}

impl BuildLog {
    /// Begins a log. `title` is what people know the build by.
    pub(super) fn new(logs: Logs, id: &BuildId, title: String) -> Self {
        Self {
            directory: logs.directory().join(id.as_str()),
            logs,
            title,
            began: SystemTime::now(),
            place: None,
            steps: Vec::new(),
            by_vertex: HashMap::new(),
            compressor: None,
            compressed: Vec::new(),
            written: 0,
            flushed: Instant::now(),
        }
    }

    /// The id of the build, if anything was written yet.
    pub fn id(&self) -> Option<&str> {
        self.place.as_ref()?.directory.file_name()?.to_str()
    }

    fn step(&mut self, vertex: Digest) -> &mut Step {
        let steps = &mut self.steps;
        let index = *self.by_vertex.entry(vertex).or_insert_with(|| {
            let number = u32::try_from(steps.len()).unwrap_or(u32::MAX);
            let line = Line { step: Some(number), vertex: Some(vertex), ..Line::default() };
            steps.push(Step { line, ..Step::default() });
            steps.len() - 1
        });
        &mut self.steps[index]
    }

    /// The same, with more to be said of it.
    fn changed(&mut self, vertex: Digest) -> &mut Step {
        let step = self.step(vertex);
        step.is_new = true;
        step
    }

    /// A step began. `key` is what the cache knows it by.
    pub fn started(&mut self, vertex: Digest, name: &str, key: Option<Digest>, at: SystemTime) {
        let line = &mut self.changed(vertex).line;
        line.name.get_or_insert_with(|| name.to_owned());
        line.key = key.or(line.key);
        line.started.get_or_insert(milliseconds(at));
    }

    /// A step was shown to the user under this number.
    pub fn numbered(&mut self, vertex: Digest, number: u32) {
        self.changed(vertex).line.number = Some(number);
    }

    /// A step printed something.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then nothing more should be.
    pub fn output(
        &mut self,
        vertex: Digest,
        stream: LogStream,
        at: SystemTime,
        bytes: &[u8],
    ) -> Result<(), DiskError> {
        let limit = self.logs.limit();
        let is_full = self.written >= limit;
        let step = self.step(vertex);
        step.bytes += bytes.len() as u64;
        if is_full {
            if !std::mem::replace(&mut step.is_cut, true) {
                let remark =
                    format!("[the log ends here: those of one build take {limit} bytes at most]\n");
                push_record(&mut step.waiting, 0, at, remark.as_bytes());
            }
            return Ok(());
        }
        let stream = match stream {
            LogStream::Stdout => 1,
            LogStream::Stderr => 2,
        };
        push_record(&mut step.waiting, stream, at, bytes);
        if step.waiting.len() >= MOST_WAITING {
            let index = self.by_vertex[&vertex];
            self.flush_output(index)?;
        }
        Ok(())
    }

    /// A step is over.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn completed(
        &mut self,
        vertex: Digest,
        at: SystemTime,
        cached: bool,
        error: Option<&str>,
    ) -> Result<(), DiskError> {
        let step = self.changed(vertex);
        step.line.completed = Some(milliseconds(at));
        step.line.cached = cached;
        step.line.error = error.map(str::to_owned);
        if step.waiting.is_empty() {
            step.file = None;
            return Ok(());
        }
        let index = self.by_vertex[&vertex];
        self.flush_output(index)?;
        self.steps[index].file = None;
        Ok(())
    }

    /// Writes what waits for too long.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn tick(&mut self) -> Result<(), DiskError> {
        if self.flushed.elapsed() < LONGEST_WAIT {
            return Ok(());
        }
        self.flush()
    }

    /// Writes what waits, says how the build ended, and makes room if all logs together take too much.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn end(mut self, failed: bool) -> Result<(), DiskError> {
        self.flush_outputs()?;
        let mut text = self.new_lines();
        if self.place.is_none() && text.is_empty() {
            return Ok(());
        }
        push_line(
            &mut text,
            &Line {
                ended: Some(milliseconds(SystemTime::now())),
                failed: Some(failed),
                ..Line::default()
            },
        );
        self.write(&text)?;
        self.logs.make_room(self.written > 0)
    }

    pub(super) fn flush(&mut self) -> Result<(), DiskError> {
        self.flushed = Instant::now();
        self.flush_outputs()?;
        match self.new_lines() {
            text if text.is_empty() => Ok(()),
            text => self.write(&text),
        }
    }

    fn flush_outputs(&mut self) -> Result<(), DiskError> {
        for index in 0..self.steps.len() {
            if !self.steps[index].waiting.is_empty() {
                self.flush_output(index)?;
            }
        }
        Ok(())
    }

    /// What there is to say of steps that was not written yet.
    fn new_lines(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        for step in self.steps.iter_mut().filter(|step| step.is_new) {
            step.is_new = false;
            step.line.bytes = (step.bytes > 0).then_some(step.bytes);
            push_line(&mut text, &step.line);
        }
        text
    }

    /// Writes lines, the first of all before them if they are the first.
    fn write(&mut self, lines: &[u8]) -> Result<(), DiskError> {
        if let Some(place) = &self.place {
            return place.append(lines);
        }
        let mut text = Vec::new();
        push_line(&mut text, &self.head());
        text.extend_from_slice(lines);
        self.place.insert(make_place(&self.directory)?).append(&text)
    }

    fn head(&self) -> Line {
        Line {
            version: Some(VERSION),
            title: Some(self.title.clone()),
            started: Some(milliseconds(self.began)),
            ..Line::default()
        }
    }

    /// The directory of the log, begun.
    fn directory(&mut self) -> Result<PathBuf, DiskError> {
        if self.place.is_none() {
            self.write(&[])?;
        }
        Ok(self.directory.clone())
    }

    /// Compresses what a step has printed and appends it to the step's file, as a frame of its own.
    fn flush_output(&mut self, index: usize) -> Result<(), DiskError> {
        let directory = self.directory()?;
        let path = directory.join(format!("{index}.zst"));
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => {
                let made = zstd::bulk::Compressor::new(LEVEL).on_path("compress", &path)?;
                none.insert(made)
            }
        };
        let step = &mut self.steps[index];
        self.compressed.clear();
        self.compressed.reserve(zstd::zstd_safe::compress_bound(step.waiting.len()));
        compressor
            .compress_to_buffer(&step.waiting, &mut self.compressed)
            .on_path("compress", &path)?;
        step.waiting.clear();
        if step.line.completed.is_some() {
            step.waiting = Vec::new();
        }
        let file = match &mut step.file {
            Some(file) => file,
            none => {
                let opened = File::options().append(true).create(true).open(&path);
                none.insert(opened.on_path("open", &path)?)
            }
        };
        file.write_all(&self.compressed).on_path("write", &path)?;
        self.written += self.compressed.len() as u64;
        Ok(())
    }
}

impl Drop for BuildLog {
    fn drop(&mut self) {
        // Of a build that was interrupted; nobody is left to be told.
        let _ = self.flush();
    }
}

fn push_record(buffer: &mut Vec<u8>, stream: u8, at: SystemTime, bytes: &[u8]) {
    push_head(buffer, stream, at, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    buffer.extend_from_slice(&bytes[..bytes.len().min(u32::MAX as usize)]);
}

fn make_place(directory: &Path) -> Result<Place, DiskError> {
    fs::create_dir(directory).on_path("make", directory)?;
    let path = directory.join(BUILD_FILE);
    let lines = File::options().append(true).create(true).open(&path).on_path("open", &path)?;
    flock(&lines, FlockOperation::NonBlockingLockExclusive).on_path("lock", &path)?;
    Ok(Place { directory: directory.to_owned(), lines })
}

fn push_line(text: &mut Vec<u8>, line: &Line) {
    serde_json::to_writer(&mut *text, line).expect("lines have string keys only");
    text.push(b'\n');
}
