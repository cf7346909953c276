//! `/dev` of a step.
//!
//! Nothing that a confined step sees lets it open a device, `/dev` neither: every mount is `nodev`. Root in a step may make nodes, which
//! package scripts do, and they get into the layer, but opening one is refused. The usual devices are mounts of one file each, of
//! nodes that are in no directory of the step's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Dev, FileType, Mode, OFlags, makedev, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::error::{Context, Failure};
use super::rootfs::new_filesystem;
use crate::sys;

const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// The devices that every step has, with their numbers.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("tty", 5, 0),
    ("urandom", 1, 9),
    ("random", 1, 8),
];

/// What an unconfined step has besides, where the host has it.
const INSECURE_DEVICES: [&str; 14] = [
    "kmsg",
    "cuse",
    "fuse",
    "kvm",
    "net/tun",
    "loop-control",
    "loop0",
    "loop1",
    "loop2",
    "loop3",
    "loop4",
    "loop5",
    "loop6",
    "loop7",
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// How `/dev` is filled.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceOptions<'a> {
    /// Where nodes are made to be mounted: on a mount that allows devices, out of the step's reach.
    pub(super) nodes: BorrowedFd<'a>,
    /// Device nodes cannot be made; the host's are bound.
    pub(super) in_user_namespace: bool,
    /// Adds the host's devices that need no confinement.
    pub(super) insecure: bool,
}

/// Fills an attached, empty tmpfs.
pub(super) fn populate(dev: BorrowedFd<'_>, options: DeviceOptions<'_>) -> Result<(), Failure> {
    for (name, major, minor) in DEVICES {
        make_device(dev, name, makedev(major, minor), options).context("make the device", name)?;
    }
    if options.insecure {
        for name in INSECURE_DEVICES {
            match bind_host_device(dev, name) {
                Err(Errno::NOENT) => {}
                result => result.context("bind the device", name)?,
            }
        }
    }
    for (name, target) in LINKS {
        symlinkat(target, dev, name).context("make the link", name)?;
    }
    let no_exec = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let no_dev = no_exec | MountAttrFlags::MOUNT_ATTR_NODEV;
    let terminals = terminal_filesystem(no_exec).context("mount", "/dev/pts")?;
    attach(dev, "pts", terminals.as_fd())?;
    let memory = new_filesystem("tmpfs", &[("mode", "1777"), ("size", "65536k")], no_dev);
    attach(dev, "shm", memory.context("mount", "/dev/shm")?.as_fd())?;
    match new_filesystem("mqueue", &[], no_dev) {
        // A kernel without POSIX message queues.
        Err(Errno::NODEV) => Ok(()),
        queues => attach(dev, "mqueue", queues.context("mount", "/dev/mqueue")?.as_fd()),
    }
}

fn make_device(
    dev: BorrowedFd<'_>,
    name: &str,
    number: Dev,
    options: DeviceOptions<'_>,
) -> Result<(), Errno> {
    if options.in_user_namespace {
        return bind_host_device(dev, name);
    }
    let mode = Mode::from_raw_mode(0o666);
    match mknodat(options.nodes, name, FileType::CharacterDevice, mode, number) {
        // Root, but in a container that withholds CAP_MKNOD.
        Err(Errno::PERM) => bind_host_device(dev, name),
        made => {
            made?;
            attach_device(dev, name, &open_tree(options.nodes, name, CLONE)?)
        }
    }
}

fn bind_host_device(dev: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let device = open_host_device(name)?;
    if let Some((directory, _)) = name.split_once('/') {
        mkdirat(dev, directory, Mode::from_raw_mode(0o755))?;
    }
    attach_device(dev, name, &device)
}

/// A mount of a device of the host's. It is read-only, which is about the node: root of a step could change its mode and owner, and so
/// the host's, but the device itself can be written to.
pub(super) fn open_host_device(name: &str) -> Result<OwnedFd, Errno> {
    let device = open_tree(CWD, format!("/dev/{name}"), CLONE)?;
    sys::mount_set_attributes(device.as_fd(), sys::MOUNT_ATTR_RDONLY, false)?;
    Ok(device)
}

fn attach_device(dev: BorrowedFd<'_>, name: &str, device: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let place = openat(dev, name, flags, Mode::from_raw_mode(0o666))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(device, c"", &place, c"", flags)
}

fn terminal_filesystem(attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    match new_filesystem("devpts", &options, attributes) {
        // The terminals' usual group does not exist in a user namespace with a single id.
        Err(Errno::INVAL) => new_filesystem("devpts", &options[..3], attributes),
        result => result,
    }
}

fn attach(dev: BorrowedFd<'_>, name: &str, mount: BorrowedFd<'_>) -> Result<(), Failure> {
    mkdirat(dev, name, Mode::from_raw_mode(0o755))
        .and_then(|()| move_mount(mount, c"", dev, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH))
        .context("mount", &format!("/dev/{name}"))
}
