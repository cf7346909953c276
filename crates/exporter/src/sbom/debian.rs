//! dpkg's database: `/var/lib/dpkg/status`, and one file a package in `status.d` of distroless images.

use std::io::BufRead;

use super::input::{Lines, Packages, ReadError};
use super::package::{Ecosystem, Package};

/// What a stanza says; the first of equal fields counts.
#[derive(Default)]
struct Stanza {
    package: String,
    status: String,
    version: String,
    source: String,
    architecture: String,
    maintainer: String,
}

/// The packages that are installed.
pub(super) fn read(
    lines: &mut Lines<impl BufRead>,
    packages: &mut Packages<'_>,
) -> Result<(), ReadError> {
    let mut stanza = Stanza::default();
    while let Some(line) = lines.next()? {
        if line.is_empty() {
            packages.extend(std::mem::take(&mut stanza).package())?;
            continue;
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        let field = match name {
            "Package" => &mut stanza.package,
            "Status" => &mut stanza.status,
            "Version" => &mut stanza.version,
            "Source" => &mut stanza.source,
            "Architecture" => &mut stanza.architecture,
            "Maintainer" => &mut stanza.maintainer,
            _ => continue,
        };
        if field.is_empty() {
            value.trim().clone_into(field);
        }
    }
    packages.extend(stanza.package())
}

impl Stanza {
    fn package(self) -> Option<Package> {
        // Removed packages stay there for their configuration; `status.d` has no field for it.
        let is_installed = self.status.is_empty() || self.status.ends_with(" installed");
        if self.package.is_empty() || !is_installed {
            return None;
        }
        let upstream = match self.source.split_once(' ') {
            None => self.source,
            Some((source, version)) => {
                format!("{source}@{}", version.trim_start_matches('(').trim_end_matches(')'))
            }
        };
        Some(Package {
            architecture: self.architecture,
            upstream,
            supplier: self.maintainer,
            ..Package::new(Ecosystem::Deb, self.package, self.version)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::input::found;
    use super::*;

    #[test]
    fn what_is_installed() {
        let packages = found(
            "Package: libc6\nStatus: install ok installed\nMaintainer: GNU Libc <a@b.c>\nArchitecture: amd64\n\
             Source: glibc\nVersion: 2.36-9\nDescription: GNU C Library\n Version: of the text\n\n\
             Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
             Package: libblkid1\nStatus: install ok installed\nSource: util-linux (2.38.1)\nVersion: 2.38.1-5\n",
            read,
        );
        let [libc, blkid] = packages.as_slice() else { panic!("{packages:?}") };
        assert_eq!((&*libc.name, &*libc.version, &*libc.upstream), ("libc6", "2.36-9", "glibc"));
        assert_eq!((&*libc.architecture, &*libc.supplier), ("amd64", "GNU Libc <a@b.c>"));
        assert_eq!((&*blkid.name, &*blkid.upstream), ("libblkid1", "util-linux@2.38.1"));
    }
}
