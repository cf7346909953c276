//! Draws frames on a terminal: one write a frame, in place, restored on every way out.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::SystemTime;

use rbuild_solver::Event;

use super::layout::{self, Line, Screen, ScreenSize, Tone};
use super::vertex::Vertices;
use crate::printable;

/// A build on a terminal.
#[derive(Debug)]
pub(crate) struct Tty<W: Write> {
    out: W,
    colour: bool,
    vertices: Vertices,
    screens: HashMap<usize, Screen>,
    began: SystemTime,
    /// Lines that the last frame took.
    drawn: usize,
    size: ScreenSize,
    dirty: bool,
    warnings: Vec<String>,
}

impl<W: Write> Tty<W> {
    pub(crate) fn new(out: W, colour: bool, size: ScreenSize, now: SystemTime) -> Self {
        Self {
            out,
            colour,
            vertices: Vertices::default(),
            screens: HashMap::new(),
            began: now,
            drawn: 0,
            size,
            dirty: true,
            warnings: Vec::new(),
        }
    }

    pub(crate) fn vertices(&self) -> &Vertices {
        &self.vertices
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.dirty = true;
        let vertices = &mut self.vertices;
        match event {
            Event::Added { vertex, name, inputs } => {
                vertices.add(vertex, name, inputs);
            }
            Event::Started { vertex, at, .. } => {
                if let Some(index) = vertices.index(&vertex) {
                    vertices.start(index, at);
                }
            }
            Event::Completed { vertex, at, cached, error } => {
                if let Some(index) = vertices.index(&vertex) {
                    vertices.complete(index, at, cached, error);
                    self.screens.remove(&index);
                }
            }
            Event::Status(update) => {
                if let Some(index) = vertices.index(&update.vertex) {
                    vertices.status(index, update);
                }
            }
            Event::Log(chunk) => {
                if let Some(index) = vertices.index(&chunk.vertex) {
                    let size = self.size;
                    self.screens
                        .entry(index)
                        .or_insert_with(|| Screen::new(size))
                        .write(&chunk.bytes);
                    vertices.log(index, chunk.stream, &chunk.bytes, |_| {});
                }
            }
            // Shown once the build is over, where nothing is drawn over them.
            Event::Warning { message, .. } => self.warnings.push(message),
            Event::Keyed { .. } => {}
        }
    }

    /// Draws a frame for a terminal of this size.
    pub(crate) fn draw(&mut self, size: ScreenSize, now: SystemTime) -> io::Result<()> {
        if size != self.size {
            self.size = size;
            self.screens.values_mut().for_each(|screen| screen.resize(size));
        }
        let busy = self.vertices.list().iter().any(super::vertex::VertexView::is_running);
        if !self.dirty && !busy {
            return Ok(());
        }
        self.dirty = false;
        let screens = &self.screens;
        let lines =
            layout::frame(self.vertices.list(), |index| screens.get(&index), size, self.began, now);
        self.write(&lines)
    }

    fn write(&mut self, lines: &[Line]) -> io::Result<()> {
        // Synchronised update, cursor hidden; then up to the first line of the last frame.
        let mut text = String::from("\x1b[?2026h\x1b[?25l");
        if self.drawn > 0 {
            text.extend(["\x1b[", &self.drawn.to_string(), "A"]);
        }
        for line in lines {
            let (on, off) = match line.tone {
                _ if !self.colour => ("", ""),
                Tone::Plain => ("", ""),
                Tone::Done => ("\x1b[34m", "\x1b[0m"),
                Tone::Failed => ("\x1b[31m", "\x1b[0m"),
                Tone::Faint => ("\x1b[2m", "\x1b[0m"),
            };
            text.push_str("\r\x1b[2K");
            text.push_str(on);
            text.push_str(&line.text);
            text.push_str(off);
            text.push('\n');
        }
        text.push_str("\x1b[J\x1b[?25h\x1b[?2026l");
        self.drawn = lines.len();
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Draws the last frame in full, whatever the terminal's height, and a summary and the warnings under it.
    pub(crate) fn finish(&mut self, now: SystemTime) -> io::Result<()> {
        let full = ScreenSize { width: self.size.width, height: u16::MAX };
        let lines = layout::frame(self.vertices.list(), |_| None, full, self.began, now);
        self.write(&lines)?;
        for line in layout::summary(self.vertices.list()) {
            writeln!(self.out, "{line}")?;
        }
        for warning in &self.warnings {
            writeln!(self.out, "WARN: {}", printable::line(warning))?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_under_the_last_frame() {
        let now = SystemTime::UNIX_EPOCH;
        let mut out = Vec::new();
        let mut tty = Tty::new(&mut out, false, ScreenSize { width: 80, height: 24 }, now);
        tty.event(Event::Warning {
            vertex: None,
            message: "the disk is \x1b[1mnearly full".to_owned(),
        });
        tty.finish(now).unwrap();
        let text = String::from_utf8(out).unwrap();
        let last = text.lines().last().unwrap();
        assert!(last.ends_with("nearly full") && last.starts_with("WARN: the disk is "), "{last}");
        assert!(!last.contains('\x1b'), "{last}");
    }
}
