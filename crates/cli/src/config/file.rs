//! Reads a configuration file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::settings::{Form, Setting};
use crate::error::{CommandError, Kind};

/// What a file says of one setting.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) setting: &'static Setting,
    /// As the flag's values.
    pub(super) values: Vec<String>,
    pub(super) place: Place,
}

/// A place in a file; both numbers begin with 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// How many bytes a file may have.
const LONGEST: u64 = 1 << 20;

/// What a file says; `None` when there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Vec<Said>>, CommandError> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(LONGEST + 1).read_to_string(&mut text).map(|_| text)
    };
    match read() {
        Ok(text) if text.len() as u64 > LONGEST => Err(CommandError::usage(format!(
            "`{}` is larger than a configuration may be (1 MiB)",
            path.display()
        ))),
        Ok(text) => parse(path, &text).map(Some),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => {
            let message = format!("cannot read the configuration `{}`", path.display());
            Err(CommandError::caused(Kind::Usage, message, error))
        }
    }
}

fn parse(path: &Path, text: &str) -> Result<Vec<Said>, CommandError> {
    let reading = Reading { path: path.to_owned(), text, said: Vec::new() };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        reading.wrong(at, error.message())
    })?;
    let mut reading = reading;
    reading.table("", table.get_ref())?;
    reading.said.sort_by_key(|said| said.place);
    Ok(reading.said)
}

struct Reading<'a> {
    path: PathBuf,
    text: &'a str,
    said: Vec<Said>,
}

impl Reading<'_> {
    fn place(&self, at: usize) -> Place {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Place { line, column }
    }

    fn wrong(&self, at: usize, reason: &str) -> CommandError {
        let Place { line, column } = self.place(at);
        CommandError::usage(format!("{}:{line}:{column}: {reason}", self.path.display()))
    }

    fn table(&mut self, prefix: &str, table: &DeTable<'_>) -> Result<(), CommandError> {
        for (name, value) in table {
            let key = match prefix {
                "" => name.get_ref().to_string(),
                prefix => format!("{prefix}.{}", name.get_ref()),
            };
            let at = name.span().start;
            match (Setting::of_key(&key), value.get_ref()) {
                (Some(setting), value) => self.setting(at, setting, value)?,
                (None, DeValue::Table(table)) if Setting::is_table(&key) => {
                    self.table(&key, table)?;
                }
                (None, _) if Setting::is_table(&key) => {
                    return Err(self.wrong(at, &format!("`{key}` is a table: write [{key}]")));
                }
                _ => {
                    let error = self.wrong(at, &format!("there is no setting `{key}`"));
                    return Err(match Setting::near(&key) {
                        Some(near) => error.hint(format!("did you mean `{near}`?")),
                        None => error.hint("`rbuild config show` lists all settings"),
                    });
                }
            }
        }
        Ok(())
    }

    /// A value as those of a flag; of a table of lists, one entry a list.
    fn setting(
        &mut self,
        at: usize,
        setting: &'static Setting,
        value: &DeValue<'_>,
    ) -> Result<(), CommandError> {
        let key = setting.key;
        let values = match (setting.form, value) {
            (Form::One, value) => vec![text(value).ok_or_else(|| {
                self.wrong(at, &format!("`{key}` is one text or number, not {}", kind(value)))
            })?],
            (Form::List, value) => self.list(at, key, value)?,
            (Form::Lists, DeValue::Table(table)) => {
                for (name, list) in table {
                    let (at, name) = (name.span().start, name.get_ref());
                    let list = self.list(at, &format!("{key}.\"{name}\""), list.get_ref())?;
                    let values = vec![format!("{name}={}", list.join(","))];
                    self.said.push(Said { setting, values, place: self.place(at) });
                }
                return Ok(());
            }
            (Form::Lists, value) => {
                let reason = format!("`{key}` is a table of lists, not {}", kind(value));
                return Err(self.wrong(at, &reason));
            }
        };
        self.said.push(Said { setting, values, place: self.place(at) });
        Ok(())
    }

    fn list(&self, at: usize, key: &str, value: &DeValue<'_>) -> Result<Vec<String>, CommandError> {
        let wrong =
            |value| self.wrong(at, &format!("`{key}` is a list of texts, not {}", kind(value)));
        let list = value.as_array().ok_or_else(|| wrong(value))?;
        let texts = list.iter().map(|item| {
            let value = item.get_ref();
            value.as_str().map(str::to_owned).ok_or_else(|| {
                let at = item.span().start;
                self.wrong(at, &format!("`{key}` is a list of texts, and {} is in it", kind(value)))
            })
        });
        texts.collect()
    }
}

fn text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        _ => None,
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_values_of_flags() {
        let text = "root = '/big/rbuild'\n\n[build]\njobs = 4\ncache-from = ['a', 'b']\n\
                    [registry.mirrors]\n'docker.io' = ['one', 'two:5000']\n";
        let said = parse(Path::new("rbuild.toml"), text).unwrap();
        let shown =
            |said: &Said| format!("{} {:?} {}", said.setting.key, said.values, said.place.line);
        assert_eq!(
            said.iter().map(shown).collect::<Vec<_>>(),
            [
                r#"root ["/big/rbuild"] 1"#,
                r#"build.jobs ["4"] 4"#,
                r#"build.cache-from ["a", "b"] 5"#,
                r#"registry.mirrors ["docker.io=one,two:5000"] 7"#,
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, part) in [
            ("root = \n", "rbuild.toml:1:8: "),
            ("\n[build]\n  job = 4", "rbuild.toml:3:3: there is no setting `build.job`"),
            ("\ncolor = 4", "rbuild.toml:2:1: there is no setting `color`"),
            ("build = 4", "rbuild.toml:1:1: `build` is a table"),
            (
                "[build]\njobs = [4]",
                "rbuild.toml:2:1: `build.jobs` is one text or number, not a list",
            ),
            (
                "[build]\n\ncache-to = 'a'",
                "rbuild.toml:3:1: `build.cache-to` is a list of texts, not a text",
            ),
            (
                "[build]\ncache-to = ['a',\n4]",
                "rbuild.toml:3:1: `build.cache-to` is a list of texts, and a number",
            ),
            (
                "[registry]\nmirrors = ['a']",
                "rbuild.toml:2:1: `registry.mirrors` is a table of lists",
            ),
            ("root = 'a'\nroot = 'b'", "rbuild.toml:2:1: "),
            ("root = 'ä' x", "rbuild.toml:1:12: "),
        ] {
            let error = parse(Path::new("rbuild.toml"), text).unwrap_err().reason();
            assert!(error.starts_with(part), "{text}: {error}");
        }
    }
}
