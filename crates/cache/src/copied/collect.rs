//! What was changed in a copy of a snapshot, as the layer directory that overlayfs would have made.
//!
//! A file with an older change time than the copy is as it was made: nothing but a change of the machine's clock makes one older.
//! Others are compared, by their contents too. A file with several names has got one in the step, and stays under all of them.
//! Directories are never opaque: what is gone from them is whited out name by name, which makes the same archive.

use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Gid, Mode, Stat, Uid, XattrFlags};

use super::error::{CopyError, Place};
use super::merged::{Found, Merged};
use super::replica::{Marks, change_time, times};
use crate::OverlayXattrs;
use crate::layer::whiteout::{LayerXattr, place_whiteout};
use crate::layer::{Xattr, tree, xattrs};
use crate::tree::is_kept_xattr;

/// Moves what was changed in `copy`, which was made of `below`, to the layer directory `layer`. The copy is of no use afterwards.
pub(crate) fn collect(
    copy: BorrowedFd<'_>,
    below: &Merged,
    marks: &Marks,
    layer: BorrowedFd<'_>,
    xattrs: OverlayXattrs,
) -> Result<(), CopyError> {
    let mut collector = Collector { marks, xattrs, place: Place::default() };
    let target = Target { parent: None, name: c"", dir: OnceCell::new() };
    let root = tree::open_directory(layer, c".").map_err(collector.place.cannot("open"))?;
    let root = target.dir.get_or_init(|| root);
    let copy = tree::open_directory(copy, c".").map_err(collector.place.cannot("open"))?;
    collector.directory(&copy, Some(below), &target)?;
    collector.attributes(&copy, root.as_fd())
}

/// A directory of the layer, made when there is something to put into it.
struct Target<'a> {
    parent: Option<&'a Self>,
    name: &'a CStr,
    dir: OnceCell<OwnedFd>,
}

impl Target<'_> {
    fn open(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(dir) = self.dir.get() {
            return Ok(dir.as_fd());
        }
        // The root is there from the beginning.
        let parent = self.parent.ok_or(io::ErrorKind::NotFound)?.open()?;
        rustix::fs::mkdirat(parent, self.name, Mode::RWXU)?;
        let dir = tree::open_directory(parent, self.name)?;
        Ok(self.dir.get_or_init(|| dir).as_fd())
    }
}

struct Collector<'a> {
    marks: &'a Marks,
    xattrs: OverlayXattrs,
    place: Place,
}

impl Collector<'_> {
    /// `below` is the directory that it was made from, if there is one.
    fn directory(
        &mut self,
        copy: &OwnedFd,
        below: Option<&Merged>,
        target: &Target<'_>,
    ) -> Result<(), CopyError> {
        let stat = rustix::fs::fstat(copy).map_err(self.place.cannot("inspect"))?;
        let is_same = self.marks.directories.get(self.place.path()) == Some(&stat.st_ino);
        let names = tree::names(copy.as_fd()).map_err(self.place.cannot("list"))?;
        if let Some(below) = below
            && !(is_same && change_time(&stat) < self.marks.complete)
        {
            self.white_out(&names, below, target)?;
        }
        for name in &names {
            let length = self.place.enter(name.to_bytes())?;
            self.entry(copy, name, below, is_same, target)?;
            self.place.leave(length);
        }
        Ok(())
    }

    /// `present` are the names that are still there, sorted.
    fn white_out(
        &self,
        present: &[CString],
        below: &Merged,
        target: &Target<'_>,
    ) -> Result<(), CopyError> {
        for name in below.entries().map_err(self.place.cannot("list"))?.into_keys() {
            if present.binary_search(&name).is_err() {
                target
                    .open()
                    .and_then(|dir| Ok(place_whiteout(dir, &name, self.xattrs)?))
                    .map_err(self.place.cannot("white out a name in"))?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        copy: &OwnedFd,
        name: &CStr,
        below: Option<&Merged>,
        is_same: bool,
        parent: &Target<'_>,
    ) -> Result<(), CopyError> {
        let stat = tree::stat(copy.as_fd(), name)
            .and_then(|stat| stat.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .map_err(self.place.cannot("inspect"))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_old = is_same && change_time(&stat) < self.marks.complete;
        if is_old && kind != FileType::Directory {
            return Ok(());
        }
        let lower = match below {
            Some(below) => below.lookup(name).map_err(self.place.cannot("inspect"))?,
            None => None,
        };
        let lower = below.zip(lower.as_ref()).filter(|(_, lower)| lower.file_type() == kind);
        if kind == FileType::Directory {
            return self.subdirectory(copy, name, &stat, lower, parent);
        }
        let equal = match lower {
            Some((below, lower)) => equals(copy.as_fd(), &stat, below, lower, name, self.xattrs)
                .map_err(self.place.cannot("compare"))?,
            None => false,
        };
        if equal {
            return Ok(());
        }
        self.escape(copy.as_fd(), name, kind)
            .map_err(self.place.cannot("set the attributes of"))?;
        let target = parent.open().map_err(self.place.cannot("make the directory of"))?;
        rustix::fs::renameat(copy, name, target, name).map_err(self.place.cannot("move"))
    }

    fn subdirectory(
        &mut self,
        copy: &OwnedFd,
        name: &CStr,
        stat: &Stat,
        lower: Option<(&Merged, &Found)>,
        parent: &Target<'_>,
    ) -> Result<(), CopyError> {
        let copy = tree::open_directory(copy.as_fd(), name).map_err(self.place.cannot("open"))?;
        let lower = match lower {
            Some((below, found)) => {
                Some(below.enter(name, found).map_err(self.place.cannot("open"))?)
            }
            None => None,
        };
        let target = Target { parent: Some(parent), name, dir: OnceCell::new() };
        let changed = match lower.as_ref().and_then(Merged::top) {
            None => true,
            Some(top) => {
                let differs = || -> io::Result<bool> {
                    let lower = rustix::fs::fstat(top)?;
                    let own = kept(copy.as_fd(), None)?;
                    Ok(!same_metadata(stat, &lower) || own != kept(top, Some(self.xattrs))?)
                };
                differs().map_err(self.place.cannot("compare"))?
            }
        };
        if changed {
            target.open().map_err(self.place.cannot("make"))?;
        }
        self.directory(&copy, lower.as_ref(), &target)?;
        match target.dir.get() {
            Some(dir) => self.attributes(&copy, dir.as_fd()),
            None => Ok(()),
        }
    }

    /// Gives a directory of the layer what that of the copy has.
    fn attributes(&self, copy: &OwnedFd, to: BorrowedFd<'_>) -> Result<(), CopyError> {
        let set = || -> io::Result<()> {
            let stat = rustix::fs::fstat(copy)?;
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::fchown(to, Some(uid), Some(gid))?;
            rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
            for xattr in xattrs(copy)? {
                let name = self.xattrs.escape(&xattr.name);
                if name == xattr.name && !is_kept_xattr(&name) {
                    continue;
                }
                rustix::fs::fsetxattr(to, name, &xattr.value, XattrFlags::empty())?;
            }
            Ok(rustix::fs::futimens(to, &times(&stat))?)
        };
        set().map_err(self.place.cannot("set the attributes of"))
    }

    /// Gives a file's attributes of overlayfs's names the names that they have in a layer.
    fn escape(&self, dir: BorrowedFd<'_>, name: &CStr, kind: FileType) -> io::Result<()> {
        if kind != FileType::RegularFile {
            return Ok(());
        }
        let file = tree::open_file(dir, name)?;
        for xattr in xattrs(&file)? {
            let escaped = self.xattrs.escape(&xattr.name);
            if escaped != xattr.name {
                rustix::fs::fsetxattr(&file, escaped, &xattr.value, XattrFlags::empty())?;
                rustix::fs::fremovexattr(&file, &*xattr.name)?;
            }
        }
        Ok(())
    }
}

/// Whether a file is what it was made from, which is of the same kind.
fn equals(
    copy: BorrowedFd<'_>,
    stat: &Stat,
    below: &Merged,
    lower: &Found,
    name: &CStr,
    overlay: OverlayXattrs,
) -> io::Result<bool> {
    if stat.st_nlink > 1 || !same_metadata(stat, &lower.stat) {
        return Ok(false);
    }
    let dir = below.dir(lower);
    match lower.file_type() {
        FileType::RegularFile => {
            if stat.st_size != lower.stat.st_size {
                return Ok(false);
            }
            let (own, lower) = (tree::open_file(copy, name)?, tree::open_file(dir, name)?);
            if kept(own.as_fd(), None)? != kept(lower.as_fd(), Some(overlay))? {
                return Ok(false);
            }
            same_content(File::from(own), File::from(lower))
        }
        FileType::Symlink => Ok(rustix::fs::readlinkat(copy, name, Vec::new())?
            == rustix::fs::readlinkat(dir, name, Vec::new())?),
        _ => Ok(stat.st_rdev == lower.stat.st_rdev),
    }
}

fn same_metadata(one: &Stat, other: &Stat) -> bool {
    let facts =
        |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime, stat.st_mtime_nsec);
    facts(one) == facts(other)
}

/// The attributes that count, those in a layer under the names that they have for a step.
fn kept(file: BorrowedFd<'_>, layer: Option<OverlayXattrs>) -> io::Result<Vec<Xattr>> {
    let mut kept = Vec::new();
    for xattr in xattrs(file)? {
        let name = match layer.map(|layer| layer.classify(&xattr.name)) {
            Some(LayerXattr::Escaped(name)) => name,
            None | Some(LayerXattr::Plain) if is_kept_xattr(&xattr.name) => xattr.name,
            // A step's own of overlayfs's name.
            None if xattr.name.windows(9).any(|part| part == b".overlay.") => xattr.name,
            _ => continue,
        };
        kept.push(Xattr { name, value: xattr.value });
    }
    kept.sort_unstable();
    Ok(kept)
}

fn same_content(mut one: File, mut other: File) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let length = one.read(&mut left)?;
        if length == 0 {
            return Ok(other.read(&mut right[..1])? == 0);
        }
        match other.read_exact(&mut right[..length]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            result => result?,
        }
        if left[..length] != right[..length] {
            return Ok(false);
        }
    }
}
