//! The sandbox process: parent of the step's first process, in the build's namespaces.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, chdir, pidfd_open, pidfd_send_signal, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stdin};
use rustix::thread::sched_yield;

use super::chroot::{self, Borrowed};
use super::emulation::Emulation;
use super::error::{Context, Failure};
use super::first::{First, Notice};
use super::groundwork::{GroundKind, Groundwork};
use super::rootfs::clone_binds;
use super::stubs::{self, Stub};
use super::wire::{self, Descriptors, Exit, ExitStatus, Received, Report, Usage};
use super::{namespaces, reaper};
use crate::cgroup::remove_abandoned;
use crate::sys::{self, Ended, Fork};

/// The hidden first argument that makes the program a sandbox process. A second one, a [`GroundKind`] in JSON, makes it start the step's first
/// process before its request comes.
pub(super) const INIT_ARGUMENT: &str = "__rbuild-init";

/// Becomes a sandbox process if this program was started as one; for [`init_main_if_requested`](crate::init_main_if_requested).
#[must_use]
pub(crate) fn init_main_if_requested() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() != Some(OsStr::new(INIT_ARGUMENT)) {
        return None;
    }
    let ahead = match arguments.next() {
        Some(ground) => Some(serde_json::from_slice(ground.as_encoded_bytes()).ok()?),
        None => None,
    };
    let is_whole = arguments.next().is_none();
    is_whole.then(|| match init_main(ahead) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Seen only by who starts it by hand; the build reads the report or misses it.
            let _ = writeln!(io::stderr(), "cannot run as a sandbox process: {error}");
            ExitCode::FAILURE
        }
    })
}

fn init_main(ahead: Option<GroundKind>) -> io::Result<()> {
    // Out of the terminal's foreground group: Ctrl-C is for the build, which then ends this process.
    setsid()?;
    let null = openat(CWD, c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let control = UnixStream::from(fcntl_dupfd_cloexec(stdin(), 3)?);
    dup2_stdin(&null)?;
    // Whatever directory it was started in is not kept busy.
    chdir(c"/")?;
    let waiting = ahead.map(Waiting::start);
    if let Some(Ok(waiting)) = &waiting {
        waiting.until_requested(&control)?;
    }
    let received = wire::receive_request(control.as_fd())?;
    let report = match run(received, waiting, &control) {
        Ok(exit) => Report::Exit(exit),
        Err(failure) => Report::Failure(failure),
    };
    (&control).write_all(&serde_json::to_vec(&report)?)?;
    // It is the last word: the build need not wait for the end of this process, nor for the processor on which it ends.
    control.shutdown(Shutdown::Write)?;
    sched_yield();
    Ok(())
}

/// The step's first process.
#[derive(Debug)]
struct Started {
    process: Pid,
    /// What it tells before it is the step's program.
    notices: OwnedFd,
    /// Where it tells how that ended.
    ended: OwnedFd,
}

impl Started {
    /// `first` is what it does, with the other ends.
    fn start(is_chroot: bool, first: impl FnOnce(File, File)) -> Result<Self, Failure> {
        let (notices, notices_of_first) =
            pipe_with(PipeFlags::CLOEXEC).context("create", "a pipe")?;
        // Unlike a pipe, nobody can open it anew through /proc: the step, to whom PID 1 belongs, has no part in what is told on it.
        let (ended, ended_of_first) = socket_pair()?;
        match is_chroot {
            true => chroot::adopt_orphans()?,
            false => namespaces::enter_pid_namespace()?,
        }
        match sys::fork().context("start", "the first process")? {
            Fork::Child => {
                first(File::from(notices_of_first), File::from(OwnedFd::from(ended_of_first)));
                sys::exit_now(1)
            }
            Fork::Parent(process) => Ok(Self { process, notices, ended: ended.into() }),
        }
    }
}

/// A first process that lays the groundwork and waits for the request.
#[derive(Debug)]
struct Waiting {
    started: Started,
    /// Where it gets that.
    requests: UnixStream,
}

impl Waiting {
    fn start(ground: GroundKind) -> Result<Self, Failure> {
        let (requests, theirs) = socket_pair()?;
        let started = Started::start(false, |notices, ended| {
            // When nobody has the other end of its socket any more, it waits for nothing; and who has the other end of init's must find out
            // that init is gone.
            let kept = [notices.as_raw_fd(), ended.as_raw_fd(), theirs.as_raw_fd()];
            let Ok(()) = sys::close_all_but(3, &kept) else { return };
            let groundwork = Some(Groundwork::lay(ground));
            let (received, binds) = match wire::receive_passed_on(theirs.as_fd()) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return,
                Err(error) => {
                    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                    let failure = Failure::new("receive", "the description of the step", errno);
                    return Notice::Failure(failure).tell(&notices);
                }
            };
            let Received { request, descriptors, .. } = &received;
            First { request, descriptors, binds, emulation: None, groundwork, notices, ended }.run()
        })?;
        Ok(Self { started, requests })
    }

    /// Waits for the request.
    ///
    /// # Errors
    ///
    /// When the first process has ended: the build then finds that out about this one, and starts another.
    fn until_requested(&self, control: &UnixStream) -> io::Result<()> {
        loop {
            let mut fds = [
                PollFd::new(&self.requests, PollFlags::empty()),
                PollFd::new(control, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                result => result?,
            };
            if !fds[0].revents().is_empty() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if !fds[1].revents().is_empty() {
                return Ok(());
            }
        }
    }
}

fn socket_pair() -> Result<(UnixStream, UnixStream), Failure> {
    UnixStream::pair().context("create", "a socket")
}

/// Runs the step to its end.
fn run(
    received: Received,
    waiting: Option<Result<Waiting, Failure>>,
    control: &UnixStream,
) -> Result<Exit, Failure> {
    let binds = clone_binds(&received.request.spec.mounts, &received.descriptors.mounts)?;
    let Received { request, descriptors, .. } = &received;
    let borrowed = match request.is_chroot {
        true => Some(Borrowed::new(descriptors.root.as_fd(), &request.spec)?),
        false => None,
    };
    // Before the next fork becomes the first process of another PID namespace, and before there are pipes whose ends it would keep.
    let mut emulation = None;
    let Started { process: first, notices, ended } = match waiting {
        Some(waiting) => {
            let Waiting { started, requests } = waiting?;
            wire::pass_on(&requests, &received, &binds)
                .context("describe the step to", "the first process")?;
            drop(binds);
            started
        }
        None => {
            emulation = Emulation::start(&request.spec.emulators)?;
            let (binds, emulation) = (binds, emulation.as_ref());
            Started::start(request.is_chroot, |notices, ended| {
                let groundwork = None;
                First { request, descriptors, binds, emulation, groundwork, notices, ended }.run()
            })?
        }
    };
    let Received { request, descriptors: Descriptors { root, mounts }, .. } = received;
    drop(mounts);
    // The step's output ends with the step, not with this process, which says nothing more there.
    dup2_stdout(stdin())
        .and_then(|()| dup2_stderr(stdin()))
        .context("give away", "the output of the step")?;
    let process = pidfd_open(first, PidfdFlags::empty()).context("watch", "the first process")?;
    let notices = watch(control, &process, File::from(notices));
    // Whatever happened, it ends here.
    let _ = pidfd_send_signal(&process, Signal::KILL);
    let mut first = sys::wait(first).context("wait for", "the first process")?;
    drop(emulation);
    if is_abandoned(control) {
        let groups = &request.spec.control_groups;
        remove_abandoned(groups.iter().map(|group| group.path.as_str()));
    }
    // Without it PID 1 was killed, or never came to have a program.
    first.status = reaper::status(ended).unwrap_or(first.status);
    if request.is_chroot {
        chroot::kill_orphans();
    }
    let exit = notices
        .context("watch", "the first process")
        .and_then(|notices| finish(&root, &notices, first));
    match borrowed.map(|borrowed| borrowed.give_back(root.as_fd())) {
        Some(Err(failure)) => exit.and(Err(failure)),
        _ => exit,
    }
}

/// Collects the first process's notices until it ends or until the build goes away.
fn watch(control: &UnixStream, process: &OwnedFd, mut notices: File) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    let mut open = true;
    loop {
        let notices_events = if open { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(process, PollFlags::IN),
            PollFd::new(control, PollFlags::RDHUP),
            PollFd::new(&notices, notices_events),
        ];
        // A pipe without writers would wake up the poll for ever.
        let count = if open { 3 } else { 2 };
        match poll(&mut fds[..count], None) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        let [ended, gone, noticed] =
            [0, 1, 2].map(|index: usize| index < count && !fds[index].revents().is_empty());
        if noticed {
            let mut chunk = [0; 4096];
            match notices.read(&mut chunk) {
                Ok(0) => open = false,
                Ok(size) => text.extend_from_slice(&chunk[..size]),
                Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            }
            // All of them are read before the end is believed.
            continue;
        }
        if ended || gone {
            return Ok(text);
        }
    }
}

/// Whether nobody reads the report: the build has died.
fn is_abandoned(control: &UnixStream) -> bool {
    let mut socket = [PollFd::new(control, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut socket, Some(&now)).is_ok() && socket[0].revents().contains(PollFlags::HUP)
}

/// Removes the stubs and says how it went.
fn finish(root: &OwnedFd, notices: &[u8], ended: Ended) -> Result<Exit, Failure> {
    let mut failure = None;
    let mut stubs: Vec<Stub> = Vec::new();
    for line in notices.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(Notice::Stubs(more)) => stubs.extend(more),
            Ok(Notice::Failure(told)) => failure = Some(told),
            // A line cut short: the process was killed while it wrote it.
            Err(_) => {}
        }
    }
    let removed = stubs::remove_all(root.as_fd(), &stubs);
    if let Some(failure) = failure {
        return Err(failure);
    }
    if let Err((path, errno)) = removed {
        return Err(Failure::new("remove the mount point", path, errno));
    }
    Ok(exit(ended))
}

fn exit(ended: Ended) -> Exit {
    let status = if libc::WIFSIGNALED(ended.status) {
        ExitStatus::Signal(libc::WTERMSIG(ended.status))
    } else {
        ExitStatus::Code(libc::WEXITSTATUS(ended.status))
    };
    let Ended { user_time, system_time, max_resident, .. } = ended;
    Exit { status, usage: Usage { user_time, system_time, max_resident } }
}
