//! The instructions that hold a command line: RUN, SHELL and HEALTHCHECK. (CMD and ENTRYPOINT are nothing else.)

use std::time::Duration;

use super::ast::{Command, Healthcheck, Network, Run, Security};
use super::json_form::JsonForm;
use super::lexer::clip;
use super::mapped::Mapped;
use super::mount::MountSpec;
use super::parts::Parts;
use super::sink::Sink;
use super::units::parse_duration;
use crate::diagnostic::Diagnostic;
use crate::source::Spanned;
use crate::suggest::suggest;

impl Parts<'_> {
    pub(super) fn run(&self, sink: &mut Sink) -> Option<Run> {
        let mounts =
            self.flags.all("mount").filter_map(|value| MountSpec::parse(value, sink)).collect();
        let network = self.choice(
            "network",
            &[("default", Network::Default), ("none", Network::None), ("host", Network::Host)],
            |value| format!("invalid network mode {value:?}"),
            sink,
        );
        let security = self.choice(
            "security",
            &[("sandbox", Security::Sandbox), ("insecure", Security::Insecure)],
            |value| format!("security {value:?} is not valid"),
            sink,
        );
        let devices = self.flags.all("device").collect();
        Some(Run { command: self.command(sink)?, mounts, network, security, devices })
    }

    /// The value of a flag that takes one of some words.
    fn choice<T: Copy>(
        &self,
        flag: &str,
        known: &[(&'static str, T)],
        message: impl Fn(&str) -> String,
        sink: &mut Sink,
    ) -> Option<Spanned<T>> {
        let written = self.flags.text(flag)?;
        let value = written.text();
        match known.iter().find(|(name, _)| *name == value) {
            Some((_, value)) => Some(Spanned { value: *value, span: written.span() }),
            None => {
                let message =
                    suggest(message(&clip(value)), value, known.iter().map(|(name, _)| *name));
                self.error(&written, message, sink);
                None
            }
        }
    }

    pub(super) fn shell(&self, sink: &mut Sink) -> Option<Vec<Mapped>> {
        match self.json(&self.arguments, sink)? {
            JsonForm::Strings(words) if !words.is_empty() => Some(words),
            JsonForm::Strings(_) => {
                self.error(&self.arguments, "SHELL requires at least one argument".into(), sink);
                None
            }
            _ => {
                self.at_least_one(sink)?;
                let message = "SHELL requires the arguments to be in JSON form".into();
                self.error(&self.arguments, message, sink);
                None
            }
        }
    }

    pub(super) fn healthcheck(&self, sink: &mut Sink) -> Option<Healthcheck> {
        self.at_least_one(sink)?;
        let all = self.arguments.text();
        let end = all.find(char::is_whitespace).unwrap_or(all.len());
        let kind = self.arguments.slice(0..end);
        let rest = self.arguments.slice_trimmed(end..all.len());
        match kind.text().to_uppercase().as_str() {
            "NONE" if rest.is_empty() => Some(Healthcheck::None),
            "NONE" => {
                self.error(&rest, "HEALTHCHECK NONE takes no arguments".into(), sink);
                None
            }
            "CMD" => {
                let command = self.command_of(&rest, sink)?;
                let is_empty = match &command {
                    Command::Shell(text) => text.is_empty(),
                    Command::Exec(words) => words.is_empty(),
                };
                if is_empty {
                    self.error(&kind, "Missing command after HEALTHCHECK CMD".into(), sink);
                    return None;
                }
                Some(Healthcheck::Check {
                    command,
                    interval: self.interval("interval", sink),
                    timeout: self.interval("timeout", sink),
                    start_period: self.interval("start-period", sink),
                    start_interval: self.interval("start-interval", sink),
                    retries: self.retries(sink),
                })
            }
            other => {
                let message = format!("Unknown type {:?} in HEALTHCHECK (try CMD)", clip(other));
                self.error(&kind, message, sink);
                None
            }
        }
    }

    fn interval(&self, flag: &str, sink: &mut Sink) -> Option<Duration> {
        const MINIMUM: Duration = Duration::from_millis(1);
        let written = self.flags.text(flag).filter(|value| !value.is_empty())?;
        match parse_duration(written.text()) {
            Ok(Some(duration)) if duration.is_zero() || duration >= MINIMUM => {
                return Some(duration);
            }
            Ok(_) => {
                self.error(&written, format!("Interval {flag:?} cannot be less than 1ms"), sink);
            }
            Err(message) => self.error(&written, message, sink),
        }
        None
    }

    fn retries(&self, sink: &mut Sink) -> Option<u32> {
        let written = self.flags.text("retries").filter(|value| !value.is_empty())?;
        match written.text().parse::<i32>() {
            Ok(retries) if retries >= 0 => return Some(retries.unsigned_abs()),
            Ok(retries) => {
                self.error(&written, format!("--retries cannot be negative ({retries})"), sink);
            }
            Err(error) => {
                use std::num::IntErrorKind::{NegOverflow, PosOverflow};
                let reason = match error.kind() {
                    PosOverflow | NegOverflow => "value out of range",
                    _ => "invalid syntax",
                };
                let text = clip(written.text());
                let message = format!("strconv.ParseInt: parsing {text:?}: {reason}");
                let error = Diagnostic::error("invalid-arguments", written.span(), message);
                sink.push(error.with_help("--retries is a number"));
            }
        }
        None
    }
}
