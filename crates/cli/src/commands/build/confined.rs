//! Files of a context that somebody else made: links lead no further than its root.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{OFlags, ResolveFlags};

/// Opens a file below a root.
pub(super) fn open(root: impl AsFd, path: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(rbuild_cache::open_in_root(root, path, flags, resolve)?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no file")),
    }
}
