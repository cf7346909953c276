//! The build process's side: starts a sandbox, reads what the step prints, and learns how it ended.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, Stat, fstat, stat};
use rustix::mount::OpenTreeFlags;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::error::SandboxError;
use super::groundwork::GroundKind;
use super::init::INIT_ARGUMENT;
use super::plan::{Rlimit, SandboxSpec};
use super::wire::{self, Exit, Report, Request};
use crate::sys;
use crate::userns::in_user_namespace;

/// How much output is read at once; the size of a pipe.
const CHUNK: usize = 64 * 1024;

/// Starts sandboxes. One is enough for a whole build; clones share what it holds.
///
/// A sandbox is this program started again with one hidden argument, so `main` must begin with
/// [`init_main_if_requested`](crate::init_main_if_requested).
#[derive(Clone, Debug)]
pub struct Sandbox {
    program: Arc<Program>,
    is_chroot: bool,
    /// Limits of the steps that have no other of the same resource.
    rlimits: Vec<Rlimit>,
    ahead: Arc<Mutex<Ahead>>,
}

/// What sandboxes are started from.
#[derive(Debug)]
struct Program {
    path: PathBuf,
    opened: OnceLock<Opened>,
}

#[derive(Debug)]
struct Opened {
    /// The program, on a read-only mount of its own.
    program: OwnedFd,
    in_user_namespace: bool,
}

impl Program {
    fn opened(&self) -> Result<&Opened, SandboxError> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let opened = Opened::own(&self.path)?;
        Ok(self.opened.get_or_init(|| opened))
    }
}

impl Opened {
    /// Opens the running program, which `path` leads to.
    fn own(path: &Path) -> Result<Self, SandboxError> {
        const OWN: &str = "/proc/self/exe";
        let error = |source| SandboxError::OpenProgram { path: OWN.to_owned(), source };
        let opened = Self::any(path)?;
        let facts = |stat: Stat| (stat.st_dev, stat.st_ino);
        let same = stat(OWN)
            .and_then(|own| Ok(facts(own) == facts(fstat(&opened.program)?)))
            .map_err(|errno| error(errno.into()))?;
        if same {
            Ok(opened)
        } else {
            Err(SandboxError::ProgramReplaced { path: path.display().to_string() })
        }
    }

    fn any(path: &Path) -> Result<Self, SandboxError> {
        let open_program =
            |source| SandboxError::OpenProgram { path: path.display().to_string(), source };
        // A step can reach the program that it was executed from through `/proc/self/exe` and, as root, write to it once nobody runs
        // it (CVE-2019-5736). Executed from a read-only mount, it cannot be opened for writing at all.
        let program = rustix::mount::open_tree(
            CWD,
            path,
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
        )
        .map_err(|errno| open_program(errno.into()))?;
        sys::mount_set_attributes(program.as_fd(), sys::MOUNT_ATTR_RDONLY, false)
            .map_err(|errno| open_program(errno.into()))?;
        Ok(Self { program, in_user_namespace: in_user_namespace() })
    }
}

/// Processes started before their steps are known. To execute the program, to link it and to do what all steps need takes longer than what
/// a sandbox does afterwards, so a build that has run a step has the process of the next one start meanwhile.
#[derive(Debug, Default)]
struct Ahead {
    /// Whether a step was started: a build that runs a single one should start no process in vain.
    is_likely: bool,
    /// Waits for its request. Once nobody holds the other end of its control socket it ends by itself.
    waiting: Option<Started>,
}

/// A sandbox process that has not been told its step.
#[derive(Debug)]
struct Started {
    /// What it does before it is told.
    ground: Option<GroundKind>,
    control: StdUnixStream,
    child: Child,
}

/// Which of its two outputs a step wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Sandbox {
    /// Prepares to start sandboxes from the running program.
    ///
    /// `path` is what `/proc/self/exe` was before [`enter_user_namespace`](crate::enter_user_namespace). Only the path leads to its mount in
    /// this process's mount namespace: the link itself leads to the one from which it was executed, which is another after the move and
    /// cannot be cloned from here. And read after the move, the path begins at that mount if nobody is left in the namespace that it was
    /// in, as when this process was the first one of a container.
    ///
    /// # Errors
    ///
    /// Without the right to clone a mount, that is when neither root nor in a user namespace.
    pub fn open(path: &Path) -> Result<Self, SandboxError> {
        Opened::own(path).map(|opened| Self::of(path, Some(opened), false))
    }

    /// As [`Sandbox::open`], but the first step opens the program, and fails where that fails. To give up a mount again takes a
    /// millisecond, which a build without steps has no use for.
    pub fn open_when_needed(path: &Path) -> Self {
        Self::of(path, None, false)
    }

    /// Opens the program, if that was left for when it is needed.
    pub(crate) fn prepare(&self) -> Result<(), SandboxError> {
        self.program.opened().map(drop)
    }

    /// Prepares to start sandboxes from another program whose `main` begins with
    /// [`init_main_if_requested`](crate::init_main_if_requested), for callers that are not such a program themselves.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::open`].
    pub fn open_program(path: &Path) -> Result<Self, SandboxError> {
        Opened::any(path).map(|opened| Self::of(path, Some(opened), false))
    }

    fn of(path: &Path, opened: Option<Opened>, is_chroot: bool) -> Self {
        let opened = opened.map(OnceLock::from).unwrap_or_default();
        let program = Arc::new(Program { path: path.to_owned(), opened });
        Self { program, is_chroot, rlimits: Vec::new(), ahead: Arc::default() }
    }

    /// As [`Sandbox::open`], for steps without namespaces and mounts: they have a root directory of their own and little else, and
    /// are no protection from what one does not trust.
    ///
    /// # Errors
    ///
    /// When the program cannot be opened.
    pub fn open_chroot() -> Result<Self, SandboxError> {
        const OWN: &str = "/proc/self/exe";
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        // There is no /proc in the step through which it could reach this program.
        let program = rustix::fs::open(OWN, flags, Mode::empty()).map_err(|errno| {
            SandboxError::OpenProgram { path: OWN.to_owned(), source: errno.into() }
        })?;
        let opened = Opened { program, in_user_namespace: in_user_namespace() };
        Ok(Self::of(Path::new(OWN), Some(opened), true))
    }

    /// Whether steps have neither namespaces nor mounts.
    #[must_use]
    pub fn is_chroot(&self) -> bool {
        self.is_chroot
    }

    /// The program with a hidden first argument, and nothing of the environment.
    pub(crate) fn command(&self, argument: &str) -> Result<Command, SandboxError> {
        let program = self.program.opened()?.program.as_raw_fd();
        let mut command = Command::new(format!("/proc/self/fd/{program}"));
        command.arg0("rbuild").arg(argument).env_clear();
        Ok(command)
    }

    /// Gives limits to the steps that do not have another of the same resource; without one they have this process's.
    #[must_use]
    pub fn with_rlimits(self, rlimits: Vec<Rlimit>) -> Self {
        Self { rlimits, ..self }
    }

    /// Starts a step over `root`, a detached mount (from `fsmount`, or `open_tree` with `OPEN_TREE_CLONE`) that the sandbox attaches
    /// in its own mount namespace. One mount can be attached once; afterwards `root` can still be read and written through.
    /// `descriptors` are what the spec's mounts refer to.
    ///
    /// Must be called within a tokio runtime. Takes about half a millisecond, in which the thread waits.
    ///
    /// # Errors
    ///
    /// When the process cannot be started. What fails later is reported by [`SandboxProcess::wait`].
    pub fn spawn(
        &self,
        spec: &SandboxSpec,
        root: BorrowedFd<'_>,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<SandboxProcess, SandboxError> {
        let start = |action| move |source| SandboxError::Start { action, source };
        let mut spec = spec.clone();
        let own = spec.rlimits.clone();
        let missing = |limit: &&Rlimit| own.iter().all(|own| own.resource != limit.resource);
        spec.rlimits.extend(self.rlimits.iter().filter(missing).copied());
        let request = Request {
            spec,
            in_user_namespace: self.program.opened()?.in_user_namespace,
            is_chroot: self.is_chroot,
            descriptors: descriptors.len(),
        };
        let hand_over = |started: Started| {
            wire::send_request(&started.control, &request, root, descriptors)
                .map(|()| started)
                .map_err(start("hand its description to a sandbox"))
        };
        let ground = GroundKind::ahead_of(&request);
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fit = |started: &mut Started| {
            // It may have been killed meanwhile.
            started.ground == ground && matches!(started.child.try_wait(), Ok(None))
        };
        let waited =
            ahead.waiting.take().and_then(|mut started| is_fit(&mut started).then_some(started));
        let waited = waited.and_then(|started| hand_over(started).ok());
        let Started { control, mut child, .. } =
            waited.map_or_else(|| self.start(ground).and_then(hand_over), Ok)?;
        if std::mem::replace(&mut ahead.is_likely, true) {
            // What is wrong with it is told to the step that needs it.
            ahead.waiting = self.start(ground).ok();
        }
        drop(ahead);
        let control = control
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(control))
            .map_err(start("watch the control socket of a sandbox"))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Ok(SandboxProcess { control, child, stdout, stderr })
    }

    /// Starts a sandbox process.
    fn start(&self, ground: Option<GroundKind>) -> Result<Started, SandboxError> {
        let start = |action| move |source| SandboxError::Start { action, source };
        let (control, theirs) =
            StdUnixStream::pair().map_err(start("create the control socket of a sandbox"))?;
        // Without `pre_exec`, uid or gid this is `posix_spawn`: no page table is copied, however large the build process is.
        let argument =
            ground.map(|ground| serde_json::to_string(&ground).expect("it has string keys only"));
        let child = self
            .command(INIT_ARGUMENT)?
            .args(argument)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start("start a sandbox process"))?;
        Ok(Started { ground, control, child })
    }

    /// Runs a step as [`Sandbox::spawn`] does, hands its output to `output` as it comes, and waits for its end.
    ///
    /// Dropping the future kills the step and everything it started, at once but not before it returns: for an instant the step's
    /// processes may still write to the root.
    ///
    /// # Errors
    ///
    /// When the step could not be started; a step that fails is an [`Exit`].
    pub async fn run<F>(
        &self,
        spec: &SandboxSpec,
        root: BorrowedFd<'_>,
        descriptors: &[BorrowedFd<'_>],
        mut output: F,
    ) -> Result<Exit, SandboxError>
    where
        F: FnMut(OutputStream, &[u8]) + Send,
    {
        let mut process = self.spawn(spec, root, descriptors)?;
        let (mut stdout, mut stderr) = (process.stdout.take(), process.stderr.take());
        let (mut out, mut err) = (vec![0; CHUNK], vec![0; CHUNK]);
        let read = |source| SandboxError::Start { action: "read the output of a step", source };
        while stdout.is_some() || stderr.is_some() {
            tokio::select! {
                size = read_some(&mut stdout, &mut out), if stdout.is_some() => {
                    let size = size.map_err(read)?;
                    output(OutputStream::Stdout, &out[..size]);
                }
                size = read_some(&mut stderr, &mut err), if stderr.is_some() => {
                    let size = size.map_err(read)?;
                    output(OutputStream::Stderr, &err[..size]);
                }
            }
        }
        process.wait().await
    }
}

/// Reads what there is; at the end of file the reader is gone and nothing is read.
async fn read_some<R: AsyncRead + Unpin>(
    reader: &mut Option<R>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let Some(open) = reader else { return Ok(0) };
    let size = open.read(buffer).await?;
    if size == 0 {
        *reader = None;
    }
    Ok(size)
}

/// Ends a step and everything it started.
#[derive(Debug)]
pub(crate) struct Stopper(OwnedFd);

impl Stopper {
    /// Tells the sandbox process, which then reports how the step ended.
    pub(crate) fn stop(&self) {
        // It fails when the sandbox process has ended already.
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Write);
    }
}

/// A running step. Dropping it kills the step and everything it started.
#[derive(Debug)]
pub struct SandboxProcess {
    /// While this is open the sandbox lives.
    control: UnixStream,
    child: Child,
    /// The step's standard output, until it is taken.
    pub stdout: Option<ChildStdout>,
    /// The step's standard error, until it is taken.
    pub stderr: Option<ChildStderr>,
}

impl SandboxProcess {
    /// Waits until the step and everything it started has ended. Its output must be read at the same time, or it may never end.
    ///
    /// # Errors
    ///
    /// When the step could not be set up, or its sandbox was killed.
    pub async fn wait(mut self) -> Result<Exit, SandboxError> {
        let start = |action| move |source| SandboxError::Start { action, source };
        let mut report = Vec::new();
        self.control
            .read_to_end(&mut report)
            .await
            .map_err(start("read the report of a sandbox"))?;
        // Once it has told how the step ended, nothing depends on when it ends itself; the runtime asks for it then.
        match serde_json::from_slice(&report) {
            Ok(Report::Exit(exit)) => Ok(exit),
            Ok(Report::Failure(failure)) => Err(failure.into()),
            Err(_) => {
                let status = self.child.wait().await;
                Err(SandboxError::Lost {
                    status: status.map_err(start("wait for a sandbox process"))?,
                })
            }
        }
    }

    /// What ends the step while somebody waits for it.
    pub(crate) fn stopper(&self) -> Result<Stopper, SandboxError> {
        let start = |source| SandboxError::Start { action: "watch a step", source };
        Ok(Stopper(self.control.as_fd().try_clone_to_owned().map_err(start)?))
    }

    /// The process id of the sandbox, which is the parent of the step's first process; `None` once it has ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }
}
