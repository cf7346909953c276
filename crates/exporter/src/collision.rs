//! Whether the files of several platforms can be in one folder: looked at before any is written.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use rustix::fs::FileType;

use crate::walk::{WalkError, walk};

/// Why files of several platforms cannot be in one folder.
#[derive(Debug, thiserror::Error)]
pub enum CollisionError {
    /// Two have one of the same name.
    #[error("the files of {first} and {second} cannot be in one folder: both have `{}`", path.display())]
    Collision {
        /// One platform.
        first: String,
        /// The other.
        second: String,
        /// The file.
        path: PathBuf,
    },
    /// They cannot be looked at.
    #[error(transparent)]
    Walk(#[from] WalkError),
}

/// Refuses trees, each with what it is called, of which two have something at one path that is not a directory in both.
pub(crate) fn check(trees: &[(BorrowedFd<'_>, String)]) -> Result<(), CollisionError> {
    let mut seen: HashMap<Vec<u8>, (&str, bool)> = HashMap::new();
    for (root, name) in trees {
        let mut found = None;
        let walked = walk(*root, |_, _, path, kind| {
            let is_directory = kind == FileType::Directory;
            match seen.entry(path) {
                Entry::Vacant(place) => _ = place.insert((name, is_directory)),
                Entry::Occupied(there) => {
                    let (first, was_directory) = *there.get();
                    if !(is_directory && was_directory) {
                        found = Some((first.to_owned(), there.key().clone()));
                        return Err(io::Error::other("found"));
                    }
                }
            }
            Ok(())
        });
        if let Some((first, path)) = found {
            let path = std::ffi::OsString::from_vec([b"/", path.as_slice()].concat()).into();
            return Err(CollisionError::Collision { first, second: name.clone(), path });
        }
        walked?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn what_is_in_two_trees_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        for (from, own) in [(&a, "of-a"), (&b, "of-b")] {
            fs::create_dir_all(from.join("bin/deep")).unwrap();
            fs::write(from.join("bin").join(own), own).unwrap();
        }
        let checked = || {
            let (root_a, root_b) = (File::open(&a).unwrap(), File::open(&b).unwrap());
            let trees =
                [(root_a.as_fd(), "linux/a".to_owned()), (root_b.as_fd(), "linux/b".to_owned())];
            check(&trees).map_err(|error| error.to_string())
        };
        checked().unwrap();
        std::os::unix::fs::symlink("x", b.join("bin/of-a")).unwrap();
        let words =
            "the files of linux/a and linux/b cannot be in one folder: both have `/bin/of-a`";
        assert_eq!(checked().unwrap_err(), words);
        fs::remove_file(b.join("bin/of-a")).unwrap();
        fs::create_dir(b.join("bin/of-a")).unwrap();
        assert_eq!(checked().unwrap_err(), words);
    }
}
