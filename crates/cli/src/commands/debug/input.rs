//! What a command in the state of a step reads.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::stdin;
use tokio::task::JoinHandle;

/// The standard input of a command, and who fills it.
#[derive(Debug)]
pub(super) struct Input {
    /// What it reads; nothing if ours is a terminal, which only a shell gets.
    pub(super) end: Option<OwnedFd>,
    filling: Option<JoinHandle<()>>,
}

impl Input {
    /// Our own standard input, for the command. A pipe or a socket is handed on; what is in a file goes through a pipe, as the command
    /// could open the file itself, with other rights than to read it.
    pub(super) fn open() -> io::Result<Self> {
        let nothing = Self { end: None, filling: None };
        let ours = match fcntl_dupfd_cloexec(stdin(), 3) {
            Err(Errno::BADF) => return Ok(nothing),
            ours => ours?,
        };
        match FileType::from_raw_mode(fstat(&ours)?.st_mode) {
            FileType::Fifo | FileType::Socket => Ok(Self { end: Some(ours), filling: None }),
            FileType::CharacterDevice if rustix::termios::isatty(&ours) => Ok(nothing),
            FileType::Directory => Ok(nothing),
            _ => {
                let (end, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
                let (mut from, mut to) = (File::from(ours), File::from(theirs));
                let filling = tokio::task::spawn_blocking(move || {
                    // It fails when the command has read enough.
                    let _ = io::copy(&mut from, &mut to);
                });
                Ok(Self { end: Some(end), filling: Some(filling) })
            }
        }
    }

    /// Waits until nothing is read any more. For when the command has ended.
    pub(super) async fn finish(self) {
        drop(self.end);
        if let Some(filling) = self.filling {
            let _ = filling.await;
        }
    }
}
