//! Platforms: `os/architecture[/variant]`, with the spellings that containerd's `platforms` package folds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an image runs on: section "Image Index" of the image specification, field `platform`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture in Go's spelling, such as `amd64`.
    pub architecture: String,
    /// Operating system in Go's spelling, such as `linux`.
    pub os: String,
    /// Version of the operating system; only Windows images have one.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Features that the operating system must have.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Variant of the architecture, such as `v7` of `arm`; empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Why a text is no [`Platform`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// Not one to three words with slashes between them.
    #[error("platform `{0}` is not of the form os/architecture[/variant]")]
    Form(String),
    /// A single word that is neither a known operating system nor a known architecture.
    #[error("platform `{0}` is neither a known operating system nor a known architecture")]
    Unknown(String),
}

impl Platform {
    /// A platform without a variant or anything else, folded as [`Platform::normalize`] does.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        Self {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            os_version: String::new(),
            os_features: Vec::new(),
            variant: variant.to_owned(),
        }
        .normalize()
    }

    /// The platform that this binary was built for.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, "")
    }

    /// Folds the spellings of one platform into one: lower case, `x86_64` to `amd64`, `aarch64` to `arm64`,
    /// `arm64/v8` to `arm64`, `arm` to `arm/v7`.
    #[must_use]
    pub fn normalize(mut self) -> Self {
        self.os = self.os.to_lowercase();
        if self.os == "macos" {
            "darwin".clone_into(&mut self.os);
        }
        self.variant = self.variant.to_lowercase();
        let architecture = self.architecture.to_lowercase();
        let (architecture, variant) = match (architecture.as_str(), self.variant.as_str()) {
            ("i386" | "i486" | "i586" | "i686", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            ("powerpc64le", variant) => ("ppc64le", variant),
            (other, variant) => (other, variant),
        };
        let (architecture, variant) = (architecture.to_owned(), variant.to_owned());
        Self { architecture, variant, ..self }
    }

    /// With the version of the operating system, if it has one: `windows(10.0.17763)/amd64`.
    pub fn full_name(&self) -> String {
        let plain = self.to_string();
        match self.os_version.as_str() {
            "" => plain,
            version => plain.replacen(&self.os, &format!("{}({version})", self.os), 1),
        }
    }

    /// How well an image for `offered` serves one who asks for `self`: `None` for not at all, else lower is
    /// better. An exact match is 0; an older variant of the same architecture, which newer CPUs run, is more.
    pub fn distance(&self, offered: &Self) -> Option<u32> {
        let (wanted, offered) = (self.clone().normalize(), offered.clone().normalize());
        if wanted.os != offered.os || wanted.architecture != offered.architecture {
            return None;
        }
        if wanted.variant == offered.variant {
            return Some(0);
        }
        let level = |variant: &str| match (wanted.architecture.as_str(), variant) {
            ("amd64", "") => Some(1),
            ("arm64", "") => Some(80),
            (_, variant) => {
                let (major, minor) = variant
                    .strip_prefix('v')?
                    .split_once('.')
                    .unwrap_or((variant.strip_prefix('v')?, "0"));
                let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
                Some(if wanted.architecture == "arm64" { major * 10 + minor } else { major })
            }
        };
        level(&wanted.variant)?.checked_sub(level(&offered.variant)?)
    }

    /// Parses `os/architecture[/variant]`, or one word that is an operating system or an architecture; what
    /// is left out comes from `default`.
    pub fn parse_with(text: &str, default: &Self) -> Result<Self, PlatformError> {
        let legal = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        let words: Vec<&str> = text.trim().split('/').collect();
        // `windows(10.0.17763)/amd64` carries an operating system version in parentheses.
        let (os, os_version) = match words[0].split_once('(') {
            Some((os, rest)) => {
                (os, rest.strip_suffix(')').ok_or_else(|| PlatformError::Form(text.to_owned()))?)
            }
            None => (words[0], ""),
        };
        if words.len() > 3 || !legal(os) || !words[1..].iter().all(|word| legal(word)) {
            return Err(PlatformError::Form(text.to_owned()));
        }
        let mut platform = match words[..] {
            [_, architecture] => Self::new(os, architecture, ""),
            [_, architecture, variant] => Self::new(os, architecture, variant),
            _ if KNOWN_OS.contains(&os.to_lowercase().as_str()) => {
                Self { os: os.to_owned(), ..default.clone() }.normalize()
            }
            _ => {
                let platform = Self::new(&default.os, os, "");
                if !KNOWN_ARCHITECTURES.contains(&platform.architecture.as_str()) {
                    return Err(PlatformError::Unknown(text.to_owned()));
                }
                platform
            }
        };
        os_version.clone_into(&mut platform.os_version);
        Ok(platform)
    }
}

const KNOWN_OS: [&str; 16] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "macos",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
];
const KNOWN_ARCHITECTURES: [&str; 14] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv64", "s390x", "wasm",
];

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        Self::parse_with(text, &Self::host())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_folds() {
        let default = Platform::new("linux", "amd64", "");
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("aarch64", "linux/arm64"),
            ("windows", "windows/amd64"),
            ("windows(10.0.1)/amd64", "windows/amd64"),
            ("linux/arm/v6", "linux/arm/v6"),
        ] {
            assert_eq!(
                Platform::parse_with(text, &default).unwrap().to_string(),
                expected,
                "{text}"
            );
        }
        for bad in ["", "linux/", "/amd64", "a/b/c/d", "nonsense", "linux/am d64"] {
            assert!(Platform::parse_with(bad, &default).is_err(), "{bad}");
        }
    }

    #[test]
    fn full_names_say_the_version() {
        let windows = "windows(10.0.1)/amd64".parse::<Platform>().unwrap();
        assert_eq!(windows.full_name(), "windows(10.0.1)/amd64");
        assert_eq!(Platform::new("linux", "arm", "").full_name(), "linux/arm/v7");
    }

    #[test]
    fn older_variants_serve() {
        let of = |text: &str| text.parse::<Platform>().unwrap();
        assert_eq!(of("linux/arm/v7").distance(&of("linux/arm/v7")), Some(0));
        assert_eq!(of("linux/arm/v7").distance(&of("linux/arm/v6")), Some(1));
        assert_eq!(of("linux/arm/v6").distance(&of("linux/arm/v7")), None);
        assert_eq!(of("linux/amd64/v3").distance(&of("linux/amd64")), Some(2));
        assert_eq!(of("linux/amd64").distance(&of("linux/arm64")), None);
    }
}
