//! What can go wrong with a sandbox, in the build process and, before the step's program runs, in the sandbox itself.

use std::borrow::Cow;
use std::io;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::command::CommandError;
use super::user::UserError;
use crate::userns;

/// Why a step did not run to its end. A step that ran and failed is not an error but an [`Exit`](super::Exit).
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The program that becomes the sandbox could not be opened.
    #[error("cannot open `{path}` to start sandboxes from")]
    OpenProgram {
        /// The program's path.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The running program is not any more where it was started from.
    #[error("`{path}` was replaced while it was running; start the build again")]
    ProgramReplaced {
        /// The program's path.
        path: String,
    },
    /// A sandbox could not be started or spoken to.
    #[error("cannot {action}")]
    Start {
        /// What could not be done.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The host's DNS configuration could not be read.
    #[error("cannot read `{path}`")]
    ResolvConf {
        /// The file.
        path: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Something could not be set up inside the sandbox.
    #[error("cannot {action} `{subject}`{}", hint.map(|hint| format!(" ({hint})")).unwrap_or_default())]
    SetUp {
        /// What could not be done, as `mount`.
        action: String,
        /// To what, as `/proc`.
        subject: String,
        /// What a person can do about it.
        hint: Option<&'static str>,
        /// The cause.
        source: io::Error,
    },
    /// The user of the step is not to be had.
    #[error(transparent)]
    User(#[from] UserError),
    /// The step's program could not be executed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The sandbox process ended without saying how the step ended: it was killed, or it crashed.
    #[error("the sandbox process ended without a report: {status}")]
    Lost {
        /// How it ended.
        status: std::process::ExitStatus,
    },
}

impl SandboxError {
    /// The exit code that a shell would give for this: 127 for a program that is missing, 126 for one that cannot be executed.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Command(error) => Some(error.exit_code()),
            _ => None,
        }
    }

    /// What would help, where something around rbuild keeps it from running any step with namespaces and mounts.
    #[must_use]
    pub fn fix(&self) -> Option<&'static str> {
        match self {
            Self::SetUp { hint: Some(MASKED_PROC), .. } => {
                Some("start the container with --security-opt systempaths=unconfined")
            }
            Self::SetUp { hint: Some(userns::FILTERED | FILTERED_CALL), .. } => {
                Some(userns::UNFILTERED)
            }
            _ => None,
        }
    }
}

/// Containers of Docker's and podman's mask theirs; a new one can then be mounted by root of the
/// machine only (`mount_too_revealing` in the kernel's `fs/namespace.c`).
const MASKED_PROC: &str = "the surrounding container masks parts of its /proc; start it with \
     `--security-opt systempaths=unconfined` (podman: `--security-opt unmask=ALL`, Kubernetes: `procMount: Unmasked`)";

/// Filters that let namespaces pass may still refuse what is done in them: podman's does for `sethostname`.
const FILTERED_CALL: &str = "the seccomp filter of a surrounding container refuses it; start the container with \
     `--security-opt seccomp=unconfined` (Kubernetes: `seccompProfile: {type: Unconfined}`)";

/// An error inside the sandbox, in the form in which it travels to the build process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    SetUp { action: Cow<'static, str>, subject: String, errno: i32 },
    User(UserError),
    Command(CommandError),
}

impl Failure {
    pub(super) fn new(action: &'static str, subject: impl Into<String>, errno: Errno) -> Self {
        Self::SetUp {
            action: Cow::Borrowed(action),
            subject: subject.into(),
            errno: errno.raw_os_error(),
        }
    }
}

impl From<UserError> for Failure {
    fn from(error: UserError) -> Self {
        Self::User(error)
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl From<Failure> for SandboxError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::SetUp { action, subject, errno } => {
                let hint = hint(&action, &subject, Errno::from_raw_os_error(errno));
                let source = io::Error::from_raw_os_error(errno);
                Self::SetUp { action: action.into_owned(), subject, hint, source }
            }
            Failure::User(error) => Self::User(error),
            Failure::Command(error) => Self::Command(error),
        }
    }
}

/// The causes that people meet, where the bare error number sends them the wrong way.
fn hint(action: &str, subject: &str, errno: Errno) -> Option<&'static str> {
    match (action, subject, errno) {
        ("mount", "/proc", Errno::PERM) => Some(MASKED_PROC),
        ("mount", "binfmt_misc", Errno::PERM | Errno::NODEV) => Some(
            "Linux before 6.7 has one for the whole machine only; as root, register emulators there: Debian packages \
             `qemu-user-static` and `binfmt-support`",
        ),
        ("mount", _, Errno::LOOP) => {
            Some("it is a symbolic link in the image; it must be an ordinary directory")
        }
        ("mount", _, Errno::INVAL | Errno::NOTDIR) => Some(
            "a file can only be mounted on a file and a folder on a folder, and its owner must be one of the ids that this user has",
        ),
        ("mount", _, Errno::BUSY) => {
            Some("the step's own /proc is there, and nothing else can be in its place")
        }
        ("set", "the supplementary groups", Errno::INVAL) => {
            Some("a process can be in 65,536 groups at most")
        }
        ("set the limit", _, Errno::PERM) => Some("raising a hard limit needs CAP_SYS_RESOURCE"),
        ("create namespaces", _, Errno::PERM) if userns::is_filtered() => Some(userns::FILTERED),
        ("create namespaces", _, Errno::PERM) => {
            Some("it needs CAP_SYS_ADMIN: run as root or in a user namespace")
        }
        ("mount" | "set the host name", _, Errno::PERM) if userns::is_filtered() => {
            Some(FILTERED_CALL)
        }
        (_, _, Errno::NOSYS) => Some("rbuild needs Linux 5.12 or later"),
        ("create namespaces", _, Errno::NOSPC) => Some("a limit under /proc/sys/user is reached"),
        _ => None,
    }
}

/// Attaches to a system call's error what was being done and to what.
pub(super) trait Context<T> {
    fn context(self, action: &'static str, subject: &str) -> Result<T, Failure>;
}

impl<T> Context<T> for Result<T, Errno> {
    fn context(self, action: &'static str, subject: &str) -> Result<T, Failure> {
        self.map_err(|errno| Failure::new(action, subject, errno))
    }
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, subject: &str) -> Result<T, Failure> {
        self.map_err(|error| {
            Failure::new(action, subject, Errno::from_io_error(&error).unwrap_or(Errno::IO))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_up_failures_say_what_and_why() {
        let error = SandboxError::from(Failure::new("mount", "/proc", Errno::PERM));
        assert!(error.to_string().starts_with("cannot mount `/proc` (the surrounding container"));
        let error = SandboxError::from(Failure::new("open", "/x", Errno::NOENT));
        assert_eq!(error.to_string(), "cannot open `/x`");
        assert_eq!(error.exit_code(), None);
    }
}
