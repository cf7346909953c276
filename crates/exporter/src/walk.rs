//! Looking at everything below a directory.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rbuild_cache::open_in_root;
use rustix::fs::{AtFlags, Dir, FileType, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Why files could not be looked at.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`", path.display())]
pub struct WalkError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Calls `visit` for each regular file with its directory, its name there, and its path relative to `root`. See [`walk`].
pub(crate) fn walk_files(
    root: BorrowedFd<'_>,
    mut visit: impl FnMut(&OwnedFd, &CStr, Vec<u8>) -> io::Result<()>,
) -> Result<(), WalkError> {
    walk(root, |directory, name, path, kind| match kind {
        FileType::RegularFile => visit(directory, name, path),
        _ => Ok(()),
    })
}

/// Calls `visit` for everything with its directory, its name there, its path relative to `root`, and what it is. No link is
/// followed; what is deeper than the kernel takes a path is left out.
pub(crate) fn walk(
    root: BorrowedFd<'_>,
    mut visit: impl FnMut(&OwnedFd, &CStr, Vec<u8>, FileType) -> io::Result<()>,
) -> Result<(), WalkError> {
    use std::os::unix::ffi::OsStringExt as _;
    let fail = |path: &[u8], source: io::Error| WalkError {
        path: std::ffi::OsString::from_vec([b"/", path].concat()).into(),
        source,
    };
    let mut folders: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(folder) = folders.pop() {
        let failed = |error: Errno| fail(&folder, error.into());
        let directory = match open(root, &folder) {
            Err(Errno::NAMETOOLONG) => continue,
            opened => opened.map_err(failed)?,
        };
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let mut path = folder.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    let stat = rustix::fs::statat(&directory, name, flags).map_err(failed)?;
                    FileType::from_raw_mode(stat.st_mode)
                }
                known => known,
            };
            visit(&directory, name, path.clone(), kind).map_err(|error| fail(&path, error))?;
            if kind == FileType::Directory {
                folders.push(path);
            }
        }
    }
    Ok(())
}

fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    open_in_root(root, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY, resolve)
}
