//! PHP: `composer.lock`, and `installed.json` of what Composer has installed.

use serde::Deserialize;

use super::input::{Packages, ReadError};
use super::json::Entries;
use super::package::{Ecosystem, Package};

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    packages: Entries,
    #[serde(default, rename = "packages-dev")]
    development: Entries,
}

/// Both files: a list in `packages` (and `packages-dev`); Composer 1 wrote only the list.
pub(super) fn read(bytes: &[u8], packages: &mut Packages<'_>) -> Result<(), ReadError> {
    let lists = match bytes.trim_ascii_start().starts_with(b"[") {
        true => vec![serde_json::from_slice(bytes)?],
        false => {
            let lock: Lock = serde_json::from_slice(bytes)?;
            vec![lock.packages, lock.development]
        }
    };
    for (_, entry) in lists.into_iter().flat_map(|Entries(entries)| entries) {
        let (Some(name), Some(version)) = (entry.name, entry.version) else { continue };
        let licence = entry.licence.unwrap_or_default();
        packages.push(Package { licence, ..Package::new(Ecosystem::Composer, name, version) })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::input;
    use super::*;

    fn found(text: &str) -> Vec<Package> {
        input::found(text, |_, packages| read(text.as_bytes(), packages))
    }

    #[test]
    fn both_forms() {
        let lock = r#"{"packages": [{"name": "a/b", "version": "1.0", "license": ["MIT", "GPL-2.0-only"]}], "packages-dev": [{"name": "c/d", "version": "v2"}]}"#;
        let locked = found(lock);
        assert_eq!(locked[0].licence, "MIT OR GPL-2.0-only");
        assert_eq!(locked[1].purl(None), "pkg:composer/c/d@v2");
        assert_eq!(found(r#"[{"name": "a/b", "version": "1"}]"#).len(), 1);
        assert!(serde_json::from_str::<Lock>("x").is_err());
    }
}
