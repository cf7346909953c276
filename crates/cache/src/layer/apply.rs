//! From a layer's archive to a layer directory.
//!
//! The archive may be hostile. Nothing outside the root is ever touched: directories are found with `openat2`
//! and `RESOLVE_IN_ROOT`, so that a link leads no further than the root, and the last component of a name is
//! never followed. Names with `..` and absolute names are cleaned into the root, as containerd does.
//!
//! An entry replaces what an earlier one has put in its place, unless both are directories; a later whiteout
//! wins over an earlier entry, and the other way round.
//!
//! The walk-through: [`apply`] in form [`ApplyForm::Layer`] into a new layer directory, for all layers of an
//! image side by side. If [`AppliedLayer::needs_parents`], the archive is one of the few that cannot stand
//! alone (design D3): discard the directory and `apply` once more in form [`ApplyForm::Merged`] to an overlay
//! of the layers below, with a new layer directory as its upper.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use thiserror::Error;

use super::attributes::{Attributes, Skipped};
use super::directories::Directories;
use super::name::CleanName;
use super::tar_reader::{ArchiveLimits, Entry, TarReadError, TarReader, Time};
use super::tree;
use super::whiteout::{AUFS_LINKS, Marker, OverlayXattrs, is_aufs, is_whiteout, place_whiteout};
use super::{EntryKind, path_of};

/// How an archive is applied.
#[derive(Debug, Clone, Copy)]
pub struct ApplyOptions {
    /// What the root is.
    pub form: ApplyForm,
    /// Leave files to ourselves whose owner does not exist in our user namespace, instead of failing.
    pub ignore_chown_errors: bool,
    /// Whom everything that the archive has an entry for belongs to, whatever that says: user and group.
    pub owner: Option<(u32, u32)>,
    /// How much of the archive is believed.
    pub limits: ArchiveLimits,
}

/// What a root directory that an archive is applied to is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyForm {
    /// A new, empty layer directory: deletions become whiteouts.
    Layer(OverlayXattrs),
    /// A merged tree that a layer is applied to: what is deleted is removed.
    Merged,
    /// A directory that an archive is unpacked into which is no layer: names that would be whiteouts are ordinary
    /// ones.
    Plain,
}

impl ApplyForm {
    /// Whether whiteouts are files in the directory itself.
    pub(super) fn is_layer(self) -> bool {
        matches!(self, Self::Layer(_))
    }
}

/// What is known of an archive once it is applied.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct AppliedLayer {
    /// How many entries the archive has.
    pub entries: u64,
    /// How long the archive is.
    pub bytes: u64,
    /// Directories that the archive puts things into but says nothing about. They were made with mode 0755,
    /// owned by root.
    pub implicit_parents: Vec<PathBuf>,
    /// Hard links to files that are not in the archive. They were left out.
    pub outside_hardlinks: Vec<OutsideHardlink>,
    /// The archive deletes everything below it. overlayfs knows no opaque root, so that was not done.
    pub opaque_root: bool,
    /// The archive has an entry for the root itself. Without one, the root below keeps its mode and owner.
    pub explicit_root: bool,
    /// Device nodes that this process may not make, and were left out.
    pub skipped_devices: u64,
    /// Extended attributes that this process may not set or the file system does not have.
    pub skipped_xattrs: u64,
    /// Files whose owner could not be set ([`ApplyOptions::ignore_chown_errors`]).
    pub skipped_owners: u64,
}

/// A hard link in an archive whose target is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideHardlink {
    /// The new name.
    pub path: PathBuf,
    /// The name of the file in the layers below.
    pub target: PathBuf,
}

impl AppliedLayer {
    /// Whether the archive only makes sense on top of the layers below it: they have the mode and owner of
    /// directories that it leaves out (which may even be links there), or the files that its hard links point
    /// to.
    pub fn needs_parents(&self) -> bool {
        !self.implicit_parents.is_empty() || !self.outside_hardlinks.is_empty() || self.opaque_root
    }
}

/// Unpacks `archive`, which is uncompressed, into the directory `root`. Reads it to its very end.
///
/// After an error the directory holds a part of the layer and is to be discarded.
pub fn apply(
    archive: impl Read,
    root: BorrowedFd<'_>,
    options: &ApplyOptions,
) -> Result<AppliedLayer, ApplyError> {
    let mut archive = TarReader::new(archive, options.limits);
    let mut unpacker = Unpacker::new(root, options)?;
    while let Some(mut entry) = archive.next_entry()? {
        if let Some((uid, gid)) = options.owner {
            (entry.metadata.uid, entry.metadata.gid) = (uid, gid);
        }
        unpacker.unpack(&entry, &mut archive)?;
    }
    archive.drain()?;
    let mut applied = unpacker.finish()?;
    applied.entries = archive.entries();
    applied.bytes = archive.position();
    Ok(applied)
}

struct Unpacker<'a> {
    directories: Directories<'a>,
    form: ApplyForm,
    attributes: Attributes,
    outside_hardlinks: Vec<OutsideHardlink>,
    skipped_devices: u64,
    opaque_root: bool,
    /// Whether there are files in [`AUFS_LINKS`], for the links to them.
    has_aufs_links: bool,
    /// In a merged tree, what this archive has put there: an opaque marker spares it.
    unpacked: HashSet<Vec<u8>>,
}

impl<'a> Unpacker<'a> {
    fn new(root: BorrowedFd<'a>, options: &ApplyOptions) -> Result<Self, ApplyError> {
        let stat = rustix::fs::fstat(root).map_err(|error| ApplyError::Root(error.into()))?;
        // In a directory with set-group-id new files do not have our group.
        let owner_is_ours = options.form.is_layer() && stat.st_mode & 0o2000 == 0;
        Ok(Self {
            directories: Directories::new(root, options.form),
            form: options.form,
            attributes: Attributes::new(options.form, owner_is_ours, options.ignore_chown_errors),
            outside_hardlinks: Vec::new(),
            skipped_devices: 0,
            opaque_root: false,
            has_aufs_links: false,
            unpacked: HashSet::new(),
        })
    }

    fn finish(mut self) -> Result<AppliedLayer, ApplyError> {
        if self.has_aufs_links {
            // Whatever leads to the files keeps them.
            let links = CleanName::new(AUFS_LINKS).expect("there is no NUL in it");
            self.directories.remove(&links)?;
        }
        self.directories.set_attributes(&mut self.attributes)?;
        let Skipped { xattrs: skipped_xattrs, owners: skipped_owners } = self.attributes.skipped;
        Ok(AppliedLayer {
            implicit_parents: self.implicit_parents(),
            outside_hardlinks: self.outside_hardlinks,
            opaque_root: self.opaque_root,
            explicit_root: self.directories.has_explicit_root(),
            skipped_devices: self.skipped_devices,
            skipped_xattrs,
            skipped_owners,
            ..AppliedLayer::default()
        })
    }

    fn implicit_parents(&self) -> Vec<PathBuf> {
        let mut parents = self.directories.implicit();
        parents.retain(|path| !self.has_aufs_links || *path != path_of(AUFS_LINKS));
        parents
    }

    fn unpack(
        &mut self,
        entry: &Entry,
        archive: &mut TarReader<impl Read>,
    ) -> Result<(), ApplyError> {
        let name = CleanName::new(&entry.path)
            .ok_or_else(|| ApplyError::Name { path: path_of(&entry.path), what: "holds a NUL" })?;
        if self.form == ApplyForm::Plain && leads_out(&entry.path) {
            let what = "leads out of the directory that is unpacked into";
            return Err(ApplyError::Name { path: path_of(&entry.path), what });
        }
        if name.is_root() {
            // Anything else that claims to be the root names nothing that could be made.
            return match entry.kind() {
                // The directory that is unpacked into is somebody else's, and stays as it is.
                EntryKind::Directory if self.form == ApplyForm::Plain => Ok(()),
                EntryKind::Directory => self.directories.explicit_root(&name, &entry.metadata),
                _ => Err(ApplyError::Name { path: path_of(&entry.path), what: "is the root" }),
            };
        }
        if self.form != ApplyForm::Plain && is_aufs(name.parent()) {
            return match entry.kind() {
                EntryKind::File { size } if name.parent() == AUFS_LINKS => {
                    self.has_aufs_links = true;
                    self.file(&name, entry, size, archive)
                }
                _ => Ok(()),
            };
        }
        let marker = match self.form {
            ApplyForm::Plain => Marker::None,
            ApplyForm::Layer(_) | ApplyForm::Merged => Marker::parse(name.last()),
        };
        match marker {
            Marker::None => {}
            Marker::Whiteout(target) => return self.whiteout(&name.sibling(target)),
            Marker::Opaque => return self.opaque(&name),
            Marker::Aufs => return Ok(()),
            Marker::Invalid => {
                return Err(ApplyError::Name {
                    path: path_of(&entry.path),
                    what: "is a whiteout of nothing",
                });
            }
        }
        if self.form == ApplyForm::Merged {
            self.remember(name.as_bytes());
        }
        match entry.kind() {
            EntryKind::Directory => self.directories.explicit(&name, &entry.metadata),
            EntryKind::File { size } => self.file(&name, entry, size, archive),
            EntryKind::HardLink { target } => self.hard_link(&name, target),
            EntryKind::Symlink { target } => {
                self.directories
                    .make(&name, |dir, last| rustix::fs::symlinkat(target, dir, last))?;
                self.special(&name, entry, false)
            }
            EntryKind::Fifo => self.node(&name, entry, FileType::Fifo, 0),
            EntryKind::CharacterDevice { major: 0, minor: 0 } => {
                // It would be a whiteout, which an archive has other means to ask for.
                self.skipped_devices += 1;
                Ok(())
            }
            EntryKind::CharacterDevice { major, minor } => self.node(
                &name,
                entry,
                FileType::CharacterDevice,
                rustix::fs::makedev(major, minor),
            ),
            EntryKind::BlockDevice { major, minor } => {
                self.node(&name, entry, FileType::BlockDevice, rustix::fs::makedev(major, minor))
            }
        }
    }

    fn file(
        &mut self,
        name: &CleanName,
        entry: &Entry,
        size: u64,
        archive: &mut TarReader<impl Read>,
    ) -> Result<(), ApplyError> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.directories.make(name, |dir, last| {
            rustix::fs::openat(dir, last, flags, Mode::RUSR | Mode::WUSR)
        })?;
        let mut file = File::from(file);
        let cannot = |source| ApplyError::entry("write", name, source);
        match &entry.sparse {
            None => copy(archive, size, &mut file, name)?,
            Some(segments) => {
                for segment in segments {
                    rustix::fs::seek(&file, SeekFrom::Start(segment.offset))
                        .map_err(|error| cannot(error.into()))?;
                    copy(archive, segment.length, &mut file, name)?;
                }
                rustix::fs::ftruncate(&file, size).map_err(|error| cannot(error.into()))?;
            }
        }
        self.attributes.set(&file, &entry.metadata, name)
    }

    fn node(
        &mut self,
        name: &CleanName,
        entry: &Entry,
        file_type: FileType,
        device: u64,
    ) -> Result<(), ApplyError> {
        let made = self.directories.make(name, |dir, last| {
            match rustix::fs::mknodat(dir, last, file_type, Mode::RUSR | Mode::WUSR, device) {
                Ok(()) => Ok(true),
                Err(Errno::PERM) if file_type != FileType::Fifo => Ok(false),
                Err(error) => Err(error),
            }
        })?;
        if made {
            return self.special(name, entry, true);
        }
        self.skipped_devices += 1;
        Ok(())
    }

    /// The owner, mode and time of what cannot be opened: links, devices and pipes.
    fn special(
        &mut self,
        name: &CleanName,
        entry: &Entry,
        has_mode: bool,
    ) -> Result<(), ApplyError> {
        let parent = self.directories.enter(name)?;
        self.attributes.set_at(&parent, &entry.metadata, has_mode)
    }

    fn hard_link(&mut self, name: &CleanName, target: &[u8]) -> Result<(), ApplyError> {
        let target_name =
            CleanName::new(target).filter(|target| !target.is_root()).ok_or_else(|| {
                ApplyError::Link { path: name.path(), target: path_of(target), what: "no file" }
            })?;
        let bad = |what| ApplyError::Link { path: name.path(), target: target_name.path(), what };
        let found = match self.directories.find(target_name.parent())? {
            Some(dir) => tree::stat(dir.as_fd(), &target_name.last_c())
                .map_err(|source| ApplyError::entry("read the metadata of", &target_name, source))?
                .map(|stat| (dir, stat)),
            None => None,
        };
        let Some((target_dir, stat)) = found else {
            if !self.form.is_layer() {
                return Err(bad("does not exist"));
            }
            self.outside_hardlinks
                .push(OutsideHardlink { path: name.path(), target: target_name.path() });
            return Ok(());
        };
        if self.form.is_layer() && is_whiteout(&stat) {
            return Err(bad("was deleted by this very layer"));
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(bad("is a directory"));
        }
        let parent = self.directories.enter(name)?;
        let present = tree::stat(parent.dir, &parent.last)
            .map_err(|source| ApplyError::entry("read the metadata of", name, source))?;
        if present
            .is_some_and(|present| (present.st_dev, present.st_ino) == (stat.st_dev, stat.st_ino))
        {
            // Another name of the same file already; to make way for it might be to delete it.
            return Ok(());
        }
        let target_last = target_name.last_c();
        self.directories.make(name, |dir, last| {
            rustix::fs::linkat(&target_dir, &*target_last, dir, last, AtFlags::empty())
        })
    }

    fn whiteout(&mut self, name: &CleanName) -> Result<(), ApplyError> {
        match self.form {
            ApplyForm::Merged | ApplyForm::Plain => self.directories.remove(name),
            ApplyForm::Layer(xattrs) => {
                self.directories.make(name, |dir, last| place_whiteout(dir.as_fd(), last, xattrs))
            }
        }
    }

    /// `marker` is the name of the marker itself: its parent is the directory that it means.
    fn opaque(&mut self, marker: &CleanName) -> Result<(), ApplyError> {
        let cannot =
            |action, source| ApplyError::Entry { action, path: path_of(marker.parent()), source };
        let parent = self.directories.enter(marker)?;
        let dir = tree::open_directory(parent.dir, c".").map_err(|error| cannot("open", error))?;
        match self.form {
            ApplyForm::Layer(_) if marker.parent().is_empty() => self.opaque_root = true,
            ApplyForm::Layer(xattrs) => {
                rustix::fs::fsetxattr(&dir, xattrs.opaque(), b"y", XattrFlags::empty())
                    .map_err(|error| cannot("make opaque", error.into()))?;
            }
            ApplyForm::Merged | ApplyForm::Plain => {
                self.directories.forget_current();
                self.remove_foreign(dir.as_fd(), &mut marker.parent().to_vec())
                    .map_err(|error| cannot("empty", error))?;
            }
        }
        Ok(())
    }

    /// Removes what this archive has not put there.
    fn remove_foreign(&self, dir: BorrowedFd<'_>, path: &mut Vec<u8>) -> io::Result<()> {
        let length = path.len();
        for name in tree::names(dir)? {
            path.truncate(length);
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            if !self.unpacked.contains(path.as_slice()) {
                tree::remove(dir, &name)?;
                continue;
            }
            match tree::open_directory(dir, &name) {
                Ok(child) => self.remove_foreign(child.as_fd(), path)?,
                // Not a directory.
                Err(error) if error.raw_os_error() == Some(Errno::NOTDIR.raw_os_error()) => {}
                Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {}
                Err(error) => return Err(error),
            }
        }
        path.truncate(length);
        Ok(())
    }

    /// Remembers a name and the directories on the way to it.
    fn remember(&mut self, path: &[u8]) {
        let mut end = path.len();
        while self.unpacked.insert(path[..end].to_vec()) {
            match path[..end].iter().rposition(|&byte| byte == b'/') {
                Some(slash) => end = slash,
                None => return,
            }
        }
    }
}

/// Copies `length` bytes of the current entry's data.
fn copy(
    archive: &mut TarReader<impl Read>,
    length: u64,
    file: &mut File,
    name: &CleanName,
) -> Result<(), ApplyError> {
    let mut remaining = length;
    while remaining > 0 {
        let chunk = archive.data(remaining)?;
        let length = chunk.len();
        file.write_all(chunk).map_err(|source| ApplyError::entry("write", name, source))?;
        archive.consume(length);
        remaining -= length as u64;
    }
    Ok(())
}

pub(super) fn timestamps(mtime: Time) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// An archive that could not be applied.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The archive could not be read.
    #[error(transparent)]
    Archive(#[from] TarReadError),
    /// The root directory could not be used.
    #[error("cannot use the layer's root directory")]
    Root(#[source] io::Error),
    /// An entry's name means nothing.
    #[error("archive entry `{}` has a bad name: it {what}", path.display())]
    Name {
        /// As it is in the archive.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A hard link that cannot be made.
    #[error("archive entry `{}` is a hard link to `{}`, which {what}", path.display(), target.display())]
    Link {
        /// The new name.
        path: PathBuf,
        /// The file.
        target: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An entry's owner does not exist in our user namespace.
    #[error(
        "archive entry `{}` belongs to {uid}:{gid}, which this user namespace does not have; \
         it needs a range of subordinate ids (/etc/subuid, /etc/subgid and newuidmap)",
        path.display()
    )]
    Owner {
        /// In the image.
        path: PathBuf,
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file system refused an entry.
    #[error("cannot {action} `/{}`", path.display())]
    Entry {
        /// What failed.
        action: &'static str,
        /// In the image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ApplyError {
    pub(super) fn entry(action: &'static str, name: &CleanName, source: io::Error) -> Self {
        Self::Entry { action, path: name.path(), source }
    }
}

/// Whether a name leads out of the directory that it begins in.
fn leads_out(path: &[u8]) -> bool {
    let mut depth = 0_usize;
    path.split(|byte| *byte == b'/').any(|element| {
        match element {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
        false
    })
}
