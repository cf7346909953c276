//! The user's terminal as that of a program in a sandbox.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use rbuild_solver::Progress;
use rbuild_worker::{Inspection, OperationError, Streams, Terminal, TerminalEnd, Worker};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use tokio::signal::unix::{SignalKind, signal};

/// What the end of standard input is to a terminal: Ctrl-D.
const END: u8 = 4;

/// Runs a program of a step's state in the user's terminal.
pub(super) struct InTerminal<'a> {
    pub(super) worker: &'a Worker,
    pub(super) inspection: &'a Inspection,
    pub(super) progress: &'a Progress,
}

/// Why it did not run to its end.
pub(super) enum Error {
    /// The terminal.
    Terminal(io::Error),
    /// The program.
    Step(Box<OperationError>),
}

impl InTerminal<'_> {
    /// Runs it; every key goes to it. Returns its exit code.
    pub(super) async fn run(&self, args: Vec<String>) -> Result<i32, Error> {
        let size = tcgetwinsize(io::stdin()).map_err(|error| Error::Terminal(error.into()))?;
        let (terminal, end) = Terminal::new(size.ws_row, size.ws_col).map_err(Error::Terminal)?;
        let streams = Streams::Terminal(terminal);
        let stepped = self.worker.inspect(self.inspection, args, streams, self.progress);
        let connected = connect(end);
        let (code, connected) = tokio::join!(stepped, connected);
        let code = code.map_err(|error| Error::Step(Box::new(error)))?;
        connected.map_err(Error::Terminal)?;
        Ok(code)
    }
}

/// Connects the user's terminal with the program's until that is gone.
async fn connect(end: TerminalEnd) -> io::Result<()> {
    let received = tokio::task::spawn_blocking(move || end.receive()).await;
    let Some(end) = received.map_err(io::Error::other)?? else { return Ok(()) };
    let end = Arc::new(end);
    let raw = Raw::enter()?;
    let pumping = {
        let end = Arc::clone(&end);
        tokio::task::spawn_blocking(move || pump(&end))
    };
    let mut resized = signal(SignalKind::window_change())?;
    tokio::pin!(pumping);
    let pumped = loop {
        tokio::select! {
            pumped = &mut pumping => break pumped,
            _ = resized.recv() => {
                if let Ok(size) = tcgetwinsize(io::stdin()) {
                    // It is gone when this fails.
                    let _ = tcsetwinsize(&*end, size);
                }
            }
        }
    };
    drop(raw);
    pumped.map_err(io::Error::other)?
}

/// Copies both ways. Ends when nobody has the program's terminal open any more.
fn pump(end: &File) -> io::Result<()> {
    let (stdin, mut theirs) = (io::stdin(), end);
    let mut out = io::stdout().lock();
    let mut buffer = [0; 8192];
    let mut typing = true;
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds[..if typing { 2 } else { 1 }], None) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        let (printed, typed) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if printed {
            match theirs.read(&mut buffer) {
                // How Linux says that the last of them is gone.
                Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    return Ok(());
                }
                Ok(0) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    out.write_all(&buffer[..read?])?;
                    out.flush()?;
                }
            }
        }
        if typed && typing {
            let length = match rustix::io::read(&stdin, &mut buffer) {
                Err(Errno::INTR) => continue,
                // The user's terminal is gone.
                Err(Errno::IO) => 0,
                read => read?,
            };
            typing = length > 0;
            let bytes = if typing { &buffer[..length] } else { &[END][..] };
            theirs.write_all(bytes)?;
        }
    }
}

/// The user's terminal without a mind of its own, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}
