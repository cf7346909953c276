//! Draws a running build's events (design D9): the only place that does.

mod bytes;
pub(crate) mod format;
mod json;
mod layout;
mod plain;
mod tty;
mod vertex;

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, SystemTime};

use rbuild_solver::{Progress, ProgressReceiver};
use tokio::task::JoinHandle;

pub(crate) use self::bytes::ByteBars;
use self::json::Json;
use self::layout::ScreenSize;
use self::plain::Plain;
use self::tty::Tty;
use self::vertex::Vertices;

/// Frames a second on a terminal.
const FRAME: Duration = Duration::from_millis(100);

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
    Plain(Plain<io::Stderr>),
    Tty(Tty<io::Stderr>),
    Json(Json<io::Stderr>),
    /// Draws nothing but still knows what failed.
    Quiet(Plain<io::Sink>),
}

/// The task that draws; [`Display::finish`] waits for it.
#[derive(Debug)]
pub(crate) struct Display {
    task: JoinHandle<Outcome>,
}

impl Display {
    /// Starts to draw on standard error.
    pub(crate) fn start(mode: Mode) -> (Self, Progress) {
        let (progress, events) = Progress::channel();
        let now = SystemTime::now();
        let size = terminal_size();
        let renderer = match (mode, size) {
            (Mode::Quiet, _) => Renderer::Quiet(Plain::new(io::sink())),
            (Mode::Rawjson, _) => Renderer::Json(Json::new(io::stderr())),
            (Mode::Auto, Some(size)) if io::stderr().is_terminal() => {
                Renderer::Tty(Tty::new(io::stderr(), colour(), size, now))
            }
            (Mode::Auto | Mode::Plain, _) => Renderer::Plain(Plain::new(io::stderr())),
            (Mode::Tty, size) => {
                let size = size.unwrap_or(ScreenSize { width: 80, height: 24 });
                Renderer::Tty(Tty::new(io::stderr(), colour(), size, now))
            }
        };
        let task = tokio::spawn(run(renderer, events));
        (Self { task }, progress)
    }

    /// Waits until everything is drawn. All [`Progress`] senders must be gone.
    pub(crate) async fn finish(self) -> Outcome {
        self.task.await.unwrap_or_default()
    }
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

async fn run(mut renderer: Renderer, mut events: ProgressReceiver) -> Outcome {
    let mut frames = tokio::time::interval(FRAME);
    frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // An error to draw (a closed pipe) must not stop the build: what cannot be drawn is not drawn.
        let _ = tokio::select! {
            event = events.recv() => match event {
                None => break,
                Some(event) => match &mut renderer {
                    Renderer::Plain(plain) => plain.event(event, SystemTime::now()),
                    Renderer::Quiet(plain) => plain.event(event, SystemTime::now()),
                    Renderer::Json(json) => json.event(event),
                    Renderer::Tty(tty) => {
                        tty.event(event);
                        Ok(())
                    }
                },
            },
            _ = frames.tick() => match &mut renderer {
                Renderer::Plain(plain) => plain.tick(SystemTime::now()),
                Renderer::Tty(tty) => tty.draw(terminal_size().unwrap_or(ScreenSize { width: 80, height: 24 }), SystemTime::now()),
                Renderer::Json(_) | Renderer::Quiet(_) => Ok(()),
            },
        };
    }
    let _ = match &mut renderer {
        Renderer::Plain(plain) => plain.finish(),
        Renderer::Tty(tty) => tty.finish(SystemTime::now()),
        Renderer::Json(_) | Renderer::Quiet(_) => io::stderr().flush(),
    };
    outcome(match &renderer {
        Renderer::Plain(plain) => plain.vertices(),
        Renderer::Quiet(plain) => plain.vertices(),
        Renderer::Tty(tty) => tty.vertices(),
        Renderer::Json(json) => json.vertices(),
    })
}

fn outcome(vertices: &Vertices) -> Outcome {
    let failed = vertices.failed().map(|vertex| FailedStep {
        name: vertex.name.clone(),
        tail: vertex.tail.iter().cloned().collect(),
    });
    Outcome { failed }
}
