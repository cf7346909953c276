//! Everything that can be set.

/// A flag whose default can be set.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its name in a file: tables and key, with dots between.
    pub(crate) key: &'static str,
    /// The command that has the flag; `None` when all have it.
    pub(crate) command: Option<&'static str>,
    /// The flag, without dashes.
    pub(crate) flag: &'static str,
    /// How it is written in a file.
    pub(crate) form: Form,
}

/// How a value is written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A text, or a number.
    One,
    /// A list of texts.
    List,
    /// A table of lists of texts, each of which is `KEY=TEXT,TEXT` as a flag.
    Lists,
}

const fn global(key: &'static str, flag: &'static str, form: Form) -> Setting {
    Setting { key, command: None, flag, form }
}

const fn of_build(key: &'static str, flag: &'static str, form: Form) -> Setting {
    Setting { key, command: Some("build"), flag, form }
}

/// What stands for no limit, and for a list of nothing.
pub(crate) const NOTHING: &str = "none";

pub(crate) const SETTINGS: [Setting; 17] = [
    global("root", "root", Form::One),
    global("snapshotter", "snapshotter", Form::One),
    global("registry.mirrors", "registry-mirror", Form::Lists),
    global("registry.insecure", "insecure-registry", Form::List),
    of_build("build.compression", "compression", Form::One),
    of_build("build.isolation", "isolation", Form::One),
    of_build("build.jobs", "jobs", Form::One),
    of_build("build.network", "network", Form::One),
    of_build("build.timeout", "timeout", Form::One),
    of_build("build.idle-timeout", "idle-timeout", Form::One),
    of_build("build.resource", "resource", Form::List),
    of_build("build.progress", "progress", Form::One),
    of_build("build.cache-from", "cache-from", Form::List),
    of_build("build.cache-to", "cache-to", Form::List),
    of_build("store.reserved-space", "reserved-space", Form::One),
    of_build("store.max-used-space", "max-used-space", Form::One),
    of_build("store.min-free-space", "min-free-space", Form::One),
];

impl Setting {
    /// The setting of this name.
    pub(super) fn of_key(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// Whether there are settings in a table of this name.
    pub(super) fn is_table(key: &str) -> bool {
        SETTINGS
            .iter()
            .any(|setting| setting.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The variable that says the same.
    pub(crate) fn variable(&self) -> String {
        format!("RBUILD_{}", self.flag.replace('-', "_").to_uppercase())
    }

    /// What clap calls the flag.
    pub(crate) fn id(&self) -> String {
        self.flag.replace('-', "_")
    }

    /// The name that a wrong one was probably meant to be.
    pub(super) fn near(key: &str) -> Option<&'static str> {
        // The table may be what was forgotten.
        let name = |known: &'static str| match key.contains('.') {
            true => known,
            false => known.rsplit('.').next().unwrap_or(known),
        };
        let known = SETTINGS.iter().map(|setting| (distance(key, name(setting.key)), setting.key));
        let near = known.min()?;
        (near.0 <= 1 + key.len() / 4).then_some(near.1)
    }
}

/// How many letters have to be changed, added or left out.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, against) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *against);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_found() {
        assert_eq!(Setting::near("build.job"), Some("build.jobs"));
        assert_eq!(Setting::near("build.idle_timeout"), Some("build.idle-timeout"));
        assert_eq!(Setting::near("build.cache_from"), Some("build.cache-from"));
        assert_eq!(Setting::near("colour"), None);
        assert_eq!(Setting::near("job"), Some("build.jobs"));
        assert!(
            Setting::is_table("registry")
                && !Setting::is_table("reg")
                && !Setting::is_table("root")
        );
    }
}
