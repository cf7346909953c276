//! Keeps what steps print, whatever is drawn of it.

use std::collections::HashMap;

use rbuild_cache::{BuildLog, DiskError};
use rbuild_oci::Digest;
use rbuild_solver::Event;

/// Writes a build's events to its log.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// Absent without a log, and once it could not be written.
    log: Option<BuildLog>,
    names: HashMap<Digest, String>,
    /// How many steps have a number; `None` if whoever draws gives them.
    numbered: Option<u32>,
    failure: Option<DiskError>,
}

impl Recorder {
    /// Records in `log`. Steps are numbered as they begin, unless whoever draws does so: see [`Recorder::numbered`].
    pub(crate) fn new(log: Option<BuildLog>, is_numbered_by_renderer: bool) -> Self {
        let numbered = (!is_numbered_by_renderer).then_some(0);
        Self { log, names: HashMap::new(), numbered, failure: None }
    }

    /// Takes an event in.
    pub(crate) fn event(&mut self, event: &Event) {
        let Some(log) = &mut self.log else { return };
        let written = match event {
            Event::Added { vertex, name, .. } => {
                self.names.entry(*vertex).or_insert_with(|| name.clone());
                Ok(())
            }
            Event::Started { vertex, key, at } => {
                // Each vertex begins once as work of its own; folders are hashed for each that uses them.
                let name = self.names.remove(vertex);
                let is_new = name.is_some();
                log.started(*vertex, &name.unwrap_or_default(), *key, *at);
                if let Some(numbered) = self.numbered.as_mut().filter(|_| is_new) {
                    *numbered += 1;
                    log.numbered(*vertex, *numbered);
                }
                Ok(())
            }
            Event::Log(chunk) => log.output(chunk.vertex, chunk.stream, chunk.at, &chunk.bytes),
            Event::Completed { vertex, at, cached, error } => {
                log.completed(*vertex, *at, *cached, error.as_deref())
            }
            Event::Status(_) | Event::Warning { .. } | Event::Keyed { .. } => Ok(()),
        };
        self.check(written);
    }

    /// Notes under which numbers steps were shown.
    pub(crate) fn numbered(&mut self, numbered: Vec<(Digest, usize)>) {
        let Some(log) = &mut self.log else { return };
        for (vertex, number) in numbered {
            log.numbered(vertex, u32::try_from(number).unwrap_or(u32::MAX));
        }
    }

    /// Writes what waits for too long.
    pub(crate) fn tick(&mut self) {
        if let Some(log) = &mut self.log {
            let written = log.tick();
            self.check(written);
        }
    }

    /// Ends the log; says what went wrong with it.
    pub(crate) fn end(mut self, failed: bool) -> Option<DiskError> {
        let ended = self.log.take().map_or(Ok(()), |log| log.end(failed));
        self.check(ended);
        self.failure
    }

    fn check(&mut self, written: Result<(), DiskError>) {
        if let Err(error) = written {
            self.log = None;
            self.failure = Some(error);
        }
    }
}
