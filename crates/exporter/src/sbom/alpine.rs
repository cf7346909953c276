//! apk's database, `installed`: one-letter fields, a blank line between packages.

use std::io::BufRead;

use super::input::{Lines, Packages, ReadError};
use super::package::{Ecosystem, Package};

/// The packages that are installed.
pub(super) fn read(
    lines: &mut Lines<impl BufRead>,
    packages: &mut Packages<'_>,
) -> Result<(), ReadError> {
    let mut package = Package::new(Ecosystem::Apk, "", "");
    while let Some(line) = lines.next()? {
        if line.is_empty() {
            let read = std::mem::replace(&mut package, Package::new(Ecosystem::Apk, "", ""));
            packages.extend(finished(read))?;
            continue;
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        let field = match name {
            "P" => &mut package.name,
            "V" => &mut package.version,
            "A" => &mut package.architecture,
            "o" => &mut package.upstream,
            "L" => &mut package.licence,
            "m" => &mut package.supplier,
            _ => continue,
        };
        if field.is_empty() {
            value.trim().clone_into(field);
        }
    }
    packages.extend(finished(package))
}

fn finished(mut package: Package) -> Option<Package> {
    if package.upstream == package.name {
        package.upstream.clear();
    }
    (!package.name.is_empty()).then_some(package)
}

#[cfg(test)]
mod tests {
    use super::super::input::found;
    use super::*;

    #[test]
    fn what_is_installed() {
        let packages = found(
            "C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\no:musl\nm:A B <a@b.c>\nF:lib\nR:ld-musl.so\n\n\
             C:Q1x=\nP:libcrypto3\nV:3.1.4-r5\nA:x86_64\nL:Apache-2.0\no:openssl\n\n",
            read,
        );
        let [musl, crypto] = packages.as_slice() else { panic!("{packages:?}") };
        assert_eq!((&*musl.name, &*musl.licence, &*musl.upstream), ("musl", "MIT", ""));
        assert_eq!((&*crypto.version, &*crypto.upstream), ("3.1.4-r5", "openssl"));
    }
}
