//! JavaScript: what is in `node_modules`, and the lock files of npm, yarn and pnpm.

use serde_json::{Map, Value};

use super::package::{Ecosystem, Package};

/// `package.json` of an installed package.
pub(super) fn package_json(text: &str) -> Result<Vec<Package>, serde_json::Error> {
    let document: Value = serde_json::from_str(text)?;
    let Some(name) = document["name"].as_str() else { return Ok(Vec::new()) };
    Ok(vec![package(name, &document)].into_iter().flatten().collect())
}

/// `package-lock.json` of all versions, also the hidden one in `node_modules`.
pub(super) fn package_lock(text: &str) -> Result<Vec<Package>, serde_json::Error> {
    let document: Value = serde_json::from_str(text)?;
    let mut packages = Vec::new();
    if let Some(entries) = document["packages"].as_object() {
        for (path, entry) in entries {
            // What is no package of a registry has a path of its own: the project, and its workspaces.
            let Some((_, below)) = path.rsplit_once("node_modules/") else { continue };
            if entry["link"] != true {
                packages.extend(package(entry["name"].as_str().unwrap_or(below), entry));
            }
        }
    } else if let Some(dependencies) = document["dependencies"].as_object() {
        let mut pending: Vec<&Map<String, Value>> = vec![dependencies];
        while let Some(dependencies) = pending.pop() {
            for (name, entry) in dependencies {
                packages.extend(package(name, entry));
                pending.extend(entry["dependencies"].as_object());
            }
        }
    }
    Ok(packages)
}

fn package(name: &str, entry: &Value) -> Option<Package> {
    let (mut name, mut version) = (name, entry["version"].as_str()?);
    // An alias: `npm:NAME@VERSION`.
    if let Some((real, its_version)) =
        version.strip_prefix("npm:").and_then(|it| it.rsplit_once('@'))
    {
        (name, version) = (real, its_version);
    }
    let licence = match &entry["license"] {
        Value::String(text) => text.clone(),
        other => other["type"].as_str().unwrap_or_default().to_owned(),
    };
    // A version that is an address has no package URL: the package came from a file or a repository.
    let version = version.starts_with(|first: char| first.is_ascii_digit()).then_some(version)?;
    Some(Package { licence, ..Package::new(Ecosystem::Npm, name, version) })
}

/// `yarn.lock`, the first form and that of yarn 2 and later.
pub(super) fn yarn_lock(text: &str) -> Vec<Package> {
    let mut packages = Vec::new();
    let mut name = None;
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        if !line.starts_with(' ') {
            name = line.strip_suffix(':').map(|specs| {
                let first = specs.split(',').next().unwrap_or(specs).trim_matches('"');
                name_of_spec(first)
            });
            continue;
        }
        let Some(version) = line.strip_prefix("  version") else { continue };
        let version = version.trim_start_matches(':').trim().trim_matches('"');
        match name.take() {
            // Workspaces are the project itself.
            Some("__metadata") | None => {}
            Some(_) if version == "0.0.0-use.local" => {}
            Some(name) => packages.push(Package::new(Ecosystem::Npm, name, version)),
        }
    }
    packages
}

/// `pnpm-lock.yaml` from version 6 on: the keys of `packages` say it all.
pub(super) fn pnpm_lock(text: &str) -> Vec<Package> {
    let lines = text.lines().skip_while(|line| *line != "packages:").skip(1);
    let section = lines.take_while(|line| line.is_empty() || line.starts_with(' '));
    let keys = section.filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'));
    let packages = keys.filter(|key| !key.starts_with(' ')).filter_map(|key| {
        let key = key.trim_matches('\'').trim_start_matches('/');
        let (key, _peers) = key.split_once('(').unwrap_or((key, ""));
        let name = name_of_spec(key);
        let version = key.get(name.len() + 1..)?;
        version
            .starts_with(|first: char| first.is_ascii_digit())
            .then(|| Package::new(Ecosystem::Npm, name, version))
    });
    packages.collect()
}

/// What stands before the `@` of a version; a scope begins with one, too.
fn name_of_spec(spec: &str) -> &str {
    let at = spec.char_indices().skip(1).find(|(_, char)| *char == '@');
    at.map_or(spec, |(at, _)| &spec[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let found = names(package_lock(new).unwrap());
        assert_eq!(found, ["a 1.2.3 MIT", "@s/b 2.0.0 ", "real 3.0.0 "]);
        let old = r#"{"lockfileVersion": 1, "dependencies": {
            "a": {"version": "1.0.0", "dependencies": {"b": {"version": "2.0.0"}}},
            "c": {"version": "npm:real@3.1.0"}}}"#;
        assert_eq!(names(package_lock(old).unwrap()), ["a 1.0.0 ", "real 3.1.0 ", "b 2.0.0 "]);
        assert!(package_lock("{").is_err());
        assert!(package_lock("[]").unwrap().is_empty());
        let installed = r#"{"name": "@s/x", "version": "1.0.0", "license": {"type": "ISC"}}"#;
        assert_eq!(names(package_json(installed).unwrap()), ["@s/x 1.0.0 ISC"]);
        assert!(package_json(r#"{"type": "module"}"#).unwrap().is_empty());
    }

    #[test]
    fn locks_of_others() {
        let yarn = "# yarn lockfile v1\n\n\"@s/a@^1.0\", \"@s/a@^1.1\":\n  version \"1.1.2\"\n  dependencies:\n    b \"1\"\n\nb@1:\n  version \"1.0.0\"\n";
        assert_eq!(names(yarn_lock(yarn)), ["@s/a 1.1.2 ", "b 1.0.0 "]);
        let berry = "__metadata:\n  version: 6\n\n\"@s/a@npm:^1.0\":\n  version: 1.1.2\n  resolution: \"x\"\n\n\"app@workspace:.\":\n  version: 0.0.0-use.local\n";
        assert_eq!(names(yarn_lock(berry)), ["@s/a 1.1.2 "]);
        let pnpm = "lockfileVersion: '9.0'\n\nimporters:\n\n  .:\n    dependencies: {}\n\npackages:\n\n  '@s/a@1.0.0':\n    resolution: {}\n\n  /b@2.0.0(react@18.0.0):\n    dev: true\n\nsnapshots:\n\n  c@3.0.0:\n";
        assert_eq!(names(pnpm_lock(pnpm)), ["@s/a 1.0.0 ", "b 2.0.0 "]);
    }
}
