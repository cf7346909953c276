//! Python: metadata of what is installed, `requirements.txt` and `Pipfile.lock`.

use std::io::BufRead;

use serde::Deserialize;

use super::input::{Lines, Packages, ReadError};
use super::json::Entries;
use super::package::{Ecosystem, Package};

/// `METADATA` of a wheel, or `PKG-INFO` of an egg: headers, and a text after a blank line.
pub(super) fn metadata(
    lines: &mut Lines<impl BufRead>,
    packages: &mut Packages<'_>,
) -> Result<(), ReadError> {
    const FIELDS: [&str; 6] =
        ["Name", "Version", "License-Expression", "License", "Author", "Author-email"];
    let mut values: [String; FIELDS.len()] = Default::default();
    while let Some(line) = lines.next()?.filter(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(": ") else { continue };
        let field = FIELDS.iter().position(|field| *field == name);
        if let Some(field) = field.map(|field| &mut values[field]).filter(|it| it.is_empty()) {
            value.trim().clone_into(field);
        }
    }
    let [name, version, expression, licence, author, email] = values;
    if name.is_empty() || version.is_empty() {
        return Ok(());
    }
    let licence = if expression.is_empty() { licence } else { expression };
    let supplier = if author.is_empty() { email } else { author };
    packages.push(Package { licence, supplier, ..Package::new(Ecosystem::PyPi, name, version) })
}

/// The lines that name one version. Others say what may be installed, not what is.
pub(super) fn requirements(
    lines: &mut Lines<impl BufRead>,
    packages: &mut Packages<'_>,
) -> Result<(), ReadError> {
    while let Some(line) = lines.next()? {
        packages.extend(requirement(line))?;
    }
    Ok(())
}

fn requirement(line: &str) -> Option<Package> {
    let line = line.split(['#', ';', '\\']).next()?;
    let line = line.split(" --").next()?;
    let (name, version) = line.split_once("==")?;
    let name = name.split('[').next()?.trim();
    let version = version.trim_start_matches('=').trim();
    let is_word = |text: &str| {
        !text.is_empty()
            && text.chars().all(|char| char.is_ascii_alphanumeric() || "._-+!".contains(char))
    };
    (is_word(name) && is_word(version)).then(|| Package::new(Ecosystem::PyPi, name, version))
}

#[derive(Deserialize)]
struct PipfileLock {
    #[serde(default)]
    default: Entries,
    #[serde(default)]
    develop: Entries,
}

/// `Pipfile.lock`.
pub(super) fn pipfile_lock(bytes: &[u8], packages: &mut Packages<'_>) -> Result<(), ReadError> {
    let lock: PipfileLock = serde_json::from_slice(bytes)?;
    for (name, entry) in [lock.default, lock.develop].into_iter().flat_map(|Entries(it)| it) {
        let Some(version) = entry.version else { continue };
        let version = version.trim_start_matches('=');
        packages.push(Package::new(Ecosystem::PyPi, name, version))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::input::found;
    use super::*;

    #[test]
    fn what_is_installed() {
        let wheel = found(
            "Metadata-Version: 2.1\nName: Flask\nVersion: 3.0.0\nLicense-Expression: BSD-3-Clause\nAuthor: A\n\nName: not this\n",
            metadata,
        );
        assert_eq!(wheel[0].purl(None), "pkg:pypi/flask@3.0.0");
        assert_eq!((&*wheel[0].licence, &*wheel[0].supplier), ("BSD-3-Clause", "A"));
        assert!(found("Name: x\n", metadata).is_empty());
    }

    #[test]
    fn locks() {
        let pinned = found(
            "# all\nflask[async]==3.0.0 ; python_version > '3'\nsix>=1\nnumpy==1.26.* \nrequests==2.31.0 \\\n    --hash=sha256:abc\n-r other.txt\na==1 --hash=x\n",
            requirements,
        );
        let names: Vec<_> = pinned.iter().map(|it| format!("{} {}", it.name, it.version)).collect();
        assert_eq!(names, ["flask 3.0.0", "requests 2.31.0", "a 1"]);
        let lock =
            r#"{"_meta": {}, "default": {"six": {"version": "==1.16.0"}, "local": {"path": "."}}}"#;
        let locked = found(lock, |_, packages| pipfile_lock(lock.as_bytes(), packages));
        assert_eq!(locked, [Package::new(Ecosystem::PyPi, "six", "1.16.0")]);
        assert!(serde_json::from_str::<PipfileLock>("").is_err());
    }
}
