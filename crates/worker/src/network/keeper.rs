//! The process that makes a network namespace and keeps pasta running for it, until the build is gone.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, memfd_create, openat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal, setsid, wait,
};
use rustix::stdio::{dup2_stdin, stdin};

use super::packets;
use super::pasta::DEVICE;
use crate::sandbox::{receive_descriptors, send_descriptors, set_loopback_up};
use crate::sys::{self, Fork};

/// The hidden first argument that makes the program a keeper. What follows is the program that connects the namespace, and its arguments.
pub(super) const KEEPER_ARGUMENT: &str = "__rbuild-network";

/// Becomes a keeper if this program was started as one; for [`init_main_if_requested`](crate::init_main_if_requested).
#[must_use]
pub(crate) fn keeper_main_if_requested() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != OsStr::new(KEEPER_ARGUMENT) {
        return None;
    }
    let (program, arguments) = (arguments.next()?, arguments.collect::<Vec<_>>());
    Some(match keeper_main(&program, &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Seen only by who starts it by hand.
            let _ = writeln!(io::stderr(), "cannot keep a network: {error}");
            ExitCode::FAILURE
        }
    })
}

fn keeper_main(program: &OsStr, arguments: &[OsString]) -> io::Result<()> {
    let null = openat(CWD, c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let control = UnixStream::from(fcntl_dupfd_cloexec(stdin(), 3)?);
    dup2_stdin(&null)?;
    match keep(&control, program, arguments) {
        Ok(()) => Ok(()),
        Err(error) => announce(&control, Err(error.to_string())),
    }
}

/// Sends a namespace, or why there is none.
fn announce(to: &UnixStream, made: Result<OwnedFd, String>) -> io::Result<()> {
    match made {
        Ok(namespace) => send_descriptors(to, &[namespace.as_fd()]),
        Err(reason) => {
            send_descriptors(to, &[])?;
            let mut to = to;
            to.write_all(reason.as_bytes())
        }
    }
}

/// Receives what was announced.
fn receive(mut from: UnixStream) -> io::Result<OwnedFd> {
    if let Some(namespace) = receive_descriptors(from.as_fd())?.pop() {
        return Ok(namespace);
    }
    let mut reason = String::new();
    from.read_to_string(&mut reason)?;
    Err(io::Error::other(reason))
}

/// Announces a namespace once it is connected, and waits until the build or the connection ends.
fn keep(control: &UnixStream, program: &OsStr, arguments: &[OsString]) -> io::Result<()> {
    // Out of the terminal's foreground group: Ctrl-C is for the build.
    setsid()?;
    let namespace = new_namespace()?;
    let (alive, alive_of_guard) = pipe_with(PipeFlags::CLOEXEC)?;
    sys::unshare(libc::CLONE_NEWPID)?;
    let guard = match sys::fork()? {
        Fork::Child => {
            drop(alive);
            let guard = Guard { control, alive: alive_of_guard };
            let Err(error) = guard.run(namespace, program, arguments);
            // An error means that the build is gone.
            let _ = announce(control, Err(error.to_string()));
            sys::exit_now(1)
        }
        Fork::Parent(guard) => guard,
    };
    drop((namespace, alive_of_guard));
    let process = pidfd_open(guard, PidfdFlags::empty())?;
    let mut ends = [PollFd::new(&process, PollFlags::IN), PollFd::new(control, PollFlags::RDHUP)];
    while let Err(Errno::INTR) = poll(&mut ends, None) {}
    let _ = pidfd_send_signal(&process, Signal::KILL);
    sys::wait(guard)?;
    Ok(())
}

/// Makes a network namespace with its loopback device up. By a process of its own, as there is no way back for one that was not root.
fn new_namespace() -> io::Result<OwnedFd> {
    let (here, there) = UnixStream::pair()?;
    match sys::fork()? {
        Fork::Child => {
            drop(here);
            let made = sys::unshare(libc::CLONE_NEWNET)
                .and_then(|()| set_loopback_up())
                .inspect(|()| allow_ping())
                .and_then(|()| {
                    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                    openat(CWD, c"/proc/self/ns/net", flags, Mode::empty())
                })
                .map_err(|errno| format!("cannot make a network namespace: {errno}"));
            // An error means that the parent is gone.
            let _ = announce(&there, made);
            sys::exit_now(0)
        }
        Fork::Parent(maker) => {
            drop(there);
            let namespace = receive(here);
            sys::wait(maker)?;
            namespace
        }
    }
}

/// Lets every user send echo requests without raw sockets, which only root has.
fn allow_ping() {
    // A group that the user namespace does not have is refused. Without the setting, there is no `ping`.
    let _ = ["0 2147483647", "0 65535", "0 0"]
        .iter()
        .any(|range| std::fs::write("/proc/sys/net/ipv4/ping_group_range", range).is_ok());
}

/// The first process of the PID namespace in which the connecting program lives.
#[derive(Debug)]
struct Guard<'a> {
    control: &'a UnixStream,
    /// Nobody reads it any more once the keeper is gone.
    alive: OwnedFd,
}

impl Guard<'_> {
    /// Starts the program, announces the namespace, and with a line why packets for the host's loopback may leave it (nothing if they may
    /// not), and ends when the program does.
    fn run(
        &self,
        namespace: OwnedFd,
        program: &OsStr,
        arguments: &[OsString],
    ) -> io::Result<Infallible> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if self.keeper_is_gone() {
            sys::exit_now(1);
        }
        connect(&namespace, program, arguments)?;
        let confined = packets::confine(DEVICE);
        announce(self.control, Ok(namespace))?;
        let why_not = confined.err().map(|error| error.to_string()).unwrap_or_default();
        let mut to = self.control;
        to.write_all(format!("{why_not}\n").as_bytes())?;
        loop {
            match wait(WaitOptions::empty()) {
                Err(Errno::INTR) | Ok(_) => {}
                // What went into the background, and became this process's child, has ended as well.
                Err(_) => sys::exit_now(1),
            }
        }
    }

    fn keeper_is_gone(&self) -> bool {
        let mut pipe = [PollFd::new(&self.alive, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut pipe, Some(&now)).is_ok() && pipe[0].revents().contains(PollFlags::ERR)
    }
}

/// Runs the program with the namespace as its standard input until it has gone into the background, which it does when it is ready.
fn connect(namespace: &OwnedFd, program: &OsStr, arguments: &[OsString]) -> io::Result<()> {
    let mut words = File::from(memfd_create(c"rbuild-network", MemfdFlags::CLOEXEC)?);
    let status = Command::new(program)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::from(namespace.try_clone()?))
        .stdout(Stdio::null())
        .stderr(Stdio::from(words.try_clone()?))
        .status()?;
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    words.rewind()?;
    words.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    // About the system's log, which a container does not have.
    let said = |line: &&str| !line.is_empty() && !line.starts_with("Failed to send");
    let said: Vec<&str> = text.lines().map(str::trim).filter(said).collect();
    Err(io::Error::other(if said.is_empty() { status.to_string() } else { said.join("; ") }))
}
