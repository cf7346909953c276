//! Lock files in TOML with a list `package`: those of cargo, poetry and uv.
//!
//! They are read as these tools write them, a field on a line of its own. A parser of TOML holds a hundred bytes for one of a
//! list of numbers, of which nobody asks anything here.

use std::io::BufRead;

use super::input::{Lines, Packages, ReadError};
use super::package::{Ecosystem, Package};

/// A `[[package]]`.
#[derive(Default)]
struct Locked {
    name: Option<String>,
    version: Option<String>,
    has_source: bool,
    /// Whether its source is a folder.
    is_folder: bool,
}

#[derive(Clone, Copy)]
enum Section {
    /// Before any other.
    Top,
    Package,
    /// `[package.source]`, which poetry writes.
    Source,
    Other,
}

/// The packages that come from elsewhere.
///
/// A package without a `source` is the project itself, for cargo; for uv that is one in a folder; poetry writes none for PyPI.
pub(super) fn read(
    ecosystem: Ecosystem,
    lines: &mut Lines<impl BufRead>,
    packages: &mut Packages<'_>,
) -> Result<(), ReadError> {
    let mut locked = Locked::default();
    let mut section = Section::Top;
    // What ends the text of several lines that is being read.
    let mut text_end = None;
    while let Some(line) = lines.next()? {
        if let Some(end) = text_end {
            text_end = (!line.contains(end)).then_some(end);
            continue;
        }
        let line = line.trim_end();
        if line.starts_with('[') {
            section = match line {
                "[[package]]" => Section::Package,
                "[package.source]" => Section::Source,
                _ => Section::Other,
            };
            if matches!(section, Section::Package) {
                packages.extend(std::mem::take(&mut locked).package(ecosystem))?;
            }
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = value.trim();
        text_end = opened(value);
        match (section, key.trim()) {
            (Section::Top, "package") => {
                let message = "its packages stand there as no tool writes them";
                return Err(ReadError::Said(message.to_owned()));
            }
            (Section::Package, "name") => locked.name = text(value),
            (Section::Package, "version") => locked.version = text(value),
            (Section::Package, "source") => {
                locked.has_source = true;
                let kind = value.strip_prefix('{').and_then(|table| table.split('=').next());
                let folders = ["editable", "virtual", "directory"];
                locked.is_folder |= kind.is_some_and(|kind| folders.contains(&kind.trim()));
            }
            (Section::Source, "type") => {
                locked.is_folder |= text(value).as_deref() == Some("directory");
            }
            _ => {}
        }
    }
    packages.extend(locked.package(ecosystem))
}

impl Locked {
    fn package(self, ecosystem: Ecosystem) -> Option<Package> {
        let is_own = match ecosystem {
            Ecosystem::Cargo => !self.has_source,
            _ => self.is_folder,
        };
        let package = Package::new(ecosystem, self.name?, self.version?);
        (!is_own).then_some(package)
    }
}

/// A text on one line, without its quotes.
fn text(value: &str) -> Option<String> {
    let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''))?;
    Some(value[1..].split(quote).next().unwrap_or_default().to_owned())
}

/// What ends a text that goes on on the next line.
fn opened(value: &str) -> Option<&'static str> {
    let mut ends = ["\"\"\"", "'''"].into_iter();
    ends.find(|end| value.strip_prefix(end).is_some_and(|rest| !rest.contains(end)))
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read as _};

    use super::super::budget::Budget;
    use super::super::input;
    use super::*;

    fn found(ecosystem: Ecosystem, text: &str) -> Vec<Package> {
        input::found(text, |lines, packages| read(ecosystem, lines, packages))
    }

    #[test]
    fn packages_and_the_project_itself() {
        let cargo = "version = 3\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n\
                     [[package]]\nname = \"serde\"\nversion = \"1.0.1\"\nsource = \"registry+https://x\"\n";
        let packages = found(Ecosystem::Cargo, cargo);
        assert_eq!(packages, [Package::new(Ecosystem::Cargo, "serde", "1.0.1")]);
        let uv = "[[package]]\nname = \"app\"\nversion = \"1\"\nsource = { editable = \".\" }\n\
                  [[package]]\nname = \"six\"\nversion = \"1.16.0\"\nsource = { registry = \"x\" }\n\
                  dependencies = [\n    { name = \"x\", version = \"2\" },\n]\n\
                  [package.metadata]\nname = \"y\"\n";
        let packages = found(Ecosystem::PyPi, uv);
        assert_eq!(packages, [Package::new(Ecosystem::PyPi, "six", "1.16.0")]);
        let poetry = "[[package]]\r\nname = 'six'\r\nversion = \"1.16.0\"\r\noptional = false\r\n\
                      description = \"\"\"\r\nname = \"z\"\r\n\"\"\"\r\n\
                      [[package]]\nname = \"own\"\nversion = \"1\"\n[package.source]\ntype = \"directory\"\n";
        let packages = found(Ecosystem::PyPi, poetry);
        assert_eq!(packages, [Package::new(Ecosystem::PyPi, "six", "1.16.0")]);
        assert!(found(Ecosystem::Cargo, "[[").is_empty());
    }

    #[test]
    fn the_lock_file_of_this_workspace() {
        let lock = include_str!("../../../../Cargo.lock");
        let packages = found(Ecosystem::Cargo, lock);
        assert_eq!(packages.len(), lock.matches("\nsource = ").count());
        assert!(packages.iter().any(|package| package.name == "serde"));
    }

    #[test]
    fn what_no_tool_writes() {
        let mut budget = Budget::default();
        let mut packages = Packages::new("", &mut budget);
        let mut lines = Lines::new(&b"package = [{ name = \"a\" }]\n"[..]);
        let error = read(Ecosystem::Cargo, &mut lines, &mut packages).unwrap_err();
        assert!(error.to_string().contains("no tool"), "{error}");
        let long = b"a = [".chain(std::io::repeat(b'0').take(60 << 20));
        read(Ecosystem::Cargo, &mut Lines::new(BufReader::new(long)), &mut packages).unwrap();
        assert!(packages.finish().is_empty());
    }
}
