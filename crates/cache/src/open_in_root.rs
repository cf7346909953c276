//! Opening a path below a root from which nothing leads out.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
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

/// Opens a regular file below `root` for reading, links followed inside of it; `None` if nothing is there.
///
/// # Errors
/// `ENXIO` for something that is no regular file. That is known before it is opened: to open a device can do something, and a fifo would
/// be waited for.
pub fn open_file_in_root(root: impl AsFd, path: &str) -> Result<Option<File>, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let place = match open_in_root(root, path, OFlags::PATH | OFlags::CLOEXEC, resolve) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        place => place?,
    };
    let stat = rustix::fs::fstat(&place)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::NXIO);
    }
    let reopened = format!("/proc/self/fd/{}", place.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(reopened, flags, Mode::empty()).map(|file| Some(File::from(file)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn only_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "text").unwrap();
        std::os::unix::fs::symlink("/file", folder.path().join("link")).unwrap();
        std::os::unix::fs::symlink("../../../../../etc/passwd", folder.path().join("out")).unwrap();
        let fifo = FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, folder.path().join("fifo"), fifo, Mode::RWXU, 0)
            .unwrap();
        let root = File::open(folder.path()).unwrap();
        let open = |path| open_file_in_root(&root, path);
        for path in ["file", "link"] {
            assert_eq!(std::io::read_to_string(open(path).unwrap().unwrap()).unwrap(), "text");
        }
        assert!(open("out").unwrap().is_none());
        assert_eq!(open("fifo").unwrap_err(), Errno::NXIO);
        assert_eq!(open(".").unwrap_err(), Errno::NXIO);
    }

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
