//! From a layer directory to the layer's archive.
//!
//! Only the layer directory is walked, in the order of the names' bytes; the layers below, merged, are asked
//! about those names alone. So the cost follows what changed. The rules are BuildKit's:
//!
//! * a whiteout is written for what exists below, and dropped otherwise;
//! * an opaque directory is compared with the directory below and its deletions are written one by one;
//!   `.wh..wh..opq` is never written, because some readers mishandle it;
//! * what equals its counterpart below is left out (a `chown -R` that changed nothing copied everything up);
//!   but a file with several names in the layer always stays, because whether one of them is new is known only
//!   after all were seen;
//! * the parents of everything that is written are written before it;
//! * what is called `.wh.*` is refused, as the archive has no way to say it;
//! * sockets are left out; of several names of one file the first is the file and the others are hard links.
//!
//! Only the directory at hand is open, its parents are opened again through `..`: a step can make directories
//! some thousand levels deep, and descriptors are few.
//!
//! Our own: the content decides, where BuildKit believes equal sizes and nanoseconds; and the root is written
//! when its mode, owner or attributes changed. Of the extended attributes `security.capability` and `user.*`
//! are kept (BuildKit keeps the former alone), and what was escaped when the layer was applied (see
//! [`whiteout`](super::whiteout)).

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::vec;

use rustix::fs::{FileType, Stat};
use thiserror::Error;

use super::tree;
use super::whiteout::{LayerXattr, OverlayXattrs, PREFIX, is_whiteout};
use super::{EntryKind, TarEntry, TarWriteError, TarWriter, Xattr, path_of};
use crate::TreeError;

/// The root directory of an image that says nothing about it.
const DEFAULT_ROOT_MODE: u32 = 0o755;

/// Writes the changes that the layer directory `layer` makes to `below`, the merged tree of the layers under it
/// (`None`: there are none).
///
/// `below` must not contain `layer`. The archive is not finished: call [`TarWriter::finish`].
pub fn diff<W: Write>(
    layer: BorrowedFd<'_>,
    below: Option<BorrowedFd<'_>>,
    xattrs: OverlayXattrs,
    archive: &mut TarWriter<W>,
) -> Result<(), DiffError> {
    let mut differ = Differ {
        archive,
        form: Form::Layer(xattrs),
        path: Vec::new(),
        stack: Vec::new(),
        links: HashMap::new(),
    };
    differ.run(layer, below, None)
}

/// Writes the changes that several layers make together: `changed` are those layers alone, merged. `under` are what they lie on,
/// merged, and all of it merged; `None` where they lie on nothing.
///
/// The archive is not finished: call [`TarWriter::finish`].
pub fn diff_merged<W: Write>(
    changed: BorrowedFd<'_>,
    under: Option<(BorrowedFd<'_>, BorrowedFd<'_>)>,
    archive: &mut TarWriter<W>,
) -> Result<(), DiffError> {
    let mut differ = Differ {
        archive,
        form: Form::Changes,
        path: Vec::new(),
        stack: Vec::new(),
        links: HashMap::new(),
    };
    let (below, all) = under.unzip();
    differ.run(changed, below, all)
}

/// Writes a whole merged tree, without its root. `folder` is where it goes in the archive; empty for its top.
pub fn write_tree<W: Write>(
    root: BorrowedFd<'_>,
    folder: &str,
    archive: &mut TarWriter<W>,
) -> Result<(), DiffError> {
    let mut differ = Differ {
        archive,
        form: Form::Merged,
        path: folder.as_bytes().to_vec(),
        stack: Vec::new(),
        links: HashMap::new(),
    };
    differ.run(root, None, None)
}

/// How to read the directory that is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Character devices 0:0 and overlay attributes have their overlay meaning.
    Layer(OverlayXattrs),
    /// overlayfs has already dealt with them.
    Merged,
    /// The same, and there is something below: what is gone of that shows where both are merged.
    Changes,
}

struct Differ<'a, W> {
    archive: &'a mut TarWriter<W>,
    form: Form,
    /// Where we are: the directories of `stack`, then the entry at hand.
    path: Vec<u8>,
    stack: Vec<Frame>,
    /// The first name written of each file with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// A directory being walked.
struct Frame {
    /// `None` while a directory in it is walked.
    dir: Option<OwnedFd>,
    /// The directory below, if there is one. Also `None` while one in it is walked.
    below: Option<OwnedFd>,
    /// The directory with what is below, which tells what is gone of that ([`Form::Changes`]). `None` as `below`.
    all: Option<OwnedFd>,
    children: vec::IntoIter<Child>,
    /// Nothing below shows through: the directory is opaque, or in an opaque one.
    hides_below: bool,
    /// Zero-sized files with `overlay.whiteout` are whiteouts here (`opaque` = `x`).
    xattr_whiteouts: bool,
    path_length: usize,
    /// What to write before the first entry in it; `None` when that is done.
    unwritten: Option<Found>,
}

enum Child {
    Present(CString),
    /// Below only, in an opaque directory.
    Hidden(CString),
}

/// A file's metadata and attributes.
struct Found {
    stat: Stat,
    xattrs: Vec<Xattr>,
}

/// A directory's or file's attributes, sorted by their meaning.
#[derive(Default)]
struct Attributes {
    kept: Vec<Xattr>,
    opaque: Option<Vec<u8>>,
    whiteout: bool,
}

impl<W: Write> Differ<'_, W> {
    fn run(
        &mut self,
        root: BorrowedFd<'_>,
        below: Option<BorrowedFd<'_>>,
        all: Option<BorrowedFd<'_>>,
    ) -> Result<(), DiffError> {
        let open = |dir: BorrowedFd<'_>| tree::open_directory(dir, c".");
        let dir = open(root).map_err(|source| self.cannot("open", source))?;
        let below = below.map(open).transpose().map_err(|source| self.cannot("open", source))?;
        let all = all.map(open).transpose().map_err(|source| self.cannot("open", source))?;
        let found = self.found(&dir)?;
        let changed = match &below {
            _ if self.form == Form::Merged => false,
            None => {
                let stat = &found.0.stat;
                (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) != (DEFAULT_ROOT_MODE, 0, 0)
                    || !found.0.xattrs.is_empty()
            }
            Some(below) => self.directory_differs(&found.0, below)?,
        };
        self.enter(dir, (below, all), found, changed)?;
        if !changed && let Some(root) = self.stack.last_mut() {
            root.unwritten = None;
        }
        while let Some(frame) = self.stack.last_mut() {
            let length = frame.path_length;
            let child = frame.children.next();
            self.path.truncate(length);
            match child {
                None => self.leave()?,
                Some(Child::Hidden(name)) => {
                    self.push(&name);
                    self.whiteout()?;
                }
                Some(Child::Present(name)) => {
                    self.push(&name);
                    self.visit(&name)?;
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, name: &CStr) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.to_bytes());
    }

    fn visit(&mut self, name: &CStr) -> Result<(), DiffError> {
        let Some((frame, dir)) = self.at() else { return Ok(()) };
        let stat = tree::stat(dir, name)
            .and_then(|stat| stat.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .map_err(|source| self.cannot("read the metadata of", source))?;
        let below = match &frame.below {
            Some(below) => tree::stat(below.as_fd(), name)
                .map_err(|source| self.cannot("read the metadata of the lower", source))?,
            None => None,
        };
        if matches!(self.form, Form::Layer(_)) && is_whiteout(&stat) {
            return if below.is_some() { self.whiteout() } else { Ok(()) };
        }
        if self.form != Form::Merged && name.to_bytes().starts_with(PREFIX) {
            return Err(DiffError::Reserved { path: path_of(&self.path) });
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(name, below.as_ref()),
            FileType::RegularFile => self.regular_file(name, &stat, below.as_ref()),
            FileType::Symlink => {
                let target =
                    read_link(dir, name).map_err(|source| self.cannot("read the link", source))?;
                let lower_target = |below: &OwnedFd| read_link(below.as_fd(), name);
                let equal = match (&frame.below, &below) {
                    (Some(below), Some(lower)) if same_metadata(&stat, lower) => {
                        lower_target(below)
                            .map_err(|source| self.cannot("read the lower link", source))?
                            == target
                    }
                    _ => false,
                };
                let kind = EntryKind::Symlink { target: target.to_bytes() };
                self.special(kind, &stat, equal)
            }
            file_type => {
                let (major, minor) =
                    (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                let kind = match file_type {
                    FileType::CharacterDevice => EntryKind::CharacterDevice { major, minor },
                    FileType::BlockDevice => EntryKind::BlockDevice { major, minor },
                    FileType::Fifo => EntryKind::Fifo,
                    // Sockets mean nothing without the process that made them.
                    _ => return Ok(()),
                };
                let equal = below.is_some_and(|below| {
                    same_metadata(&stat, &below) && below.st_rdev == stat.st_rdev
                });
                self.special(kind, &stat, equal)
            }
        }
    }

    fn directory(&mut self, name: &CStr, below: Option<&Stat>) -> Result<(), DiffError> {
        let Some((frame, parent)) = self.at() else { return Ok(()) };
        let dir =
            tree::open_directory(parent, name).map_err(|source| self.cannot("open", source))?;
        let is_directory =
            |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let below = match (&frame.below, below) {
            (Some(parent), Some(stat)) if is_directory(stat) => Some(
                tree::open_directory(parent.as_fd(), name)
                    .map_err(|source| self.cannot("open the lower", source))?,
            ),
            _ => None,
        };
        let all = match (&frame.all, &below) {
            (Some(all), Some(_)) => Some(
                tree::open_directory(all.as_fd(), name)
                    .map_err(|source| self.cannot("open the merged", source))?,
            ),
            _ => None,
        };
        let found = self.found(&dir)?;
        let changed = match &below {
            Some(below) => self.directory_differs(&found.0, below)?,
            None => true,
        };
        self.enter(dir, (below, all), found, changed)
    }

    /// Goes on with the children of a directory, and writes it first if it `changed`.
    fn enter(
        &mut self,
        dir: OwnedFd,
        (below, all): (Option<OwnedFd>, Option<OwnedFd>),
        (found, opaque): (Found, Option<Vec<u8>>),
        changed: bool,
    ) -> Result<(), DiffError> {
        let present = tree::names(dir.as_fd()).map_err(|source| self.cannot("list", source))?;
        let hides_below = opaque.as_deref() == Some(b"y")
            || self.stack.last().is_some_and(|parent| parent.hides_below);
        let lower = |below: &OwnedFd| {
            tree::names(below.as_fd()).map_err(|source| self.cannot("list the lower", source))
        };
        let children = match (&below, &all) {
            (Some(below), Some(all)) => {
                let left = tree::names(all.as_fd())
                    .map_err(|source| self.cannot("list the merged", source))?;
                let mut gone = lower(below)?;
                gone.retain(|name| left.binary_search(name).is_err());
                merge(present, gone)
            }
            (Some(below), None) if hides_below => merge(present, lower(below)?),
            _ => present.into_iter().map(Child::Present).collect(),
        };
        if let Some(parent) = self.stack.last_mut() {
            parent.dir = None;
            // Without a directory below this one nothing leads back to the parent's, which then stays open; once on a path.
            if below.is_some() {
                parent.below = None;
                parent.all = None;
            }
        }
        self.stack.push(Frame {
            dir: Some(dir),
            below,
            all,
            children: children.into_iter(),
            hides_below,
            xattr_whiteouts: opaque.as_deref() == Some(b"x"),
            path_length: self.path.len(),
            unwritten: Some(found),
        });
        if changed { self.write_parents() } else { Ok(()) }
    }

    /// Goes back to the parent of a directory that is done.
    fn leave(&mut self) -> Result<(), DiffError> {
        let (Some(done), Some(mut parent)) = (self.stack.pop(), self.stack.pop()) else {
            return Ok(());
        };
        let reopen = |dir: OwnedFd| tree::open_directory(dir.as_fd(), c"..");
        parent.dir = done
            .dir
            .map(reopen)
            .transpose()
            .map_err(|source| self.cannot("return from", source))?;
        if let Some(below) = done.below {
            let below =
                reopen(below).map_err(|source| self.cannot("return from the lower", source))?;
            parent.below = Some(below);
        }
        if let Some(all) = done.all {
            let all =
                reopen(all).map_err(|source| self.cannot("return from the merged", source))?;
            parent.all = Some(all);
        }
        self.stack.push(parent);
        Ok(())
    }

    /// The directory that is walked, which is open.
    fn at(&self) -> Option<(&Frame, BorrowedFd<'_>)> {
        let frame = self.stack.last()?;
        Some((frame, frame.dir.as_ref()?.as_fd()))
    }

    fn regular_file(
        &mut self,
        name: &CStr,
        stat: &Stat,
        below: Option<&Stat>,
    ) -> Result<(), DiffError> {
        let Some((frame, dir)) = self.at() else { return Ok(()) };
        let file = tree::open_file(dir, name).map_err(|source| self.cannot("open", source))?;
        let attributes = self.attributes(&file)?;
        if frame.xattr_whiteouts && attributes.whiteout && stat.st_size == 0 {
            return if below.is_some() { self.whiteout() } else { Ok(()) };
        }
        let mut file = File::from(file);
        if let (Some(dir), Some(lower)) = (&frame.below, below)
            && stat.st_nlink == 1
            && same_metadata(stat, lower)
            && stat.st_size == lower.st_size
        {
            let lower = tree::open_file(dir.as_fd(), name)
                .map_err(|source| self.cannot("open the lower", source))?;
            if self.kept_in_merged(&lower)? == attributes.kept {
                let equal = same_content(&mut file, &mut File::from(lower));
                if equal.map_err(|source| self.cannot("compare", source))? {
                    return Ok(());
                }
                io::Seek::rewind(&mut file).map_err(|source| self.cannot("read", source))?;
            }
        }
        self.write_parents()?;
        if let Some(target) = self.earlier_name(stat) {
            return self.write(EntryKind::HardLink { target: &target }, stat, &[]);
        }
        let kind = EntryKind::File { size: u64::try_from(stat.st_size).unwrap_or(0) };
        let entry = entry(&self.path, kind, stat, &attributes.kept);
        Ok(self.archive.append_file(&entry, &mut file)?)
    }

    /// Links, devices and pipes: they have no content, and no attributes that are kept.
    fn special(&mut self, kind: EntryKind<'_>, stat: &Stat, equal: bool) -> Result<(), DiffError> {
        if equal && stat.st_nlink == 1 {
            return Ok(());
        }
        self.write_parents()?;
        match self.earlier_name(stat) {
            Some(target) => self.write(EntryKind::HardLink { target: &target }, stat, &[]),
            None => self.write(kind, stat, &[]),
        }
    }

    /// The name under which the file was already written; else remembers this one.
    fn earlier_name(&mut self, stat: &Stat) -> Option<Vec<u8>> {
        if stat.st_nlink < 2 {
            return None;
        }
        let key = (stat.st_dev, stat.st_ino);
        let earlier = self.links.get(&key).cloned();
        if earlier.is_none() {
            self.links.insert(key, self.path.clone());
        }
        earlier
    }

    fn whiteout(&mut self) -> Result<(), DiffError> {
        self.write_parents()?;
        Ok(self.archive.whiteout(&self.path)?)
    }

    /// Writes the directories that we are in, where that has not been done.
    fn write_parents(&mut self) -> Result<(), DiffError> {
        for frame in &mut self.stack {
            if let Some(found) = frame.unwritten.take() {
                let path = &self.path[..frame.path_length];
                self.archive.append(&entry(
                    path,
                    EntryKind::Directory,
                    &found.stat,
                    &found.xattrs,
                ))?;
            }
        }
        Ok(())
    }

    fn write(
        &mut self,
        kind: EntryKind<'_>,
        stat: &Stat,
        xattrs: &[Xattr],
    ) -> Result<(), DiffError> {
        Ok(self.archive.append(&entry(&self.path, kind, stat, xattrs))?)
    }

    fn found(&self, dir: &OwnedFd) -> Result<(Found, Option<Vec<u8>>), DiffError> {
        let stat = rustix::fs::fstat(dir)
            .map_err(|error| self.cannot("read the metadata of", error.into()))?;
        let attributes = self.attributes(dir)?;
        Ok((Found { stat, xattrs: attributes.kept }, attributes.opaque))
    }

    /// A directory's times say only that something in it changed.
    fn directory_differs(&self, found: &Found, below: &OwnedFd) -> Result<bool, DiffError> {
        let lower = rustix::fs::fstat(below)
            .map_err(|error| self.cannot("read the metadata of the lower", error.into()))?;
        Ok(!same_owner_and_mode(&found.stat, &lower) || self.kept_in_merged(below)? != found.xattrs)
    }

    fn attributes(&self, file: &OwnedFd) -> Result<Attributes, DiffError> {
        let all = tree::xattrs(file)
            .map_err(|source| self.cannot("read the extended attributes of", source))?;
        let Form::Layer(overlay) = self.form else {
            return Ok(Attributes {
                kept: all.into_iter().filter_map(kept).collect(),
                ..Attributes::default()
            });
        };
        let mut attributes = Attributes::default();
        for xattr in all {
            match overlay.classify(&xattr.name) {
                LayerXattr::Plain => attributes.kept.extend(kept(xattr)),
                LayerXattr::Escaped(name) => {
                    attributes.kept.push(Xattr { name, value: xattr.value });
                }
                LayerXattr::Opaque => attributes.opaque = Some(xattr.value),
                LayerXattr::Whiteout => attributes.whiteout = true,
                LayerXattr::Redirect => {
                    return Err(DiffError::Redirect { path: path_of(&self.path) });
                }
                LayerXattr::Metacopy => {
                    return Err(DiffError::Metacopy { path: path_of(&self.path) });
                }
                LayerXattr::Internal => {}
            }
        }
        attributes.kept.sort_unstable();
        Ok(attributes)
    }

    /// The attributes of a file below: there overlayfs has already hidden its own and unescaped the others.
    fn kept_in_merged(&self, file: &OwnedFd) -> Result<Vec<Xattr>, DiffError> {
        kept_xattrs(file)
            .map_err(|source| self.cannot("read the extended attributes of the lower", source))
    }

    fn cannot(&self, action: &'static str, source: io::Error) -> DiffError {
        DiffError::Read { action, path: path_of(&self.path), source }
    }
}

/// The names of an opaque directory and those that it hides, in one order.
fn merge(present: Vec<CString>, lower: Vec<CString>) -> Vec<Child> {
    let mut hidden: Vec<_> =
        lower.into_iter().filter(|name| present.binary_search(name).is_err()).peekable().collect();
    let mut children = Vec::with_capacity(present.len() + hidden.len());
    let mut hidden = hidden.drain(..).peekable();
    for name in present {
        while let Some(first) = hidden.next_if(|first| *first < name) {
            children.push(Child::Hidden(first));
        }
        children.push(Child::Present(name));
    }
    children.extend(hidden.map(Child::Hidden));
    children
}

fn entry<'a>(
    path: &'a [u8],
    kind: EntryKind<'a>,
    stat: &Stat,
    xattrs: &'a [Xattr],
) -> TarEntry<'a> {
    TarEntry {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime,
        xattrs,
    }
}

fn same_owner_and_mode(a: &Stat, b: &Stat) -> bool {
    (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid)
}

/// As far as an archive can tell, which has whole seconds.
fn same_metadata(a: &Stat, b: &Stat) -> bool {
    same_owner_and_mode(a, b) && a.st_mtime == b.st_mtime
}

pub(super) fn same_content(a: &mut impl Read, b: &mut impl Read) -> io::Result<bool> {
    const CHUNK: u64 = 64 * 1024;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        a.by_ref().take(CHUNK).read_to_end(&mut left)?;
        b.by_ref().take(CHUNK).read_to_end(&mut right)?;
        if left != right || left.is_empty() {
            return Ok(left == right);
        }
    }
}

pub(super) fn read_link(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<CString> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::new())?)
}

/// The attributes of a file in merged layers that belong into an archive.
pub(super) fn kept_xattrs(file: &OwnedFd) -> io::Result<Vec<Xattr>> {
    Ok(tree::xattrs(file)?.into_iter().filter_map(kept).collect())
}

/// The attributes that belong into an archive.
pub(super) fn kept(mut xattr: Xattr) -> Option<Xattr> {
    if xattr.name == b"security.capability" {
        drop_namespace_root(&mut xattr.value);
        return Some(xattr);
    }
    let kept =
        [&b"user."[..], b"trusted.overlay."].iter().any(|prefix| xattr.name.starts_with(prefix));
    kept.then_some(xattr)
}

/// Turns file capabilities of revision 3 whose user namespace root is uid 0, which is ours, into revision 2:
/// the same capabilities, readable by everybody, and the same bytes with and without a user namespace.
fn drop_namespace_root(value: &mut Vec<u8>) {
    const REVISION_2: u8 = 2;
    const REVISION_3: u8 = 3;
    const LENGTH_3: usize = 24;
    if value.len() == LENGTH_3 && value[3] == REVISION_3 && value[20..] == [0; 4] {
        value[3] = REVISION_2;
        value.truncate(20);
    }
}

/// A layer whose archive could not be made.
#[derive(Debug, Error)]
pub enum DiffError {
    /// Something in the layer, or below it, could not be read.
    #[error("cannot {action} `/{}`", path.display())]
    Read {
        /// What failed.
        action: &'static str,
        /// In the image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The content of a directory is somewhere in the layers below.
    #[error("directory `/{}` is an overlay redirect: the layer was not written with `redirect_dir=nofollow`", path.display())]
    Redirect {
        /// In the image.
        path: PathBuf,
    },
    /// The content of a file is somewhere in the layers below.
    #[error("file `/{}` has no content of its own: the layer was not written with `metacopy=off`", path.display())]
    Metacopy {
        /// In the image.
        path: PathBuf,
    },
    /// What it is called means something else in an archive. Written all the same, it would delete another file.
    #[error("`/{}` cannot be in an image: in a layer's archive, a name that begins with `.wh.` deletes the name behind that", path.display())]
    Reserved {
        /// In the image.
        path: PathBuf,
    },
    /// What a layer that is not made yet is to have.
    #[error(transparent)]
    Source(#[from] TreeError),
    /// The archive could not be written.
    #[error(transparent)]
    Archive(#[from] TarWriteError),
}
