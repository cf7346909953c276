//! The system calls that neither std nor rustix offers safely: all of the crate's `unsafe`, and nothing else.
#![expect(unsafe_code, reason = "the one place for it")]

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, RawPid};

/// `MOUNT_ATTR_*` of `mount_setattr(2)`.
pub(crate) const MOUNT_ATTR_RDONLY: u64 = 0x1;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 0x2;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 0x4;
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = 0x8;

/// One instruction of classic BPF, as `seccomp(2)` takes it.
pub(crate) use libc::sock_filter as BpfInstruction;

fn check(result: c_long) -> Result<c_long, Errno> {
    if result == -1 { Err(last_errno()) } else { Ok(result) }
}

fn last_errno() -> Errno {
    // SAFETY: the location is always valid for the calling thread.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// Adds attributes to a mount, and with `recursive` to all mounts below it.
pub(crate) fn mount_set_attributes(
    mount: BorrowedFd<'_>,
    attributes: u64,
    recursive: bool,
) -> Result<(), Errno> {
    mount_setattr(mount, attributes, 0, recursive)
}

/// Keeps what is mounted below a mount, or below one that is mounted there, from where that was cloned from, and the other way round.
pub(crate) fn mount_make_private(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    mount_setattr(mount, 0, libc::MS_PRIVATE, true)
}

fn mount_setattr(
    mount: BorrowedFd<'_>,
    attributes: u64,
    propagation: u64,
    recursive: bool,
) -> Result<(), Errno> {
    let request = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, the request is a live structure of the given size, and the kernel only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const request,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result).map(drop)
}

/// Moves the calling process into new namespaces.
///
/// For single-threaded processes: with other threads it may fail or move only the calling one.
pub(crate) fn unshare(namespaces: c_int) -> Result<(), Errno> {
    // SAFETY: the flags are namespaces only, never `CLONE_FILES` or `CLONE_VM`, so no memory or descriptor changes hands.
    check(unsafe { libc::unshare(namespaces) }.into()).map(drop)
}

/// Makes `uname` tell of the 32-bit sibling of the machine, for the calling process and what it executes.
pub(crate) fn set_32_bit_personality() -> Result<(), Errno> {
    /// `PER_LINUX32` of personality(2), which the C library's crate does not name.
    const PER_LINUX32: std::ffi::c_ulong = 8;
    // SAFETY: it changes what later calls answer, and no memory.
    check(unsafe { libc::personality(PER_LINUX32) }.into()).map(drop)
}

/// Whom a fork returned to.
#[derive(Debug)]
pub(crate) enum Fork {
    /// The old process; with the new one's id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Forks a single-threaded process. Fails with `EBUSY` when there are other threads, since their locks would stay held in the child.
pub(crate) fn fork() -> Result<Fork, Errno> {
    if !is_single_threaded() {
        return Err(Errno::BUSY);
    }
    // SAFETY: there is no other thread whose locks or state the child could miss.
    let pid = check(unsafe { libc::fork() }.into())?;
    // A process id fits the type that fork returned.
    Ok(Pid::from_raw(pid as RawPid).map_or(Fork::Child, Fork::Parent))
}

/// Ends a forked process at once, without what a program does at its exit, which belongs to its parent.
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: nothing of this process runs afterwards.
    unsafe { libc::_exit(code) }
}

/// Whether this process has one thread only.
pub(crate) fn is_single_threaded() -> bool {
    // A directory's link count is two more than its subdirectories, and `task` has one for each thread.
    rustix::fs::stat("/proc/self/task").is_ok_and(|task| task.st_nlink == 3)
}

/// How a child ended and what it used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// The status in the form of `wait(2)`.
    pub(crate) status: c_int,
    pub(crate) user_time: Duration,
    pub(crate) system_time: Duration,
    /// The largest resident set, in bytes.
    pub(crate) max_resident: u64,
}

/// Waits for a child to end.
pub(crate) fn wait(pid: Pid) -> Result<Ended, Errno> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to live memory of the right types.
        let result =
            unsafe { libc::wait4(pid.as_raw_pid(), &raw mut status, 0, usage.as_mut_ptr()) };
        match check(result.into()) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => break,
        }
    }
    // SAFETY: zero is a valid value of all its fields, and the kernel has filled it in.
    let usage = unsafe { usage.assume_init() };
    Ok(Ended {
        status,
        user_time: duration(usage.ru_utime),
        system_time: duration(usage.ru_stime),
        max_resident: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
    })
}

/// Waits for any child to end; with its status in the form of `wait(2)`.
pub(crate) fn wait_any() -> Result<(Pid, c_int), Errno> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to live memory of the right type.
        match check(unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) }.into()) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(pid) => {
                return Pid::from_raw(pid as RawPid).map(|pid| (pid, status)).ok_or(Errno::CHILD);
            }
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

/// Gives every signal its default action and blocks none: ignored signals and the mask survive `execve(2)`, and Rust programs ignore
/// `SIGPIPE`.
pub(crate) fn reset_signals() {
    // The kernel's `struct sigaction`, which has at most four words; all zero it means the default action.
    let default = [0_u64; 4];
    let set_size = 8_usize;
    for signal in 1..=64 {
        // SAFETY: the default action is valid for every signal, and the structure is live and large enough; for the two signals that cannot
        // be changed the call fails. The C library's own call would leave out the signals that it has for itself.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null::<c_void>(),
                set_size,
            );
        }
    }
    let mut none = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the first call makes the set a valid one, and the second reads it.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Closes all descriptors from `first` on but some. For a process that does not return: whatever owned the others must not be used or
/// dropped any more.
pub(crate) fn close_all_but(first: u32, kept: &[RawFd]) -> Result<(), Errno> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|kept| u32::try_from(*kept).ok()).collect();
    kept.sort_unstable();
    let mut next = first;
    for (kept, is_last) in kept.into_iter().map(|kept| (kept, false)).chain([(u32::MAX, true)]) {
        let last = if is_last { kept } else { kept.saturating_sub(1) };
        if next <= last {
            // SAFETY: the only callers are the first process of a step, which becomes another program or exits without dropping anything that
            // was open when it was forked, and the reaper that it leaves behind, which only exits.
            check(unsafe { libc::syscall(libc::SYS_close_range, next, last, 0_u32) })?;
        }
        next = next.max(kept.saturating_add(1));
    }
    Ok(())
}

/// Replaces the process's program. Returns only when it fails.
pub(crate) fn execve(program: &CStr, args: &[CString], env: &[CString]) -> Errno {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer and their strings outlive the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    last_errno()
}

/// Installs a seccomp filter for the calling thread and what it executes.
pub(crate) fn install_seccomp_filter(program: &[BpfInstruction]) -> Result<(), Errno> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let no_flags = 0;
    // SAFETY: the program is live, has that length, and is only read by the kernel, which also verifies it.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, no_flags, &raw const filter)
    };
    check(result).map(drop)
}

/// Brings the loopback device of the current network namespace up.
pub(crate) fn set_loopback_up(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: zero is a valid value of all its fields.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request takes a pointer to a live `ifreq`, which the kernel only reads.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            (&raw const request).cast::<c_void>(),
        )
    };
    check(result.into()).map(drop)
}

/// The soft and the hard limit of a resource of the current process.
pub(crate) fn rlimit(resource: u32) -> Result<(u64, u64), Errno> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is live, and the kernel writes no more than it.
    check(unsafe { libc::getrlimit(resource as _, &raw mut limit) }.into())?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// The name of the device that a descriptor of `/dev/net/tun` is for.
pub(crate) fn tap_name(tap: BorrowedFd<'_>) -> Result<String, Errno> {
    // SAFETY: zero is a valid value of all its fields.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the request takes a pointer to a live `ifreq`, which the kernel fills in. No other driver has requests of that type and number.
    let result = unsafe {
        libc::ioctl(tap.as_raw_fd(), TUNGETIFF as _, (&raw mut request).cast::<c_void>())
    };
    check(result.into())?;
    let name = request.ifr_name.iter().take_while(|byte| **byte != 0);
    Ok(name.map(|byte| char::from(byte.cast_unsigned())).collect())
}

/// Makes a tap device pass on only what a filter for sockets lets through, to whoever reads from it.
pub(crate) fn attach_tap_filter(
    tap: BorrowedFd<'_>,
    program: &[BpfInstruction],
) -> Result<(), Errno> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the request takes a pointer to a live `sock_fprog`, the program of which is live, has that length, and is only read by the
    // kernel, which also verifies it. It is copied: the address that the kernel keeps is for devices that are opened again.
    let result = unsafe {
        libc::ioctl(tap.as_raw_fd(), TUNATTACHFILTER as _, (&raw const filter).cast::<c_void>())
    };
    check(result.into()).map(drop)
}

/// Sets a resource limit of the current process; rustix does not know all of them.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the limit is live and only read.
    check(unsafe { libc::setrlimit(resource as _, &raw const limit) }.into()).map(drop)
}

/// Unlocks the terminal of which `end` is the other end, and opens it, whatever is mounted where.
pub(crate) fn open_terminal(end: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let unlocked: c_int = 0;
    // SAFETY: the request takes a pointer to a live `int`, which the kernel only reads.
    let result =
        unsafe { libc::ioctl(end.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const unlocked) };
    check(result.into())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes flags by value and returns a new descriptor.
    let terminal = check(unsafe { libc::ioctl(end.as_raw_fd(), TIOCGPTPEER as _, flags) }.into())?;
    let terminal = c_int::try_from(terminal).map_err(|_| Errno::BADF)?;
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(terminal) })
}

/// `_IO('T', 0x41)`.
const TIOCGPTPEER: u64 = 0x5441;

/// `_IOR('T', 210, unsigned int)` and `_IOW('T', 213, struct sock_fprog)`.
const TUNGETIFF: u64 = 0x8004_54d2;
const TUNATTACHFILTER: u64 = 0x4010_54d5;
