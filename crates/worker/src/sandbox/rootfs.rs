//! The file system that a step sees: its root and everything mounted over it.
//!
//! Every mount is made detached and then attached to a descriptor of its place, which was found inside the root; no path of the
//! step's is ever given to the kernel as a path.
//!
//! Every mount of a confined step is `nodev`, the root too: root in a step can make device nodes (and an image or a context can bring
//! some along), and through one that it can open it has the machine's disks.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fchmod, fchown, fstat, fstatfs,
    mkdirat, openat, statfs,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::error::{Context, Failure};
use super::groundwork::{Groundwork, mask};
use super::mount_point::{PlaceKind, open_or_make, open_plain};
use super::namespaces::attach_on_root;
use super::plan::{Mount, MountAttributes, MountKind, SecurityMode};
use super::stubs::Stub;
use super::wire::Request;
use crate::{owner, sys};

/// What a confined step must not read of `/sys`: the machine's firmware and sensors.
const MASKED: [&str; 2] = ["firmware", "devices/virtual/powercap"];

/// `CGROUP2_SUPER_MAGIC` of statfs(2).
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// The inode of the root of every `/proc` (`PROC_ROOT_INO`).
const PROC_ROOT: u64 = 1;

pub(super) const NO_SUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
pub(super) const NO_PROGRAMS: MountAttrFlags =
    NO_SUID.union(MountAttrFlags::MOUNT_ATTR_NOEXEC).union(MountAttrFlags::MOUNT_ATTR_NODEV);
const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// Clones what the spec binds, so that it can be attached in another mount namespace. To be called in the build's mount namespace:
/// the kernel clones only what is in the caller's.
pub(super) fn clone_binds(
    mounts: &[Mount],
    descriptors: &[OwnedFd],
) -> Result<Vec<Option<OwnedFd>>, Failure> {
    mounts
        .iter()
        .map(|mount| match mount.kind {
            MountKind::Bind { descriptor } => {
                let source = descriptors.get(descriptor).ok_or(Errno::BADF);
                let flags = CLONE | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
                source
                    .and_then(|source| open_tree(source, c"", flags))
                    // What an unconfined step mounts on it stays in the step.
                    .and_then(|bind| sys::mount_make_private(bind.as_fd()).map(|()| Some(bind)))
                    .context("clone the source of the mount", &mount.destination)
            }
            MountKind::Attach { .. }
            | MountKind::Part { .. }
            | MountKind::Tmpfs { .. }
            | MountKind::File { .. } => Ok(None),
        })
        .collect()
}

/// Makes a detached mount of a new file system. An option without a value is a flag.
pub(super) fn new_filesystem(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            fsconfig_set_flag(&context, *key)?;
        } else {
            fsconfig_set_string(&context, *key, *value)?;
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A root under construction.
#[derive(Debug)]
pub(super) struct Rootfs<'a> {
    root: BorrowedFd<'a>,
    request: &'a Request,
    /// What had to be made to mount upon.
    stubs: &'a mut Vec<Stub>,
}

impl<'a> Rootfs<'a> {
    pub(super) fn new(
        root: BorrowedFd<'a>,
        request: &'a Request,
        stubs: &'a mut Vec<Stub>,
    ) -> Self {
        Self { root, request, stubs }
    }

    /// Attaches the root on top of the old one and everything else over it. `binds` are the clones for the spec's mounts.
    ///
    /// Returns the read-only double of the tree if the root is to be read-only. The root itself stays writable, since what was made to
    /// mount upon has to be removed through it.
    pub(super) fn assemble(
        mut self,
        groundwork: &Groundwork,
        descriptors: &[OwnedFd],
        binds: &[Option<OwnedFd>],
    ) -> Result<Option<OwnedFd>, Failure> {
        if self.is_confined() {
            sys::mount_set_attributes(self.root, sys::MOUNT_ATTR_NODEV, true)
                .context("forbid devices in", "the root of the step")?;
        }
        attach_on_root(self.root).context("mount", "the root of the step")?;
        self.mount_system(groundwork)?;
        let files = groundwork.files.as_fd();
        for (number, (index, mount)) in self.request.spec.all_mounts().iter().enumerate() {
            let bind = index.and_then(|index| binds.get(index)).and_then(Option::as_ref);
            self.mount(mount, number, files, descriptors, bind)
                .context("mount", &mount.destination)?;
        }
        if !self.request.spec.root_read_only {
            return Ok(None);
        }
        let flags = CLONE | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
        open_tree(self.root, c"", flags)
            .and_then(|double| {
                sys::mount_set_attributes(double.as_fd(), sys::MOUNT_ATTR_RDONLY, false)?;
                attach_on_root(double.as_fd())?;
                Ok(Some(double))
            })
            .context("make read-only", "/")
    }

    fn is_confined(&self) -> bool {
        self.request.spec.security == SecurityMode::Sandbox
    }

    /// `/proc`, `/dev` and `/sys`, which must be ordinary directories: over a link they would cover something else.
    fn mount_system(&mut self, groundwork: &Groundwork) -> Result<(), Failure> {
        self.attach_plain(&groundwork.proc, "/proc")?;
        self.attach_plain(&groundwork.dev, "/dev")?;
        let in_user_namespace = self.request.in_user_namespace;
        let mut attributes = NO_PROGRAMS;
        if self.is_confined() {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        // sysfs shows the network, and may only be mounted by who owns that. The host's is bound instead.
        let bind_host = || bind_tree(CWD, "/sys", attributes);
        let sys = if in_user_namespace && !self.request.spec.network.is_isolated() {
            bind_host()
        } else {
            match new_filesystem("sysfs", &[], attributes) {
                // The surroundings hide parts of their own.
                Err(Errno::PERM) if in_user_namespace => bind_host(),
                mount => mount,
            }
        };
        let sys = sys.context("mount", "/sys")?;
        self.attach_plain(&sys, "/sys")?;
        self.mount_cgroup(attributes)?;
        match self.is_confined() {
            true => mask(sys.as_fd(), &MASKED).context("mask parts of", "/sys"),
            false => Ok(()),
        }
    }

    /// Shows the step its own control group, as the root of all, where the machine has cgroup v2. On machines with v1 hierarchies
    /// there is nothing.
    fn mount_cgroup(&self, attributes: MountAttrFlags) -> Result<(), Failure> {
        let is_v2 = statfs("/sys/fs/cgroup").is_ok_and(|stat| stat.f_type == CGROUP2_MAGIC);
        if !is_v2 {
            return Ok(());
        }
        match new_filesystem("cgroup2", &[], attributes) {
            // In a user namespace it depends on what the surroundings show. The host's is there, read-only, with /sys.
            Err(Errno::PERM | Errno::BUSY) if self.request.in_user_namespace => Ok(()),
            mount => mount
                .and_then(|mount| attach(&mount, &open_plain(self.root, "/sys/fs/cgroup")?))
                .context("mount", "/sys/fs/cgroup"),
        }
    }

    fn attach_plain(&mut self, mount: &OwnedFd, path: &str) -> Result<(), Failure> {
        let place = match open_plain(self.root, path) {
            Err(Errno::NOENT) => {
                open_or_make(self.root, path, PlaceKind::Directory, (0, 0), self.stubs)
            }
            found => found,
        };
        place.and_then(|place| attach(mount, &place)).context("mount", path)
    }

    fn mount(
        &mut self,
        mount: &Mount,
        number: usize,
        files: BorrowedFd<'_>,
        descriptors: &[OwnedFd],
        bind: Option<&OwnedFd>,
    ) -> Result<(), Errno> {
        let made;
        let source = match &mount.kind {
            MountKind::Attach { descriptor } => descriptors.get(*descriptor).ok_or(Errno::BADF)?,
            MountKind::Part { descriptor, path } => {
                let whole = descriptors.get(*descriptor).ok_or(Errno::BADF)?;
                made = part_of(files, &number.to_string(), whole, path)?;
                &made
            }
            MountKind::Bind { .. } => bind.ok_or(Errno::BADF)?,
            MountKind::Tmpfs { size, mode } => {
                let mode = format!("{mode:o}");
                let size = size.map(|size| size.to_string());
                let mut options = vec![("mode", mode.as_str())];
                options.extend(size.as_deref().map(|size| ("size", size)));
                made = new_filesystem("tmpfs", &options, MountAttrFlags::empty())?;
                &made
            }
            MountKind::File { contents, mode, uid, gid } => {
                made = memory_file(files, &number.to_string(), contents, *mode, (*uid, *gid))?;
                &made
            }
        };
        let mut attributes = mount.attributes;
        attributes.no_dev |= self.is_confined();
        let attributes = attribute_bits(attributes);
        if attributes != 0 {
            sys::mount_set_attributes(source.as_fd(), attributes, true)?;
        }
        let kind = match FileType::from_raw_mode(fstat(source)?.st_mode) {
            FileType::Directory => PlaceKind::Directory,
            _ => PlaceKind::File,
        };
        let place = open_or_make(self.root, &mount.destination, kind, (0, 0), self.stubs)?;
        // Under another /proc neither the preparations that are left nor the step's own programs would find themselves.
        if fstatfs(&place)?.f_type == PROC_SUPER_MAGIC && fstat(&place)?.st_ino == PROC_ROOT {
            return Err(Errno::BUSY);
        }
        attach(source, &place)
    }
}

pub(super) fn attach(mount: &OwnedFd, place: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", place, c"", flags)
}

/// Makes a detached bind of a tree with these attributes. An empty path is the descriptor itself.
pub(super) fn bind_tree(
    at: BorrowedFd<'_>,
    path: &str,
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let flags = CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(at, path, flags)?;
    sys::mount_set_attributes(tree.as_fd(), u64::from(attributes.bits()), true)?;
    Ok(tree)
}

/// Clones a part of a detached mount. The mount itself is attached among the files that the step cannot reach, since what is not
/// attached can only be cloned by kernels from 6.15 on, and only in the mount namespace that it was made in.
fn part_of(
    files: BorrowedFd<'_>,
    name: &str,
    whole: &OwnedFd,
    path: &str,
) -> Result<OwnedFd, Errno> {
    mkdirat(files, name, Mode::RWXU)?;
    let place = openat(files, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    attach(whole, &place)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let part = rbuild_cache::open_in_root(whole, path, OFlags::PATH | OFlags::CLOEXEC, resolve)?;
    open_tree(&part, c"", CLONE | OpenTreeFlags::AT_EMPTY_PATH)
}

fn memory_file(
    files: BorrowedFd<'_>,
    name: &str,
    contents: &[u8],
    mode: u32,
    (uid, gid): (u32, u32),
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = File::from(openat(files, name, flags, Mode::from_raw_mode(0o600))?);
    file.write_all(contents).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    if (uid, gid) != (0, 0) {
        fchown(&file, owner::uid(uid), owner::gid(gid))?;
    }
    fchmod(&file, Mode::from_raw_mode(mode))?;
    open_tree(files, name, CLONE)
}

fn attribute_bits(attributes: MountAttributes) -> u64 {
    let MountAttributes { read_only, no_suid, no_exec, no_dev } = attributes;
    [
        (read_only, sys::MOUNT_ATTR_RDONLY),
        (no_suid, sys::MOUNT_ATTR_NOSUID),
        (no_exec, sys::MOUNT_ATTR_NOEXEC),
        (no_dev, sys::MOUNT_ATTR_NODEV),
    ]
    .into_iter()
    .filter(|(wanted, _)| *wanted)
    .fold(0, |bits, (_, bit)| bits | bit)
}
