//! Files as every checkout of a commit has them, whatever the umask is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use super::GitErrorKind;

const GIT_DIR: &str = ".git";

/// How files are left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tidy {
    /// Whether `.git` stays, in the root and in submodules.
    pub(super) keep_git_dir: bool,
    /// The time of every file, in seconds since 1970; `None` is when it was written.
    pub(super) time: Option<i64>,
}

/// Goes through a checkout: readable for all, writable for the owner, and without what submodules have left.
pub(super) fn tidy(root: &Path, how: Tidy) -> Result<(), GitErrorKind> {
    let mut directories = vec![root.to_owned()];
    let mut next = 0;
    while next < directories.len() {
        let directory = directories[next].clone();
        next += 1;
        let listed = fs::read_dir(&directory).map_err(GitErrorKind::disk("list", &directory))?;
        for entry in listed {
            let entry = entry.map_err(GitErrorKind::disk("list", &directory))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(GitErrorKind::disk("inspect", &path))?;
            // git checks nothing of that name out; it is what ties a submodule to its repository.
            if entry.file_name() == GIT_DIR && !how.keep_git_dir {
                let removed =
                    if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(GitErrorKind::disk("remove", &path))?;
                continue;
            }
            if kind.is_dir() {
                directories.push(path);
                continue;
            }
            if !kind.is_symlink() {
                open_to_all(&path)?;
            }
            set_time(&path, how.time)?;
        }
    }
    // What is in a directory changes its time.
    for directory in directories.iter().rev() {
        open_to_all(directory)?;
        set_time(directory, how.time)?;
    }
    Ok(())
}

/// Lets group and others read and execute what the owner may.
fn open_to_all(path: &Path) -> Result<(), GitErrorKind> {
    let metadata = fs::metadata(path).map_err(GitErrorKind::disk("inspect", path))?;
    let owner = metadata.permissions().mode() & 0o700;
    let shared = owner & 0o500;
    let mode = owner | shared >> 3 | shared >> 6;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(GitErrorKind::disk("change the mode of", path))
}

fn set_time(path: &Path, time: Option<i64>) -> Result<(), GitErrorKind> {
    let Some(seconds) = time else { return Ok(()) };
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| GitErrorKind::disk("set the time of", path)(error.into()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn modes_times_and_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub/deep")).unwrap();
        fs::create_dir(root.join(".git")).unwrap();
        fs::write(root.join("sub/.git"), "gitdir: elsewhere").unwrap();
        for (name, mode) in [("file", 0o600), ("sub/deep/run", 0o700), ("sub/wide", 0o666)] {
            fs::write(root.join(name), "").unwrap();
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(root.join("sub"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("/etc/passwd", root.join("link")).unwrap();
        tidy(&root, Tidy { keep_git_dir: true, time: None }).unwrap();
        assert!(root.join(".git").exists() && root.join("sub/.git").exists());
        tidy(&root, Tidy { keep_git_dir: false, time: Some(7) }).unwrap();
        assert!(!root.join(".git").exists() && !root.join("sub/.git").exists());
        for (name, mode) in [
            ("file", 0o644),
            ("sub/deep/run", 0o755),
            ("sub/wide", 0o644),
            ("sub", 0o755),
            ("", 0o755),
        ] {
            let metadata = fs::symlink_metadata(root.join(name)).unwrap();
            assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (mode, 7), "{name}");
        }
        assert_eq!(fs::symlink_metadata(root.join("link")).unwrap().mtime(), 7);
    }
}
