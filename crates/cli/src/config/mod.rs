//! What is set for every run: `rbuild.toml` and variables of the environment.
//!
//! ```text
//! /etc/rbuild/rbuild.toml                    of the machine
//! $XDG_CONFIG_HOME/rbuild/rbuild.toml        of the user, which has precedence
//! ```
//!
//! A setting is the default of a flag, so that it has one name, one form and one check. What is typed has precedence over a
//! variable, and that over a file. Nothing but flags can be set, so nothing is set that cannot be seen and changed in one run.

mod emptied;
mod file;
mod resolve;
mod settings;

pub(crate) use emptied::without_emptied;
pub(crate) use resolve::{Config, Entry, Origin};
pub(crate) use settings::{Form, NOTHING, SETTINGS, Setting};
