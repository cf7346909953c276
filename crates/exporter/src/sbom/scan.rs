//! What the files of one layer tell of packages.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::file_kind::{FileKind, Told};
use super::golang;
use super::os_release::Distribution;
use super::package::Package;
use crate::walk::{WalkError, walk_files};

/// The largest file that is read.
const MOST: u64 = 64 << 20;
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
    /// Why it was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

/// Reads a layer's directory, or any folder, without following a link.
pub fn scan_layer(root: BorrowedFd<'_>) -> Result<LayerInventory, WalkError> {
    let mut inventory = LayerInventory::default();
    walk_files(root, |directory, name, path| {
        // Under other names no package manager writes.
        let Ok(path) = String::from_utf8(path) else { return Ok(()) };
        let scanned = scan_file(directory, name, &path)?;
        inventory.files.extend(scanned.map(|scanned| (path, scanned)));
        Ok(())
    })?;
    Ok(inventory)
}

fn scan_file(directory: &OwnedFd, name: &CStr, path: &str) -> io::Result<Option<ScannedFile>> {
    let kind = FileKind::of(path);
    let told = match kind {
        Some(kind) if kind.is_told_by_name() => kind.read(path, ""),
        Some(kind) => match text(directory, name)? {
            Some(text) => kind.read(path, &text),
            None => Err("it is too large".to_owned()),
        },
        None => return program(directory, name),
    };
    Ok(Some(match told {
        Ok(Told { packages, distribution }) => ScannedFile { packages, distribution, unread: None },
        Err(reason) => ScannedFile { unread: Some(reason), ..ScannedFile::default() },
    }))
}

fn open_file(directory: &OwnedFd, name: &CStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory.as_fd(), name, flags, Mode::empty())?.into())
}

/// The file's text, whatever its encoding; `None` if it is too large.
fn text(directory: &OwnedFd, name: &CStr) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    open_file(directory, name)?.take(MOST + 1).read_to_end(&mut bytes)?;
    let text = (bytes.len() as u64 <= MOST).then(|| String::from_utf8_lossy(&bytes).into_owned());
    Ok(text)
}

fn program(directory: &OwnedFd, name: &CStr) -> io::Result<Option<ScannedFile>> {
    let stat = rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    if stat.st_mode & 0o111 == 0 || (stat.st_size as u64) < LEAST_PROGRAM {
        return Ok(None);
    }
    let packages = golang::program(&open_file(directory, name)?)?;
    Ok((!packages.is_empty()).then(|| ScannedFile { packages, ..ScannedFile::default() }))
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
}
