//! Which layer a file of a snapshot is in.

use std::ffi::CString;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::OverlayXattrs;
use crate::copied::Merged;
use crate::open_in_root::open_in_root;

/// The index of the layer directory, bottom first, whose regular file is seen at `path` when all are merged; `None` if none is.
/// No link is followed, and nothing is mounted.
pub fn layer_of_file(
    layers: &[BorrowedFd<'_>],
    xattrs: OverlayXattrs,
    path: &str,
) -> io::Result<Option<usize>> {
    let mut directory = Merged::root(layers, xattrs)?;
    let mut names = path.split('/').peekable();
    let mut file = None;
    while let Some(name) = names.next() {
        let name = CString::new(name)?;
        let Some(found) = directory.lookup(&name)? else { return Ok(None) };
        match (names.peek().is_some(), found.file_type()) {
            (true, FileType::Directory) => directory = directory.enter(&name, &found)?,
            (false, FileType::RegularFile) => file = Some((found.stat.st_dev, found.stat.st_ino)),
            _ => return Ok(None),
        }
    }
    for (index, layer) in layers.iter().enumerate().rev() {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let place = match open_in_root(layer, path, OFlags::PATH | OFlags::CLOEXEC, resolve) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            place => place?,
        };
        let stat = rustix::fs::fstat(&place)?;
        if file == Some((stat.st_dev, stat.st_ino)) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}
