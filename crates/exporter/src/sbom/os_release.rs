//! `os-release(5)`: which distribution the files are of.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A distribution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// `ID`, such as `debian`.
    pub id: String,
    /// `VERSION_ID`; unreleased ones have none.
    #[serde(default)]
    pub version: String,
    /// What people call it.
    #[serde(default)]
    pub name: String,
}

impl fmt::Display for Distribution {
    /// As in the qualifier `distro` of package URLs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        if self.version.is_empty() { Ok(()) } else { write!(f, "-{}", self.version) }
    }
}

/// Reads the file; `None` if it names nobody.
pub(super) fn read(text: &str) -> Option<Distribution> {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    let (id, version, name) = (field("ID"), field("VERSION_ID"), field("PRETTY_NAME"));
    (!id.is_empty()).then_some(Distribution { id, version, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_and_without_quotes() {
        let debian =
            read("PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n")
                .unwrap();
        assert_eq!(debian.to_string(), "debian-12");
        assert_eq!(debian.name, "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(read("ID='void'\n").unwrap().to_string(), "void");
        assert_eq!(read("NAME=x\nVARIANT_ID=y\n"), None);
    }
}
