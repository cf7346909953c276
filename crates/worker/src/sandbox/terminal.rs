//! A terminal for a step's program, of the step's own `/dev/pts`.
//!
//! The first process opens it, once it is in the root, and hands its other end to the build through a socket that came
//! with the mounts.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchown, openat};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::ioctl_tiocsctty;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{Winsize, tcsetwinsize};
use serde::{Deserialize, Serialize};

use super::error::{Context, Failure};
use super::user::User;
use crate::sys;

/// A terminal that a step is to have, not opened yet.
#[derive(Debug)]
pub struct Terminal {
    /// Is given to the step.
    pub(crate) theirs: OwnedFd,
    pub(crate) size: (u16, u16),
}

/// Where the other end of a terminal comes from.
#[derive(Debug)]
pub struct TerminalEnd(UnixStream);

/// What a sandbox must know of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSpec {
    /// Index of the socket's descriptor among those of the mounts.
    pub descriptor: usize,
    /// Its size.
    pub rows: u16,
    /// The same.
    pub columns: u16,
}

impl Terminal {
    /// A terminal of this many rows and columns.
    pub fn new(rows: u16, columns: u16) -> io::Result<(Self, TerminalEnd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self { theirs: theirs.into(), size: (rows, columns) }, TerminalEnd(ours)))
    }
}

impl TerminalEnd {
    /// Waits for the other end of the terminal; `None` when the program could not be started.
    pub fn receive(self) -> io::Result<Option<File>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC;
        while let Err(error) =
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)
        {
            if error != Errno::INTR {
                return Err(error.into());
            }
        }
        let ends = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
            _ => None,
        });
        Ok(ends.map(File::from))
    }
}

/// Makes the terminal that is the process's standard input the controlling one of its session, which it must lead.
pub(super) fn control() -> Result<(), Failure> {
    ioctl_tiocsctty(rustix::stdio::stdin()).context("control", "the terminal")
}

/// The devices that make terminals.
pub(super) const OWN: &CStr = c"/dev/pts/ptmx";
/// The machine's, for a step that has no `/dev/pts`. Its other name is nobody's on most machines.
pub(super) const MACHINES: &CStr = c"/dev/ptmx";

/// Makes a terminal; this is the end of who looks at it.
pub(super) fn make(device: &CStr) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat(CWD, device, flags, Mode::empty()).context("open", "a terminal")
}

/// Makes the other end of a terminal the process's three streams, and hands out this one.
pub(super) fn attach(
    spec: TerminalSpec,
    end: &OwnedFd,
    descriptors: &[OwnedFd],
    user: &User,
) -> Result<(), Failure> {
    let open = || -> Result<(), Errno> {
        let socket = descriptors.get(spec.descriptor).ok_or(Errno::BADF)?;
        let terminal = sys::open_terminal(end.as_fd())?;
        tcsetwinsize(
            &terminal,
            Winsize { ws_row: spec.rows, ws_col: spec.columns, ws_xpixel: 0, ws_ypixel: 0 },
        )?;
        match fchown(&terminal, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid))) {
            // Where there is only one id, it is the right one.
            Err(Errno::PERM | Errno::INVAL) => {}
            changed => changed?,
        }
        dup2_stdin(&terminal)?;
        dup2_stdout(&terminal)?;
        dup2_stderr(&terminal)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let ends = [end.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&ends));
        sendmsg(socket, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    };
    open().context("open", "a terminal")
}
