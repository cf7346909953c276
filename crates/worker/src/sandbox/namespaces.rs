//! The namespaces of a step, and its move into its root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount,
};
use rustix::process::{fchdir, pivot_root};
use rustix::system::sethostname;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::error::{Context, Failure};
use super::network;
use super::plan::{NetworkMode, SandboxSpec};
use crate::sys;

/// Makes the next fork the first process of a new PID namespace.
pub(super) fn enter_pid_namespace() -> Result<(), Failure> {
    sys::unshare(libc::CLONE_NEWPID).context("create namespaces", "pid")
}

/// Moves the step's first process into the other namespaces that every step has for itself.
pub(super) fn leave() -> Result<(), Failure> {
    sys::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS)
        .context("create namespaces", "mount, ipc, uts")?;
    // Nothing gets out, but what the machine unmounts is unmounted here too: a process that waits for its step must not keep a disk busy.
    propagate(MountPropagationFlags::DOWNSTREAM)
}

fn propagate(how: MountPropagationFlags) -> Result<(), Failure> {
    let how = how | MountPropagationFlags::REC;
    mount_change("/", how).context("make private the mounts under", "/")
}

/// Moves it into those that the spec decides about. It must be in its control groups. From here on nothing that the machine mounts gets in:
/// it would do so without the restrictions of what it is mounted on.
pub(super) fn enter(spec: &SandboxSpec, descriptors: &[OwnedFd]) -> Result<(), Failure> {
    propagate(MountPropagationFlags::PRIVATE)?;
    match spec.network {
        NetworkMode::Host => {}
        NetworkMode::None => {
            sys::unshare(libc::CLONE_NEWNET).context("create namespaces", "network")?;
            network::set_loopback_up().context("bring up the network device", "lo")?;
        }
        NetworkMode::Joined { descriptor } => {
            let namespace = descriptors.get(descriptor).ok_or(Errno::BADF);
            namespace
                .and_then(|namespace| {
                    let kind = Some(LinkNameSpaceType::Network);
                    move_into_link_name_space(namespace.as_fd(), kind)
                })
                .context("enter the namespace", "network")?;
        }
    }
    match sys::unshare(libc::CLONE_NEWCGROUP) {
        // A kernel without control groups has nothing to hide.
        Err(Errno::INVAL) => {}
        result => result.context("create namespaces", "cgroup")?,
    }
    sethostname(spec.hostname.as_bytes()).context("set the host name", &spec.hostname)
}

/// Attaches a detached mount on top of the old root. Paths still lead into the old root, whose mount the process holds.
pub(super) fn attach_on_root(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    move_mount(mount, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Makes `root` the process's root and lets go of the `covered` mounts that it was attached on top of: the old root and what was
/// attached on that before.
pub(super) fn pivot(root: BorrowedFd<'_>, covered: usize) -> Result<(), Failure> {
    // With "." twice the old root ends up on top of the new one, and no directory is needed to put it (pivot_root(2), notes). What was
    // attached on the old root is still there, so they have to be taken off one by one: any that stayed would be entered by "..".
    fchdir(root)
        .and_then(|()| pivot_root(c".", c"."))
        .and_then(|()| (0..covered).try_for_each(|_| unmount(c".", UnmountFlags::DETACH)))
        .and_then(|()| rustix::process::chdir(c"/"))
        .context("change the root to", "the image's")
}
