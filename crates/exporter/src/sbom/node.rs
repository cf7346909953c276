//! JavaScript: what is in `node_modules`, and the lock files of npm, yarn and pnpm.

use std::io::BufRead;

use serde::Deserialize;

use super::input::{Lines, Packages, ReadError};
use super::json::{Entries, Entry};
use super::package::{Ecosystem, Package};

/// npm's lock file. The later form has both fields, with the same in them.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Lock {
    packages: Option<Entries>,
    dependencies: Entries,
}

/// `package.json` of an installed package.
pub(super) fn package_json(bytes: &[u8], packages: &mut Packages<'_>) -> Result<(), ReadError> {
    let entry: Entry = serde_json::from_slice(bytes)?;
    packages.extend(entry.name.clone().and_then(|name| package(&name, entry)))
}

/// `package-lock.json` of all versions, also the hidden one in `node_modules`.
pub(super) fn package_lock(bytes: &[u8], packages: &mut Packages<'_>) -> Result<(), ReadError> {
    let lock: Lock = serde_json::from_slice(bytes)?;
    let Some(Entries(entries)) = lock.packages else {
        let mut pending = vec![lock.dependencies];
        while let Some(Entries(entries)) = pending.pop() {
            for (name, mut entry) in entries {
                pending.push(std::mem::take(&mut entry.dependencies));
                packages.extend(package(&name, entry))?;
            }
        }
        return Ok(());
    };
    for (path, entry) in entries {
        // What is no package of a registry has a path of its own: the project, and its workspaces.
        let Some((_, below)) = path.rsplit_once("node_modules/") else { continue };
        if !entry.is_link {
            let name = entry.name.clone();
            packages.extend(package(name.as_deref().unwrap_or(below), entry))?;
        }
    }
    Ok(())
}

fn package(name: &str, entry: Entry) -> Option<Package> {
    let written = entry.version?;
    let (mut name, mut version) = (name, written.as_str());
    // An alias: `npm:NAME@VERSION`.
    if let Some((real, its_version)) =
        version.strip_prefix("npm:").and_then(|it| it.rsplit_once('@'))
    {
        (name, version) = (real, its_version);
    }
    let licence = entry.licence.unwrap_or_default();
    // A version that is an address has no package URL: the package came from a file or a repository.
    let version = version.starts_with(|first: char| first.is_ascii_digit()).then_some(version)?;
    Some(Package { licence, ..Package::new(Ecosystem::Npm, name, version) })
}

/// `yarn.lock`, the first form and that of yarn 2 and later.
pub(super) fn yarn_lock(
    lines: &mut Lines<impl BufRead>,
    packages: &mut Packages<'_>,
) -> Result<(), ReadError> {
    let mut name: Option<String> = None;
    while let Some(line) = lines.next()? {
        if line.starts_with('#') {
            continue;
        }
        if !line.starts_with(' ') {
            name = line.strip_suffix(':').map(|specs| {
                let first = specs.split(',').next().unwrap_or(specs).trim_matches('"');
                name_of_spec(first).to_owned()
            });
            continue;
        }
        let Some(version) = line.strip_prefix("  version") else { continue };
        let version = version.trim_start_matches(':').trim().trim_matches('"');
        match name.take() {
            None => {}
            // Workspaces are the project itself.
            Some(name) if name == "__metadata" || version == "0.0.0-use.local" => {}
            Some(name) => packages.push(Package::new(Ecosystem::Npm, name, version))?,
        }
    }
    Ok(())
}

/// `pnpm-lock.yaml` from version 6 on: the keys of `packages` say it all.
pub(super) fn pnpm_lock(
    lines: &mut Lines<impl BufRead>,
    packages: &mut Packages<'_>,
) -> Result<(), ReadError> {
    let mut is_inside = false;
    while let Some(line) = lines.next()? {
        if !line.is_empty() && !line.starts_with(' ') {
            is_inside = line == "packages:";
            continue;
        }
        let key = line.strip_prefix("  ").and_then(|line| line.strip_suffix(':'));
        let Some(key) = key.filter(|key| is_inside && !key.starts_with(' ')) else { continue };
        let key = key.trim_matches('\'').trim_start_matches('/');
        let (key, _peers) = key.split_once('(').unwrap_or((key, ""));
        let name = name_of_spec(key);
        let version = key.get(name.len() + 1..).unwrap_or_default();
        if version.starts_with(|first: char| first.is_ascii_digit()) {
            packages.push(Package::new(Ecosystem::Npm, name, version))?;
        }
    }
    Ok(())
}

/// What stands before the `@` of a version; a scope begins with one, too.
fn name_of_spec(spec: &str) -> &str {
    let at = spec.char_indices().skip(1).find(|(_, char)| *char == '@');
    at.map_or(spec, |(at, _)| &spec[..at])
}

#[cfg(test)]
mod tests {
    use super::super::input::found;
    use super::*;

    fn json(
        text: &str,
        read: fn(&[u8], &mut Packages<'_>) -> Result<(), ReadError>,
    ) -> Vec<String> {
        names(found(text, |_, packages| read(text.as_bytes(), packages)))
    }

    fn names(packages: Vec<Package>) -> Vec<String> {
        packages
            .into_iter()
            .map(|it| format!("{} {} {}", it.name, it.version, it.licence))
            .collect()
    }

    #[test]
    fn locks_of_npm() {
        let new = r#"{"lockfileVersion": 3, "packages": {
            "": {"name": "app", "version": "1.0.0"},
            "lib": {"name": "lib", "version": "0.0.1"},
            "node_modules/lib": {"link": true, "resolved": "lib"},
            "node_modules/a": {"version": "1.2.3", "license": "MIT"},
            "node_modules/a/node_modules/@s/b": {"version": "2.0.0"},
            "node_modules/alias": {"name": "real", "version": "3.0.0"},
            "node_modules/git": {"version": "git+ssh://x/y.git#abc"}}}"#;
        assert_eq!(json(new, package_lock), ["a 1.2.3 MIT", "@s/b 2.0.0 ", "real 3.0.0 "]);
        let old = r#"{"lockfileVersion": 1, "dependencies": {
            "a": {"version": "1.0.0", "dependencies": {"b": {"version": "2.0.0"}}},
            "c": {"version": "npm:real@3.1.0"}}}"#;
        assert_eq!(json(old, package_lock), ["a 1.0.0 ", "real 3.1.0 ", "b 2.0.0 "]);
        assert!(serde_json::from_str::<Lock>("{").is_err());
        assert!(json("[]", package_lock).is_empty());
        let installed = r#"{"name": "@s/x", "version": "1.0.0", "license": {"type": "ISC"}}"#;
        assert_eq!(json(installed, package_json), ["@s/x 1.0.0 ISC"]);
        assert!(json(r#"{"type": "module"}"#, package_json).is_empty());
    }

    #[test]
    fn locks_of_others() {
        let yarn = "# yarn lockfile v1\n\n\"@s/a@^1.0\", \"@s/a@^1.1\":\n  version \"1.1.2\"\n  dependencies:\n    b \"1\"\n\nb@1:\n  version \"1.0.0\"\n";
        assert_eq!(names(found(yarn, yarn_lock)), ["@s/a 1.1.2 ", "b 1.0.0 "]);
        let berry = "__metadata:\n  version: 6\n\n\"@s/a@npm:^1.0\":\n  version: 1.1.2\n  resolution: \"x\"\n\n\"app@workspace:.\":\n  version: 0.0.0-use.local\n";
        assert_eq!(names(found(berry, yarn_lock)), ["@s/a 1.1.2 "]);
        let pnpm = "lockfileVersion: '9.0'\n\nimporters:\n\n  .:\n    dependencies: {}\n\npackages:\n\n  '@s/a@1.0.0':\n    resolution: {}\n\n  /b@2.0.0(react@18.0.0):\n    dev: true\n\nsnapshots:\n\n  c@3.0.0:\n";
        assert_eq!(names(found(pnpm, pnpm_lock)), ["@s/a 1.0.0 ", "b 2.0.0 "]);
    }
}
