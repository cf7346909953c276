//! A snapshot's files in a folder of the user's (`-o DIR`, section 4.8 of the behaviour reference).
//!
//! What the folder holds beside them stays, unless it is to go. Every step is taken from a directory's descriptor and no symbolic
//! link is ever followed, neither one of the image nor one that already stands at the destination: a link
//! there is replaced, so a hostile image cannot write outside the folder.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rbuild_cache::{DataCopier, PlannedAttributes, PlannedCopy, remove_tree};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::tree::PlacedTree;

/// Files of one directory that one thread copies before another may take some of them.
const FILES_AT_ONCE: usize = 64;

/// Why files could not be written to a folder.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct LocalError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl LocalError {
    /// Of a file in the directory that it names.
    fn in_directory(mut self, name: &CStr) -> Self {
        self.path.push(OsStr::from_bytes(name.to_bytes()));
        self
    }
}

/// What becomes of what a folder holds beside the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FolderMode {
    /// It stays (`mode=copy`).
    #[default]
    Add,
    /// It is deleted (`mode=delete`).
    Replace,
}

/// Copies everything of the trees to `folder`, which is made when missing. Owners are kept only for real root
/// (`keep_owners`): others own what they build. Trees that share a folder have to be told [`FolderMode::Add`].
pub(crate) fn write_folder(
    trees: &[PlacedTree<'_>],
    folder: &Path,
    (mode, keep_owners): (FolderMode, bool),
) -> Result<(), LocalError> {
    let target = open_target(folder)?;
    let mut written = (trees.len() > 1).then(HashSet::new);
    for (number, tree) in trees.iter().enumerate() {
        let mut copier = Copier {
            mode,
            keep_owners,
            epoch: tree.epoch,
            links: HashMap::new(),
            written: written.take(),
            data: DataCopier::default(),
            path: folder.to_owned(),
            below: Vec::new(),
            top: target.as_fd(),
        };
        if number == 0 && !tree.folder.is_empty() && mode == FolderMode::Replace {
            let mut folders: Vec<CString> = trees.iter().map(folder_name).collect();
            folders.sort_unstable();
            copier.keep_only(&folders, target.as_fd())?;
        }
        copier.run(tree)?;
        written = copier.written;
    }
    Ok(())
}

/// Does a copy to `folder`, which is made when missing, and leaves what else it holds. See [`write_folder`].
pub(crate) fn write_planned(
    copy: &PlannedCopy,
    folder: &Path,
    (epoch, keep_owners): (Option<i64>, bool),
) -> Result<(), LocalError> {
    let target = open_target(folder)?;
    let mut copier = Copier {
        mode: FolderMode::Add,
        keep_owners,
        epoch,
        links: HashMap::new(),
        written: None,
        data: DataCopier::default(),
        path: folder.to_owned(),
        below: Vec::new(),
        top: target.as_fd(),
    };
    copier.run_planned(copy)
}

fn open_target(folder: &Path) -> Result<File, LocalError> {
    let fail = |action, source: io::Error| LocalError {
        action,
        path: folder.to_owned(),
        source: source.into(),
    };
    std::fs::create_dir_all(folder).map_err(|error| fail("create", error))?;
    File::open(folder).map_err(|error| fail("open", error))
}

fn folder_name(tree: &PlacedTree<'_>) -> CString {
    CString::new(tree.folder).expect("folders are named for platforms, without what is no text")
}

/// What something becomes once nothing is made in it any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finished {
    mode: u32,
    owner: (u32, u32),
    modified: Timespec,
}

/// One of the names of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileName {
    /// Which file: its device and inode.
    pub(crate) id: (u64, u64),
    /// How many names it has.
    pub(crate) names: u64,
}

pub(crate) struct Copier<'a> {
    mode: FolderMode,
    keep_owners: bool,
    /// The latest modification time, seconds since 1970.
    epoch: Option<i64>,
    /// Where the first name of a file with several names went, below the folder.
    links: HashMap<(u64, u64), CString>,
    /// What is no directory, below the folder, where there are several trees: one must not replace another's.
    written: Option<HashSet<Vec<u8>>>,
    pub(crate) data: DataCopier,
    /// The destination of what is being copied, for messages.
    path: PathBuf,
    /// The same, below the folder.
    below: Vec<u8>,
    pub(crate) top: BorrowedFd<'a>,
}

/// A directory that is being copied, and what is left in it.
struct Level {
    names: std::vec::IntoIter<CString>,
    /// What the directory is to become when that is done: its name and metadata. `None` for the folder itself.
    directory: Option<(CString, Stat)>,
    /// Which directory of the destination it is.
    target: (u64, u64),
}

impl Copier<'_> {
    pub(crate) fn fail(&self, action: &'static str, error: Errno) -> LocalError {
        self.fail_with(action, io::Error::from(error))
    }

    pub(crate) fn fail_with(
        &self,
        action: &'static str,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> LocalError {
        LocalError { action, path: self.path.clone(), source: error.into() }
    }

    /// Copies level by level with only the directory at hand open, and not by recursion: a step can make
    /// directories some thousand levels deep. Of each level the usual files go first, several at a time.
    fn run(&mut self, tree: &PlacedTree<'_>) -> Result<(), LocalError> {
        let open = |directory| open_directory(directory, c".");
        let mut from = open(tree.root).map_err(|error| self.fail("read the files for", error))?;
        let mut to = open(self.top).map_err(|error| self.fail("open", error))?;
        if !tree.folder.is_empty() {
            let name = folder_name(tree);
            self.enter(&name);
            to = self.make_directory(to.as_fd(), &name)?;
            self.set_mode(to.as_fd(), 0o755)?;
        }
        let mut levels = vec![self.level(from.as_fd(), to.as_fd(), None)?];
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.names.next() {
                self.enter(&name);
                let stat = rustix::fs::statat(&from, &name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| self.fail("read the file for", error))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    from = open_directory(from.as_fd(), &name)
                        .map_err(|error| self.fail("read the files for", error))?;
                    to = self.make_directory(to.as_fd(), &name)?;
                    levels.push(self.level(from.as_fd(), to.as_fd(), Some((name, stat)))?);
                } else {
                    self.file(from.as_fd(), to.as_fd(), &name, &stat)?;
                    self.leave(&name);
                }
                continue;
            }
            let done = levels.pop().and_then(|level| level.directory);
            if let (Some((name, stat)), Some(parent)) = (done, levels.last()) {
                from = open_directory(from.as_fd(), c"..")
                    .map_err(|error| self.fail("read the files for", error))?;
                let back = self.parent(to.as_fd(), parent.target)?;
                let made = std::mem::replace(&mut to, back);
                self.finish(to.as_fd(), &name, &Finished::from(&stat), Some(made.as_fd()))?;
                self.leave(&name);
            }
        }
        Ok(())
    }

    pub(crate) fn enter(&mut self, name: &CStr) {
        if !self.below.is_empty() {
            self.below.push(b'/');
        }
        self.below.extend_from_slice(name.to_bytes());
        self.path.push(OsStr::from_bytes(name.to_bytes()));
    }

    pub(crate) fn leave(&mut self, name: &CStr) {
        // The slash too, which the first level has not.
        self.below.truncate(self.below.len().saturating_sub(name.count_bytes() + 1));
        self.path.pop();
    }

    fn level(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        directory: Option<(CString, Stat)>,
    ) -> Result<Level, LocalError> {
        let wanted = names(from).map_err(|error| self.fail("list the files for", error))?;
        if self.mode == FolderMode::Replace {
            self.keep_only(&wanted, to)?;
        }
        let names = self.usual_files(wanted, from, to)?.into_iter();
        let stat = rustix::fs::fstat(to).map_err(|error| self.fail("open", error))?;
        Ok(Level { names, directory, target: (stat.st_dev, stat.st_ino) })
    }

    /// Copies what is a file with one name, and returns the other names.
    fn usual_files(
        &self,
        names: Vec<CString>,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
    ) -> Result<Vec<CString>, LocalError> {
        // Where trees share a folder each file is compared with those that were written before.
        if names.len() < FILES_AT_ONCE || self.written.is_some() {
            return Ok(names);
        }
        let copy = |name: &CString, buffer: &mut Vec<u8>| -> Result<bool, LocalError> {
            let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| self.fail("read the file for", error))?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind != FileType::RegularFile || stat.st_nlink > 1 {
                return Ok(false);
            }
            self.make_room(to, name)?;
            self.copy_file((from, to), name, &stat, buffer)?;
            Ok(true)
        };
        let copy_some = |names: &[CString]| {
            let (mut buffer, mut others) = (Vec::new(), Vec::new());
            for name in names {
                if !copy(name, &mut buffer).map_err(|error| error.in_directory(name))? {
                    others.push(name.clone());
                }
            }
            Ok(others)
        };
        let others: Vec<Vec<CString>> =
            names.par_chunks(FILES_AT_ONCE).map(copy_some).collect::<Result<_, _>>()?;
        Ok(others.concat())
    }

    /// Deletes what a directory of the destination has beside these, which are sorted.
    fn keep_only(&self, wanted: &[CString], to: BorrowedFd<'_>) -> Result<(), LocalError> {
        let there = names(to).map_err(|error| self.fail("list", error))?;
        for name in there.iter().filter(|name| wanted.binary_search(name).is_err()) {
            remove_tree(to, &**name).map_err(|error| {
                let path = self.path.join(OsStr::from_bytes(name.to_bytes()));
                LocalError { action: "delete", path, source: io::Error::from(error).into() }
            })?;
        }
        Ok(())
    }

    /// Goes back to the directory that `made` was made in. Somebody may have moved `made` out of the folder meanwhile.
    fn parent(&self, made: BorrowedFd<'_>, expected: (u64, u64)) -> Result<OwnedFd, LocalError> {
        let parent =
            open_directory(made, c"..").map_err(|error| self.fail("return from", error))?;
        let stat = rustix::fs::fstat(&parent).map_err(|error| self.fail("return from", error))?;
        if (stat.st_dev, stat.st_ino) == expected {
            Ok(parent)
        } else {
            Err(self.fail("return from the moved directory", Errno::STALE))
        }
    }

    /// Makes room for something that is no directory. Whether it is still to be made: further names of a file are links to the first.
    pub(crate) fn begin_file(
        &mut self,
        to: BorrowedFd<'_>,
        name: &CStr,
        file: &FileName,
    ) -> Result<bool, LocalError> {
        if let Some(written) = &mut self.written
            && !written.insert(self.below.clone())
        {
            let action = "write the files of two platforms to";
            return Err(self.fail(action, Errno::EXIST));
        }
        self.make_room(to, name)?;
        if file.names > 1 {
            if let Some(first) = self.links.get(&file.id) {
                return rustix::fs::linkat(self.top, first, to, name, AtFlags::empty())
                    .map(|()| false)
                    .map_err(|error| self.fail("link", error));
            }
            let first = CString::new(self.below.clone()).expect("names have no zero bytes");
            self.links.insert(file.id, first);
        }
        Ok(true)
    }

    /// Copies what is no directory.
    fn file(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> Result<(), LocalError> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let file = FileName { id: (stat.st_dev, stat.st_ino), names: stat.st_nlink as _ };
        if kind == FileType::Socket || !self.begin_file(to, name, &file)? {
            return Ok(());
        }
        match kind {
            FileType::RegularFile => self.copy_file((from, to), name, stat, &mut Vec::new()),
            FileType::Symlink => {
                let text = rustix::fs::readlinkat(from, name, Vec::new())
                    .map_err(|error| self.fail("read the link for", error))?;
                rustix::fs::symlinkat(text, to, name)
                    .map_err(|error| self.fail("create the link", error))?;
                self.finish(to, name, &Finished::from(stat), None)
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
                Ok(()) => self.finish(to, name, &Finished::from(stat), None),
            },
        }
    }

    /// Opens the directory `name`, after replacing whatever else stood there.
    pub(crate) fn make_directory(
        &self,
        to: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<OwnedFd, LocalError> {
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

    /// Removes a file or link that stands at the destination. A directory there is the user's: an error, unless all goes.
    fn make_room(&self, to: BorrowedFd<'_>, name: &CStr) -> Result<(), LocalError> {
        match rustix::fs::unlinkat(to, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) if self.mode == FolderMode::Replace => {
                remove_tree(to, name).map_err(|error| self.fail("delete", error))
            }
            Err(Errno::ISDIR) => Err(self.fail("replace the directory", Errno::ISDIR)),
            Err(error) => Err(self.fail("replace", error)),
        }
    }

    fn copy_file(
        &self,
        (from, to): (BorrowedFd<'_>, BorrowedFd<'_>),
        name: &CStr,
        stat: &Stat,
        buffer: &mut Vec<u8>,
    ) -> Result<(), LocalError> {
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = rustix::fs::openat(from, name, read, Mode::empty())
            .map_err(|error| self.fail("read the file for", error))?;
        let write =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(to, name, write, Mode::from_raw_mode(0o600))
            .map_err(|error| self.fail("create", error))?;
        self.data
            .copy(source.as_fd(), target.as_fd(), stat.st_size as u64, buffer)
            .map_err(|error| self.fail("write", error))?;
        self.finish(to, name, &Finished::from(stat), Some(target.as_fd()))
    }

    fn set_mode(&self, opened: BorrowedFd<'_>, mode: u32) -> Result<(), LocalError> {
        rustix::fs::fchmod(opened, Mode::from_raw_mode(mode))
            .map_err(|error| self.fail("set the mode of", error))
    }

    /// Sets owner, mode and time, in the order in which none undoes another.
    pub(crate) fn finish(
        &self,
        to: BorrowedFd<'_>,
        name: &CStr,
        finished: &Finished,
        opened: Option<BorrowedFd<'_>>,
    ) -> Result<(), LocalError> {
        if self.keep_owners {
            let (uid, gid) = finished.owner;
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| self.fail("set the owner of", error))?;
        }
        if let Some(opened) = opened {
            self.set_mode(opened, finished.mode)?;
        }
        let modified = match self.epoch {
            Some(epoch) if finished.modified.tv_sec > epoch => {
                Timespec { tv_sec: epoch, tv_nsec: 0 }
            }
            _ => finished.modified,
        };
        let times = Timestamps { last_access: modified, last_modification: modified };
        rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.fail("set the time of", error))
    }
}

impl From<PlannedAttributes> for Finished {
    fn from(PlannedAttributes { mode, owner, mtime }: PlannedAttributes) -> Self {
        let modified = Timespec {
            tv_sec: mtime.div_euclid(1_000_000_000),
            tv_nsec: mtime.rem_euclid(1_000_000_000),
        };
        Self { mode, owner, modified }
    }
}

impl From<&Stat> for Finished {
    fn from(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode & 0o7777,
            owner: (stat.st_uid, stat.st_gid),
            modified: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
        }
    }
}

/// The names in a directory, sorted.
fn names(directory: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
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

    fn copy(
        from: &Path,
        to: &Path,
        (mode, epoch): (FolderMode, Option<i64>),
    ) -> Result<(), LocalError> {
        let from = File::open(from).unwrap();
        write_folder(&[PlacedTree { root: from.as_fd(), folder: "", epoch }], to, (mode, false))
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
        copy(&from, &to, (FolderMode::Add, None)).unwrap();
        copy(&from, &to, (FolderMode::Add, Some(5))).unwrap();
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
    fn trees_are_copied_with_one_directory_open() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        // Some limits are 1024, and a thread's stack is small.
        const DEPTH: usize = 1200;
        let mut at = folder.path().to_owned();
        at.push("from");
        at.extend(std::iter::repeat_n("d", DEPTH));
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("last"), "text").unwrap();
        fs::write(from.join("d/d/after"), "text").unwrap();
        fs::hard_link(from.join("d/d/after"), from.join("z")).unwrap();
        fs::set_permissions(from.join("d/d"), fs::Permissions::from_mode(0o500)).unwrap();
        copy(&from, &to, (FolderMode::Add, None)).unwrap();
        let copied = to.join(at.strip_prefix(&from).unwrap());
        assert_eq!(fs::read(copied.join("last")).unwrap(), b"text");
        assert_eq!(fs::metadata(to.join("d/d")).unwrap().mode() & 0o777, 0o500);
        assert_eq!(
            fs::metadata(to.join("z")).unwrap().ino(),
            fs::metadata(to.join("d/d/after")).unwrap().ino()
        );
        assert_eq!(fs::read_dir(&to).unwrap().count(), 2);
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
        copy(&from, &to, (FolderMode::Add, None)).unwrap();
        assert_eq!(fs::read(outside.join("f")).unwrap(), b"precious");
        assert_eq!(fs::read(to.join("d/f")).unwrap(), b"new");
        assert!(!fs::symlink_metadata(to.join("f")).unwrap().is_symlink());
    }

    #[test]
    fn what_is_not_in_the_result_goes_where_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to, outside) =
            (folder.path().join("from"), folder.path().join("to"), folder.path().join("outside"));
        for path in [from.join("kept"), to.join("kept/old/deep"), to.join("gone"), to.join("file")]
        {
            fs::create_dir_all(path).unwrap();
        }
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("f"), "precious").unwrap();
        symlink(&outside, to.join("link")).unwrap();
        symlink(&outside, to.join("kept/old/link")).unwrap();
        fs::write(to.join("gone/a"), "").unwrap();
        fs::write(from.join("kept/new"), "new").unwrap();
        fs::write(from.join("file"), "file").unwrap();
        copy(&from, &to, (FolderMode::Replace, None)).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["file", "kept"]);
        assert_eq!(fs::read(to.join("file")).unwrap(), b"file");
        assert_eq!(fs::read_dir(to.join("kept")).unwrap().count(), 1);
        assert_eq!(fs::read(outside.join("f")).unwrap(), b"precious");
    }

    #[test]
    fn a_directory_of_the_user_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(&from).unwrap();
        fs::write(from.join("x"), "file").unwrap();
        fs::create_dir_all(to.join("x")).unwrap();
        let error = copy(&from, &to, (FolderMode::Add, None)).unwrap_err();
        assert!(error.to_string().starts_with("cannot replace the directory `"), "{error}");
    }

    #[test]
    fn platforms_have_folders_or_nothing_in_common() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b, to) =
            (folder.path().join("a"), folder.path().join("b"), folder.path().join("to"));
        for (from, own) in [(&a, "of-a"), (&b, "of-b")] {
            fs::create_dir_all(from.join("bin")).unwrap();
            fs::write(from.join("bin").join(own), own).unwrap();
        }
        let (from_a, from_b) = (File::open(&a).unwrap(), File::open(&b).unwrap());
        let write = |folders: [&str; 2], mode| {
            let tree = |(root, folder)| PlacedTree { root, folder, epoch: None };
            let roots = [from_a.as_fd(), from_b.as_fd()];
            let trees: Vec<_> = roots.into_iter().zip(folders).map(tree).collect();
            write_folder(&trees, &to, (mode, false))
        };
        write(["", ""], FolderMode::Add).unwrap();
        assert_eq!(fs::read(to.join("bin/of-a")).unwrap(), b"of-a");
        assert_eq!(fs::read(to.join("bin/of-b")).unwrap(), b"of-b");
        fs::write(b.join("bin/of-a"), "other").unwrap();
        let error = write(["", ""], FolderMode::Add).unwrap_err().to_string();
        let expected = "cannot write the files of two platforms to `";
        assert!(error.starts_with(expected) && error.ends_with("/to/bin/of-a`"), "{error}");
        // A link in the place of a folder is not followed.
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        symlink(&outside, to.join("linux_b")).unwrap();
        write(["linux_a", "linux_b"], FolderMode::Add).unwrap();
        assert_eq!(fs::read(to.join("linux_b/bin/of-a")).unwrap(), b"other");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        // What else is there goes where that is wanted, and no platform's.
        fs::write(to.join("linux_a/old"), "").unwrap();
        write(["linux_a", "linux_b"], FolderMode::Replace).unwrap();
        assert!(!to.join("bin").exists() && !to.join("linux_a/old").exists());
        assert!(to.join("linux_a/bin/of-a").exists() && to.join("linux_b/bin/of-b").exists());
    }
}
