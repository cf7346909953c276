//! PHP: `composer.lock`, and `installed.json` of what Composer has installed.

use serde_json::Value;

use super::package::{Ecosystem, Package};

/// Both files: a list in `packages` (and `packages-dev`); Composer 1 wrote only the list.
pub(super) fn read(text: &str) -> Result<Vec<Package>, serde_json::Error> {
    let document: Value = serde_json::from_str(text)?;
    let lists = [&document, &document["packages"], &document["packages-dev"]];
    let entries = lists.into_iter().filter_map(Value::as_array).flatten();
    let packages = entries.filter_map(|entry| {
        let licences = entry["license"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let licence = licences.collect::<Vec<_>>().join(" OR ");
        let package =
            Package::new(Ecosystem::Composer, entry["name"].as_str()?, entry["version"].as_str()?);
        Some(Package { licence, ..package })
    });
    Ok(packages.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let lock = r#"{"packages": [{"name": "a/b", "version": "1.0", "license": ["MIT", "GPL-2.0-only"]}], "packages-dev": [{"name": "c/d", "version": "v2"}]}"#;
        let found = read(lock).unwrap();
        assert_eq!(found[0].licence, "MIT OR GPL-2.0-only");
        assert_eq!(found[1].purl(None), "pkg:composer/c/d@v2");
        assert_eq!(read(r#"[{"name": "a/b", "version": "1"}]"#).unwrap().len(), 1);
        assert!(read("x").is_err());
    }
}
