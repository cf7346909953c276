//! Runs the operations of a build. At present: the sandbox that steps run in, and the user namespace of a build without root.
//!
//! Read first: [`Sandbox`], [`SandboxSpec`], and [`enter_user_namespace`].
//!
//! What it does not do: decide what runs (that is the solver), and know about Dockerfiles or images.

mod sandbox;
mod sys;
mod userns;

pub use sandbox::{
    CommandError, Exit, ExitStatus, ExtraHost, Mount, MountAttributes, MountKind, NetworkMode,
    OutputStream, Rlimit, RlimitResource, Sandbox, SandboxError, SandboxProcess, SandboxSpec,
    SecurityMode, Usage, User, UserError, host_resolv_conf, init_main_if_requested,
};
pub use userns::{Identity, UserNamespaceError, enter_user_namespace, in_user_namespace};
