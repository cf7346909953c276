//! The sandbox that a step runs in: namespaces, mounts, user, capabilities, seccomp.
//!
//! Read in the order of a step's life:
//!
//! 1. `plan`: [`SandboxSpec`], plain data that says what the step sees.
//! 2. `spawn`: the threaded build process starts its own binary again with one hidden argument and hands it the spec and the
//!    descriptors (`wire`). It never forks.
//! 3. `init`: that small, single-threaded process prepares the descriptors, forks into a new PID namespace, watches both its child
//!    and the build, removes the stubs, and reports. It may be started, and fork, before there is a step.
//! 4. `first`: the child, PID 1 of the step, lays what is alike for all steps (`groundwork`), goes through the rest of the kernel's sequence
//!    (`namespaces`, `user`, `rootfs`, `caps`, `seccomp`, `command`), forks the step's program and stays as its parent (`reaper`).
//!
//! # Who is PID 1
//!
//! A reaper of ours, and the program is PID 2 (see `reaper`), unlike under `runc`, where the program is PID 1. Whatever the program
//! leaves running dies with it, because the reaper ends with the program, and the kernel ends a PID namespace with its first process.
//!
//! # Who kills whom
//!
//! * The build drops the step, or is killed (`kill -9` too): its end of the control socket closes, and init kills PID 1. A parent
//!   death signal would not do here: it follows the *thread* that started init, and runtimes end idle threads.
//! * Init is killed: PID 1 has a parent death signal on init, which has one thread only.
//! * PID 1 ends: the kernel kills everything in its PID namespace before init hears of it.

mod caps;
mod chroot;
mod command;
mod devices;
mod emulation;
mod error;
mod first;
mod groundwork;
mod init;
mod mount_point;
mod namespaces;
mod network;
mod plan;
mod reaper;
mod rootfs;
mod seccomp;
mod spawn;
mod stubs;
mod terminal;
mod user;
mod wire;

pub use command::CommandError;
pub use error::SandboxError;
pub(crate) use init::init_main_if_requested;
pub(crate) use network::set_loopback_up;
pub use plan::{
    ControlGroup, ExtraHost, Mount, MountAttributes, MountKind, NetworkMode, Rlimit,
    RlimitResource, SandboxSpec, SecurityMode,
};
pub use spawn::{OutputStream, Sandbox, SandboxProcess};
pub use terminal::{Terminal, TerminalEnd, TerminalSpec};
pub use user::{User, UserError};
pub use wire::{Exit, ExitStatus, Usage};
pub(crate) use wire::{receive_descriptors, send_descriptors};
