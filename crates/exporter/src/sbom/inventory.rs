//! The packages of a snapshot: what its layers tell, as far as it can still be seen.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;

use rbuild_cache::{OverlayXattrs, layer_of_file};
use rbuild_oci::DiffId;

use super::os_release::Distribution;
use super::package::Package;
use super::scan::LayerInventory;

/// What is known of a snapshot's packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The distribution.
    pub distribution: Option<Distribution>,
    /// The packages, in the order of their paths.
    pub found: Vec<Found>,
    /// Files that were not read, and why.
    pub unread: Vec<(String, String)>,
}

/// A package, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The package.
    pub package: Package,
    /// The file that tells of it.
    pub path: String,
    /// The layer that has the file, if it has become an image's.
    pub layer: Option<DiffId>,
}

/// A layer with what was found in it.
#[derive(Clone, Copy, Debug)]
pub struct LayerFiles<'a> {
    /// Its directory.
    pub directory: BorrowedFd<'a>,
    /// What it is in an image.
    pub diff_id: Option<DiffId>,
    /// What it tells.
    pub inventory: &'a LayerInventory,
}

impl Inventory {
    /// Puts layers, bottom first, on top of one another.
    pub fn merge(layers: &[LayerFiles<'_>], xattrs: OverlayXattrs) -> io::Result<Self> {
        let directories: Vec<_> = layers.iter().map(|layer| layer.directory).collect();
        let mut candidates = BTreeMap::new();
        for layer in layers {
            candidates.extend(layer.inventory.files.keys().map(|path| (path, ())));
        }
        let mut merged = Self::default();
        for path in candidates.into_keys() {
            // With one layer there is nothing that could hide anything.
            let layer = match directories.as_slice() {
                [_] => Some(0),
                directories => layer_of_file(directories, xattrs, path)?,
            };
            let Some(layer) = layer.map(|index| &layers[index]) else { continue };
            let Some(file) = layer.inventory.files.get(path) else { continue };
            merged.found.extend(file.packages.iter().map(|package| Found {
                package: package.clone(),
                path: path.clone(),
                layer: layer.diff_id,
            }));
            merged.unread.extend(file.unread.clone().map(|reason| (path.clone(), reason)));
            // `/etc/os-release` comes first and counts first.
            merged.distribution = merged.distribution.or_else(|| file.distribution.clone());
        }
        Ok(merged)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::sbom::scan_layer;

    fn layer(files: &[(&str, &str)]) -> (tempfile::TempDir, LayerInventory) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let inventory = scan_layer(File::open(folder.path()).unwrap().as_fd()).unwrap();
        (folder, inventory)
    }

    #[test]
    fn layers_above_hide_what_is_below() {
        let status = |names: &[&str]| {
            names.iter().map(|name| format!("Package: {name}\nVersion: 1\n\n")).collect::<String>()
        };
        let base = layer(&[
            ("var/lib/dpkg/status", &status(&["a"])),
            ("usr/lib/os-release", "ID=debian\n"),
            ("app/requirements.txt", "x==1\n"),
            ("old/requirements.txt", "y==1\n"),
            ("gone/go.sum", "z v1 h1:\n"),
        ]);
        let top = layer(&[
            ("var/lib/dpkg/status", &status(&["a", "b"])),
            ("app/requirements.txt", ""),
            ("old", "now a file"),
        ]);
        let device = rustix::fs::FileType::CharacterDevice;
        let whiteout = top.0.path().join("gone");
        let made =
            rustix::fs::mknodat(rustix::fs::CWD, &whiteout, device, rustix::fs::Mode::empty(), 0);
        let directories = [base.0.path(), top.0.path()].map(|path| File::open(path).unwrap());
        let files: Vec<_> = [&base.1, &top.1]
            .into_iter()
            .zip(&directories)
            .map(|(inventory, directory)| LayerFiles {
                directory: directory.as_fd(),
                diff_id: None,
                inventory,
            })
            .collect();
        let merged = Inventory::merge(&files, OverlayXattrs::User).unwrap();
        let names: Vec<_> = merged.found.iter().map(|found| &*found.package.name).collect();
        // Who may not make a device finds that layer without the deletion.
        let expected: &[_] = if made.is_ok() { &["a", "b"] } else { &["z", "a", "b"] };
        assert_eq!(names, expected);
        assert_eq!(merged.distribution.unwrap().id, "debian");
    }
}
