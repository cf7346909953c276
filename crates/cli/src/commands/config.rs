//! `rbuild config show`: what is set, and where each value comes from.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use serde_json::json;

use super::images::{print, table};
use crate::args::ConfigShowArgs;
use crate::config::{Config, Entry, Origin, SETTINGS, Setting};
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
    for setting in &SETTINGS {
        let Shown { mut values, origin } = shown(setting, config, command, typed);
        if ["build.cache-from", "build.cache-to"].contains(&setting.key) {
            values.iter_mut().for_each(|value| *value = hide_secrets(value));
        }
        if args.json {
            let document = json!({ "key": setting.key, "values": values, "from": origin });
            text.push_str(&document.to_string());
            text.push('\n');
        } else {
            rows.push([setting.key.to_owned(), values.join(" "), origin]);
        }
    }
    if !args.json {
        text = table(["KEY", "VALUE", "FROM"], &rows);
    }
    print(text.as_bytes())
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
    let values = match setting.key {
        "root" => {
            paths::store_root(None).into_iter().map(|root| root.display().to_string()).collect()
        }
        _ => {
            let values = flag.map(|flag| flag.get_default_values()).unwrap_or_default();
            values.iter().map(|value| value.to_string_lossy().into_owned()).collect()
        }
    };
    Shown { values, origin: "default".to_owned() }
}
