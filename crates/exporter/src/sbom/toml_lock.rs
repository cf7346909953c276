//! Lock files in TOML with a list `package`: those of cargo, poetry and uv.

use toml::Table;

use super::package::{Ecosystem, Package};

/// The packages of `text` that come from elsewhere.
///
/// A package without a `source` is the project itself, for cargo and uv; poetry writes none for PyPI.
pub(super) fn read(ecosystem: Ecosystem, text: &str) -> Result<Vec<Package>, toml::de::Error> {
    let document: Table = toml::from_str(text)?;
    let list = document.get("package").and_then(toml::Value::as_array);
    let packages = list.into_iter().flatten().filter_map(|entry| {
        let text = |key| entry.get(key).and_then(toml::Value::as_str);
        let is_own = match ecosystem {
            Ecosystem::Cargo => entry.get("source").is_none(),
            _ => entry.get("source").is_some_and(|source| {
                ["editable", "virtual", "directory"].iter().any(|key| source.get(key).is_some())
            }),
        };
        (!is_own).then(|| Some(Package::new(ecosystem, text("name")?, text("version")?)))?
    });
    Ok(packages.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_and_the_project_itself() {
        let cargo = "version = 3\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n\
                     [[package]]\nname = \"serde\"\nversion = \"1.0.1\"\nsource = \"registry+https://x\"\n";
        let packages = read(Ecosystem::Cargo, cargo).unwrap();
        assert_eq!(packages, [Package::new(Ecosystem::Cargo, "serde", "1.0.1")]);
        let uv = "[[package]]\nname = \"app\"\nversion = \"1\"\nsource = { editable = \".\" }\n\
                  [[package]]\nname = \"six\"\nversion = \"1.16.0\"\nsource = { registry = \"x\" }\n";
        let packages = read(Ecosystem::PyPi, uv).unwrap();
        assert_eq!(packages, [Package::new(Ecosystem::PyPi, "six", "1.16.0")]);
        let poetry = "[[package]]\nname = \"six\"\nversion = \"1.16.0\"\noptional = false\n";
        assert_eq!(read(Ecosystem::PyPi, poetry).unwrap().len(), 1);
        assert!(read(Ecosystem::Cargo, "package = 1\n").unwrap().is_empty());
        assert!(read(Ecosystem::Cargo, "[[").is_err());
    }
}
