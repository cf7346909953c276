//! Image references: `[registry/]repository[:tag][@digest]`, by the grammar of the distribution project and
//! with Docker's short forms.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// A complete image reference: short forms are filled in (`busybox` is `docker.io/library/busybox`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no [`Reference`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format: `{text}`: {reason}")]
pub struct ReferenceError {
    /// What was to be parsed.
    pub text: String,
    /// What is wrong with it.
    pub reason: Cow<'static, str>,
}

impl Reference {
    /// Parses a reference as a user writes it.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let fail =
            |reason: &'static str| ReferenceError { text: text.to_owned(), reason: reason.into() };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(Digest::parse(digest).map_err(|_| fail("the part after @ is no digest"))?),
            ),
            None => (text, None),
        };
        // A colon after the last slash begins the tag; one before it belongs to a port.
        let (name, tag) = match rest.rfind(':') {
            Some(colon) if !rest[colon..].contains('/') => {
                (&rest[..colon], Some(&rest[colon + 1..]))
            }
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(fail(
                "a tag is up to 128 letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`",
            ));
        }
        let (registry, path) = match name.split_once('/') {
            Some((host, path))
                if host.contains(['.', ':'])
                    || host == "localhost"
                    || host.chars().any(char::is_uppercase) =>
            {
                (host, path)
            }
            _ => ("docker.io", name),
        };
        if !is_registry(registry) {
            return Err(fail("the registry is no host name with an optional port"));
        }
        if path.len() == 64
            && path.bytes().all(|byte| byte.is_ascii_hexdigit())
            && registry == "docker.io"
        {
            return Err(fail("a repository cannot be 64 hexadecimal digits"));
        }
        if path.chars().any(char::is_uppercase) {
            let library =
                if registry == "docker.io" && !path.contains('/') { "library/" } else { "" };
            let reason = format!("repository name ({library}{path}) must be lowercase");
            return Err(ReferenceError { text: text.to_owned(), reason: reason.into() });
        }
        if path.is_empty() || !path.split('/').all(is_component) {
            return Err(fail(
                "a repository is made of lower-case letters and digits, with `.`, `_`, `__` or `-` between them",
            ));
        }
        let docker_hub = matches!(registry, "docker.io" | "index.docker.io");
        let repository = if docker_hub && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        // With what was filled in, so that the full text is one, too.
        if repository.len() > 255 {
            return Err(fail("a repository has at most 255 characters"));
        }
        let registry = if docker_hub { "docker.io" } else { registry };
        Ok(Self { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }

    /// The host, and its port if one was given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path at the registry, with `library/` where Docker Hub wants it.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag as given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest as given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The tag, `latest` where neither a tag nor a digest was given.
    pub fn tag_or_latest(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some("latest"),
            (None, Some(_)) => None,
        }
    }

    /// The same image, pinned to `digest`; an implied `latest` is written out.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        let tag = self.tag_or_latest().map(str::to_owned);
        Self { tag, digest: Some(digest), ..self.clone() }
    }

    /// The same repository with another tag and no digest.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    /// `registry/repository`, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The full text with an implied `latest` written out.
    pub fn with_default_tag(&self) -> Self {
        Self { tag: self.tag_or_latest().map(str::to_owned), ..self.clone() }
    }

    /// The short form that a user would write: without `docker.io/` and `library/`, where that means the same.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let Some(short) = full.strip_prefix("docker.io/") else { return full };
        let shortest = short.strip_prefix("library/").filter(|rest| !rest.contains('/'));
        // A repository can look like the name of another registry, or like a digest.
        let familiar = [shortest, Some(short)].into_iter().flatten();
        let mut familiar = familiar.filter(|text| Self::parse(text).as_ref() == Ok(self));
        familiar.next().unwrap_or(&full).to_owned()
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && tag
            .bytes()
            .enumerate()
            .all(|(at, byte)| word(byte) || (at > 0 && (byte == b'.' || byte == b'-')))
}

fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(*first) || !alphanumeric(*last) {
        return false;
    }
    component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(|between| {
        matches!(between, "" | "." | "_" | "__") || between.bytes().all(|byte| byte == b'-')
    })
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, after)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                ("v6", after.strip_prefix(':').or(after.is_empty().then_some("0")))
            }
            _ => return false,
        },
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, Some("0")),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(label)
        && port
            .is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_short_forms() {
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("a/b:1", "docker.io/a/b:1", "a/b:1"),
            ("library/x:1", "docker.io/library/x:1", "x:1"),
            ("index.docker.io/x", "docker.io/library/x", "x"),
            ("localhost/x", "localhost/x", "localhost/x"),
            ("127.0.0.1:5000/library/x", "127.0.0.1:5000/library/x", "127.0.0.1:5000/library/x"),
            ("[::1]:5000/x:y", "[::1]:5000/x:y", "[::1]:5000/x:y"),
            ("quay.io/a/b/c", "quay.io/a/b/c", "quay.io/a/b/c"),
            ("docker.io/quay.io/x", "docker.io/quay.io/x", "docker.io/quay.io/x"),
            ("docker.io/localhost/x", "docker.io/localhost/x", "docker.io/localhost/x"),
            ("library/localhost", "docker.io/library/localhost", "localhost"),
            ("a__b/c--d.e_f:T.-_", "docker.io/a__b/c--d.e_f:T.-_", "a__b/c--d.e_f:T.-_"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
        }
        let digits = format!("library/{}", "f".repeat(64));
        assert_eq!(Reference::parse(&digits).unwrap().familiar(), digits);
        let longest = "f".repeat(247);
        let full = Reference::parse(&longest).unwrap().to_string();
        assert_eq!(Reference::parse(&full).unwrap().familiar(), longest);
        let digest = Digest::of(b"");
        let pinned = Reference::parse("x").unwrap().pinned(digest);
        assert_eq!(pinned.to_string(), format!("docker.io/library/x:latest@{digest}"));
        assert_eq!(Reference::parse(&pinned.to_string()).unwrap(), pinned);
    }

    #[test]
    fn refuses_what_is_none() {
        for bad in [
            "",
            "/",
            "A",
            "a/B",
            "a:",
            "a:-x",
            "a@b",
            "a//b",
            "a/",
            ".a",
            "a.",
            "a___b",
            "a..b",
            "-/a.b",
            "host:x/y",
            "[::g]:1/x",
            "http://x/y",
            "a b",
            &"f".repeat(64),
            &"f".repeat(248),
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
