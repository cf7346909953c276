//! `os-release(5)`: which distribution the files are of.

use std::fmt;
use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};

use super::input::Lines;

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
pub(super) fn read(lines: &mut Lines<impl BufRead>) -> io::Result<Option<Distribution>> {
    let [mut id, mut version, mut name] = [const { String::new() }; 3];
    while let Some(line) = lines.next()? {
        let Some((key, value)) = line.trim().split_once('=') else { continue };
        let field = match key {
            "ID" => &mut id,
            "VERSION_ID" => &mut version,
            "PRETTY_NAME" => &mut name,
            _ => continue,
        };
        if field.is_empty() {
            value.trim_matches(['"', '\'']).clone_into(field);
        }
    }
    Ok((!id.is_empty()).then_some(Distribution { id, version, name }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(text: &str) -> Option<Distribution> {
        read(&mut Lines::new(text.as_bytes())).unwrap()
    }

    #[test]
    fn fields_with_and_without_quotes() {
        let debian = distribution(
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n",
        )
        .unwrap();
        assert_eq!(debian.to_string(), "debian-12");
        assert_eq!(debian.name, "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(distribution("ID='void'\n").unwrap().to_string(), "void");
        assert_eq!(distribution("NAME=x\nVARIANT_ID=y\n"), None);
    }
}
