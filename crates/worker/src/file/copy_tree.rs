//! Copying files and trees to a place that is known.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd};

use rayon::prelude::*;
use rbuild_cache::{DataCopier, Entry, Node, Selected, Tree, TreeError, read_xattrs};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{Changes, set_times};
use super::error::{FileError, shown};
use super::place::{Target, base_name, file_type, join, parent, stat_at};
use super::remove::remove_all;

/// Files of one directory that one thread copies before another may take some of them.
const FILES_AT_ONCE: usize = 128;

/// Whether the directory that a tree is copied to was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// It keeps its mode and owner.
    Existing,
    /// It is made, like the directory that is copied.
    New,
}

/// Copies from a tree to a target.
pub(super) struct Copier<'a> {
    source: &'a Tree,
    target: Target<'a>,
    changes: Changes<'a>,
    /// Whether what is in the way is removed even when it is a directory in the way of a file or the reverse.
    replaces: bool,
    data: DataCopier,
}

/// Files of one directory.
struct Batch<'a> {
    parent: Vec<u8>,
    entries: &'a [&'a Entry],
}

/// A directory that was made, or whose mode and owner are to be the source's.
struct Directory<'a> {
    path: Vec<u8>,
    node: &'a Node,
    /// Whether only its time is set.
    keeps_attributes: bool,
}

impl<'a> Copier<'a> {
    pub(super) fn new(
        source: &'a Tree,
        target: Target<'a>,
        changes: Changes<'a>,
        replaces: bool,
    ) -> Self {
        Self { source, target, changes, replaces, data: DataCopier::default() }
    }

    /// Copies one file, link or special file to `path`, whose parent is there.
    pub(super) fn copy_file(&self, from: &[u8], node: &Node, path: &[u8]) -> Result<(), FileError> {
        let dir = self.target.open_dir(parent(path))?;
        let place = Place { dir: dir.as_fd(), inherits: inherits_group(dir.as_fd(), path)?, path };
        self.copy_entry(from, node, &place, &mut Vec::new())
    }

    /// Copies a directory to `path`: first its directories in order, then the files, many at a time, at last the
    /// directories' modes and times, which making files in them would undo.
    pub(super) fn copy_tree(
        &self,
        selected: &Selected,
        path: &[u8],
        root: Root,
    ) -> Result<(), FileError> {
        let mut directories = vec![Directory {
            path: path.to_vec(),
            node: &selected.node,
            keeps_attributes: root == Root::Existing,
        }];
        if root == Root::New {
            self.make_dir(path)?;
        }
        let mut files: BTreeMap<&[u8], Vec<&Entry>> = BTreeMap::new();
        let mut linked: Vec<&Entry> = Vec::new();
        for entry in &selected.entries {
            if entry.node.meta().is_dir() {
                let path = join(path, entry.relative());
                let made = self.make_dir(&path)?;
                let keeps_attributes = !made && !entry.picked;
                directories.push(Directory { path, node: &entry.node, keeps_attributes });
            } else if entry.node.meta().nlink > 1 {
                linked.push(entry);
            } else {
                files.entry(parent(entry.relative())).or_default().push(entry);
            }
        }
        let batches: Vec<Batch<'_>> = files
            .iter()
            .flat_map(|(relative, entries)| {
                let batch = |entries| Batch { parent: join(path, relative), entries };
                entries.chunks(FILES_AT_ONCE).map(batch)
            })
            .collect();
        batches.par_iter().try_for_each(|batch| self.copy_batch(batch))?;
        self.copy_linked(&linked, path)?;
        for directory in directories.iter().rev() {
            self.finish_dir(directory)?;
        }
        Ok(())
    }

    /// Makes a directory that stands for one of the source; whether it was not there.
    fn make_dir(&self, path: &[u8]) -> Result<bool, FileError> {
        let failed = |errno| FileError::io("make directory", path, errno);
        let (dir, name) = self.target.open_parent(path)?;
        match rustix::fs::mkdirat(&dir, name, Mode::RWXU) {
            Ok(()) => return Ok(true),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        match stat_at(dir.as_fd(), name).map_err(failed)? {
            Some(stat) if file_type(&stat) == FileType::Directory => Ok(false),
            _ if self.replaces => {
                remove_all(dir.as_fd(), name).map_err(failed)?;
                rustix::fs::mkdirat(&dir, name, Mode::RWXU).map_err(failed)?;
                Ok(true)
            }
            _ => Err(FileError::NotADirectory(shown(path))),
        }
    }

    fn finish_dir(&self, directory: &Directory<'_>) -> Result<(), FileError> {
        let opened = self.target.open_dir(&directory.path)?;
        let meta = directory.node.meta();
        if directory.keeps_attributes {
            return set_times(opened.as_fd(), self.changes.mtime(meta), &directory.path);
        }
        let xattrs = directory.node.directory_xattrs();
        // One that was there may have another owner.
        self.changes.apply(opened.as_fd(), meta, xattrs, true, &directory.path)
    }

    fn copy_batch(&self, batch: &Batch<'_>) -> Result<(), FileError> {
        let dir = self.target.open_dir(&batch.parent)?;
        let inherits = inherits_group(dir.as_fd(), &batch.parent)?;
        let mut buffer = Vec::new();
        for entry in batch.entries {
            let path = join(&batch.parent, base_name(&entry.path));
            let place = Place { dir: dir.as_fd(), inherits, path: &path };
            self.copy_entry(&entry.path, &entry.node, &place, &mut buffer)?;
        }
        Ok(())
    }

    /// Files with several names: the first one is copied, others that are selected become links to it.
    fn copy_linked(&self, entries: &[&Entry], top: &[u8]) -> Result<(), FileError> {
        let mut first: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
        for entry in entries {
            let path = join(top, entry.relative());
            let meta = entry.node.meta();
            let Some(existing) = first.get(&(meta.dev, meta.ino)) else {
                self.copy_file(&entry.path, &entry.node, &path)?;
                first.insert((meta.dev, meta.ino), path);
                continue;
            };
            let (old_dir, old_name) = self.target.open_parent(existing)?;
            let (dir, name) = self.target.open_parent(&path)?;
            self.make_way(dir.as_fd(), name, &path, || {
                rustix::fs::linkat(&old_dir, old_name, &dir, name, AtFlags::empty())
            })?;
        }
        Ok(())
    }

    fn copy_entry(
        &self,
        from: &[u8],
        node: &Node,
        place: &Place<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), FileError> {
        let meta = node.meta();
        let name = base_name(place.path);
        match meta.file_type() {
            FileType::RegularFile => self.copy_regular(from, node, place, buffer),
            FileType::Symlink => {
                let target = node.link_target().unwrap_or_default();
                self.make_way(place.dir, name, place.path, || {
                    rustix::fs::symlinkat(target, place.dir, name)
                })?;
                self.changes.apply_at(place.dir, name, meta, true, place.path)
            }
            file_type => {
                self.make_way(place.dir, name, place.path, || {
                    rustix::fs::mknodat(place.dir, name, file_type, Mode::RUSR, meta.rdev)
                })?;
                self.changes.apply_at(place.dir, name, meta, false, place.path)
            }
        }
    }

    fn copy_regular(
        &self,
        from: &[u8],
        node: &Node,
        place: &Place<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), FileError> {
        let original = self.source.open(from, node)?;
        let name = base_name(place.path);
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = self.make_way(place.dir, name, place.path, || {
            rustix::fs::openat(place.dir, name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        self.data
            .copy(original.as_fd(), copy.as_fd(), node.meta().size, buffer)
            .map_err(|errno| FileError::io("copy to", place.path, errno))?;
        let xattrs = read_xattrs(original.as_fd())
            .map_err(|error| FileError::io("read attributes for", place.path, error))?;
        self.source.verify(from, node, original.as_fd())?;
        let is_copy = self.source.is_copy(node, original.as_fd(), copy.as_fd());
        if !is_copy.map_err(|errno| FileError::io("read", place.path, errno))? {
            return Err(TreeError::Changed { path: shown(from) }.into());
        }
        self.changes.apply(copy.as_fd(), node.meta(), &xattrs, place.inherits, place.path)
    }

    /// Makes something, and once more after removing what is in the way. A directory stays, and is an error.
    fn make_way<T>(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, FileError> {
        let failed = |errno| FileError::io("make", path, errno);
        match make() {
            Err(Errno::EXIST) => {}
            made => return made.map_err(failed),
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR) if self.replaces => remove_all(dir, name).map_err(failed)?,
            Err(Errno::ISDIR) => return Err(FileError::IsADirectory(shown(path))),
            removed => removed.map_err(failed)?,
        }
        make().map_err(failed)
    }
}

/// Where one file goes.
struct Place<'a> {
    /// The open parent directory.
    dir: BorrowedFd<'a>,
    /// Whether what is made there gets the directory's group.
    inherits: bool,
    path: &'a [u8],
}

fn inherits_group(dir: BorrowedFd<'_>, path: &[u8]) -> Result<bool, FileError> {
    let stat = rustix::fs::fstat(dir).map_err(|errno| FileError::io("inspect", path, errno))?;
    Ok(stat.st_mode & 0o2000 != 0)
}
