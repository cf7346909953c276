//! A package, and its name in the form that all tools understand: package URLs (github.com/package-url/purl-spec).

use serde::{Deserialize, Serialize};

use super::os_release::Distribution;

/// Whose package it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ecosystem {
    /// Debian's and its descendants'.
    Deb,
    /// Alpine's and its descendants'.
    Apk,
    /// npm's registry.
    Npm,
    /// crates.io.
    Cargo,
    /// PyPI.
    PyPi,
    /// Go modules.
    Golang,
    /// RubyGems.
    Gem,
    /// Composer (PHP).
    Composer,
}

impl Ecosystem {
    /// The type of its package URLs.
    pub fn purl_type(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Apk => "apk",
            Self::Npm => "npm",
            Self::Cargo => "cargo",
            Self::PyPi => "pypi",
            Self::Golang => "golang",
            Self::Gem => "gem",
            Self::Composer => "composer",
        }
    }
}

/// A package as its manager notes it. What is not noted is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Whose it is.
    pub ecosystem: Ecosystem,
    /// Its whole name, such as `@babel/core`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The processor it is for, as its manager calls it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub architecture: String,
    /// The source package, `name` or `name@version`, if it is called otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub upstream: String,
    /// Its licence, as noted: often an SPDX expression.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub licence: String,
    /// Who maintains it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub supplier: String,
}

impl Package {
    pub(super) fn new(
        ecosystem: Ecosystem,
        name: impl Into<String>,
        version: impl Into<String>,
    ) -> Self {
        Self {
            ecosystem,
            name: name.into(),
            version: version.into(),
            architecture: String::new(),
            upstream: String::new(),
            licence: String::new(),
            supplier: String::new(),
        }
    }

    /// The package URL; packages of distributions are named with theirs.
    pub fn purl(&self, distribution: Option<&Distribution>) -> String {
        let name = match self.ecosystem {
            Ecosystem::PyPi => self.name.to_lowercase().replace('_', "-"),
            Ecosystem::Golang | Ecosystem::Composer => self.name.to_lowercase(),
            _ => self.name.clone(),
        };
        let name: Vec<_> = name.split('/').map(encoded).collect();
        let mut purl = format!("pkg:{}/", self.ecosystem.purl_type());
        let own = match self.ecosystem {
            Ecosystem::Deb => Some("debian"),
            Ecosystem::Apk => Some("alpine"),
            _ => None,
        };
        if let Some(own) = own {
            let vendor = distribution.map_or(own, |distribution| &distribution.id);
            purl.push_str(&encoded(&vendor.to_lowercase()));
            purl.push('/');
        }
        purl.push_str(&name.join("/"));
        if !self.version.is_empty() {
            purl.push('@');
            purl.push_str(&encoded(&self.version));
        }
        let distro = distribution.filter(|_| own.is_some()).map(ToString::to_string);
        let qualifiers = [
            ("arch", self.architecture.as_str()),
            ("distro", distro.as_deref().unwrap_or_default()),
            ("upstream", self.upstream.as_str()),
        ];
        let mut before = '?';
        for (key, value) in qualifiers.into_iter().filter(|(_, value)| !value.is_empty()) {
            purl.push(before);
            purl.push_str(key);
            purl.push('=');
            purl.push_str(&encoded(value));
            before = '&';
        }
        purl
    }
}

/// Percent-encoded, but for what a component of a package URL may hold.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls() {
        let debian =
            Distribution { id: "debian".to_owned(), version: "12".to_owned(), name: String::new() };
        let of = |ecosystem, name: &str, version: &str| {
            Package::new(ecosystem, name, version).purl(Some(&debian))
        };
        assert_eq!(of(Ecosystem::Npm, "@babel/core", "7.1.0"), "pkg:npm/%40babel/core@7.1.0");
        assert_eq!(of(Ecosystem::PyPi, "Foo_Bar", "1.0"), "pkg:pypi/foo-bar@1.0");
        assert_eq!(of(Ecosystem::Cargo, "a", "1.0.0+x"), "pkg:cargo/a@1.0.0%2Bx");
        assert_eq!(of(Ecosystem::Golang, "github.com/A/b", "v1"), "pkg:golang/github.com/a/b@v1");
        let libc = Package {
            architecture: "amd64".to_owned(),
            upstream: "glibc@2.36".to_owned(),
            ..Package::new(Ecosystem::Deb, "libc6", "1:2.36-9+deb12u1")
        };
        assert_eq!(
            libc.purl(Some(&debian)),
            "pkg:deb/debian/libc6@1:2.36-9%2Bdeb12u1?arch=amd64&distro=debian-12&upstream=glibc%402.36"
        );
        assert_eq!(
            Package::new(Ecosystem::Apk, "musl", "1.2").purl(None),
            "pkg:apk/alpine/musl@1.2"
        );
    }
}
