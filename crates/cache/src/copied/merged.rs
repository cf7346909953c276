//! Layer directories read as overlayfs reads them.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::OverlayXattrs;
use crate::layer::tree;
use crate::layer::whiteout::is_whiteout;

/// One directory of a merged tree.
#[derive(Debug)]
pub(crate) struct Merged {
    xattrs: OverlayXattrs,
    /// The directories that show through, topmost first.
    parts: Vec<Part>,
}

/// A directory of one layer.
#[derive(Debug)]
struct Part {
    dir: OwnedFd,
    /// Empty files with `overlay.whiteout` are whiteouts here (`opaque` = `x`).
    has_xattr_whiteouts: bool,
}

/// Something in a merged directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) stat: Stat,
    /// Which part it is in.
    part: usize,
}

impl Found {
    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

impl Merged {
    /// The root of the tree of these layers, bottom first.
    pub(crate) fn root(layers: &[BorrowedFd<'_>], xattrs: OverlayXattrs) -> io::Result<Self> {
        let open = |dir: &BorrowedFd<'_>| Part::open(*dir, c".", xattrs).map(|(part, _)| part);
        let parts = layers.iter().rev().map(open).collect::<io::Result<_>>()?;
        Ok(Self { xattrs, parts })
    }

    /// The directory whose owner, mode and attributes count; `None` for the root of no layers.
    pub(crate) fn top(&self) -> Option<BorrowedFd<'_>> {
        self.parts.first().map(|part| part.dir.as_fd())
    }

    /// The directory that something is in.
    pub(crate) fn dir(&self, found: &Found) -> BorrowedFd<'_> {
        self.parts[found.part].dir.as_fd()
    }

    /// How many directories of layers it is.
    pub(crate) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Everything in the directory.
    pub(crate) fn entries(&self) -> io::Result<BTreeMap<CString, Found>> {
        let mut all: BTreeMap<CString, Option<Found>> = BTreeMap::new();
        for (index, part) in self.parts.iter().enumerate() {
            for name in tree::names(part.dir.as_fd())? {
                if all.contains_key(&name) {
                    continue;
                }
                let Some(stat) = tree::stat(part.dir.as_fd(), &name)? else { continue };
                let is_gone = self.is_whiteout(part, &name, &stat)?;
                all.insert(name, (!is_gone).then_some(Found { stat, part: index }));
            }
        }
        Ok(all.into_iter().filter_map(|(name, found)| Some((name, found?))).collect())
    }

    /// What has this name.
    pub(crate) fn lookup(&self, name: &CStr) -> io::Result<Option<Found>> {
        for (index, part) in self.parts.iter().enumerate() {
            if let Some(stat) = tree::stat(part.dir.as_fd(), name)? {
                let is_gone = self.is_whiteout(part, name, &stat)?;
                return Ok((!is_gone).then_some(Found { stat, part: index }));
            }
        }
        Ok(None)
    }

    /// A directory that was found in this one.
    pub(crate) fn enter(&self, name: &CStr, found: &Found) -> io::Result<Self> {
        let mut parts = Vec::new();
        for part in &self.parts[found.part..] {
            let Some(stat) = tree::stat(part.dir.as_fd(), name)? else { continue };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                break;
            }
            let (part, is_opaque) = Part::open(part.dir.as_fd(), name, self.xattrs)?;
            parts.push(part);
            if is_opaque {
                break;
            }
        }
        Ok(Self { xattrs: self.xattrs, parts })
    }

    fn is_whiteout(&self, part: &Part, name: &CStr, stat: &Stat) -> io::Result<bool> {
        if is_whiteout(stat) {
            return Ok(true);
        }
        let may_be = part.has_xattr_whiteouts
            && stat.st_size == 0
            && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !may_be {
            return Ok(false);
        }
        let file = tree::open_file(part.dir.as_fd(), name)?;
        attribute(file.as_fd(), self.xattrs.whiteout()).map(|value| value.is_some())
    }
}

impl Part {
    /// Opens a directory, and says whether nothing below it shows through.
    fn open(
        parent: BorrowedFd<'_>,
        name: &CStr,
        xattrs: OverlayXattrs,
    ) -> io::Result<(Self, bool)> {
        let dir = tree::open_directory(parent, name)?;
        let opaque = attribute(dir.as_fd(), xattrs.opaque())?;
        Ok((Self { dir, has_xattr_whiteouts: opaque == Some(b'x') }, opaque == Some(b'y')))
    }
}

/// The first byte of an attribute, 0 if it is empty.
fn attribute(file: BorrowedFd<'_>, name: &str) -> io::Result<Option<u8>> {
    let mut value = [0; 1];
    match rustix::fs::fgetxattr(file, name, &mut value) {
        Ok(_) | Err(Errno::RANGE) => Ok(Some(value[0])),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
