//! What a terminal shows of a build: a pure function from state, size and time to lines.
//!
//! Running steps are always visible, with the last lines of what they print, seen through a vt100 screen so
//! that `\r` progress bars look as they should. Finished steps give way first, oldest first.

use std::num::NonZeroU16;
use std::time::{Duration, SystemTime};

use unicode_width::UnicodeWidthChar;

use super::format;
use super::vertex::VertexView;

/// Rows of a running step's output.
pub(crate) const LOG_ROWS: NonZeroU16 = NonZeroU16::new(6).expect("six is not zero");
/// How much of a piece of output is looked at.
const MOST_AT_ONCE: usize = 16 << 10;
/// Columns of a running step's output on a terminal too narrow for any.
const LEAST_COLUMNS: NonZeroU16 = NonZeroU16::new(10).expect("ten is not zero");

/// How a line is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Done,
    Failed,
    Faint,
}

/// One line of the screen, not longer than the terminal is wide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) tone: Tone,
}

/// What a step's output looks like on a terminal.
pub(crate) struct Screen {
    parser: vt100::Parser,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("rows", &self.rows()).finish()
    }
}

/// The terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScreenSize {
    pub(crate) width: u16,
    pub(crate) height: u16,
}

impl Screen {
    pub(crate) fn new(size: ScreenSize) -> Self {
        Self { parser: vt100::Parser::new(LOG_ROWS, Self::columns(size), 0) }
    }

    fn columns(size: ScreenSize) -> NonZeroU16 {
        NonZeroU16::new(size.width.saturating_sub(8))
            .map_or(LEAST_COLUMNS, |columns| columns.max(LEAST_COLUMNS))
    }

    pub(crate) fn resize(&mut self, size: ScreenSize) {
        self.parser.screen_mut().set_size(LOG_ROWS, Self::columns(size));
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        // Of much output at once only the end can be seen. It is entered at a line, where no command is cut.
        let late = bytes.len().saturating_sub(MOST_AT_ONCE);
        let line = bytes[late..].iter().position(|byte| *byte == b'\n').filter(|_| late > 0);
        let bytes = line.map_or(bytes, |line| &bytes[late + line + 1..]);
        // A program that writes to a pipe ends lines with `\n` alone; a terminal wants the carriage back too.
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(line) => {
                    self.parser.process(line);
                    self.parser.process(b"\r\n");
                }
                None => self.parser.process(piece),
            }
        }
    }

    fn rows(&self) -> Vec<String> {
        let screen = self.parser.screen();
        let rows = screen.rows(0, screen.size().1.get()).map(|row| row.trim_end().to_owned());
        rows.filter(|row| !row.is_empty()).collect()
    }
}

/// Lays out a frame. `screens` gives the output of running steps, by vertex index.
pub(crate) fn frame<'a>(
    vertices: &'a [VertexView],
    screen: impl Fn(usize) -> Option<&'a Screen>,
    size: ScreenSize,
    began: SystemTime,
    now: SystemTime,
) -> Vec<Line> {
    let width = usize::from(size.width.max(20));
    let height = usize::from(size.height.max(4)) - 1;
    let started = || vertices.iter().filter(|vertex| vertex.started.is_some());
    let done = vertices.iter().filter(|vertex| vertex.completed.is_some()).count();
    let all_done = started().all(|vertex| vertex.completed.is_some());
    let verb = if all_done && done == vertices.len() { " FINISHED" } else { "" };
    let head = format!(
        "[+] Building {} ({done}/{}){verb}",
        format::seconds(format::between(began, now)),
        vertices.len()
    );
    let mut lines = vec![Line { text: clip(&head, width), tone: Tone::Plain }];

    let running = started().filter(|vertex| vertex.completed.is_none()).count();
    let room_for_done = (height - 1).saturating_sub(running);
    let skipped = done.saturating_sub(room_for_done);
    let spare = (height - 1).saturating_sub(running + (done - skipped));
    let log_rows = spare.checked_div(running).unwrap_or(0).min(usize::from(LOG_ROWS.get()));

    let mut finished_seen = 0;
    for (index, vertex) in
        vertices.iter().enumerate().filter(|(_, vertex)| vertex.started.is_some())
    {
        if vertex.completed.is_some() {
            finished_seen += 1;
            if finished_seen <= skipped {
                continue;
            }
        }
        lines.push(vertex_line(vertex, width, now));
        if vertex.completed.is_none() {
            lines.extend(detail(vertex, screen(index), log_rows, width, now));
        }
    }
    lines.truncate(height);
    lines
}

/// What is shown under a running vertex: its statuses, else the end of its output.
fn detail(
    vertex: &VertexView,
    screen: Option<&Screen>,
    rows: usize,
    width: usize,
    now: SystemTime,
) -> Vec<Line> {
    let statuses = vertex.statuses.iter().filter(|status| status.completed.is_none());
    let mut texts: Vec<String> = statuses
        .map(|status| {
            let amount = match status.total {
                0 => String::new(),
                total => format!("{} / {}", format::bytes(status.current), format::bytes(total)),
            };
            let taken = format::seconds(format::between(status.started, now));
            pad(&format!(" => => {} {amount}", status.id), &taken, width)
        })
        .collect();
    texts.extend(
        screen
            .map(Screen::rows)
            .unwrap_or_default()
            .into_iter()
            .map(|row| clip(&format!(" => # {row}"), width)),
    );
    let from = texts.len().saturating_sub(rows);
    texts.drain(..from);
    texts.into_iter().map(|text| Line { text, tone: Tone::Faint }).collect()
}

fn vertex_line(vertex: &VertexView, width: usize, now: SystemTime) -> Line {
    let started = vertex.started.unwrap_or(now);
    let taken = format::between(started, vertex.completed.unwrap_or(now));
    let (word, tone) = match &vertex.error {
        Some(_) if vertex.was_cancelled() => ("CANCELED ", Tone::Faint),
        Some(_) => ("ERROR ", Tone::Failed),
        None if vertex.cached => ("CACHED ", Tone::Done),
        None if vertex.completed.is_some() => ("", Tone::Done),
        None => ("", Tone::Plain),
    };
    Line {
        text: pad(&format!(" => {word}{}", one_line(&vertex.name)), &format::seconds(taken), width),
        tone,
    }
}

/// The table at the end of a build: how much was known, and what took the time.
pub(crate) fn summary(vertices: &[VertexView]) -> Vec<String> {
    const MOST: usize = 3;
    let done = || {
        vertices
            .iter()
            .filter(|vertex| vertex.completed.is_some() && !format::is_internal(&vertex.name))
    };
    let cached = done().filter(|vertex| vertex.cached).count();
    let ran = done().filter(|vertex| !vertex.cached).count();
    let mut slow: Vec<(&VertexView, Duration)> = done()
        .filter(|vertex| !vertex.cached)
        .filter_map(|vertex| Some((vertex, format::between(vertex.started?, vertex.completed?))))
        .filter(|(_, taken)| *taken >= Duration::from_millis(50))
        .collect();
    slow.sort_by_key(|(_, taken)| std::cmp::Reverse(*taken));
    let mut lines = vec![format!("{cached} cached, {ran} ran")];
    for (vertex, taken) in slow.into_iter().take(MOST) {
        lines.push(format!("  {:>6}  {}", format::seconds(taken), one_line(&vertex.name)));
    }
    lines
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `left`, blanks, and `right` at the end of the line.
fn pad(left: &str, right: &str, width: usize) -> String {
    let room = width.saturating_sub(right.len() + 1);
    let left = clip(left, room);
    let blanks = (room - columns(&left)) + 1;
    format!("{left}{}{right}", " ".repeat(blanks))
}

fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// Cuts a text to what fits, without control characters.
fn clip(text: &str, width: usize) -> String {
    let mut used = 0;
    text.chars()
        .filter(|c| !c.is_control())
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= width
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rbuild_oci::Digest;

    use super::*;
    use crate::progress::vertex::Vertices;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn build(done: usize, running: usize) -> Vertices {
        let mut vertices = Vertices::default();
        for index in 0..done + running {
            let name =
                format!("step {index} with a name that is rather long, as names of steps are");
            let index = vertices.add(Digest::of(name.as_bytes()), name, Vec::new());
            vertices.start(index, at(0));
            if index < done {
                vertices.complete(index, at(1), index == 0, None);
            }
        }
        vertices
    }

    fn text(vertices: &Vertices, screen: Option<&Screen>, width: u16, height: u16) -> Vec<String> {
        let size = ScreenSize { width, height };
        frame(vertices.list(), |_| screen, size, at(0), at(2))
            .into_iter()
            .map(|line| line.text)
            .collect()
    }

    #[test]
    fn fits_the_terminal_whatever_its_size() {
        let mut screen = Screen::new(ScreenSize { width: 80, height: 24 });
        screen.write("one\ntwo\n10%\r100%\nwidth \u{4f60}\u{597d} \x1b[31mred\x1b[0m\n".as_bytes());
        for (width, height) in [(80, 24), (40, 10), (200, 60), (20, 4), (1, 1)] {
            for (done, running) in [(0, 0), (3, 2), (40, 3), (2, 40)] {
                let lines = text(&build(done, running), Some(&screen), width, height);
                assert!(
                    lines.len() < usize::from(height.max(4)),
                    "{width}x{height}: {}",
                    lines.len()
                );
                assert!(
                    lines.iter().all(|line| columns(line) <= usize::from(width.max(20))),
                    "{lines:?}"
                );
            }
        }
    }

    #[test]
    fn running_steps_stay_visible() {
        let lines = text(&build(40, 2), None, 60, 10);
        assert_eq!(lines[0], "[+] Building 2.0s (40/42)");
        assert!(lines.iter().any(|line| line.starts_with(" => step 40")), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with(" => step 41")), "{lines:?}");
        assert!(
            !lines.iter().any(|line| line.contains("step 3 ")),
            "the oldest finished ones give way"
        );
    }

    #[test]
    fn output_goes_through_a_terminal() {
        let mut screen = Screen::new(ScreenSize { width: 80, height: 24 });
        screen.write(b"10%\r20%\r100%\nnext");
        let lines = text(&build(0, 1), Some(&screen), 60, 24);
        assert_eq!(lines[2..], [" => # 100%", " => # next"]);
    }
}
