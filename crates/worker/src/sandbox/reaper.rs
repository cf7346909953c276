//! PID 1 of a step: waits for whatever ends, and ends with the step's program.
//!
//! A program whose parent has ended becomes a child of PID 1, and stays as a zombie until that asks for it. Most programs
//! never ask for children that they did not start: with one of them as PID 1, who waits for a stopped server to vanish
//! (`pg_ctl stop`, `service .. stop`) waits for ever. PID 1 also ignores the signals that it has no handler for, so that
//! `kill $$` does nothing. So the program is PID 2, as under `docker run --init`.
//!
//! It is the process that prepared the step, after the last of the preparations: it has the user, the capabilities and the
//! filter of the program, so a step that takes it over gains nothing; and of descriptors only the program's three and the
//! socket on which it tells how the program ended.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::process::{Pid, setsid};

use super::error::{Context, Failure};
use crate::sys::{self, Fork};

/// Goes on in a child, which is returned to; this process becomes the reaper.
pub(super) fn fork_from_reaper(ended: &File) -> Result<(), Failure> {
    match sys::fork().context("start", "the step's program")? {
        Fork::Child => setsid().map(drop).context("start", "a session"),
        Fork::Parent(program) => reap(program, ended),
    }
}

fn reap(program: Pid, ended: &File) -> ! {
    // Nothing depends on the name: it is for `ps`.
    let _ = rustix::thread::set_name(c"rbuild-init");
    // Neither does anything on this: what is left is the pipe to init for notices.
    let _ = sys::close_all_but(3, &[ended.as_raw_fd()]);
    loop {
        match sys::wait_any() {
            Ok((pid, status)) if pid == program => {
                // An error means that nobody is there to be told.
                let _ = (&*ended).write_all(&status.to_le_bytes());
                sys::exit_now(0)
            }
            Ok(_) => {}
            Err(_) => sys::exit_now(1),
        }
    }
}

/// The status of the program in the form of `wait(2)`, once PID 1 has ended; `None` if that was killed.
pub(super) fn status(ended: OwnedFd) -> Option<i32> {
    let mut status = [0; 4];
    File::from(ended).read_exact(&mut status).ok()?;
    Some(i32::from_le_bytes(status))
}
