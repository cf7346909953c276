//! What is alike for all steps: the namespaces, `/proc`, `/dev` and the filter, made before it is known which step they are for.
//!
//! A build that has run a step has the process of the next one started meanwhile, and that gets so far; what is left then depends
//! on the step.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::process::umask;
use serde::{Deserialize, Serialize};

use super::caps;
use super::devices::{self, DeviceOptions};
use super::error::{Context, Failure};
use super::mount_point::open_plain;
use super::namespaces::{self, attach_on_root};
use super::plan::SecurityMode;
use super::rootfs::{NO_PROGRAMS, NO_SUID, attach, bind_tree, new_filesystem};
use super::seccomp::Filter;
use super::wire::Request;

/// What a confined step must not read of `/proc`: the machine's memory, keys and sensors.
const MASKED: [&str; 9] = [
    "acpi",
    "asound",
    "kcore",
    "keys",
    "latency_stats",
    "timer_list",
    "timer_stats",
    "sched_debug",
    "scsi",
];

/// What a confined step must not write of it: the machine's settings.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// What it depends on; the second argument of a sandbox process that lays it before its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GroundKind {
    /// Whether the build runs inside a user namespace.
    in_user_namespace: bool,
    /// Whether the step is not confined.
    insecure: bool,
}

impl GroundKind {
    pub(super) fn of(request: &Request) -> Self {
        Self {
            in_user_namespace: request.in_user_namespace,
            insecure: request.spec.security == SecurityMode::Insecure,
        }
    }

    /// What can be laid before the request is known. A step in a mere root directory needs none, and an emulated one needs a helper
    /// that is started before there is a PID namespace.
    pub(super) fn ahead_of(request: &Request) -> Option<Self> {
        let is_alike = !request.is_chroot && request.spec.emulators.is_empty();
        is_alike.then(|| Self::of(request))
    }
}

/// The namespaces that the process is in now, and what is mounted in them.
#[derive(Debug)]
pub(super) struct Groundwork {
    /// Where files lie that exist in memory only, the nodes of the usual devices among them: on the old root, with which it goes away.
    pub(super) files: OwnedFd,
    pub(super) proc: OwnedFd,
    pub(super) dev: OwnedFd,
    /// `None` for a step that is not confined.
    pub(super) filter: Option<Filter>,
}

impl Groundwork {
    /// Moves the process, the first one of a PID namespace, into namespaces of mounts, of System V and POSIX queues and of names.
    pub(super) fn lay(ground: GroundKind) -> Result<Self, Failure> {
        // Modes are given in full.
        umask(Mode::empty());
        namespaces::leave()?;
        let unreachable = NO_SUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let files = new_filesystem("tmpfs", &[("mode", "0700")], unreachable)
            .and_then(|files| attach_on_root(files.as_fd()).map(|()| files))
            .context("mount", "the files of the sandbox")?;
        let proc = new_filesystem("proc", &[], NO_PROGRAMS)
            .and_then(|proc| attach_below(files.as_fd(), "proc", proc))
            .context("mount", "/proc")?;
        let mut attributes = NO_SUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
        if !ground.insecure {
            mask(proc.as_fd(), &MASKED).context("mask parts of", "/proc")?;
            protect(proc.as_fd()).context("make read-only parts of", "/proc")?;
            attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
        }
        let dev = new_filesystem("tmpfs", &[("mode", "755"), ("size", "65536k")], attributes)
            .and_then(|dev| attach_below(files.as_fd(), "dev", dev))
            .context("mount", "/dev")?;
        let GroundKind { in_user_namespace, insecure } = ground;
        let options = DeviceOptions { nodes: files.as_fd(), in_user_namespace, insecure };
        devices::populate(dev.as_fd(), options)?;
        let filter = (!insecure).then(|| Filter::new(caps::DEFAULT));
        Ok(Self { files, proc, dev, filter })
    }
}

/// Attaches a mount to a new directory, from where it can be moved with what is mounted on it.
fn attach_below(files: BorrowedFd<'_>, name: &str, mount: OwnedFd) -> Result<OwnedFd, Errno> {
    mkdirat(files, name, Mode::RWXU)?;
    let place = openat(files, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    attach(&mount, &place).map(|()| mount)
}

/// Covers what is at these paths of a file system, where this kernel has it.
pub(super) fn mask(filesystem: BorrowedFd<'_>, paths: &[&str]) -> Result<(), Errno> {
    paths.iter().try_for_each(|path| {
        cover(filesystem, path, |place| {
            if FileType::from_raw_mode(fstat(place)?.st_mode) == FileType::Directory {
                let attributes = NO_PROGRAMS | MountAttrFlags::MOUNT_ATTR_RDONLY;
                new_filesystem("tmpfs", &[("mode", "755")], attributes)
            } else {
                devices::open_host_device("null")
            }
        })
    })
}

fn protect(proc: BorrowedFd<'_>) -> Result<(), Errno> {
    READ_ONLY.iter().try_for_each(|path| {
        cover(proc, path, |place| bind_tree(place, "", MountAttrFlags::MOUNT_ATTR_RDONLY))
    })
}

fn cover(
    filesystem: BorrowedFd<'_>,
    path: &str,
    mount: impl FnOnce(BorrowedFd<'_>) -> Result<OwnedFd, Errno>,
) -> Result<(), Errno> {
    match open_plain(filesystem, path) {
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
        Ok(place) => attach(&mount(place.as_fd())?, &place),
    }
}
