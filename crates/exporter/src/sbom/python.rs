//! Python: metadata of what is installed, `requirements.txt` and `Pipfile.lock`.

use serde_json::Value;

use super::package::{Ecosystem, Package};

/// `METADATA` of a wheel, or `PKG-INFO` of an egg: headers, and a text after a blank line.
pub(super) fn metadata(text: &str) -> Vec<Package> {
    let head = text.lines().take_while(|line| !line.is_empty());
    let field = |name: &str| {
        let value = head.clone().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_default().trim()
    };
    let (name, version) = (field("Name"), field("Version"));
    if name.is_empty() || version.is_empty() {
        return Vec::new();
    }
    let licence = match field("License-Expression") {
        "" => field("License"),
        expression => expression,
    };
    let supplier = match (field("Author"), field("Author-email")) {
        ("", email) => email.to_owned(),
        (author, _) => author.to_owned(),
    };
    let licence = licence.to_owned();
    vec![Package { licence, supplier, ..Package::new(Ecosystem::PyPi, name, version) }]
}

/// The lines that name one version. Others say what may be installed, not what is.
pub(super) fn requirements(text: &str) -> Vec<Package> {
    text.lines().filter_map(requirement).collect()
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

/// `Pipfile.lock`.
pub(super) fn pipfile_lock(text: &str) -> Result<Vec<Package>, serde_json::Error> {
    let document: Value = serde_json::from_str(text)?;
    let sections = ["default", "develop"].into_iter().filter_map(|name| document[name].as_object());
    let packages = sections.flatten().filter_map(|(name, entry)| {
        let version = entry["version"].as_str()?.trim_start_matches('=');
        Some(Package::new(Ecosystem::PyPi, name, version))
    });
    Ok(packages.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed() {
        let wheel = metadata(
            "Metadata-Version: 2.1\nName: Flask\nVersion: 3.0.0\nLicense-Expression: BSD-3-Clause\nAuthor: A\n\nName: not this\n",
        );
        assert_eq!(wheel[0].purl(None), "pkg:pypi/flask@3.0.0");
        assert_eq!((&*wheel[0].licence, &*wheel[0].supplier), ("BSD-3-Clause", "A"));
        assert!(metadata("Name: x\n").is_empty());
    }

    #[test]
    fn locks() {
        let found = requirements(
            "# all\nflask[async]==3.0.0 ; python_version > '3'\nsix>=1\nnumpy==1.26.* \nrequests==2.31.0 \\\n    --hash=sha256:abc\n-r other.txt\na==1 --hash=x\n",
        );
        let names: Vec<_> = found.iter().map(|it| format!("{} {}", it.name, it.version)).collect();
        assert_eq!(names, ["flask 3.0.0", "requests 2.31.0", "a 1"]);
        let lock =
            r#"{"_meta": {}, "default": {"six": {"version": "==1.16.0"}, "local": {"path": "."}}}"#;
        assert_eq!(pipfile_lock(lock).unwrap(), [Package::new(Ecosystem::PyPi, "six", "1.16.0")]);
        assert!(pipfile_lock("").is_err());
    }
}
