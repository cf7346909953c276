//! `rbuild config show`: what is set, and where each value comes from.

use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use rbuild_cache::DiskSpace;
use serde_json::json;

use super::images::{print, table};
use crate::args::ConfigShowArgs;
use crate::config::{Config, Entry, Form, NOTHING, Origin, SETTINGS, Setting};
use crate::error::CommandError;
use crate::hidden::hide_secrets;
use crate::paths;

/// What a setting comes to, and where from.
struct Shown {
    values: Vec<String>,
    origin: String,
}

/// `rbuild config show`. `typed` is what this command was given.
pub(crate) fn show(
    config: &Config,
    command: &Command,
    typed: &ArgMatches,
    args: &ConfigShowArgs,
) -> Result<(), CommandError> {
    let mut text = String::new();
    let mut rows = Vec::new();
    let root = root(config, command, typed);
    for setting in &SETTINGS {
        let Shown { mut values, origin } = shown(setting, config, command, typed);
        if ["build.cache-from", "build.cache-to"].contains(&setting.key) {
            values.iter_mut().for_each(|value| *value = hide_secrets(value));
        }
        if values.is_empty() && setting.form == Form::One {
            values.push(unset(setting, root.as_deref()));
        }
        if args.json {
            let document = json!({ "key": setting.key, "values": values, "from": origin });
            text.push_str(&document.to_string());
            text.push('\n');
        } else {
            let shown = if values.is_empty() { NOTHING.to_owned() } else { values.join(" ") };
            rows.push([setting.key.to_owned(), shown, origin]);
        }
    }
    if !args.json {
        text = table(["KEY", "VALUE", "FROM"], &rows);
    }
    print(text.as_bytes())
}

/// Where the store is.
fn root(config: &Config, command: &Command, typed: &ArgMatches) -> Option<PathBuf> {
    let setting = SETTINGS.iter().find(|setting| setting.key == "root")?;
    let given = shown(setting, config, command, typed).values.pop();
    paths::store_root(given.as_deref().map(Path::new)).ok()
}

fn shown(setting: &Setting, config: &Config, command: &Command, typed: &ArgMatches) -> Shown {
    let id = setting.id();
    if setting.command.is_none() && typed.value_source(&id) == Some(ValueSource::CommandLine) {
        let values = typed.get_raw(&id).into_iter().flatten();
        let values = values.map(|value| value.to_string_lossy().into_owned()).collect();
        return Shown { values, origin: format!("--{}", setting.flag) };
    }
    let set = config.get(setting).unwrap_or_default();
    let owner = match setting.command {
        None => Some(command),
        Some(name) => command.find_subcommand(name),
    };
    let flag = owner.and_then(|of| of.get_arguments().find(|flag| flag.get_id() == id.as_str()));
    let is_variable = |entry: &Entry| matches!(entry.origin, Origin::Variable(_));
    // What others call it, such as BUILDKIT_PROGRESS, is a variable, too.
    if !set.iter().any(is_variable)
        && let Some(name) = flag.and_then(|flag| flag.get_env())
        && let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty())
    {
        let values = vec![value.to_string_lossy().into_owned()];
        return Shown { values, origin: name.to_string_lossy().into_owned() };
    }
    if !set.is_empty() {
        let values = set.iter().flat_map(|entry| entry.values.iter().cloned()).collect();
        let origins: Vec<String> = set.iter().map(|entry| entry.origin.to_string()).collect();
        return Shown { values, origin: origins.join(", ") };
    }
    let values = flag.map(|flag| flag.get_default_values()).unwrap_or_default();
    let values = values.iter().map(|value| value.to_string_lossy().into_owned()).collect();
    Shown { values, origin: "default".to_owned() }
}

/// What holds where nothing is set and the flag itself has no default, for a store at `root`.
fn unset(setting: &Setting, root: Option<&Path>) -> String {
    let disk = root.and_then(|root| root.ancestors().find_map(|at| DiskSpace::of(at).ok()));
    let least = |percent: u64, gigabytes: u64| match disk {
        Some(disk) if disk.total / 100 * percent < gigabytes * 1_000_000_000 => {
            format!("{percent}%")
        }
        _ => format!("{gigabytes}GB"),
    };
    match setting.key {
        "root" => root.map(|root| root.display().to_string()).unwrap_or_default(),
        "build.compression" => "gzip".to_owned(),
        "store.reserved-space" => least(10, 10),
        "store.max-used-space" => least(80, 100),
        "store.min-free-space" => "20%".to_owned(),
        _ => NOTHING.to_owned(),
    }
}
