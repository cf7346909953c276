//! Instructions that only change the config.

use std::time::Duration;

use rbuild_oci as oci;
use serde_json::{Map, Value};

use super::lowering::Lowering;
use super::place::{Fallible, Place, Scope};
use super::signal::is_signal;
use super::state::State;
use crate::check::instruction;
use crate::dockerfile::ast::{Command, Healthcheck, Pairs};
use crate::dockerfile::mapped::Mapped;
use crate::history::{self, plain_list, quoted_list};

impl<'a> Lowering<'a> {
    pub(super) fn label(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        pairs: &Pairs,
    ) -> Fallible<()> {
        self.lint_legacy(place, pairs);
        let mut created_by = String::from("LABEL");
        for (name, value) in self.pairs(place, scope, pairs)? {
            created_by.extend([" ", &name, "=", &value]);
            scope.state.config.config.labels.insert(name, value);
        }
        self.commit(place, &mut scope.state, created_by, false)
    }

    /// The name is not looked up: only a RUN needs to know who it is.
    pub(super) fn user(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        user: &Mapped,
    ) -> Fallible<()> {
        let user = self.expand(place, &scope.state, user)?;
        let created_by = format!("USER {user}");
        scope.state.config.config.user = user;
        self.commit(place, &mut scope.state, created_by, false)
    }

    pub(super) fn volume(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        paths: &[Mapped],
    ) -> Fallible<()> {
        let expanded = self.expand_all(place, &scope.state, paths)?;
        for (path, written) in expanded.iter().zip(paths) {
            if path.is_empty() {
                let message = "VOLUME specified can not be an empty string";
                return Err(place.error("volume", written.span(), message));
            }
            scope.state.config.config.volumes.insert(path.clone(), Value::Object(Map::new()));
        }
        let created_by = format!("VOLUME {}", plain_list(&expanded));
        self.commit(place, &mut scope.state, created_by, false)
    }

    pub(super) fn stopsignal(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        signal: &Mapped,
    ) -> Fallible<()> {
        let expanded = self.expand(place, &scope.state, signal)?;
        if !is_signal(&expanded) {
            let message = format!("invalid signal: {expanded}");
            return Err(place.error("stopsignal", signal.span(), message));
        }
        let created_by = format!("STOPSIGNAL {expanded}");
        scope.state.config.config.stop_signal = expanded;
        self.commit(place, &mut scope.state, created_by, false)
    }

    pub(super) fn cmd(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        command: &Command,
    ) -> Fallible<()> {
        self.only_once(place, scope, "CMD");
        self.lint_shell_form(place, scope, "CMD", command);
        let words = command_words(command, &scope.state);
        let created_by = format!("CMD {}", quoted_list(&words));
        let config = &mut scope.state.config.config;
        config.cmd = some(words);
        config.args_escaped = true;
        self.commit(place, &mut scope.state, created_by, false)
    }

    /// Clears a CMD that this stage did not set itself: it was meant for another program.
    pub(super) fn entrypoint(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        command: &Command,
    ) -> Fallible<()> {
        self.only_once(place, scope, "ENTRYPOINT");
        self.lint_shell_form(place, scope, "ENTRYPOINT", command);
        let words = command_words(command, &scope.state);
        let created_by = format!("ENTRYPOINT {}", quoted_list(&words));
        let config = &mut scope.state.config.config;
        config.entrypoint = some(words);
        if !scope.last.contains_key("CMD") {
            config.cmd = None;
        }
        self.commit(place, &mut scope.state, created_by, false)
    }

    pub(super) fn healthcheck(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        check: &Healthcheck,
    ) -> Fallible<()> {
        self.only_once(place, scope, "HEALTHCHECK");
        let nanoseconds = |duration: &Option<Duration>| {
            i64::try_from(duration.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
        };
        let check = match check {
            Healthcheck::None => {
                oci::Healthcheck { test: vec!["NONE".to_owned()], ..Default::default() }
            }
            Healthcheck::Check {
                command,
                interval,
                timeout,
                start_period,
                start_interval,
                retries,
            } => oci::Healthcheck {
                test: match command {
                    Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.text().to_owned()],
                    Command::Exec(words) => std::iter::once("CMD".to_owned())
                        .chain(words.iter().map(|word| word.text().to_owned()))
                        .collect(),
                },
                interval: nanoseconds(interval),
                timeout: nanoseconds(timeout),
                start_period: nanoseconds(start_period),
                start_interval: nanoseconds(start_interval),
                retries: retries.unwrap_or_default().into(),
                ..Default::default()
            },
        };
        let created_by = format!("HEALTHCHECK {}", history::healthcheck(&check));
        scope.state.config.config.healthcheck = Some(check);
        self.commit(place, &mut scope.state, created_by, false)
    }

    pub(super) fn set_shell(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        words: &[Mapped],
    ) -> Fallible<()> {
        let words: Vec<String> = words.iter().map(|word| word.text().to_owned()).collect();
        let created_by = format!("SHELL {}", plain_list(&words));
        scope.state.config.config.shell = words;
        self.commit(place, &mut scope.state, created_by, false)
    }

    pub(super) fn maintainer(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        name: &Mapped,
    ) -> Fallible<()> {
        name.text().clone_into(&mut scope.state.config.author);
        let created_by = format!("MAINTAINER {}", name.text());
        self.commit(place, &mut scope.state, created_by, false)
    }
}

impl<'a> Lowering<'a> {
    /// A shell that was chosen is a reason for the shell form.
    fn lint_shell_form(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &Scope,
        name: &str,
        command: &Command,
    ) {
        if let Command::Shell(text) = command
            && scope.state.config.config.shell.is_empty()
        {
            self.warn_of(place, instruction::shell_form(&place.step.statement, name, text));
        }
    }

    /// `ENV name value` and `LABEL name value`.
    pub(super) fn lint_legacy(&mut self, place: &Place<'_, 'a>, pairs: &Pairs) {
        if let Some(warning) = instruction::legacy_pairs(&place.step.statement, pairs) {
            self.warn_of(place, warning);
        }
    }
}

/// The words of a command, those of the shell first in the shell form.
fn command_words(command: &Command, state: &State) -> Vec<String> {
    match command {
        Command::Shell(text) => with_shell(state, text.text()),
        Command::Exec(words) => words.iter().map(|word| word.text().to_owned()).collect(),
    }
}

/// A command line for the shell of a stage.
pub(super) fn with_shell(state: &State, command: &str) -> Vec<String> {
    let config = &state.config;
    let default: &[&str] = match config.os.as_str() {
        "windows" => &["cmd", "/S", "/C"],
        _ => &["/bin/sh", "-c"],
    };
    let mut words = match config.config.shell.is_empty() {
        true => default.iter().map(|word| (*word).to_owned()).collect(),
        false => config.config.shell.clone(),
    };
    words.push(command.to_owned());
    words
}

/// An empty list is written like none.
fn some(words: Vec<String>) -> Option<Vec<String>> {
    Some(words).filter(|words| !words.is_empty())
}
