//! The archive of a layer that is not made: what a copy of one file or directory would add to the state below.
//!
//! It has the bytes that [`diff`](fn@super::diff) writes of the layer once it is made; where the time of a directory is when something was
//! made in it, that is when the copy was planned.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, Stat};

use super::diff::{DiffError, kept, kept_xattrs, read_link, same_content};
use super::{EntryKind, TarEntry, TarWriter, Xattr, path_of, tree};
use crate::tree::{Meta, Node, Selected, Tree};
use crate::{DataCopier, TreeError};

/// A copy of one file or directory that is known to succeed.
#[derive(Debug)]
pub struct PlannedCopy {
    /// The directories that lead to what is copied, from the top, without the root. A directory that is copied is the last of them.
    pub parents: Vec<PlannedDirectory>,
    /// Where it comes from.
    pub source: Arc<Tree>,
    /// What is copied; of a directory the entries are.
    pub selected: Selected,
    /// Where that goes: the directory or the file, relative to the root.
    pub target: Vec<u8>,
    /// Who owns what is copied; `None`: whoever owns it in the source.
    pub owner: Option<(u32, u32)>,
    /// Modification time of what is copied, nanoseconds since 1970; `None`: as in the source.
    pub mtime: Option<i64>,
    /// The permission bits of each entry; of a file that is copied itself, its own.
    pub modes: Vec<u32>,
}

/// A directory on the way to what is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedDirectory {
    /// Its name.
    pub name: Vec<u8>,
    /// Whether it is there below: then it keeps what it has, but for its time.
    pub is_there: bool,
    /// What it has afterwards.
    pub attributes: PlannedAttributes,
}

/// What a file or directory has beside its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedAttributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Modification time in nanoseconds since 1970.
    pub mtime: i64,
}

/// Something that is copied.
#[derive(Clone, Debug)]
pub struct PlannedEntry<'a> {
    /// Where it goes, relative to the root.
    pub path: Vec<u8>,
    /// What it is.
    pub node: &'a Node,
    /// What it has.
    pub attributes: PlannedAttributes,
    from: &'a [u8],
}

/// The same with extended attributes.
struct Attributes {
    plain: PlannedAttributes,
    xattrs: Vec<Xattr>,
}

/// A directory that is open.
struct Frame {
    path_length: usize,
    /// The directory below, if there is one.
    below: Option<OwnedFd>,
    /// What to write before the first entry in it; `None` when that is done.
    unwritten: Option<Attributes>,
}

struct Writer<'a, W> {
    copy: &'a PlannedCopy,
    archive: &'a mut TarWriter<W>,
    path: Vec<u8>,
    stack: Vec<Frame>,
    /// The first name written of each file with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl PlannedCopy {
    /// Writes the layer's changes to `below`, the merged tree of the layers under it (`None`: there are none).
    ///
    /// The archive is not finished: call [`TarWriter::finish`].
    ///
    /// # Errors
    /// What cannot be read, or is not as it was when the copy was planned; the archive's.
    pub fn write<W: Write>(
        &self,
        below: Option<BorrowedFd<'_>>,
        archive: &mut TarWriter<W>,
    ) -> Result<(), DiffError> {
        let mut writer = Writer {
            copy: self,
            archive,
            path: Vec::new(),
            stack: Vec::new(),
            links: HashMap::new(),
        };
        writer.run(below)
    }

    /// What is copied, without [`PlannedCopy::parents`]: each directory before what is in it, names in the order of their bytes.
    pub fn entries(&self) -> impl Iterator<Item = PlannedEntry<'_>> {
        let top = &self.selected;
        let alone = (!top.node.meta().is_dir()).then_some((&top.path, &top.node, &[][..]));
        let below = top.entries.iter().map(|entry| (&entry.path, &entry.node, entry.relative()));
        alone.into_iter().chain(below).zip(&self.modes).map(|((from, node, relative), mode)| {
            let meta = node.meta();
            let slash = !self.target.is_empty() && !relative.is_empty();
            let slash: &[u8] = if slash { b"/" } else { b"" };
            let attributes = PlannedAttributes {
                mode: *mode,
                owner: self.owner.unwrap_or((meta.uid, meta.gid)),
                mtime: self.mtime.unwrap_or(meta.mtime),
            };
            PlannedEntry { path: [&self.target, slash, relative].concat(), node, attributes, from }
        })
    }

    /// Copies the bytes of a regular file into an empty one. `buffer` is kept by the caller from one file to the next.
    ///
    /// # Errors
    /// What cannot be read or written, or is not as it was when the copy was planned.
    pub fn copy_content(
        &self,
        entry: &PlannedEntry<'_>,
        to: BorrowedFd<'_>,
        (data, buffer): (&DataCopier, &mut Vec<u8>),
    ) -> Result<(), TreeError> {
        let PlannedEntry { from, node, .. } = *entry;
        let original = self.source.open(from, node)?;
        let size = node.meta().size;
        let failed = |errno| TreeError::io("copy", from, errno);
        data.copy(original.as_fd(), to, size, buffer).map_err(failed)?;
        self.source.verify(from, node, original.as_fd())?;
        let is_copy = self.source.is_copy(node, original.as_fd(), to);
        match is_copy.map_err(|error| TreeError::io("copy", from, error))? {
            true => Ok(()),
            false => Err(TreeError::changed(from)),
        }
    }
}

impl PlannedEntry<'_> {
    fn attributes(&self, xattrs: Vec<Xattr>) -> Attributes {
        Attributes { plain: self.attributes, xattrs }
    }
}

impl<W: Write> Writer<'_, W> {
    fn run(&mut self, below: Option<BorrowedFd<'_>>) -> Result<(), DiffError> {
        let copy = self.copy;
        let below = below
            .map(|below| tree::open_directory(below, c"."))
            .transpose()
            .map_err(|source| self.cannot("open the lower", source))?;
        self.stack.push(Frame { path_length: 0, below, unwritten: None });
        for parent in &copy.parents {
            self.push(&parent.name);
            let mut attributes = Attributes { plain: parent.attributes, xattrs: Vec::new() };
            let below = self.below(&parent.name)?;
            if let Some(below) = below.as_ref().filter(|_| parent.is_there) {
                attributes.xattrs = self.kept_below(below)?;
            }
            self.enter(below, attributes, !parent.is_there)?;
        }
        for entry in copy.entries() {
            // What is open and does not lead to this entry is done: the root is, and each directory on its path.
            let depth = entry.path.split(|&byte| byte == b'/').count();
            self.stack.truncate(depth);
            self.path.clone_from(&entry.path);
            self.entry(&entry)?;
        }
        Ok(())
    }

    fn push(&mut self, name: &[u8]) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }

    /// The directory of this name in the directory below the one at hand.
    fn below(&self, name: &[u8]) -> Result<Option<OwnedFd>, DiffError> {
        let name = self.c_name(name)?;
        let Some((dir, stat)) = self.stat_below(&name)? else { return Ok(None) };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(None);
        }
        let opened = tree::open_directory(dir, &name);
        opened.map(Some).map_err(|source| self.cannot("open the lower", source))
    }

    fn stat_below(&self, name: &CStr) -> Result<Option<(BorrowedFd<'_>, Stat)>, DiffError> {
        let dir = self.stack.last().and_then(|frame| frame.below.as_ref());
        let Some(dir) = dir.map(AsFd::as_fd) else { return Ok(None) };
        let stat = tree::stat(dir, name)
            .map_err(|source| self.cannot("read the metadata of the lower", source))?;
        Ok(stat.map(|stat| (dir, stat)))
    }

    /// Goes on in a directory, and writes it first if it `changed`.
    fn enter(
        &mut self,
        below: Option<OwnedFd>,
        attributes: Attributes,
        changed: bool,
    ) -> Result<(), DiffError> {
        let path_length = self.path.len();
        self.stack.push(Frame { path_length, below, unwritten: Some(attributes) });
        if changed { self.write_parents() } else { Ok(()) }
    }

    /// Writes the directories that we are in, where that has not been done.
    fn write_parents(&mut self) -> Result<(), DiffError> {
        for frame in &mut self.stack {
            if let Some(attributes) = frame.unwritten.take() {
                let path = &self.path[..frame.path_length];
                self.archive.append(&attributes.entry(path, EntryKind::Directory))?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &PlannedEntry<'_>) -> Result<(), DiffError> {
        let (node, meta) = (entry.node, entry.node.meta());
        let name = self.c_name(base_name(&entry.path))?;
        match meta.file_type() {
            FileType::Directory => {
                let below = self.below(name.to_bytes())?;
                let mut xattrs: Vec<Xattr> =
                    node.directory_xattrs().iter().cloned().filter_map(kept).collect();
                if let Some(below) = &below {
                    // It keeps those that it does not get.
                    let mut there = self.kept_below(below)?;
                    there.retain(|old| xattrs.iter().all(|new| new.name != old.name));
                    xattrs.extend(there);
                    xattrs.sort_unstable();
                }
                let attributes = entry.attributes(xattrs);
                let changed = match &below {
                    Some(below) => self.directory_differs(&attributes, below)?,
                    None => true,
                };
                self.enter(below, attributes, changed)
            }
            FileType::Symlink => {
                let target = node.link_target().unwrap_or_default();
                let attributes = entry.attributes(Vec::new());
                if meta.nlink == 1
                    && let Some((dir, lower)) = self.stat_below(&name)?
                    && attributes.equal(FileType::Symlink, &lower)
                {
                    let lower = read_link(dir, &name)
                        .map_err(|source| self.cannot("read the lower link", source))?;
                    if lower.to_bytes() == target {
                        return Ok(());
                    }
                }
                self.write_parents()?;
                match self.earlier_name(meta) {
                    Some(first) => self.write(&attributes, EntryKind::HardLink { target: &first }),
                    None => self.write(&attributes, EntryKind::Symlink { target }),
                }
            }
            _ => self.file(entry, &name),
        }
    }

    fn file(&mut self, entry: &PlannedEntry<'_>, name: &CStr) -> Result<(), DiffError> {
        let (source, node, meta) = (&self.copy.source, entry.node, entry.node.meta());
        if let Some(first) = self.earlier_name(meta) {
            self.write_parents()?;
            return self
                .write(&entry.attributes(Vec::new()), EntryKind::HardLink { target: &first });
        }
        let mut file = source.read(entry.from, node)?;
        let attributes = entry.attributes(file.xattrs().iter().cloned().filter_map(kept).collect());
        if meta.nlink == 1
            && let Some((dir, lower)) = self.stat_below(name)?
            && attributes.equal(FileType::RegularFile, &lower)
            && u64::try_from(lower.st_size) == Ok(meta.size)
        {
            let lower = tree::open_file(dir, name)
                .map_err(|source| self.cannot("open the lower", source))?;
            if self.kept_below(&lower)? == attributes.xattrs {
                let equal = same_content(&mut file, &mut File::from(lower));
                if equal.map_err(|source| self.cannot("compare", source))? {
                    return Ok(file.finish()?);
                }
                file = source.read(entry.from, node)?;
            }
        }
        self.write_parents()?;
        let header = attributes.entry(&self.path, EntryKind::File { size: meta.size });
        self.archive.append_file(&header, &mut file)?;
        Ok(file.finish()?)
    }

    fn write(&mut self, attributes: &Attributes, kind: EntryKind<'_>) -> Result<(), DiffError> {
        let attributes = Attributes { xattrs: Vec::new(), ..*attributes };
        Ok(self.archive.append(&attributes.entry(&self.path, kind))?)
    }

    /// The name under which the file was already written; else remembers this one.
    fn earlier_name(&mut self, meta: &Meta) -> Option<Vec<u8>> {
        if meta.nlink < 2 {
            return None;
        }
        let earlier = self.links.get(&(meta.dev, meta.ino)).cloned();
        if earlier.is_none() {
            self.links.insert((meta.dev, meta.ino), self.path.clone());
        }
        earlier
    }

    fn directory_differs(
        &self,
        attributes: &Attributes,
        below: &OwnedFd,
    ) -> Result<bool, DiffError> {
        let lower = rustix::fs::fstat(below)
            .map_err(|error| self.cannot("read the metadata of the lower", error.into()))?;
        Ok(!attributes.equal_owner_and_mode(FileType::Directory, &lower)
            || self.kept_below(below)? != attributes.xattrs)
    }

    fn kept_below(&self, file: &OwnedFd) -> Result<Vec<Xattr>, DiffError> {
        kept_xattrs(file)
            .map_err(|source| self.cannot("read the extended attributes of the lower", source))
    }

    fn c_name(&self, name: &[u8]) -> Result<CString, DiffError> {
        CString::new(name).map_err(|error| self.cannot("name", error.into()))
    }

    fn cannot(&self, action: &'static str, source: io::Error) -> DiffError {
        DiffError::Read { action, path: path_of(&self.path), source }
    }
}

impl Attributes {
    fn entry<'a>(&'a self, path: &'a [u8], kind: EntryKind<'a>) -> TarEntry<'a> {
        TarEntry {
            path,
            kind,
            mode: self.plain.mode,
            uid: self.plain.owner.0,
            gid: self.plain.owner.1,
            mtime: self.plain.mtime.div_euclid(1_000_000_000),
            xattrs: &self.xattrs,
        }
    }

    fn equal_owner_and_mode(&self, kind: FileType, other: &Stat) -> bool {
        let PlannedAttributes { mode, owner, .. } = self.plain;
        FileType::from_raw_mode(other.st_mode) == kind
            && (mode, owner) == (other.st_mode & 0o7777, (other.st_uid, other.st_gid))
    }

    fn equal(&self, kind: FileType, other: &Stat) -> bool {
        let mtime = self.plain.mtime.div_euclid(1_000_000_000);
        self.equal_owner_and_mode(kind, other) && other.st_mtime == mtime
    }
}

/// The last name of a path.
fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}
