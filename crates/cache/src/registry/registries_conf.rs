//! What podman's `registries.conf` (version 2) says of a registry.
//!
//! ```text
//! [[registry]]
//! prefix = "docker.io"                  # or location alone; *.example.com for all below
//! location = "mirror.example.com/hub"   # where it is, if not where its name says
//! insecure = false
//! blocked = false
//! [[registry.mirror]]
//! location = "localhost:5000"
//! insecure = true
//! pull-from-mirror = "digest-only"      # or all; mirror-by-digest-only = true says it of all mirrors
//! ```
//!
//! What is said of a part of a registry (`quay.io/team`) is refused when that registry is asked: the ways to a registry are those to all
//! of it. Short names, logins and the form of version 1 are not for us.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::endpoints::{HostFilesError, is_not_for_us};
use crate::names::names_in;
use crate::read_file::read_at_most;

/// So long may a file be, in bytes: one may have no end.
const LONGEST: u64 = 1 << 20;

/// Where the files are.
#[derive(Clone, Debug, Default)]
pub struct PodmanFiles {
    /// The file: the first that is there.
    pub files: Vec<PathBuf>,
    /// Folders with files `*.conf`, of which later ones count for more.
    pub folders: Vec<PathBuf>,
}

/// What is said of a registry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// Asked in this order, before the registry.
    pub(super) mirrors: Vec<SaidMirror>,
    /// Where the registry is, if elsewhere.
    pub(super) location: Option<String>,
    pub(super) insecure: bool,
}

/// A mirror: `host[:port][/path]`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SaidMirror {
    pub(super) location: String,
    pub(super) insecure: bool,
    /// It is not asked what tags mean.
    pub(super) by_digest_only: bool,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default, rename = "registry")]
    registries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default, rename = "mirror")]
    mirrors: Vec<EntryMirror>,
    #[serde(skip)]
    file: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct EntryMirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: String,
}

/// What the files say of a registry. Blocks.
pub(super) fn read(of: &PodmanFiles, registry: &str) -> Result<Option<Said>, HostFilesError> {
    let mut entries: Vec<Entry> = Vec::new();
    for path in paths(of)? {
        for entry in read_file(&path)? {
            entries.retain(|before| before.prefix != entry.prefix);
            entries.push(entry);
        }
    }
    if let Some(part) = entries.iter().find(|entry| entry.is_part_of(registry)) {
        let reason = format!(
            "what it says of `{}` is for a part of `{registry}`, and can be said of all of it alone: write a hosts.toml",
            part.prefix
        );
        return Err(HostFilesError::Format { path: part.file.clone(), reason });
    }
    let fitting = entries.into_iter().filter(|entry| entry.is_for(registry));
    let Some(entry) = fitting.max_by_key(|entry| (!entry.is_wild(), entry.prefix.len())) else {
        return Ok(None);
    };
    entry.said(registry).map(Some)
}

/// The files that there are, the most important last.
fn paths(of: &PodmanFiles) -> Result<Vec<PathBuf>, HostFilesError> {
    let mut paths: Vec<PathBuf> =
        of.files.iter().find(|path| path.exists()).cloned().into_iter().collect();
    for folder in &of.folders {
        let fail = |source| HostFilesError::Read { path: folder.clone(), source };
        let names = match names_in(folder) {
            Ok(names) => names,
            Err(error) if is_not_for_us(&error) => continue,
            Err(error) => return Err(fail(error)),
        };
        let mut found: Vec<_> = names.into_iter().map(|name| folder.join(name)).collect();
        found.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
        found.sort();
        paths.extend(found);
    }
    Ok(paths)
}

fn read_file(path: &Path) -> Result<Vec<Entry>, HostFilesError> {
    let wrong = |reason: String| HostFilesError::Format { path: path.to_owned(), reason };
    let unreadable = |source| HostFilesError::Read { path: path.to_owned(), source };
    let read = || read_at_most(&mut File::open(path)?, LONGEST);
    let text = match read() {
        Ok(Some(text)) => String::from_utf8(text)
            .map_err(|error| unreadable(io::Error::new(io::ErrorKind::InvalidData, error)))?,
        Ok(None) => return Err(wrong("it is longer than 1 MiB".to_owned())),
        Err(error) if is_not_for_us(&error) => return Ok(Vec::new()),
        Err(source) => return Err(unreadable(source)),
    };
    let document: Document =
        toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
    let mut entries = document.registries;
    for entry in &mut entries {
        if entry.prefix.is_empty() {
            entry.prefix.clone_from(&entry.location);
        }
        if entry.prefix.is_empty() {
            return Err(wrong("a `registry` has neither `prefix` nor `location`".to_owned()));
        }
        path.clone_into(&mut entry.file);
    }
    Ok(entries)
}

impl Entry {
    fn is_wild(&self) -> bool {
        self.prefix.starts_with("*.")
    }

    fn is_for(&self, registry: &str) -> bool {
        match self.prefix.strip_prefix('*') {
            Some(end) => registry.ends_with(end),
            None => self.prefix == registry,
        }
    }

    fn is_part_of(&self, registry: &str) -> bool {
        self.prefix.split_once('/').is_some_and(|(host, _)| host == registry)
    }

    fn said(self, registry: &str) -> Result<Said, HostFilesError> {
        let path = self.file;
        if self.blocked {
            return Err(HostFilesError::Blocked { registry: registry.to_owned(), path });
        }
        let mut mirrors = Vec::new();
        for EntryMirror { location, insecure, pull_from_mirror } in self.mirrors {
            let by_digest_only = match pull_from_mirror.as_str() {
                "" => self.mirror_by_digest_only,
                "all" => false,
                "digest-only" => true,
                other => {
                    let reason =
                        format!("`pull-from-mirror = \"{other}\"` is neither all nor digest-only");
                    return Err(HostFilesError::Format { path, reason });
                }
            };
            mirrors.push(SaidMirror { location, insecure, by_digest_only });
        }
        let elsewhere = !self.location.is_empty() && self.location != registry;
        Ok(Said { mirrors, location: elsewhere.then_some(self.location), insecure: self.insecure })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_most_exact_entry_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        let main = write(
            "registries.conf",
            "unqualified-search-registries = ['docker.io']\n\
             [[registry]]\nprefix = '*.b'\nblocked = true\n\
             [[registry]]\nlocation = 'a.b'\ninsecure = true\nmirror-by-digest-only = true\n\
             [[registry.mirror]]\nlocation = 'm.b/x'\n\
             [[registry.mirror]]\nlocation = 'n.b'\ninsecure = true\npull-from-mirror = 'all'\n\
             [[registry]]\nprefix = 'c.d'\nlocation = 'e.f/g'\n\
             [[registry]]\nlocation = 'quay.io/team'\nblocked = true\n",
        );
        write("d/2.conf", "[[registry]]\nlocation = 'late.d'\ninsecure = true\n");
        write("d/1.conf", "[aliases]\n'x' = 'y.z/x'\n[[registry]]\nlocation = 'late.d'\n");
        let files = PodmanFiles {
            files: vec![folder.path().join("none"), main],
            folders: vec![folder.path().join("d"), folder.path().join("none")],
        };
        let said = |registry| read(&files, registry).unwrap();
        let mirror = |location: &str, insecure, by_digest_only| {
            let location = location.to_owned();
            SaidMirror { location, insecure, by_digest_only }
        };
        let mirrors = vec![mirror("m.b/x", false, true), mirror("n.b", true, false)];
        assert_eq!(said("a.b"), Some(Said { mirrors, location: None, insecure: true }));
        let location = Some("e.f/g".to_owned());
        assert_eq!(said("c.d"), Some(Said { mirrors: Vec::new(), location, insecure: false }));
        assert!(said("late.d").unwrap().insecure);
        assert_eq!(said("other.d"), None);
        let wrong = |registry| read(&files, registry).unwrap_err().to_string();
        assert!(wrong("x.b").contains("`x.b` is blocked by"), "{}", wrong("x.b"));
        assert!(wrong("quay.io").contains("a part of `quay.io`"), "{}", wrong("quay.io"));
        for (text, part) in [
            ("[[registry]]\nblocked = true", "neither `prefix` nor `location`"),
            ("[[registry]]\nlocation = 'a.b'\nblock = true", "unknown field `block`"),
            (
                "[[registry]]\nlocation = 'a.b'\n[[registry.mirror]]\nlocation = 'm'\npull-from-mirror = 'tag-only'",
                "is neither all",
            ),
            ("registry = 1", "invalid type"),
            (&"#".repeat((1 << 20) + 1), "longer than 1 MiB"),
        ] {
            write("d/3.conf", text);
            assert!(wrong("a.b").contains(part), "{}", wrong("a.b"));
        }
    }
}
