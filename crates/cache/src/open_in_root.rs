//! Opening a path below a root from which nothing leads out.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// `openat2(2)` of something that exists, tried again as long as the kernel asks for it.
///
/// With `RESOLVE_IN_ROOT` or `RESOLVE_BENEATH` the kernel answers `EAGAIN` when it went through a `..` while anything
/// was renamed or mounted anywhere on the machine: it cannot tell then whether the `..` was safe. That is no error of
/// the path's.
pub fn open_in_root<P: Arg + Copy>(
    root: impl AsFd,
    path: P,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    loop {
        #[expect(clippy::disallowed_methods, reason = "the one place that deals with EAGAIN")]
        match rustix::fs::openat2(root.as_fd(), path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn renames_elsewhere_are_no_errors() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        std::fs::create_dir(&one).unwrap();
        let root = File::open(folder.path()).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::fs::rename(&one, &two).unwrap();
                    std::fs::rename(&two, &one).unwrap();
                }
            });
            for _ in 0..20_000 {
                open_in_root(&root, "d/../d/../d", OFlags::PATH, ResolveFlags::IN_ROOT).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
