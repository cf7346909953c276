//! dpkg's database: `/var/lib/dpkg/status`, and one file a package in `status.d` of distroless images.

use super::package::{Ecosystem, Package};

/// The packages that are installed.
pub(super) fn read(text: &str) -> Vec<Package> {
    text.split("\n\n").filter_map(stanza).collect()
}

fn stanza(text: &str) -> Option<Package> {
    let field = |name: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().trim()
    };
    let (name, version, status) = (field("Package"), field("Version"), field("Status"));
    // Removed packages stay there for their configuration; `status.d` has no field for it.
    if name.is_empty() || !(status.is_empty() || status.ends_with(" installed")) {
        return None;
    }
    let upstream = match field("Source").split_once(' ') {
        None => field("Source").to_owned(),
        Some((source, version)) => {
            format!("{source}@{}", version.trim_start_matches('(').trim_end_matches(')'))
        }
    };
    Some(Package {
        architecture: field("Architecture").to_owned(),
        upstream,
        supplier: field("Maintainer").to_owned(),
        ..Package::new(Ecosystem::Deb, name, version)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed() {
        let packages = read(
            "Package: libc6\nStatus: install ok installed\nMaintainer: GNU Libc <a@b.c>\nArchitecture: amd64\n\
             Source: glibc\nVersion: 2.36-9\nDescription: GNU C Library\n Version: of the text\n\n\
             Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
             Package: libblkid1\nStatus: install ok installed\nSource: util-linux (2.38.1)\nVersion: 2.38.1-5\n",
        );
        let [libc, blkid] = packages.as_slice() else { panic!("{packages:?}") };
        assert_eq!((&*libc.name, &*libc.version, &*libc.upstream), ("libc6", "2.36-9", "glibc"));
        assert_eq!((&*libc.architecture, &*libc.supplier), ("amd64", "GNU Libc <a@b.c>"));
        assert_eq!((&*blkid.name, &*blkid.upstream), ("libblkid1", "util-linux@2.38.1"));
    }
}
