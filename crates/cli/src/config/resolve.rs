//! What counts, of files and the environment; and how it becomes the defaults of flags.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::{Arg, Command};

use super::file::{self, Place, Said};
use super::settings::{Form, NOTHING, SETTINGS, Setting};
use crate::error::CommandError;
use crate::hidden::without_secrets;

/// What is set, by the key of the setting.
#[derive(Debug, Default)]
pub(crate) struct Config(BTreeMap<&'static str, Vec<Entry>>);

/// A line that sets something, to none or several values.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) values: Vec<String>,
    pub(crate) origin: Origin,
}

/// Where a value is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A variable of the environment.
    Variable(String),
    /// A flag that was typed.
    Flag(&'static str),
    /// A file, and the place in it.
    File(PathBuf, Place),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
            Self::File(path, place) => write!(f, "{}:{}", path.display(), place.line),
        }
    }
}

impl Origin {
    /// As errors name it: of a file with the column, too.
    fn in_errors(&self) -> String {
        match self {
            Self::Variable(_) | Self::Flag(_) => self.to_string(),
            Self::File(_, place) => format!("{self}:{}", place.column),
        }
    }
}

/// Values of a list. `none` alone is a list of nothing, which an empty variable is not.
fn listed(values: Vec<String>) -> Vec<String> {
    if values == [NOTHING] { Vec::new() } else { values }
}

impl Config {
    /// Reads the files, of which later ones have precedence, and variables. Of a file that was `asked` for, that it is
    /// missing is an error.
    pub(crate) fn read(
        asked: Option<&Path>,
        usual: &[PathBuf],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, CommandError> {
        let mut config = Self::default();
        if let Some(path) = asked {
            let said = file::read(path)?.ok_or_else(|| {
                CommandError::usage(format!("there is no configuration `{}`", path.display()))
            })?;
            config.add(path, said);
        } else {
            for path in usual {
                config.add(path, file::read(path)?.unwrap_or_default());
            }
        }
        for setting in &SETTINGS {
            let name = setting.variable();
            let Some(value) = variable(&name).filter(|value| !value.is_empty()) else { continue };
            let values = match setting.form {
                Form::One => vec![value],
                // Values may have any other character in them.
                Form::List | Form::Lists => {
                    let lines = value.lines().map(str::trim).filter(|line| !line.is_empty());
                    listed(lines.map(str::to_owned).collect())
                }
            };
            config.0.insert(setting.key, vec![Entry { values, origin: Origin::Variable(name) }]);
        }
        Ok(config)
    }

    /// Adds what a file says. It replaces what files before it said of the same; of a table of lists, of the same list.
    fn add(&mut self, path: &Path, said: Vec<Said>) {
        for Said { setting, values, place } in said {
            let entries = self.0.entry(setting.key).or_default();
            let of = |values: &[String]| {
                values.first().and_then(|value| value.split_once('=')).map(|(of, _)| of.to_owned())
            };
            let values = if setting.form == Form::List { listed(values) } else { values };
            match setting.form {
                Form::One | Form::List => entries.clear(),
                Form::Lists => entries.retain(|entry| of(&entry.values) != of(&values)),
            }
            entries.push(Entry { values, origin: Origin::File(path.to_owned(), place) });
        }
    }

    /// What is set of a setting.
    pub(crate) fn get(&self, setting: &Setting) -> Option<&[Entry]> {
        self.0.get(setting.key).map(Vec::as_slice)
    }

    /// Has nothing in a list, as was typed.
    pub(crate) fn empty(&mut self, setting: &'static Setting) {
        let entry = Entry { values: Vec::new(), origin: Origin::Flag(setting.flag) };
        self.0.insert(setting.key, vec![entry]);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Has every value read by the flag that it is for.
    pub(crate) fn check(&self, command: &Command) -> Result<(), CommandError> {
        for setting in &SETTINGS {
            let entries = self.get(setting).unwrap_or_default();
            for Entry { values, origin } in entries {
                let is_file = matches!(origin, Origin::File(..));
                if setting.flag == "root"
                    && is_file
                    && values.iter().any(|value| is_relative(value))
                {
                    let origin = origin.in_errors();
                    let message = format!("{origin}: `root` is no absolute path");
                    return Err(CommandError::usage(message));
                }
                let flags = values.iter().map(|value| format!("--{}={value}", setting.flag));
                // What commands need besides is not the question.
                let rest = match setting.command {
                    Some(command) => [command, "."],
                    None => ["inspect", "x"],
                };
                let words = ["rbuild", rest[0]].map(str::to_owned).into_iter().chain(flags);
                let words = words.chain([rest[1].to_owned()]);
                if let Err(error) = command.clone().try_get_matches_from(words) {
                    let text = without_secrets(error).to_string();
                    let reason = text.lines().next().unwrap_or_default();
                    let reason = reason.strip_prefix("error: ").unwrap_or(reason);
                    let values =
                        text.lines().map(str::trim).find(|line| line.starts_with("[possible"));
                    let values = values.map(|values| format!(" {values}")).unwrap_or_default();
                    let origin = origin.in_errors();
                    let message = format!("{origin}: `{}`: {reason}{values}", setting.key);
                    return Err(CommandError::usage(message));
                }
            }
        }
        Ok(())
    }

    /// Makes what is set the defaults of flags.
    pub(crate) fn apply(&self, mut command: Command) -> Command {
        for setting in &SETTINGS {
            let Some(entries) = self.get(setting) else { continue };
            let values = entries.iter().flat_map(|entry| entry.values.iter().cloned());
            let values: Vec<String> = values.collect();
            let is_variable =
                entries.iter().any(|entry| matches!(entry.origin, Origin::Variable(_)));
            let set = |flag: Arg| match is_variable {
                // Another variable that clap knows for the flag, such as BUILDKIT_PROGRESS, counts for less.
                true => flag.env(Resettable::Reset).default_values(values),
                false => flag.default_values(values),
            };
            command = match setting.command {
                None => command.mut_arg(setting.id(), set),
                Some(name) => command.mut_subcommand(name, |of| of.mut_arg(setting.id(), set)),
            };
        }
        command
    }
}

fn is_relative(path: &str) -> bool {
    Path::new(path).is_relative()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_nearer_counts() {
        let folder = tempfile::tempdir().unwrap();
        let files =
            ["machine.toml", "user.toml", "missing.toml"].map(|name| folder.path().join(name));
        let machine = "[build]\njobs = 1\ntimeout = '1h'\ncache-from = ['a.b/c']\n\
                       [registry.mirrors]\n'a.b' = ['m.b']\n'c.d' = ['m.d']\n";
        fs::write(&files[0], machine).unwrap();
        fs::write(
            &files[1],
            "[build]\njobs = 2\ncache-from = []\nresource = ['none']\n[registry.mirrors]\n'a.b' = ['n.b']\n",
        )
        .unwrap();
        let variable = |name: &str| match name {
            "RBUILD_TIMEOUT" => Some("5m".to_owned()),
            "RBUILD_CACHE_TO" => Some(" type=inline\n\n a.b/c\n".to_owned()),
            "RBUILD_INSECURE_REGISTRY" => Some("none".to_owned()),
            "RBUILD_NETWORK" => Some(String::new()),
            _ => None,
        };
        let config = Config::read(None, &files, variable).unwrap();
        let shown = |key| {
            let entries = config.get(Setting::of_key(key).unwrap())?;
            let shown = |entry: &Entry| {
                let origin = entry.origin.to_string();
                let origin = origin.rsplit('/').next().unwrap_or_default();
                format!("{} {origin}", entry.values.join(" "))
            };
            Some(entries.iter().map(shown).collect::<Vec<_>>().join(", "))
        };
        assert_eq!(shown("build.jobs").unwrap(), "2 user.toml:2");
        assert_eq!(shown("build.timeout").unwrap(), "5m RBUILD_TIMEOUT");
        assert_eq!(shown("build.cache-from").unwrap(), " user.toml:3");
        assert_eq!(shown("build.cache-to").unwrap(), "type=inline a.b/c RBUILD_CACHE_TO");
        assert_eq!(shown("build.resource").unwrap(), " user.toml:4");
        assert_eq!(shown("registry.insecure").unwrap(), " RBUILD_INSECURE_REGISTRY");
        assert_eq!(shown("build.network"), None);
        let mirrors = "c.d=m.d machine.toml:7, a.b=n.b user.toml:6";
        assert_eq!(shown("registry.mirrors").unwrap(), mirrors);
        let only = Config::read(Some(&files[1]), &files, |_| None).unwrap();
        assert_eq!(only.get(Setting::of_key("build.timeout").unwrap()).map(<[_]>::len), None);
        let missing = Config::read(Some(&files[2]), &files, |_| None).unwrap_err();
        assert!(missing.reason().contains("there is no configuration"), "{}", missing.reason());
    }
}
