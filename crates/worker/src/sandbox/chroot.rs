//! A step without namespaces and without mounts, for machines that allow neither. It is little more than another root directory, and
//! only for those who ask for it.
//!
//! What is mounted elsewhere is put into the root before the step and taken out after it: the usual devices, as nodes where this
//! process may make some, and the two files of the network. There is no `/proc`.
//!
//! The step has none of the capabilities by which root leaves a root directory, makes devices or watches other processes, and gets
//! none by executing a program. All that it leaves running is killed, since its orphans become the sandbox process's children.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dev, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, chmodat,
    fchmod, fstat, ftruncate, futimens, makedev, mknodat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, chroot, fchdir, getpid, kill_process, set_child_subreaper, wait,
};
use rustix::thread::CapabilitySet;

use super::error::{Context, Failure};
use super::mount_point::{PlaceKind, open_or_make};
use super::plan::SandboxSpec;
use super::stubs::{self, Stub};

/// What root may do in such a step: what it needs to install packages.
pub(super) const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP);

const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The mode of devices.
const FOR_ALL: Mode = Mode::from_raw_mode(0o666);

/// The largest file that is kept aside for a step.
const MAX_FILE: u64 = 1 << 20;

/// Makes `root` the process's root.
pub(super) fn enter(root: BorrowedFd<'_>) -> Result<(), Failure> {
    fchdir(root).and_then(|()| chroot(c".")).context("change the root to", "the image's")
}

/// Makes the orphans of the step children of this process.
pub(super) fn adopt_orphans() -> Result<(), Failure> {
    set_child_subreaper(Some(getpid())).context("adopt", "the orphans of the step")
}

/// Kills every child, and theirs as they become this process's, and waits for all of them.
pub(super) fn kill_orphans() {
    loop {
        for child in children() {
            // It may have ended.
            let _ = kill_process(child, Signal::KILL);
        }
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// The children of this process, dead ones too.
fn children() -> Vec<Pid> {
    let own = getpid().as_raw_pid().to_string();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let child = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name, in parentheses, may have spaces and parentheses.
        let parent = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?;
        (parent == own).then(|| Pid::from_raw(pid))?
    };
    processes.filter_map(child).collect()
}

/// What was put into a root, and what was there before.
#[derive(Debug)]
pub(super) struct Borrowed {
    stubs: Vec<Stub>,
    files: Vec<Replaced>,
    devices: Vec<(&'static str, Dev)>,
    /// `/dev` before and after the devices were made.
    dev: Option<(Stat, Stat)>,
}

/// A file that has other contents during the step.
#[derive(Debug)]
struct Replaced {
    path: &'static str,
    contents: Vec<u8>,
    before: Stat,
}

impl Borrowed {
    /// Puts into `root` what a step needs.
    pub(super) fn new(root: BorrowedFd<'_>, spec: &SandboxSpec) -> Result<Self, Failure> {
        let mut borrowed =
            Self { stubs: Vec::new(), files: Vec::new(), devices: Vec::new(), dev: None };
        let made = borrowed.devices(root).context("make the devices in", "/dev");
        let made = made.and_then(|()| {
            let resolv_conf = spec.resolv_conf.clone();
            let hosts = spec.hosts_file();
            for (path, text) in [("/etc/resolv.conf", resolv_conf), ("/etc/hosts", hosts)] {
                borrowed.file(root, path, text.as_bytes()).context("write", path)?;
            }
            Ok(())
        });
        match made {
            Ok(()) => Ok(borrowed),
            Err(failure) => {
                // What could not be made is the news.
                let _ = borrowed.give_back(root);
                Err(failure)
            }
        }
    }

    fn devices(&mut self, root: BorrowedFd<'_>) -> Result<(), Errno> {
        let dev = open_or_make(root, "/dev", PlaceKind::Directory, (0, 0), &mut self.stubs)?;
        let before = fstat(&dev)?;
        for (name, major, minor) in DEVICES {
            let device = makedev(major, minor);
            match mknodat(&dev, name, FileType::CharacterDevice, FOR_ALL, device) {
                Ok(()) => {
                    self.devices.push((name, device));
                    // Less is left of the mode by a umask.
                    chmodat(&dev, name, FOR_ALL, AtFlags::empty())?;
                }
                // The image has something there.
                Err(Errno::EXIST) => {}
                // Programs that throw something away can do so, at least.
                Err(Errno::PERM) if name == "null" => {
                    let path = "/dev/null";
                    let place = open_or_make(root, path, PlaceKind::File, (0, 0), &mut self.stubs)?;
                    let file = reopen(&place, OFlags::WRONLY)?;
                    fchmod(&file, FOR_ALL)?;
                    self.files.push(Replaced { path, contents: Vec::new(), before: fstat(&file)? });
                    return Ok(());
                }
                Err(Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.dev = Some((before, fstat(&dev)?));
        Ok(())
    }

    fn file(&mut self, root: BorrowedFd<'_>, path: &'static str, text: &[u8]) -> Result<(), Errno> {
        let place = open_or_make(root, path, PlaceKind::File, (0, 0), &mut self.stubs)?;
        let mut file = File::from(reopen(&place, OFlags::RDWR)?);
        let before = fstat(&file)?;
        let is_small = u64::try_from(before.st_size).is_ok_and(|size| size <= MAX_FILE);
        if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile || !is_small {
            return Err(Errno::INVAL);
        }
        let mut contents = Vec::new();
        let io = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        file.read_to_end(&mut contents).map_err(io)?;
        self.files.push(Replaced { path, contents, before });
        write(&mut file, text)
    }

    /// Takes everything out again. What the step has put in its place is the step's, and stays.
    pub(super) fn give_back(self, root: BorrowedFd<'_>) -> Result<(), Failure> {
        for replaced in &self.files {
            replaced.restore(root).context("restore", replaced.path)?;
        }
        if let Some((before, made)) = &self.dev {
            self.remove_devices(root, before, made).context("remove the devices in", "/dev")?;
        }
        stubs::remove_all(root, &self.stubs)
            .map_err(|(path, errno)| Failure::new("remove the mount point", path, errno))
    }

    fn remove_devices(
        &self,
        root: BorrowedFd<'_>,
        before: &Stat,
        made: &Stat,
    ) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dev = match rbuild_cache::open_in_root(root, "dev", flags, RESOLVE) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            dev => dev?,
        };
        let after = fstat(&dev)?;
        for (name, device) in &self.devices {
            match statat(&dev, *name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if stat.st_rdev == *device => {
                    unlinkat(&dev, *name, AtFlags::empty())?;
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        let modified = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        let is_untouched = modified(&after) == modified(made);
        futimens(&dev, &times(if is_untouched { before } else { &after }))
    }
}

const RESOLVE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

impl Replaced {
    fn restore(&self, root: BorrowedFd<'_>) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rbuild_cache::open_in_root(root, self.path, flags, RESOLVE) {
            // The step has removed it, or made something else of it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => {
                return Ok(());
            }
            file => file?,
        };
        let stat = fstat(&file)?;
        if (stat.st_dev, stat.st_ino) != (self.before.st_dev, self.before.st_ino) {
            return Ok(());
        }
        write(&mut File::from(file.try_clone().map_err(|_| Errno::MFILE)?), &self.contents)?;
        futimens(&file, &times(&self.before))
    }
}

/// Opens what a descriptor of a place is of.
fn reopen(place: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(place));
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
}

fn write(file: &mut File, text: &[u8]) -> Result<(), Errno> {
    ftruncate(file.as_fd(), 0)?;
    rustix::fs::seek(file.as_fd(), rustix::fs::SeekFrom::Start(0))?;
    file.write_all(text).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn times(stat: &Stat) -> Timestamps {
    let time = |tv_sec, nanoseconds| Timespec { tv_sec, tv_nsec: nanoseconds };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as _),
    }
}
