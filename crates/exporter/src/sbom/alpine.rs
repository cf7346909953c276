//! apk's database, `installed`: one-letter fields, a blank line between packages.

use super::package::{Ecosystem, Package};

/// The packages that are installed.
pub(super) fn read(text: &str) -> Vec<Package> {
    text.split("\n\n").filter_map(stanza).collect()
}

fn stanza(text: &str) -> Option<Package> {
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
    };
    let (name, origin) = (field("P:"), field("o:"));
    (!name.is_empty()).then(|| Package {
        architecture: field("A:").to_owned(),
        upstream: if origin == name { String::new() } else { origin.to_owned() },
        licence: field("L:").to_owned(),
        supplier: field("m:").to_owned(),
        ..Package::new(Ecosystem::Apk, name, field("V:"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed() {
        let packages = read(
            "C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\no:musl\nm:A B <a@b.c>\nF:lib\nR:ld-musl.so\n\n\
             C:Q1x=\nP:libcrypto3\nV:3.1.4-r5\nA:x86_64\nL:Apache-2.0\no:openssl\n\n",
        );
        let [musl, crypto] = packages.as_slice() else { panic!("{packages:?}") };
        assert_eq!((&*musl.name, &*musl.licence, &*musl.upstream), ("musl", "MIT", ""));
        assert_eq!((&*crypto.version, &*crypto.upstream), ("3.1.4-r5", "openssl"));
    }
}
