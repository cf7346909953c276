//! Draws a running build's events (design D9): the only place that does.

mod bytes;
pub(crate) mod format;
mod json;
mod layout;
mod plain;
mod quiet;
mod record;
mod step_notes;
mod tty;
mod vertex;

use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, SystemTime};

use rbuild_cache::{BuildLog, DiskError};
use rbuild_solver::{Event, Progress, ProgressReceiver};
use tokio::task::JoinHandle;

pub(crate) use self::bytes::ByteBars;
use self::json::Json;
use self::layout::ScreenSize;
use self::plain::Plain;
use self::quiet::Quiet;
use self::record::Recorder;
pub(crate) use self::step_notes::StepNotes;
use self::tty::Tty;
pub(crate) use self::vertex::CANCELLED;
use self::vertex::Vertices;

/// Frames a second on a terminal.
const FRAME: Duration = Duration::from_millis(100);

/// What an event draws at once; a little more than a step's output can be in one.
const OUTPUT: usize = 128 << 10;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// `tty` where standard error is a terminal, else `plain`.
    Auto,
    /// One line after the other.
    Plain,
    /// In place.
    Tty,
    /// Nothing.
    #[value(alias = "none")]
    Quiet,
    /// One JSON document a line.
    Rawjson,
}

/// What remains to be said when a build is over.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The step that failed and the end of what it printed.
    pub(crate) failed: Option<FailedStep>,
    recorder: Option<Recorder>,
}

impl Outcome {
    /// Ends the build's log; says what went wrong with it.
    pub(crate) fn end_log(&mut self, failed: bool) -> Option<DiskError> {
        self.recorder.take().and_then(|recorder| recorder.end(failed))
    }
}

/// A step that failed.
#[derive(Debug)]
pub(crate) struct FailedStep {
    /// Its name.
    pub(crate) name: String,
    /// The last lines of its output.
    pub(crate) tail: Vec<String>,
}

enum Renderer {
    Plain(Plain<BufWriter<io::Stderr>>),
    Tty(Tty<io::Stderr>),
    Json(Json<BufWriter<io::Stderr>>),
    Quiet(Quiet),
}

impl Renderer {
    /// Whether it shows steps under numbers of its own.
    fn gives_numbers(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

/// The task that draws; [`Display::finish`] waits for it.
#[derive(Debug)]
pub(crate) struct Display {
    task: JoinHandle<Outcome>,
}

impl Display {
    /// Starts to draw on standard error, and to record in `log`.
    pub(crate) fn start(mode: Mode, log: Option<BuildLog>) -> (Self, Progress) {
        Self::start_noting(mode, log, StepNotes::default())
    }

    /// The same, and notes what becomes of vertices.
    pub(crate) fn start_noting(
        mode: Mode,
        log: Option<BuildLog>,
        notes: StepNotes,
    ) -> (Self, Progress) {
        let (progress, events) = Progress::channel();
        let now = SystemTime::now();
        let size = terminal_size();
        let renderer = match (mode, size) {
            (Mode::Quiet, _) => Renderer::Quiet(Quiet::default()),
            (Mode::Rawjson, _) => Renderer::Json(Json::new(buffered())),
            (Mode::Auto, Some(size)) if io::stderr().is_terminal() => {
                Renderer::Tty(Tty::new(io::stderr(), colour(), size, now))
            }
            (Mode::Auto | Mode::Plain, _) => Renderer::Plain(Plain::new(buffered())),
            (Mode::Tty, size) => {
                let size = size.unwrap_or(ScreenSize { width: 80, height: 24 });
                Renderer::Tty(Tty::new(io::stderr(), colour(), size, now))
            }
        };
        let recorder = Recorder::new(log, renderer.gives_numbers());
        let task = tokio::spawn(run(renderer, (recorder, notes), events));
        (Self { task }, progress)
    }

    /// Waits until everything is drawn. All [`Progress`] senders must be gone.
    pub(crate) async fn finish(self) -> Outcome {
        self.task.await.unwrap_or_default()
    }
}

/// Standard error, written to once for each event.
fn buffered() -> BufWriter<io::Stderr> {
    BufWriter::with_capacity(OUTPUT, io::stderr())
}

/// Whether what is drawn on standard error may have colours.
pub(crate) fn stderr_takes_colour() -> bool {
    colour() && io::stderr().is_terminal()
}

/// The same of standard output.
pub(crate) fn stdout_takes_colour() -> bool {
    colour() && io::stdout().is_terminal()
}

/// Prints to standard error once the display is gone; nobody is left to tell when that fails.
pub(crate) fn print_after(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Colours are wanted unless `NO_COLOR` is set (no-color.org).
fn colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn terminal_size() -> Option<ScreenSize> {
    let size = rustix::termios::tcgetwinsize(io::stderr().as_fd()).ok()?;
    (size.ws_col > 0).then_some(ScreenSize { width: size.ws_col, height: size.ws_row })
}

async fn run(
    mut renderer: Renderer,
    (mut recorder, notes): (Recorder, StepNotes),
    mut events: ProgressReceiver,
) -> Outcome {
    let mut frames = tokio::time::interval(FRAME);
    frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // An error to draw (a closed pipe) must not stop the build: what cannot be drawn is not drawn.
        let _ = tokio::select! {
            event = events.recv() => match event {
                None => break,
                Some(event) => {
                    recorder.event(&event);
                    notes.event(&event);
                    let drawn = draw(&mut renderer, event);
                    // What comes at once is written at once.
                    if events.is_empty() { drawn.and_then(|()| flush(&mut renderer)) } else { drawn }
                }
            },
            _ = frames.tick() => {
                recorder.tick();
                tick(&mut renderer)
            }
        };
        if let Renderer::Plain(plain) = &mut renderer {
            recorder.numbered(plain.take_numbered());
        }
    }
    let _ = match &mut renderer {
        Renderer::Plain(plain) => plain.finish(),
        Renderer::Tty(tty) => tty.finish(SystemTime::now()),
        Renderer::Json(_) | Renderer::Quiet(_) => Ok(()),
    };
    if let Renderer::Plain(plain) = &mut renderer {
        recorder.numbered(plain.take_numbered());
    }
    let failed = failed(match &renderer {
        Renderer::Plain(plain) => plain.vertices(),
        Renderer::Quiet(quiet) => quiet.vertices(),
        Renderer::Tty(tty) => tty.vertices(),
        Renderer::Json(json) => json.vertices(),
    });
    Outcome { failed, recorder: Some(recorder) }
}

fn draw(renderer: &mut Renderer, event: Event) -> io::Result<()> {
    match renderer {
        Renderer::Plain(plain) => plain.event(event, SystemTime::now()),
        Renderer::Quiet(quiet) => {
            quiet.event(event);
            Ok(())
        }
        Renderer::Json(json) => json.event(event),
        Renderer::Tty(tty) => {
            tty.event(event);
            Ok(())
        }
    }
}

fn flush(renderer: &mut Renderer) -> io::Result<()> {
    match renderer {
        Renderer::Plain(plain) => plain.flush(),
        Renderer::Tty(_) | Renderer::Json(_) | Renderer::Quiet(_) => Ok(()),
    }
}

fn tick(renderer: &mut Renderer) -> io::Result<()> {
    match renderer {
        Renderer::Plain(plain) => plain.tick(SystemTime::now()),
        Renderer::Tty(tty) => {
            let size = terminal_size().unwrap_or(ScreenSize { width: 80, height: 24 });
            tty.draw(size, SystemTime::now())
        }
        Renderer::Json(_) | Renderer::Quiet(_) => Ok(()),
    }
}

fn failed(vertices: &Vertices) -> Option<FailedStep> {
    vertices.failed().map(|vertex| FailedStep {
        name: vertex.name.clone(),
        tail: vertex.tail.iter().cloned().collect(),
    })
}
