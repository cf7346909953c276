//! BuildKit's plain text: one vertex at a time, each line with the vertex's number (section 5.3 of the
//! behaviour reference).

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use rbuild_oci::Digest;
use rbuild_solver::{Event, LogChunk, StatusUpdate};

use super::format;
use super::vertex::Vertices;
use crate::printable;

/// How long one vertex keeps the screen while others have something to say.
const ANTI_FLICKER: Duration = Duration::from_secs(5);
/// Lines that may wait for a vertex that is not shown; then it is shown.
const MOST_WAITING: usize = 500;

/// Draws events as plain text.
#[derive(Debug)]
pub(crate) struct Plain<W> {
    out: W,
    vertices: Vertices,
    /// Per vertex index: what has not been printed yet.
    waiting: HashMap<usize, VecDeque<String>>,
    /// Vertices with something to print, in the order in which it came up.
    order: VecDeque<usize>,
    numbers: HashMap<usize, usize>,
    /// Those that nobody has asked for yet.
    numbered: Vec<(Digest, usize)>,
    shown: Option<(usize, SystemTime)>,
    last_status: HashMap<(usize, String), (u64, SystemTime)>,
    anything_printed: bool,
}

impl<W: Write> Plain<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            vertices: Vertices::default(),
            waiting: HashMap::new(),
            order: VecDeque::new(),
            numbers: HashMap::new(),
            numbered: Vec::new(),
            shown: None,
            last_status: HashMap::new(),
            anything_printed: false,
        }
    }

    pub(crate) fn vertices(&self) -> &Vertices {
        &self.vertices
    }

    /// The numbers that were given since this was last called.
    pub(crate) fn take_numbered(&mut self) -> Vec<(Digest, usize)> {
        std::mem::take(&mut self.numbered)
    }

    /// Takes an event in; `now` decides whose turn it is. What is printed may wait for [`Plain::flush`].
    pub(crate) fn event(&mut self, event: Event, now: SystemTime) -> io::Result<()> {
        match event {
            Event::Added { vertex, name, inputs } => {
                self.vertices.add(vertex, name, inputs);
            }
            Event::Started { vertex, at, .. } => {
                if let Some(index) = self.vertices.index(&vertex) {
                    self.vertices.start(index, at);
                    self.number(index);
                    self.enqueue(index, None);
                }
            }
            Event::Keyed { .. } => {}
            Event::Completed { vertex, at, cached, error } => {
                if let Some(index) = self.vertices.index(&vertex) {
                    self.completed(index, at, cached, error);
                }
            }
            Event::Status(update) => {
                if let Some(index) = self.vertices.index(&update.vertex) {
                    self.status(index, update, now);
                }
            }
            Event::Log(chunk) => {
                if let Some(index) = self.vertices.index(&chunk.vertex) {
                    self.output(index, &chunk)?;
                }
            }
            Event::Warning { vertex, message } => {
                match vertex.and_then(|vertex| self.vertices.index(&vertex)) {
                    Some(index) => {
                        self.enqueue(index, Some(format!("WARN: {}", printable::line(&message))));
                    }
                    None => writeln!(self.out, "WARN: {}", printable::line(&message))?,
                }
            }
        }
        self.print(now)
    }

    /// Prints output of the vertex that is shown, and keeps that of others for later.
    fn output(&mut self, index: usize, chunk: &LogChunk) -> io::Result<()> {
        let time = self.log_time(index, chunk.at);
        self.enqueue(index, None);
        if self.shown.is_none_or(|(shown, _)| shown != index) {
            let waiting = self.waiting.entry(index).or_default();
            self.vertices.log(index, chunk.stream, &chunk.bytes, |line| {
                waiting.push_back(format!("{time} {line}"));
            });
            return Ok(());
        }
        self.drain(index)?;
        let prefix = format!("#{} {time} ", self.numbers[&index]);
        let (out, mut written) = (&mut self.out, Ok(()));
        self.vertices.log(index, chunk.stream, &chunk.bytes, |line| {
            if written.is_ok() {
                let parts = [prefix.as_bytes(), line.as_bytes(), b"\n"];
                written = parts.into_iter().try_for_each(|part| out.write_all(part));
            }
        });
        written
    }

    /// Lets waiting vertices have their turn.
    pub(crate) fn tick(&mut self, now: SystemTime) -> io::Result<()> {
        self.print(now)?;
        self.flush()
    }

    /// Prints everything that waits.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        while let Some(index) = self.order.front().copied() {
            self.show(index, SystemTime::UNIX_EPOCH)?;
            self.drain(index)?;
            self.order.retain(|other| *other != index);
        }
        self.out.flush()
    }

    fn log_time(&self, index: usize, at: SystemTime) -> String {
        let started = self.vertices.list()[index].started.unwrap_or(at);
        format::log_time(format::between(started, at))
    }

    fn completed(&mut self, index: usize, at: SystemTime, cached: bool, error: Option<String>) {
        if self.vertices.list()[index].completed.is_some() {
            return;
        }
        let time = self.log_time(index, at);
        if let Some(line) = self.vertices.complete(index, at, cached, error) {
            self.enqueue(index, Some(format!("{time} {line}")));
        }
        let vertex = &self.vertices.list()[index];
        let line = match &vertex.error {
            Some(_) if vertex.was_cancelled() => "CANCELED".to_owned(),
            // What more there is to say is said once the build is over.
            Some(error) => {
                format!("ERROR: {}", printable::line(error.lines().next().unwrap_or_default()))
            }
            None if cached => "CACHED".to_owned(),
            None => {
                let started = vertex.started.unwrap_or(at);
                format!("DONE {}", format::seconds(format::between(started, at)))
            }
        };
        self.enqueue(index, Some(line));
    }

    fn status(&mut self, index: usize, update: StatusUpdate, now: SystemTime) {
        let key = (index, update.id.clone());
        let done = update.completed.is_some();
        let due = match self.last_status.get(&key) {
            None => true,
            Some((current, at)) => {
                let moved = update.total > 0
                    && update.current.saturating_sub(*current) * 20 >= update.total;
                moved || format::between(*at, now) >= ANTI_FLICKER
            }
        };
        if done || due {
            let mut line = printable::line(&update.id).into_owned();
            if update.total > 0 {
                line = format!(
                    "{line} {} / {}",
                    format::bytes(update.current),
                    format::bytes(update.total)
                );
            } else if update.current > 0 {
                line = format!("{line} {}", format::bytes(update.current));
            }
            let taken = format::between(update.started, update.completed.unwrap_or(now));
            if taken > Duration::from_millis(10) {
                line = format!("{line} {}", format::seconds(taken));
            }
            if done {
                line.push_str(" done");
            }
            self.last_status.insert(key, (update.current, now));
            self.enqueue(index, Some(line));
        }
        self.vertices.status(index, update);
    }

    fn enqueue(&mut self, index: usize, line: Option<String>) {
        self.waiting.entry(index).or_default().extend(line);
        if !self.order.contains(&index) {
            self.order.push_back(index);
        }
    }

    fn print(&mut self, now: SystemTime) -> io::Result<()> {
        loop {
            match self.shown {
                Some((index, since)) if self.vertices.list()[index].completed.is_none() => {
                    self.drain(index)?;
                    let Some(next) = self.next(index) else { break };
                    let held_too_long = format::between(since, now) >= ANTI_FLICKER;
                    let is_crowded = |other| self.waiting[other].len() > MOST_WAITING;
                    if !held_too_long && !self.order.iter().any(is_crowded) {
                        break;
                    }
                    self.show(next, now)?;
                }
                Some((index, _)) => {
                    self.drain(index)?;
                    self.order.retain(|other| *other != index);
                    self.shown = None;
                }
                None => {
                    let Some(next) = self.next(usize::MAX) else { break };
                    self.show(next, now)?;
                }
            }
        }
        Ok(())
    }

    /// Has what was printed read.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Whose turn it is: a finished vertex first, for it is soon out of the way.
    fn next(&self, not: usize) -> Option<usize> {
        let others = || self.order.iter().copied().filter(|index| *index != not);
        others()
            .find(|index| self.vertices.list()[*index].completed.is_some())
            .or_else(|| others().find(|index| not == usize::MAX || !self.waiting[index].is_empty()))
    }

    fn show(&mut self, index: usize, now: SystemTime) -> io::Result<()> {
        if let Some((shown, _)) = self.shown {
            if shown == index {
                return Ok(());
            }
            if self.vertices.list()[shown].completed.is_none() {
                writeln!(self.out, "#{} ...", self.numbers[&shown])?;
            }
        }
        let number = self.number(index);
        if self.anything_printed {
            writeln!(self.out)?;
        }
        self.anything_printed = true;
        let name = printable::line(&self.vertices.list()[index].name);
        writeln!(self.out, "#{number} {name}")?;
        self.shown = Some((index, now));
        Ok(())
    }

    /// Vertices are numbered as they begin, as records of builds do it ([`super::StepNotes`]).
    fn number(&mut self, index: usize) -> usize {
        let next = self.numbers.len() + 1;
        let digest = self.vertices.list()[index].digest;
        *self.numbers.entry(index).or_insert_with(|| {
            self.numbered.push((digest, next));
            next
        })
    }

    fn drain(&mut self, index: usize) -> io::Result<()> {
        let number = self.numbers[&index];
        for line in self.waiting.entry(index).or_default().drain(..) {
            writeln!(self.out, "#{number} {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rbuild_solver::{LogStream, Progress};

    use super::*;

    fn at(seconds: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }

    struct Check(Plain<Vec<u8>>);

    impl Check {
        fn new(names: &[&str]) -> Self {
            let mut plain = Plain::new(Vec::new());
            for name in names {
                let event =
                    Event::Added { vertex: id(name), name: (*name).to_owned(), inputs: Vec::new() };
                plain.event(event, at(0.0)).unwrap();
            }
            Self(plain)
        }

        fn start(&mut self, name: &str, time: f64) {
            self.0
                .event(Event::Started { vertex: id(name), key: None, at: at(time) }, at(time))
                .unwrap();
        }

        fn end(&mut self, name: &str, time: f64, cached: bool, error: Option<&str>) {
            let error = error.map(str::to_owned);
            self.0
                .event(Event::Completed { vertex: id(name), at: at(time), cached, error }, at(time))
                .unwrap();
        }

        fn text(mut self) -> String {
            self.0.finish().unwrap();
            String::from_utf8(self.0.out).unwrap()
        }
    }

    fn id(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    #[test]
    fn one_after_the_other() {
        let mut check = Check::new(&["[1/2] FROM a", "[2/2] RUN b"]);
        check.start("[1/2] FROM a", 1.0);
        check.end("[1/2] FROM a", 1.0, true, None);
        check.start("[2/2] RUN b", 1.0);
        check.end("[2/2] RUN b", 3.5, false, None);
        assert_eq!(check.text(), "#1 [1/2] FROM a\n#1 CACHED\n\n#2 [2/2] RUN b\n#2 DONE 2.5s\n");
    }

    #[test]
    fn the_shown_vertex_keeps_its_turn() {
        let mut check = Check::new(&["a", "b"]);
        check.start("a", 0.0);
        check.start("b", 0.0);
        check.end("b", 1.0, false, Some("exit code: 1"));
        check.end("a", 2.0, false, Some("context canceled"));
        assert_eq!(check.text(), "#1 a\n#1 CANCELED\n\n#2 b\n#2 ERROR: exit code: 1\n");
    }

    #[test]
    fn nothing_commands_the_terminal() {
        let mut check = Check::new(&["RUN \u{1b}[2J\n#9 DONE"]);
        check.start("RUN \u{1b}[2J\n#9 DONE", 0.0);
        check.end("RUN \u{1b}[2J\n#9 DONE", 0.0, false, Some("no \u{1b}]0;user\u{7}"));
        assert_eq!(
            check.text(),
            "#1 RUN \\u{1b}[2J\\n#9 DONE\n#1 ERROR: no \\u{1b}]0;user\\u{7}\n"
        );
    }

    #[test]
    fn a_long_one_makes_room() {
        let mut check = Check::new(&["a", "b"]);
        check.start("a", 0.0);
        check.start("b", 0.0);
        check.end("b", 1.0, false, None);
        check.0.tick(at(6.0)).unwrap();
        check.end("a", 7.0, false, None);
        assert_eq!(check.text(), "#1 a\n#1 ...\n\n#2 b\n#2 DONE 1.0s\n\n#1 a\n#1 DONE 7.0s\n");
    }

    #[tokio::test]
    async fn logs_are_cut_into_lines() {
        let (progress, mut events) = Progress::channel();
        progress.log(id("a"), LogStream::Stdout, b"one\ntw".to_vec()).await;
        progress.log(id("a"), LogStream::Stderr, b"o\r\nthree".to_vec()).await;
        drop(progress);
        let mut check = Check::new(&["a"]);
        check.0.vertices.start(0, at(0.0));
        while let Some(Event::Log(mut chunk)) = events.recv().await {
            chunk.at = at(0.25);
            check.0.event(Event::Log(chunk), at(0.25)).unwrap();
        }
        check.end("a", 0.25, false, None);
        assert_eq!(
            check.text(),
            "#1 a\n#1 0.250 one\n#1 0.250 two\n#1 0.250 three\n#1 DONE 0.2s\n"
        );
    }
}
