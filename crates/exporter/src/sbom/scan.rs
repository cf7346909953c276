//! What the files of one layer tell of packages.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::budget::Budget;
use super::file_kind::FileKind;
use super::golang;
use super::input::{Packages, ReadError};
use super::os_release::Distribution;
use super::package::Package;
use crate::walk::{WalkError, walk_files};

/// Programs that Go has built are never smaller.
const LEAST_PROGRAM: u64 = 256 << 10;

/// What one layer tells, by path. A file that tells of nothing is there too if it may stand for one that does, below.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInventory {
    /// The files, relative to the root.
    pub files: BTreeMap<String, ScannedFile>,
}

/// What one file tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScannedFile {
    /// Packages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Package>,
    /// The distribution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// Why it was not read, or not to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

/// Reads a layer's directory, or any folder, without following a link.
pub fn scan_layer(root: BorrowedFd<'_>) -> Result<LayerInventory, WalkError> {
    let mut budget = Budget::default();
    let mut files = Files::default();
    walk_files(root, |directory, name, path| {
        // Under other names no package manager writes.
        let Ok(path) = String::from_utf8(path) else { return Ok(()) };
        if let Some(scanned) = scan_file(directory, name, &path, &mut budget)? {
            files.add(path, scanned, &mut budget);
        }
        Ok(())
    })?;
    Ok(files.finish())
}

impl LayerInventory {
    /// As much of it as a snapshot has room for.
    pub(super) fn within(self, budget: &mut Budget) -> Self {
        let mut files = Files::default();
        for (path, mut file) in self.files {
            let mut packages = Packages::new(&path, budget);
            let taken = packages.extend(std::mem::take(&mut file.packages));
            file.packages = packages.finish();
            file.unread = file.unread.or(taken.err().map(|error| error.to_string()));
            files.add(path, file, budget);
        }
        files.finish()
    }
}

/// The files that there is room for.
#[derive(Default)]
struct Files {
    files: BTreeMap<String, ScannedFile>,
    /// The first that there is none for, and how many there are.
    left_out: Option<(String, u64)>,
}

impl Files {
    fn add(&mut self, path: String, file: ScannedFile, budget: &mut Budget) {
        if budget.keep_file(&path, file.unread.as_deref().unwrap_or_default()) {
            self.files.insert(path, file);
        } else {
            self.left_out.get_or_insert((path, 0)).1 += 1;
        }
    }

    fn finish(mut self) -> LayerInventory {
        if let Some((path, count)) = self.left_out {
            let unread = Some(format!("it is the first of {count} files more than are listed"));
            self.files.insert(path, ScannedFile { unread, ..ScannedFile::default() });
        }
        LayerInventory { files: self.files }
    }
}

fn scan_file(
    directory: &OwnedFd,
    name: &CStr,
    path: &str,
    budget: &mut Budget,
) -> io::Result<Option<ScannedFile>> {
    let mut packages = Packages::new(path, budget);
    let kind = FileKind::of(path);
    let told = match kind {
        Some(kind) => match kind.told_by_name(path, &mut packages) {
            Some(told) => told.map(|()| None),
            None => kind.read(open_file(directory, name)?, &mut packages),
        },
        None if is_program(directory, name)? => {
            golang::program(&open_file(directory, name)?, &mut packages).map(|()| None)
        }
        None => return Ok(None),
    };
    let (distribution, unread) = match told {
        Ok(distribution) => (distribution, None),
        Err(ReadError::Io(error)) => return Err(error),
        Err(ReadError::Said(reason)) => (None, Some(reason)),
    };
    let packages = packages.finish();
    let is_something = kind.is_some() || unread.is_some() || !packages.is_empty();
    Ok(is_something.then_some(ScannedFile { packages, distribution, unread }))
}

fn open_file(directory: &OwnedFd, name: &CStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory.as_fd(), name, flags, Mode::empty())?.into())
}

/// Whether it can be a program that Go has built.
fn is_program(directory: &OwnedFd, name: &CStr) -> io::Result<bool> {
    let stat = rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(stat.st_mode & 0o111 != 0 && stat.st_size as u64 >= LEAST_PROGRAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("usr/lib/os-release", "ID=debian\nVERSION_ID=12\n");
        write("var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nVersion: 1\n");
        write("app/package-lock.json", "{");
        write("app/Cargo.lock", "");
        write("usr/lib/sysimage/rpm/rpmdb.sqlite", "x");
        write("elsewhere/yarn.lock", "a@1:\n  version \"1.0.0\"\n");
        std::os::unix::fs::symlink("../elsewhere", folder.path().join("app/link")).unwrap();
        std::os::unix::fs::symlink("/etc/os-release", folder.path().join("etc")).unwrap();
        let root = File::open(folder.path()).unwrap();
        let found = scan_layer(root.as_fd()).unwrap();
        let shown: Vec<String> = found
            .files
            .iter()
            .map(|(path, file)| {
                let packages: Vec<_> = file.packages.iter().map(|it| it.purl(None)).collect();
                let rest = file.distribution.as_ref().map(ToString::to_string);
                format!(
                    "{path}: {}{}{}",
                    packages.join(" "),
                    rest.unwrap_or_default(),
                    file.unread.clone().unwrap_or_default()
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "app/Cargo.lock: ",
                "app/package-lock.json: EOF while parsing an object at line 1 column 1",
                "elsewhere/yarn.lock: pkg:npm/a@1.0.0",
                "usr/lib/os-release: debian-12",
                "usr/lib/sysimage/rpm/rpmdb.sqlite: packages of RPM are not listed",
                "var/lib/dpkg/status: pkg:deb/debian/a@1",
            ]
        );
    }

    #[test]
    fn what_there_is_no_room_for_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |path: &str, text: &str| std::fs::write(folder.path().join(path), text).unwrap();
        let many: String =
            (0..100_001).map(|number| format!("Package: p{number}\nVersion: 1\n\n")).collect();
        std::fs::create_dir_all(folder.path().join("var/lib/dpkg")).unwrap();
        write("var/lib/dpkg/status", &many);
        write("composer.lock", "");
        File::options()
            .write(true)
            .open(folder.path().join("composer.lock"))
            .and_then(|file| file.set_len(9 << 20))
            .unwrap();
        let root = File::open(folder.path()).unwrap();
        let found = scan_layer(root.as_fd()).unwrap();
        let reason = |found: &LayerInventory, path: &str| found.files[path].unread.clone();
        let status = "var/lib/dpkg/status";
        assert_eq!(found.files[status].packages.len(), 100_000);
        let full = "its layer tells of more packages than are listed";
        assert_eq!(reason(&found, status).as_deref(), Some(full));
        assert_eq!(reason(&found, "composer.lock").as_deref(), Some("it is larger than 8 MiB"));

        // Several layers have no more room than one.
        let mut budget = Budget::default();
        assert_eq!(found.clone().within(&mut budget), found);
        let second = found.within(&mut budget);
        assert!(second.files[status].packages.is_empty());
        assert_eq!(reason(&second, status).as_deref(), Some(full));
    }

    #[test]
    fn files_are_not_without_number() {
        let long = "d".repeat(1 << 20);
        let paths = (0..100).map(|number| format!("{long}/{number:02}/requirements.txt"));
        let files = paths.map(|path| (path, ScannedFile::default())).collect();
        let found = LayerInventory { files }.within(&mut Budget::default());
        let last = found.files.into_iter().next_back().unwrap();
        assert_eq!(last.0, format!("{long}/63/requirements.txt"));
        let said = "it is the first of 37 files more than are listed";
        assert_eq!(last.1.unread.as_deref(), Some(said));
    }
}
