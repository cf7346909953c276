//! A directory tree as text: everything that an image has to keep.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// One line a file. A file's further names say which is the first.
pub(super) fn listing(root: &str) -> String {
    let mut lines = Listing::default();
    lines.directory(Path::new(root), "");
    lines.text
}

/// A listing without what it says about hard links.
pub(super) fn without_links(listing: &str) -> String {
    listing.lines().map(|line| line.split(" = ").next().unwrap().to_owned() + "\n").collect()
}

#[derive(Default)]
struct Listing {
    text: String,
    first_names: BTreeMap<(u64, u64), String>,
}

impl Listing {
    fn directory(&mut self, dir: &Path, prefix: &str) {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let shown = format!("{prefix}/{}", name.as_bytes().escape_ascii());
            self.file(&path, &shown);
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                self.directory(&path, &shown);
            }
        }
    }

    fn file(&mut self, path: &Path, shown: &str) {
        let metadata = fs::symlink_metadata(path).unwrap();
        let (mode, uid, gid) = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
        let kind = metadata.file_type();
        write!(self.text, "{shown} {mode:o} {uid}:{gid}").unwrap();
        if !kind.is_dir() {
            write!(self.text, " @{}", metadata.mtime()).unwrap();
        }
        if kind.is_file() {
            let content = fs::read(path).unwrap();
            let digest = rbuild_oci::Digest::of(&content).hex();
            write!(self.text, " file {} {}", content.len(), &digest[..8]).unwrap();
        } else if kind.is_dir() {
            self.text.push_str(" dir");
        } else if kind.is_symlink() {
            let target = fs::read_link(path).unwrap();
            write!(self.text, " -> {}", target.as_os_str().as_bytes().escape_ascii()).unwrap();
        } else if kind.is_fifo() {
            self.text.push_str(" fifo");
        } else {
            let block = if kind.is_block_device() { "block" } else { "character" };
            write!(self.text, " {block} {:x}", metadata.rdev()).unwrap();
        }
        if !kind.is_symlink() {
            for (name, value) in xattrs(path) {
                write!(self.text, " {name}={}", value.escape_ascii()).unwrap();
            }
        }
        if !kind.is_dir() {
            // A count of links says nothing here: it may count names that a layer above hides.
            let key = (metadata.dev(), metadata.ino());
            let first = self.first_names.entry(key).or_insert_with(|| shown.to_owned());
            if first != shown {
                write!(self.text, " = {first}").unwrap();
            }
        }
        self.text.push('\n');
    }
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let path = CString::new(OsStr::new(path).as_bytes()).unwrap();
    let mut list = vec![0; 4096];
    let length = rustix::fs::llistxattr(&path, &mut list[..]).unwrap_or(0);
    list[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(&path, name, &mut value[..]).ok()?;
            value.truncate(length);
            Some((String::from_utf8_lossy(name).into_owned(), value))
        })
        .filter(|(name, _)| {
            !name.starts_with("trusted.overlay.") && !name.starts_with("user.overlay.")
        })
        .collect()
}
