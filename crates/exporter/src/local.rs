//! A snapshot's files in a folder of the user's (`-o DIR`, section 4.8 of the behaviour reference).
//!
//! What the folder holds beside them stays. Every step is taken from a directory's descriptor and no symbolic
//! link is ever followed, neither one of the image nor one that already stands at the destination: a link
//! there is replaced, so a hostile image cannot write outside the folder.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

/// Why files could not be written to a folder.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct LocalError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// How files are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalOptions {
    /// Whether owners are kept: only for real root. Others own what they build.
    pub(crate) keep_owners: bool,
    /// The latest modification time, seconds since 1970.
    pub(crate) epoch: Option<i64>,
}

/// Copies everything below `root` to `folder`, which is made when missing.
pub(crate) fn write_folder(
    root: BorrowedFd<'_>,
    folder: &Path,
    options: LocalOptions,
) -> Result<(), LocalError> {
    let fail = |action, source| LocalError { action, path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(|error| fail("create", error))?;
    let target = File::open(folder).map_err(|error| fail("open", error))?;
    let mut copier =
        Copier { options, links: HashMap::new(), path: folder.to_owned(), top: target.as_fd() };
    let source =
        open_directory(root, c".").map_err(|error| fail("read the files for", error.into()))?;
    copier.directory(source.as_fd(), target.as_fd(), &mut Vec::new())
}

struct Copier<'a> {
    options: LocalOptions,
    /// Where the first name of a file with several names went, below the folder.
    links: HashMap<(u64, u64), CString>,
    /// The destination of what is being copied, for messages.
    path: PathBuf,
    top: BorrowedFd<'a>,
}

impl Copier<'_> {
    fn fail(&self, action: &'static str, error: Errno) -> LocalError {
        LocalError { action, path: self.path.clone(), source: error.into() }
    }

    /// Copies the entries of `from` into `to`; `below` is the path of `to` below the folder.
    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        below: &mut Vec<u8>,
    ) -> Result<(), LocalError> {
        let mut names = Vec::new();
        let entries = rustix::fs::Dir::read_from(from)
            .map_err(|error| self.fail("list the files for", error))?;
        for entry in entries {
            let name = entry
                .map_err(|error| self.fail("list the files for", error))?
                .file_name()
                .to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            let length = below.len();
            if length > 0 {
                below.push(b'/');
            }
            below.extend_from_slice(name.to_bytes());
            self.path.push(OsStr::from_bytes(name.to_bytes()));
            self.entry(from, to, &name, below)?;
            self.path.pop();
            below.truncate(length);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        below: &mut Vec<u8>,
    ) -> Result<(), LocalError> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.fail("read the file for", error))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            let source = open_directory(from, name)
                .map_err(|error| self.fail("read the files for", error))?;
            let target = self.make_directory(to, name)?;
            self.directory(source.as_fd(), target.as_fd(), below)?;
            return self.finish(to, name, &stat, Some(target.as_fd()));
        }
        if kind == FileType::Socket {
            return Ok(());
        }
        self.make_room(to, name)?;
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                return rustix::fs::linkat(self.top, first, to, name, AtFlags::empty())
                    .map_err(|error| self.fail("link", error));
            }
            let first = CString::new(below.clone()).expect("names have no zero bytes");
            self.links.insert((stat.st_dev, stat.st_ino), first);
        }
        match kind {
            FileType::RegularFile => {
                let target = self.copy_file(from, to, name, &stat)?;
                self.finish(to, name, &stat, Some(target.as_fd()))
            }
            FileType::Symlink => {
                let text = rustix::fs::readlinkat(from, name, Vec::new())
                    .map_err(|error| self.fail("read the link for", error))?;
                rustix::fs::symlinkat(text, to, name)
                    .map_err(|error| self.fail("create the link", error))?;
                self.finish(to, name, &stat, None)
            }
            // A device or a fifo; who may not make devices does without them, as `docker buildx` does.
            _ => match rustix::fs::mknodat(
                to,
                name,
                kind,
                Mode::from_raw_mode(stat.st_mode & 0o7777),
                stat.st_rdev,
            ) {
                Err(Errno::PERM) => Ok(()),
                Err(error) => Err(self.fail("create the device", error)),
                Ok(()) => self.finish(to, name, &stat, None),
            },
        }
    }

    /// Opens the directory `name`, after replacing whatever else stood there.
    fn make_directory(&self, to: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, LocalError> {
        let make = || {
            rustix::fs::mkdirat(to, name, Mode::RWXU).map_err(|error| self.fail("create", error))
        };
        let open = || open_directory(to, name);
        match rustix::fs::mkdirat(to, name, Mode::RWXU) {
            Ok(()) => open(),
            Err(Errno::EXIST) => match open() {
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    self.make_room(to, name)?;
                    make()?;
                    open()
                }
                // An earlier export may have left it without the right to write, which an ordinary user needs.
                Ok(there) => rustix::fs::fchmod(&there, Mode::RWXU).map(|()| there),
                Err(error) => Err(error),
            },
            Err(error) => return Err(self.fail("create", error)),
        }
        .map_err(|error| self.fail("open", error))
    }

    /// Removes a file or link that stands at the destination. A directory there is the user's: an error.
    fn make_room(&self, to: BorrowedFd<'_>, name: &CStr) -> Result<(), LocalError> {
        match rustix::fs::unlinkat(to, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => Err(self.fail("replace the directory", Errno::ISDIR)),
            Err(error) => Err(self.fail("replace", error)),
        }
    }

    fn copy_file(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> Result<OwnedFd, LocalError> {
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = rustix::fs::openat(from, name, read, Mode::empty())
            .map_err(|error| self.fail("read the file for", error))?;
        let write =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(to, name, write, Mode::from_raw_mode(0o600))
            .map_err(|error| self.fail("create", error))?;
        let mut left = stat.st_size as u64;
        while left > 0 {
            let chunk = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
            match rustix::fs::copy_file_range(&source, None, &target, None, chunk) {
                Ok(0) => break,
                Ok(copied) => left -= (copied as u64).min(left),
                // Between some file systems only reading and writing works.
                Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                    let (mut source, mut target) = (File::from(source), File::from(target));
                    return match io::copy(&mut source, &mut target) {
                        Ok(_) => Ok(target.into()),
                        Err(source) => {
                            Err(LocalError { action: "write", path: self.path.clone(), source })
                        }
                    };
                }
                Err(error) => return Err(self.fail("write", error)),
            }
        }
        Ok(target)
    }

    /// Sets owner, mode and time, in the order in which none undoes another.
    fn finish(
        &self,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        opened: Option<BorrowedFd<'_>>,
    ) -> Result<(), LocalError> {
        if self.options.keep_owners {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| self.fail("set the owner of", error))?;
        }
        if let Some(opened) = opened {
            rustix::fs::fchmod(opened, Mode::from_raw_mode(stat.st_mode & 0o7777))
                .map_err(|error| self.fail("set the mode of", error))?;
        }
        let modified = match self.options.epoch {
            Some(epoch) if stat.st_mtime > epoch => Timespec { tv_sec: epoch, tv_nsec: 0 },
            _ => Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
        };
        let times = Timestamps { last_access: modified, last_modification: modified };
        rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.fail("set the time of", error))
    }
}

fn open_directory(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    const OPTIONS: LocalOptions = LocalOptions { keep_owners: false, epoch: None };

    fn copy(from: &Path, to: &Path, options: LocalOptions) -> Result<(), LocalError> {
        write_folder(File::open(from).unwrap().as_fd(), to, options)
    }

    #[test]
    fn copies_and_keeps_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to/new"));
        fs::create_dir_all(from.join("d")).unwrap();
        fs::write(from.join("d/a"), "text").unwrap();
        fs::hard_link(from.join("d/a"), from.join("d/b")).unwrap();
        symlink("/nowhere", from.join("link")).unwrap();
        fs::set_permissions(from.join("d"), fs::Permissions::from_mode(0o555)).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(to.join("mine"), "stays").unwrap();
        copy(&from, &to, OPTIONS).unwrap();
        copy(&from, &to, LocalOptions { epoch: Some(5), ..OPTIONS }).unwrap();
        assert_eq!(fs::read(to.join("d/b")).unwrap(), b"text");
        assert_eq!(
            fs::metadata(to.join("d/a")).unwrap().ino(),
            fs::metadata(to.join("d/b")).unwrap().ino()
        );
        assert_eq!(fs::metadata(to.join("d/a")).unwrap().mtime(), 5);
        assert_eq!(fs::metadata(to.join("d")).unwrap().mode() & 0o777, 0o555);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/nowhere"));
        assert_eq!(fs::read(to.join("mine")).unwrap(), b"stays");
    }

    #[test]
    fn links_at_the_destination_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to, outside) =
            (folder.path().join("from"), folder.path().join("to"), folder.path().join("outside"));
        for path in [from.join("d"), to.clone(), outside.clone()] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(outside.join("f"), "precious").unwrap();
        fs::write(from.join("d/f"), "new").unwrap();
        fs::write(from.join("f"), "new").unwrap();
        symlink(&outside, to.join("d")).unwrap();
        symlink(outside.join("f"), to.join("f")).unwrap();
        copy(&from, &to, OPTIONS).unwrap();
        assert_eq!(fs::read(outside.join("f")).unwrap(), b"precious");
        assert_eq!(fs::read(to.join("d/f")).unwrap(), b"new");
        assert!(!fs::symlink_metadata(to.join("f")).unwrap().is_symlink());
    }

    #[test]
    fn a_directory_of_the_user_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(&from).unwrap();
        fs::write(from.join("x"), "file").unwrap();
        fs::create_dir_all(to.join("x")).unwrap();
        let error = copy(&from, &to, OPTIONS).unwrap_err();
        assert!(error.to_string().starts_with("cannot replace the directory `"), "{error}");
    }
}
