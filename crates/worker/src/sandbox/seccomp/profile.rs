//! Which system calls a confined step may make: the rules of Docker's default profile, with the kernel's numbers.
//!
//! The rules are facts of moby's published profile (`seccomp/default_linux.go`) and the numbers those of the kernel's headers; a call
//! that is not listed fails with `EPERM`. Two differences: `unshare` without `CAP_SYS_ADMIN` is let through when it asks for no
//! namespace, as `clone` is; and `socket` makes no packet sockets, and raw ones for ICMP only.

use rustix::thread::CapabilitySet;

use Rule::{Always, Clone3, Needs, NewNamespace, NewProcess, Personality, Socket};

/// When a system call is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Always,
    /// With one of these capabilities.
    Needs(CapabilitySet),
    /// `clone`: with `CAP_SYS_ADMIN`, or when no namespace is asked for.
    NewProcess,
    /// `unshare`: the same; it can also ask for a time namespace, whose bit means something else to `clone`.
    NewNamespace,
    /// `clone3`: with `CAP_SYS_ADMIN`. Its flags are behind a pointer, out of a filter's reach, so it does not exist otherwise, and the C
    /// libraries fall back to `clone`.
    Clone3,
    /// `socket`: any family but the kernel's cryptography, the one that reaches the hypervisor and those for whole frames; a raw socket for
    /// ICMP only. The 32-bit `socketcall` has its arguments behind a pointer and C libraries of 32 bits have nothing else, so that one is
    /// let through whole.
    Socket,
    /// `personality`: the harmless ones.
    Personality,
}

/// A system call has a column for each ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    I386,
    /// Numbers without the bit that marks this ABI.
    X32,
    Aarch64,
    Arm,
}

/// The newest number that the rules know of; since Linux 5.1 numbers are the same everywhere. What the kernel has added since then
/// answers `ENOSYS`, so that programs fall back as on an older kernel, where `EPERM` would confuse them.
pub(super) const NEWEST: u32 = 466;

/// The rules of one ABI, by number.
pub(super) fn rules(abi: Abi) -> impl Iterator<Item = (u32, Rule)> {
    SYSCALLS.iter().filter_map(move |(_, rule, numbers)| {
        let number = numbers[abi as usize];
        (number != NO).then_some((number, *rule))
    })
}

/// The ABI has no such call.
const NO: u32 = u32::MAX;

const ADMIN_OR_SYSLOG: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::SYSLOG);
const DAC_READ_SEARCH: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;
const SYS_ADMIN: CapabilitySet = CapabilitySet::SYS_ADMIN;
const SYS_BOOT: CapabilitySet = CapabilitySet::SYS_BOOT;
const SYS_CHROOT: CapabilitySet = CapabilitySet::SYS_CHROOT;
const SYS_MODULE: CapabilitySet = CapabilitySet::SYS_MODULE;
const SYS_NICE: CapabilitySet = CapabilitySet::SYS_NICE;
const SYS_PACCT: CapabilitySet = CapabilitySet::SYS_PACCT;
const SYS_PTRACE: CapabilitySet = CapabilitySet::SYS_PTRACE;
const SYS_RAWIO: CapabilitySet = CapabilitySet::SYS_RAWIO;
const SYS_TIME: CapabilitySet = CapabilitySet::SYS_TIME;
const SYS_TTY_CONFIG: CapabilitySet = CapabilitySet::SYS_TTY_CONFIG;

/// Name, rule, and the numbers in the order of [`Abi`].
const SYSCALLS: &[(&str, Rule, [u32; 5])] = &[
    ("accept", Always, [43, NO, 43, 202, 285]),
    ("accept4", Always, [288, 364, 288, 242, 366]),
    ("access", Always, [21, 33, 21, NO, 33]),
    ("acct", Needs(SYS_PACCT), [163, 51, 163, 89, 51]),
    ("adjtimex", Always, [159, 124, 159, 171, 124]),
    ("alarm", Always, [37, 27, 37, NO, NO]),
    ("arch_prctl", Always, [158, 384, 158, NO, NO]),
    ("arm_fadvise64_64", Always, [NO, NO, NO, NO, 270]),
    ("bind", Always, [49, 361, 49, 200, 282]),
    ("bpf", Needs(SYS_ADMIN), [321, 357, 321, 280, 386]),
    ("breakpoint", Always, [NO, NO, NO, NO, 0x000f_0001]),
    ("brk", Always, [12, 45, 12, 214, 45]),
    ("cacheflush", Always, [NO, NO, NO, NO, 0x000f_0002]),
    ("cachestat", Always, [451, 451, 451, 451, 451]),
    ("capget", Always, [125, 184, 125, 90, 184]),
    ("capset", Always, [126, 185, 126, 91, 185]),
    ("chdir", Always, [80, 12, 80, 49, 12]),
    ("chmod", Always, [90, 15, 90, NO, 15]),
    ("chown", Always, [92, 182, 92, NO, 182]),
    ("chown32", Always, [NO, 212, NO, NO, 212]),
    ("chroot", Needs(SYS_CHROOT), [161, 61, 161, 51, 61]),
    ("clock_adjtime", Always, [305, 343, 305, 266, 372]),
    ("clock_adjtime64", Always, [NO, 405, NO, NO, 405]),
    ("clock_getres", Always, [229, 266, 229, 114, 264]),
    ("clock_getres_time64", Always, [NO, 406, NO, NO, 406]),
    ("clock_gettime", Always, [228, 265, 228, 113, 263]),
    ("clock_gettime64", Always, [NO, 403, NO, NO, 403]),
    ("clock_nanosleep", Always, [230, 267, 230, 115, 265]),
    ("clock_nanosleep_time64", Always, [NO, 407, NO, NO, 407]),
    ("clock_settime", Needs(SYS_TIME), [227, 264, 227, 112, 262]),
    ("clock_settime64", Needs(SYS_TIME), [NO, 404, NO, NO, 404]),
    ("clone", NewProcess, [56, 120, 56, 220, 120]),
    ("clone3", Clone3, [435, 435, 435, 435, 435]),
    ("close", Always, [3, 6, 3, 57, 6]),
    ("close_range", Always, [436, 436, 436, 436, 436]),
    ("connect", Always, [42, 362, 42, 203, 283]),
    ("copy_file_range", Always, [326, 377, 326, 285, 391]),
    ("creat", Always, [85, 8, 85, NO, 8]),
    ("delete_module", Needs(SYS_MODULE), [176, 129, 176, 106, 129]),
    ("dup", Always, [32, 41, 32, 23, 41]),
    ("dup2", Always, [33, 63, 33, NO, 63]),
    ("dup3", Always, [292, 330, 292, 24, 358]),
    ("epoll_create", Always, [213, 254, 213, NO, 250]),
    ("epoll_create1", Always, [291, 329, 291, 20, 357]),
    ("epoll_ctl", Always, [233, 255, 233, 21, 251]),
    ("epoll_ctl_old", Always, [214, NO, NO, NO, NO]),
    ("epoll_pwait", Always, [281, 319, 281, 22, 346]),
    ("epoll_pwait2", Always, [441, 441, 441, 441, 441]),
    ("epoll_wait", Always, [232, 256, 232, NO, 252]),
    ("epoll_wait_old", Always, [215, NO, NO, NO, NO]),
    ("eventfd", Always, [284, 323, 284, NO, 351]),
    ("eventfd2", Always, [290, 328, 290, 19, 356]),
    ("execve", Always, [59, 11, 520, 221, 11]),
    ("execveat", Always, [322, 358, 545, 281, 387]),
    ("exit", Always, [60, 1, 60, 93, 1]),
    ("exit_group", Always, [231, 252, 231, 94, 248]),
    ("faccessat", Always, [269, 307, 269, 48, 334]),
    ("faccessat2", Always, [439, 439, 439, 439, 439]),
    ("fadvise64", Always, [221, 250, 221, 223, NO]),
    ("fadvise64_64", Always, [NO, 272, NO, NO, NO]),
    ("fallocate", Always, [285, 324, 285, 47, 352]),
    ("fanotify_init", Needs(SYS_ADMIN), [300, 338, 300, 262, 367]),
    ("fanotify_mark", Always, [301, 339, 301, 263, 368]),
    ("fchdir", Always, [81, 133, 81, 50, 133]),
    ("fchmod", Always, [91, 94, 91, 52, 94]),
    ("fchmodat", Always, [268, 306, 268, 53, 333]),
    ("fchmodat2", Always, [452, 452, 452, 452, 452]),
    ("fchown", Always, [93, 95, 93, 55, 95]),
    ("fchown32", Always, [NO, 207, NO, NO, 207]),
    ("fchownat", Always, [260, 298, 260, 54, 325]),
    ("fcntl", Always, [72, 55, 72, 25, 55]),
    ("fcntl64", Always, [NO, 221, NO, NO, 221]),
    ("fdatasync", Always, [75, 148, 75, 83, 148]),
    ("fgetxattr", Always, [193, 231, 193, 10, 231]),
    ("finit_module", Needs(SYS_MODULE), [313, 350, 313, 273, 379]),
    ("flistxattr", Always, [196, 234, 196, 13, 234]),
    ("flock", Always, [73, 143, 73, 32, 143]),
    ("fork", Always, [57, 2, 57, NO, 2]),
    ("fremovexattr", Always, [199, 237, 199, 16, 237]),
    ("fsconfig", Needs(SYS_ADMIN), [431, 431, 431, 431, 431]),
    ("fsetxattr", Always, [190, 228, 190, 7, 228]),
    ("fsmount", Needs(SYS_ADMIN), [432, 432, 432, 432, 432]),
    ("fsopen", Needs(SYS_ADMIN), [430, 430, 430, 430, 430]),
    ("fspick", Needs(SYS_ADMIN), [433, 433, 433, 433, 433]),
    ("fstat", Always, [5, 108, 5, 80, 108]),
    ("fstat64", Always, [NO, 197, NO, NO, 197]),
    ("fstatat64", Always, [NO, 300, NO, NO, 327]),
    ("fstatfs", Always, [138, 100, 138, 44, 100]),
    ("fstatfs64", Always, [NO, 269, NO, NO, 267]),
    ("fsync", Always, [74, 118, 74, 82, 118]),
    ("ftruncate", Always, [77, 93, 77, 46, 93]),
    ("ftruncate64", Always, [NO, 194, NO, NO, 194]),
    ("futex", Always, [202, 240, 202, 98, 240]),
    ("futex_requeue", Always, [456, 456, 456, 456, 456]),
    ("futex_time64", Always, [NO, 422, NO, NO, 422]),
    ("futex_wait", Always, [455, 455, 455, 455, 455]),
    ("futex_waitv", Always, [449, 449, 449, 449, 449]),
    ("futex_wake", Always, [454, 454, 454, 454, 454]),
    ("futimesat", Always, [261, 299, 261, NO, 326]),
    ("get_mempolicy", Needs(SYS_NICE), [239, 275, 239, 236, 320]),
    ("get_robust_list", Always, [274, 312, 531, 100, 339]),
    ("get_thread_area", Always, [211, 244, NO, NO, NO]),
    ("getcpu", Always, [309, 318, 309, 168, 345]),
    ("getcwd", Always, [79, 183, 79, 17, 183]),
    ("getdents", Always, [78, 141, 78, NO, 141]),
    ("getdents64", Always, [217, 220, 217, 61, 217]),
    ("getegid", Always, [108, 50, 108, 177, 50]),
    ("getegid32", Always, [NO, 202, NO, NO, 202]),
    ("geteuid", Always, [107, 49, 107, 175, 49]),
    ("geteuid32", Always, [NO, 201, NO, NO, 201]),
    ("getgid", Always, [104, 47, 104, 176, 47]),
    ("getgid32", Always, [NO, 200, NO, NO, 200]),
    ("getgroups", Always, [115, 80, 115, 158, 80]),
    ("getgroups32", Always, [NO, 205, NO, NO, 205]),
    ("getitimer", Always, [36, 105, 36, 102, 105]),
    ("getpeername", Always, [52, 368, 52, 205, 287]),
    ("getpgid", Always, [121, 132, 121, 155, 132]),
    ("getpgrp", Always, [111, 65, 111, NO, 65]),
    ("getpid", Always, [39, 20, 39, 172, 20]),
    ("getppid", Always, [110, 64, 110, 173, 64]),
    ("getpriority", Always, [140, 96, 140, 141, 96]),
    ("getrandom", Always, [318, 355, 318, 278, 384]),
    ("getresgid", Always, [120, 171, 120, 150, 171]),
    ("getresgid32", Always, [NO, 211, NO, NO, 211]),
    ("getresuid", Always, [118, 165, 118, 148, 165]),
    ("getresuid32", Always, [NO, 209, NO, NO, 209]),
    ("getrlimit", Always, [97, 76, 97, 163, NO]),
    ("getrusage", Always, [98, 77, 98, 165, 77]),
    ("getsid", Always, [124, 147, 124, 156, 147]),
    ("getsockname", Always, [51, 367, 51, 204, 286]),
    ("getsockopt", Always, [55, 365, 542, 209, 295]),
    ("gettid", Always, [186, 224, 186, 178, 224]),
    ("gettimeofday", Always, [96, 78, 96, 169, 78]),
    ("getuid", Always, [102, 24, 102, 174, 24]),
    ("getuid32", Always, [NO, 199, NO, NO, 199]),
    ("getxattr", Always, [191, 229, 191, 8, 229]),
    ("getxattrat", Always, [464, 464, 464, 464, 464]),
    ("init_module", Needs(SYS_MODULE), [175, 128, 175, 105, 128]),
    ("inotify_add_watch", Always, [254, 292, 254, 27, 317]),
    ("inotify_init", Always, [253, 291, 253, NO, 316]),
    ("inotify_init1", Always, [294, 332, 294, 26, 360]),
    ("inotify_rm_watch", Always, [255, 293, 255, 28, 318]),
    ("io_cancel", Always, [210, 249, 210, 3, 247]),
    ("io_destroy", Always, [207, 246, 207, 1, 244]),
    ("io_getevents", Always, [208, 247, 208, 4, 245]),
    ("io_pgetevents", Always, [333, 385, 333, 292, 399]),
    ("io_pgetevents_time64", Always, [NO, 416, NO, NO, 416]),
    ("io_setup", Always, [206, 245, 543, 0, 243]),
    ("io_submit", Always, [209, 248, 544, 2, 246]),
    ("ioctl", Always, [16, 54, 514, 29, 54]),
    ("ioperm", Needs(SYS_RAWIO), [173, 101, 173, NO, NO]),
    ("iopl", Needs(SYS_RAWIO), [172, 110, 172, NO, NO]),
    ("ioprio_get", Always, [252, 290, 252, 31, 315]),
    ("ioprio_set", Always, [251, 289, 251, 30, 314]),
    ("ipc", Always, [NO, 117, NO, NO, NO]),
    ("kcmp", Needs(SYS_PTRACE), [312, 349, 312, 272, 378]),
    ("kill", Always, [62, 37, 62, 129, 37]),
    ("landlock_add_rule", Always, [445, 445, 445, 445, 445]),
    ("landlock_create_ruleset", Always, [444, 444, 444, 444, 444]),
    ("landlock_restrict_self", Always, [446, 446, 446, 446, 446]),
    ("lchown", Always, [94, 16, 94, NO, 16]),
    ("lchown32", Always, [NO, 198, NO, NO, 198]),
    ("lgetxattr", Always, [192, 230, 192, 9, 230]),
    ("link", Always, [86, 9, 86, NO, 9]),
    ("linkat", Always, [265, 303, 265, 37, 330]),
    ("listen", Always, [50, 363, 50, 201, 284]),
    ("listmount", Always, [458, 458, 458, 458, 458]),
    ("listxattr", Always, [194, 232, 194, 11, 232]),
    ("listxattrat", Always, [465, 465, 465, 465, 465]),
    ("llistxattr", Always, [195, 233, 195, 12, 233]),
    ("_llseek", Always, [NO, 140, NO, NO, 140]),
    ("lookup_dcookie", Needs(SYS_ADMIN), [212, 253, 212, 18, 249]),
    ("lremovexattr", Always, [198, 236, 198, 15, 236]),
    ("lseek", Always, [8, 19, 8, 62, 19]),
    ("lsetxattr", Always, [189, 227, 189, 6, 227]),
    ("lsm_get_self_attr", Needs(SYS_ADMIN), [459, 459, 459, 459, 459]),
    ("lsm_list_modules", Needs(SYS_ADMIN), [461, 461, 461, 461, 461]),
    ("lsm_set_self_attr", Needs(SYS_ADMIN), [460, 460, 460, 460, 460]),
    ("lstat", Always, [6, 107, 6, NO, 107]),
    ("lstat64", Always, [NO, 196, NO, NO, 196]),
    ("madvise", Always, [28, 219, 28, 233, 220]),
    ("map_shadow_stack", Always, [453, 453, 453, 453, 453]),
    ("mbind", Needs(SYS_NICE), [237, 274, 237, 235, 319]),
    ("membarrier", Always, [324, 375, 324, 283, 389]),
    ("memfd_create", Always, [319, 356, 319, 279, 385]),
    ("memfd_secret", Always, [447, 447, 447, 447, NO]),
    ("mincore", Always, [27, 218, 27, 232, 219]),
    ("mkdir", Always, [83, 39, 83, NO, 39]),
    ("mkdirat", Always, [258, 296, 258, 34, 323]),
    ("mknod", Always, [133, 14, 133, NO, 14]),
    ("mknodat", Always, [259, 297, 259, 33, 324]),
    ("mlock", Always, [149, 150, 149, 228, 150]),
    ("mlock2", Always, [325, 376, 325, 284, 390]),
    ("mlockall", Always, [151, 152, 151, 230, 152]),
    ("mmap", Always, [9, 90, 9, 222, NO]),
    ("mmap2", Always, [NO, 192, NO, NO, 192]),
    ("modify_ldt", Always, [154, 123, 154, NO, NO]),
    ("mount", Needs(SYS_ADMIN), [165, 21, 165, 40, 21]),
    ("mount_setattr", Needs(SYS_ADMIN), [442, 442, 442, 442, 442]),
    ("move_mount", Needs(SYS_ADMIN), [429, 429, 429, 429, 429]),
    ("mprotect", Always, [10, 125, 10, 226, 125]),
    ("mq_getsetattr", Always, [245, 282, 245, 185, 279]),
    ("mq_notify", Always, [244, 281, 527, 184, 278]),
    ("mq_open", Always, [240, 277, 240, 180, 274]),
    ("mq_timedreceive", Always, [243, 280, 243, 183, 277]),
    ("mq_timedreceive_time64", Always, [NO, 419, NO, NO, 419]),
    ("mq_timedsend", Always, [242, 279, 242, 182, 276]),
    ("mq_timedsend_time64", Always, [NO, 418, NO, NO, 418]),
    ("mq_unlink", Always, [241, 278, 241, 181, 275]),
    ("mremap", Always, [25, 163, 25, 216, 163]),
    ("mseal", Always, [462, 462, 462, 462, 462]),
    ("msgctl", Always, [71, 402, 71, 187, 304]),
    ("msgget", Always, [68, 399, 68, 186, 303]),
    ("msgrcv", Always, [70, 401, 70, 188, 302]),
    ("msgsnd", Always, [69, 400, 69, 189, 301]),
    ("msync", Always, [26, 144, 26, 227, 144]),
    ("munlock", Always, [150, 151, 150, 229, 151]),
    ("munlockall", Always, [152, 153, 152, 231, 153]),
    ("munmap", Always, [11, 91, 11, 215, 91]),
    ("name_to_handle_at", Always, [303, 341, 303, 264, 370]),
    ("nanosleep", Always, [35, 162, 35, 101, 162]),
    ("newfstatat", Always, [262, NO, 262, 79, NO]),
    ("_newselect", Always, [NO, 142, NO, NO, 142]),
    ("open", Always, [2, 5, 2, NO, 5]),
    ("open_by_handle_at", Needs(DAC_READ_SEARCH), [304, 342, 304, 265, 371]),
    ("open_tree", Needs(SYS_ADMIN), [428, 428, 428, 428, 428]),
    ("openat", Always, [257, 295, 257, 56, 322]),
    ("openat2", Always, [437, 437, 437, 437, 437]),
    ("pause", Always, [34, 29, 34, NO, 29]),
    ("perf_event_open", Needs(SYS_ADMIN), [298, 336, 298, 241, 364]),
    ("personality", Personality, [135, 136, 135, 92, 136]),
    ("pidfd_getfd", Needs(SYS_PTRACE), [438, 438, 438, 438, 438]),
    ("pidfd_open", Always, [434, 434, 434, 434, 434]),
    ("pidfd_send_signal", Always, [424, 424, 424, 424, 424]),
    ("pipe", Always, [22, 42, 22, NO, 42]),
    ("pipe2", Always, [293, 331, 293, 59, 359]),
    ("pkey_alloc", Always, [330, 381, 330, 289, 395]),
    ("pkey_free", Always, [331, 382, 331, 290, 396]),
    ("pkey_mprotect", Always, [329, 380, 329, 288, 394]),
    ("poll", Always, [7, 168, 7, NO, 168]),
    ("ppoll", Always, [271, 309, 271, 73, 336]),
    ("ppoll_time64", Always, [NO, 414, NO, NO, 414]),
    ("prctl", Always, [157, 172, 157, 167, 172]),
    ("pread64", Always, [17, 180, 17, 67, 180]),
    ("preadv", Always, [295, 333, 534, 69, 361]),
    ("preadv2", Always, [327, 378, 546, 286, 392]),
    ("prlimit64", Always, [302, 340, 302, 261, 369]),
    ("process_madvise", Needs(SYS_PTRACE), [440, 440, 440, 440, 440]),
    ("process_mrelease", Always, [448, 448, 448, 448, 448]),
    ("process_vm_readv", Always, [310, 347, 539, 270, 376]),
    ("process_vm_writev", Always, [311, 348, 540, 271, 377]),
    ("pselect6", Always, [270, 308, 270, 72, 335]),
    ("pselect6_time64", Always, [NO, 413, NO, NO, 413]),
    ("ptrace", Always, [101, 26, 521, 117, 26]),
    ("pwrite64", Always, [18, 181, 18, 68, 181]),
    ("pwritev", Always, [296, 334, 535, 70, 362]),
    ("pwritev2", Always, [328, 379, 547, 287, 393]),
    ("quotactl", Needs(SYS_ADMIN), [179, 131, 179, 60, 131]),
    ("quotactl_fd", Needs(SYS_ADMIN), [443, 443, 443, 443, 443]),
    ("read", Always, [0, 3, 0, 63, 3]),
    ("readahead", Always, [187, 225, 187, 213, 225]),
    ("readlink", Always, [89, 85, 89, NO, 85]),
    ("readlinkat", Always, [267, 305, 267, 78, 332]),
    ("readv", Always, [19, 145, 515, 65, 145]),
    ("reboot", Needs(SYS_BOOT), [169, 88, 169, 142, 88]),
    ("recv", Always, [NO, NO, NO, NO, 291]),
    ("recvfrom", Always, [45, 371, 517, 207, 292]),
    ("recvmmsg", Always, [299, 337, 537, 243, 365]),
    ("recvmmsg_time64", Always, [NO, 417, NO, NO, 417]),
    ("recvmsg", Always, [47, 372, 519, 212, 297]),
    ("remap_file_pages", Always, [216, 257, 216, 234, 253]),
    ("removexattr", Always, [197, 235, 197, 14, 235]),
    ("removexattrat", Always, [466, 466, 466, 466, 466]),
    ("rename", Always, [82, 38, 82, NO, 38]),
    ("renameat", Always, [264, 302, 264, 38, 329]),
    ("renameat2", Always, [316, 353, 316, 276, 382]),
    ("restart_syscall", Always, [219, 0, 219, 128, 0]),
    ("rmdir", Always, [84, 40, 84, NO, 40]),
    ("rseq", Always, [334, 386, 334, 293, 398]),
    ("rt_sigaction", Always, [13, 174, 512, 134, 174]),
    ("rt_sigpending", Always, [127, 176, 522, 136, 176]),
    ("rt_sigprocmask", Always, [14, 175, 14, 135, 175]),
    ("rt_sigqueueinfo", Always, [129, 178, 524, 138, 178]),
    ("rt_sigreturn", Always, [15, 173, 513, 139, 173]),
    ("rt_sigsuspend", Always, [130, 179, 130, 133, 179]),
    ("rt_sigtimedwait", Always, [128, 177, 523, 137, 177]),
    ("rt_sigtimedwait_time64", Always, [NO, 421, NO, NO, 421]),
    ("rt_tgsigqueueinfo", Always, [297, 335, 536, 240, 363]),
    ("sched_get_priority_max", Always, [146, 159, 146, 125, 159]),
    ("sched_get_priority_min", Always, [147, 160, 147, 126, 160]),
    ("sched_getaffinity", Always, [204, 242, 204, 123, 242]),
    ("sched_getattr", Always, [315, 352, 315, 275, 381]),
    ("sched_getparam", Always, [143, 155, 143, 121, 155]),
    ("sched_getscheduler", Always, [145, 157, 145, 120, 157]),
    ("sched_rr_get_interval", Always, [148, 161, 148, 127, 161]),
    ("sched_rr_get_interval_time64", Always, [NO, 423, NO, NO, 423]),
    ("sched_setaffinity", Always, [203, 241, 203, 122, 241]),
    ("sched_setattr", Always, [314, 351, 314, 274, 380]),
    ("sched_setparam", Always, [142, 154, 142, 118, 154]),
    ("sched_setscheduler", Always, [144, 156, 144, 119, 156]),
    ("sched_yield", Always, [24, 158, 24, 124, 158]),
    ("seccomp", Always, [317, 354, 317, 277, 383]),
    ("select", Always, [23, 82, 23, NO, NO]),
    ("semctl", Always, [66, 394, 66, 191, 300]),
    ("semget", Always, [64, 393, 64, 190, 299]),
    ("semop", Always, [65, NO, 65, 193, 298]),
    ("semtimedop", Always, [220, NO, 220, 192, 312]),
    ("semtimedop_time64", Always, [NO, 420, NO, NO, 420]),
    ("send", Always, [NO, NO, NO, NO, 289]),
    ("sendfile", Always, [40, 187, 40, 71, 187]),
    ("sendfile64", Always, [NO, 239, NO, NO, 239]),
    ("sendmmsg", Always, [307, 345, 538, 269, 374]),
    ("sendmsg", Always, [46, 370, 518, 211, 296]),
    ("sendto", Always, [44, 369, 44, 206, 290]),
    ("set_mempolicy", Needs(SYS_NICE), [238, 276, 238, 237, 321]),
    ("set_mempolicy_home_node", Needs(SYS_NICE), [450, 450, 450, 450, 450]),
    ("set_robust_list", Always, [273, 311, 530, 99, 338]),
    ("set_thread_area", Always, [205, 243, NO, NO, NO]),
    ("set_tid_address", Always, [218, 258, 218, 96, 256]),
    ("set_tls", Always, [NO, NO, NO, NO, 0x000f_0005]),
    ("setdomainname", Needs(SYS_ADMIN), [171, 121, 171, 162, 121]),
    ("setfsgid", Always, [123, 139, 123, 152, 139]),
    ("setfsgid32", Always, [NO, 216, NO, NO, 216]),
    ("setfsuid", Always, [122, 138, 122, 151, 138]),
    ("setfsuid32", Always, [NO, 215, NO, NO, 215]),
    ("setgid", Always, [106, 46, 106, 144, 46]),
    ("setgid32", Always, [NO, 214, NO, NO, 214]),
    ("setgroups", Always, [116, 81, 116, 159, 81]),
    ("setgroups32", Always, [NO, 206, NO, NO, 206]),
    ("sethostname", Needs(SYS_ADMIN), [170, 74, 170, 161, 74]),
    ("setitimer", Always, [38, 104, 38, 103, 104]),
    ("setns", Needs(SYS_ADMIN), [308, 346, 308, 268, 375]),
    ("setpgid", Always, [109, 57, 109, 154, 57]),
    ("setpriority", Always, [141, 97, 141, 140, 97]),
    ("setregid", Always, [114, 71, 114, 143, 71]),
    ("setregid32", Always, [NO, 204, NO, NO, 204]),
    ("setresgid", Always, [119, 170, 119, 149, 170]),
    ("setresgid32", Always, [NO, 210, NO, NO, 210]),
    ("setresuid", Always, [117, 164, 117, 147, 164]),
    ("setresuid32", Always, [NO, 208, NO, NO, 208]),
    ("setreuid", Always, [113, 70, 113, 145, 70]),
    ("setreuid32", Always, [NO, 203, NO, NO, 203]),
    ("setrlimit", Always, [160, 75, 160, 164, 75]),
    ("setsid", Always, [112, 66, 112, 157, 66]),
    ("setsockopt", Always, [54, 366, 541, 208, 294]),
    ("settimeofday", Needs(SYS_TIME), [164, 79, 164, 170, 79]),
    ("setuid", Always, [105, 23, 105, 146, 23]),
    ("setuid32", Always, [NO, 213, NO, NO, 213]),
    ("setxattr", Always, [188, 226, 188, 5, 226]),
    ("setxattrat", Always, [463, 463, 463, 463, 463]),
    ("shmat", Always, [30, 397, 30, 196, 305]),
    ("shmctl", Always, [31, 396, 31, 195, 308]),
    ("shmdt", Always, [67, 398, 67, 197, 306]),
    ("shmget", Always, [29, 395, 29, 194, 307]),
    ("shutdown", Always, [48, 373, 48, 210, 293]),
    ("sigaltstack", Always, [131, 186, 525, 132, 186]),
    ("signalfd", Always, [282, 321, 282, NO, 349]),
    ("signalfd4", Always, [289, 327, 289, 74, 355]),
    ("sigprocmask", Always, [NO, 126, NO, NO, 126]),
    ("sigreturn", Always, [NO, 119, NO, NO, 119]),
    ("socket", Socket, [41, 359, 41, 198, 281]),
    ("socketcall", Always, [NO, 102, NO, NO, NO]),
    ("socketpair", Always, [53, 360, 53, 199, 288]),
    ("splice", Always, [275, 313, 275, 76, 340]),
    ("stat", Always, [4, 106, 4, NO, 106]),
    ("stat64", Always, [NO, 195, NO, NO, 195]),
    ("statfs", Always, [137, 99, 137, 43, 99]),
    ("statfs64", Always, [NO, 268, NO, NO, 266]),
    ("statmount", Always, [457, 457, 457, 457, 457]),
    ("statx", Always, [332, 383, 332, 291, 397]),
    ("stime", Needs(SYS_TIME), [NO, 25, NO, NO, NO]),
    ("symlink", Always, [88, 83, 88, NO, 83]),
    ("symlinkat", Always, [266, 304, 266, 36, 331]),
    ("sync", Always, [162, 36, 162, 81, 36]),
    ("sync_file_range", Always, [277, 314, 277, 84, NO]),
    ("sync_file_range2", Always, [NO, NO, NO, NO, 341]),
    ("syncfs", Always, [306, 344, 306, 267, 373]),
    ("sysinfo", Always, [99, 116, 99, 179, 116]),
    ("syslog", Needs(ADMIN_OR_SYSLOG), [103, 103, 103, 116, 103]),
    ("tee", Always, [276, 315, 276, 77, 342]),
    ("tgkill", Always, [234, 270, 234, 131, 268]),
    ("time", Always, [201, 13, 201, NO, NO]),
    ("timer_create", Always, [222, 259, 526, 107, 257]),
    ("timer_delete", Always, [226, 263, 226, 111, 261]),
    ("timer_getoverrun", Always, [225, 262, 225, 109, 260]),
    ("timer_gettime", Always, [224, 261, 224, 108, 259]),
    ("timer_gettime64", Always, [NO, 408, NO, NO, 408]),
    ("timer_settime", Always, [223, 260, 223, 110, 258]),
    ("timer_settime64", Always, [NO, 409, NO, NO, 409]),
    ("timerfd_create", Always, [283, 322, 283, 85, 350]),
    ("timerfd_gettime", Always, [287, 326, 287, 87, 354]),
    ("timerfd_gettime64", Always, [NO, 410, NO, NO, 410]),
    ("timerfd_settime", Always, [286, 325, 286, 86, 353]),
    ("timerfd_settime64", Always, [NO, 411, NO, NO, 411]),
    ("times", Always, [100, 43, 100, 153, 43]),
    ("tkill", Always, [200, 238, 200, 130, 238]),
    ("truncate", Always, [76, 92, 76, 45, 92]),
    ("truncate64", Always, [NO, 193, NO, NO, 193]),
    ("ugetrlimit", Always, [NO, 191, NO, NO, 191]),
    ("umask", Always, [95, 60, 95, 166, 60]),
    ("umount", Needs(SYS_ADMIN), [NO, 22, NO, NO, NO]),
    ("umount2", Needs(SYS_ADMIN), [166, 52, 166, 39, 52]),
    ("uname", Always, [63, 122, 63, 160, 122]),
    ("unlink", Always, [87, 10, 87, NO, 10]),
    ("unlinkat", Always, [263, 301, 263, 35, 328]),
    ("unshare", NewNamespace, [272, 310, 272, 97, 337]),
    ("uretprobe", Always, [335, NO, 335, NO, NO]),
    ("utime", Always, [132, 30, 132, NO, NO]),
    ("utimensat", Always, [280, 320, 280, 88, 348]),
    ("utimensat_time64", Always, [NO, 412, NO, NO, 412]),
    ("utimes", Always, [235, 271, 235, NO, 269]),
    ("vfork", Always, [58, 190, 58, NO, 190]),
    ("vhangup", Needs(SYS_TTY_CONFIG), [153, 111, 153, 58, 111]),
    ("vmsplice", Always, [278, 316, 532, 75, 343]),
    ("wait4", Always, [61, 114, 61, 260, 114]),
    ("waitid", Always, [247, 284, 529, 95, 280]),
    ("waitpid", Always, [NO, 7, NO, NO, NO]),
    ("write", Always, [1, 4, 1, 64, 4]),
    ("writev", Always, [20, 146, 516, 66, 146]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// The name that a number has, for the tests of the filter.
    fn name(abi: Abi, number: u32) -> Option<&'static str> {
        SYSCALLS
            .iter()
            .find(|(_, _, numbers)| numbers[abi as usize] == number)
            .map(|(name, _, _)| *name)
    }

    #[test]
    fn no_number_has_two_names() {
        for abi in [Abi::X86_64, Abi::I386, Abi::X32, Abi::Aarch64, Abi::Arm] {
            let mut seen = HashSet::new();
            for (number, _) in rules(abi) {
                assert!(seen.insert(number), "{abi:?} {number}");
            }
            assert!(seen.len() > 250, "{abi:?}");
        }
    }

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(name(Abi::X86_64, 59), Some("execve"));
        assert_eq!(name(Abi::I386, 11), Some("execve"));
        assert_eq!(name(Abi::X32, 520), Some("execve"));
        assert_eq!(name(Abi::Aarch64, 221), Some("execve"));
        assert_eq!(name(Abi::Arm, 11), Some("execve"));
    }

    #[cfg(target_arch = "x86_64")]
    const NATIVE: Abi = Abi::X86_64;
    #[cfg(target_arch = "aarch64")]
    const NATIVE: Abi = Abi::Aarch64;

    #[test]
    fn numbers_agree_with_libc() {
        let known = [
            (libc::SYS_openat2, "openat2"),
            (libc::SYS_clone, "clone"),
            (libc::SYS_clone3, "clone3"),
            (libc::SYS_unshare, "unshare"),
            (libc::SYS_seccomp, "seccomp"),
            (libc::SYS_socket, "socket"),
            (libc::SYS_mount, "mount"),
            (libc::SYS_prlimit64, "prlimit64"),
            (libc::SYS_newfstatat, "newfstatat"),
        ];
        for (number, expected) in known {
            assert_eq!(name(NATIVE, number as u32), Some(expected));
        }
    }
}
