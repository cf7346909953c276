//! `/dev` of a step.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{CWD, Dev, FileType, Mode, OFlags, makedev, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::error::{Context, Failure};
use super::rootfs::new_filesystem;

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
pub(super) struct DeviceOptions {
    /// Device nodes cannot be made; the host's are bound.
    pub(super) in_user_namespace: bool,
    /// Adds the host's devices that need no confinement.
    pub(super) insecure: bool,
}

/// Fills an attached, empty tmpfs.
pub(super) fn populate(dev: BorrowedFd<'_>, options: DeviceOptions) -> Result<(), Failure> {
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
    options: DeviceOptions,
) -> Result<(), Errno> {
    if options.in_user_namespace {
        return bind_host_device(dev, name);
    }
    match mknodat(dev, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), number) {
        // Root, but in a container that withholds CAP_MKNOD.
        Err(Errno::PERM) => bind_host_device(dev, name),
        result => result,
    }
}

fn bind_host_device(dev: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let device = open_tree(CWD, format!("/dev/{name}"), clone)?;
    if let Some((directory, _)) = name.split_once('/') {
        mkdirat(dev, directory, Mode::from_raw_mode(0o755))?;
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let place = openat(dev, name, flags, Mode::from_raw_mode(0o666))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&device, c"", &place, c"", flags)
}

fn terminal_filesystem(attributes: MountAttrFlags) -> Result<rustix::fd::OwnedFd, Errno> {
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
