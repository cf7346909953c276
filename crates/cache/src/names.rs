//! What is in a directory.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};

/// Bytes for names that are read at once.
const AT_ONCE: usize = 8 << 10;

/// The names in a directory, in no order. In one call less than std takes, and without its large buffer.
pub(crate) fn names_in(directory: &Path) -> io::Result<Vec<OsString>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, directory, flags, Mode::empty())?;
    let mut buffer = Vec::with_capacity(AT_ONCE);
    let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_are_listed_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(names_in(dir.path()).unwrap().is_empty());
        let expected: Vec<OsString> = (1000..2000).map(|n| n.to_string().into()).collect();
        expected.iter().for_each(|name| std::fs::write(dir.path().join(name), "").unwrap());
        let mut names = names_in(dir.path()).unwrap();
        names.sort();
        assert_eq!(names, expected);
        let missing = names_in(&dir.path().join("none")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
