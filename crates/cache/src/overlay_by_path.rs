//! Overlay mounts on kernels that take no layer by descriptor (before 6.7).
//!
//! There, all lower directories are one option: of `fsconfig`, whose values end at 256 bytes, or of `mount(2)`, whose options have a
//! page. The page it is, with the directories named by the numbers of their descriptors, relative to `/proc/self/fd`: 500 of them fit.
//!
//! `mount(2)` attaches what it makes, and nobody must see that. So a thread of its own goes into a mount namespace of its own, mounts
//! there, clones the mount to a detached one as the new calls make it, and ends. When the process is killed, the namespace
//! goes with it. The kernel lets an overlay use directories only through mounts of the namespace that it is mounted in (since 5.14), so
//! the thread opens them once more, by their paths, and sees to it that they are the same.

use std::ffi::CString;
use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, fstat, openat, readlink};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags, mount, mount_change, open_tree,
    unmount,
};
use rustix::thread::UnshareFlags;

use crate::overlay::Upper;

/// The most bytes of options: a page with the zero at its end, on machines with the smallest pages.
const MAX_OPTIONS: usize = 4095;

/// What is mounted.
pub(crate) struct Stacks<'a> {
    /// Each is mounted with the one before it as its lowest layer, bottom first.
    pub(crate) lowers: Vec<Vec<BorrowedFd<'a>>>,
    /// The upper directory of the last.
    pub(crate) upper: Option<Upper<'a>>,
    /// A directory to mount upon.
    pub(crate) place: BorrowedFd<'a>,
    /// Options that all of them have.
    pub(crate) options: String,
}

/// Mounts the last of the stacks and returns the root of the merged tree, a detached mount.
pub(crate) fn mount_detached(stacks: &Stacks<'_>) -> Result<OwnedFd, Errno> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| in_own_namespace(stacks));
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn in_own_namespace(stacks: &Stacks<'_>) -> Result<OwnedFd, Errno> {
    let place = path_of(stacks.place)?;
    let paths = |dirs: &[BorrowedFd<'_>]| -> Result<Vec<(PathBuf, Identity)>, Errno> {
        dirs.iter().map(|dir| Ok((path_of(*dir)?, identity(*dir)?))).collect()
    };
    let lowers: Vec<_> = stacks.lowers.iter().map(|dirs| paths(dirs)).collect::<Result<_, _>>()?;
    let upper = stacks.upper.map(|upper| paths(&[upper.dir, upper.work])).transpose()?;

    // The working directory becomes the thread's own, too.
    unshare_mounts()?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    rustix::process::chdir("/proc/self/fd")?;
    let mut below = None;
    let count = lowers.len();
    for (index, lowers) in lowers.iter().enumerate() {
        let mut dirs: Vec<OwnedFd> = below.take().into_iter().collect();
        for lower in lowers {
            dirs.push(open_again(lower)?);
        }
        let upper = match &upper {
            Some(upper) if index + 1 == count => {
                Some(upper.iter().map(open_again).collect::<Result<Vec<_>, _>>()?)
            }
            _ => None,
        };
        let flags = match upper {
            Some(_) => MountFlags::empty(),
            None => MountFlags::RDONLY | MountFlags::NODEV,
        };
        let options = options(&stacks.options, &dirs, upper.as_deref())?;
        mount("rbuild", &place, "overlay", flags, options.as_c_str())?;
        if index + 1 < count {
            below = Some(open_directory(&place)?);
        }
    }
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let root = open_tree(CWD, &place, clone)?;
    // The namespace ends some time after the thread; the mounts in it must not last longer than whom they are for.
    (0..count).try_for_each(|_| unmount(&place, UnmountFlags::DETACH))?;
    Ok(root)
}

#[expect(deprecated, reason = "for its CLONE_FILES only, which is not asked for")]
fn unshare_mounts() -> Result<(), Errno> {
    rustix::thread::unshare(UnshareFlags::NEWNS)
}

/// The text of the options, lower directories topmost first as the kernel wants them.
fn options(common: &str, lowers: &[OwnedFd], upper: Option<&[OwnedFd]>) -> Result<CString, Errno> {
    let mut text = format!("{common},lowerdir=");
    for (index, lower) in lowers.iter().rev().enumerate() {
        let colon = if index == 0 { "" } else { ":" };
        // Writing to a string does not fail.
        let _ = write!(text, "{colon}{}", lower.as_raw_fd());
    }
    if let Some([dir, work]) = upper {
        let (dir, work) = (dir.as_raw_fd(), work.as_raw_fd());
        let _ = write!(text, ",upperdir={dir},workdir={work},volatile");
    }
    if text.len() > MAX_OPTIONS {
        return Err(Errno::TOOBIG);
    }
    CString::new(text).map_err(|_| Errno::INVAL)
}

/// A directory's file system and number.
type Identity = (u64, u64);

fn identity(dir: BorrowedFd<'_>) -> Result<Identity, Errno> {
    let stat = fstat(dir)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn path_of(dir: BorrowedFd<'_>) -> Result<PathBuf, Errno> {
    use std::os::unix::ffi::OsStringExt;
    let path = readlink(format!("/proc/self/fd/{}", dir.as_raw_fd()), Vec::new())?;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(path.into_bytes())))
}

fn open_again((path, expected): &(PathBuf, Identity)) -> Result<OwnedFd, Errno> {
    let dir = open_directory(path)?;
    if identity(dir.as_fd())? == *expected { Ok(dir) } else { Err(Errno::STALE) }
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty())
}
