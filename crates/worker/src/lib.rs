//! Runs the operations of a build: file operations, steps in a sandbox, merges and differences of states.
//!
//! Read first: [`Worker`], which is the solver's executor; then [`Sandbox`] and [`SandboxSpec`] for what a step runs
//! in, and [`enter_user_namespace`] for a build without root.
//!
//! What it does not do: decide what runs (that is the solver), and know about Dockerfiles or images.

mod agent;
mod bpf;
mod cache_mounts;
mod cgroup;
mod chroot;
mod context;
mod diff;
mod entitlements;
mod exec;
mod file;
mod git;
mod inspect;
mod killed;
mod local_mounts;
mod logins;
mod merge;
mod mounts;
mod network;
mod open_files;
mod operation_error;
mod own_process;
mod owner;
mod platforms;
mod processes;
mod program;
mod remote;
mod sandbox;
mod secrets;
mod snapshots;
mod source;
mod ssh;
mod step_limits;
mod sys;
mod userns;
mod worker;

pub use cgroup::{CgroupError, ControlGroups, ResourceLimits, SwapLimit};
pub use chroot::NotInChroot;
pub use context::{ContextError, Contexts};
pub use entitlements::{Entitlements, NotAllowed};
pub use exec::ExecError;
pub use file::{CopyArchiver, FileError, ModeError, OwnerError};
pub use git::{GitError, GitErrorKind, GitOptions};
pub use inspect::{Inspection, Streams};
pub use killed::Killed;
pub use logins::LoginError;
pub use network::{NetworkError, NetworkFinding, try_network};
pub use open_files::{OpenFiles, raise_open_files};
pub use operation_error::OperationError;
pub use own_process::init_main_if_requested;
pub use platforms::{Emulator, PlatformSupport, Platforms};
pub use processes::{ProcessTree, StepProcess};
pub use program::find_program;
pub use remote::{RemoteSources, SourceIdentity};
pub use sandbox::{
    CommandError, ControlGroup, Exit, ExitStatus, ExtraHost, Mount, MountAttributes, MountKind,
    NetworkMode, OutputStream, Rlimit, RlimitResource, Sandbox, SandboxError, SandboxProcess,
    SandboxSpec, SecurityMode, Terminal, TerminalEnd, TerminalSpec, Usage, User, UserError,
};
pub use secrets::{Provided, Secrets, SshAgent};
pub use snapshots::SnapshotError;
pub use ssh::{SshKeyError, SshKeys};
pub use step_limits::{Overdue, StepLimits};
pub use userns::{
    Identity, UserNamespaceError, can_chroot, enter_user_namespace, in_user_namespace, may_mount,
};
pub use worker::{LeftByStep, Worker, WorkerParts};
