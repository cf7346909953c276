//! An instruction's text to its typed form, one function each.
//!
//! Each gives `None` after it has put an error into the sink; then the instruction is [`Instruction::Unknown`].

use std::time::Duration;

use super::ast::{
    Add, Alias, Argument, Command, Copy, Escape, From, Healthcheck, Heredoc, Instruction, Network,
    Onbuild, Pair, Pairs, Run, Security, Transfer,
};
use super::flags::{Flags, Kind};
use super::heredoc;
use super::json_form::{self, JsonForm};
use super::keyword::Keyword;
use super::lexer::clip;
use super::mapped::Mapped;
use super::mount::MountSpec;
use super::sink::Sink;
use super::units::parse_duration;
use super::words;
use crate::diagnostic::Diagnostic;
use crate::source::Spanned;
use crate::suggest::{nearest, suggest};

/// An instruction before its arguments are looked at.
#[derive(Debug)]
pub(crate) struct Written<'a> {
    /// The logical line.
    pub(crate) text: &'a Mapped,
    pub(crate) heredocs: &'a [Heredoc],
    pub(crate) escape: Escape,
}

/// The parts of an instruction.
struct Parts<'a> {
    /// The instruction's name in upper case.
    name: &'static str,
    keyword: Mapped,
    flags: Flags,
    /// What comes after the flags, without blanks around.
    arguments: Mapped,
    heredocs: &'a [Heredoc],
    escape: Escape,
}

/// Reads one instruction.
pub(crate) fn build(written: &Written<'_>, sink: &mut Sink) -> Instruction {
    let (word, rest) = words::split_first(written.text);
    let Some(keyword) = Keyword::parse(word.text()) else {
        sink.push(unknown_instruction(&word));
        return Instruction::Unknown(rest);
    };
    let (flag_words, arguments) = words::split_flags(&rest);
    let flags = Flags::parse(flag_words, known_flags(keyword), sink);
    let name = keyword.name();
    let parts = Parts {
        name,
        keyword: word,
        flags,
        arguments,
        heredocs: written.heredocs,
        escape: written.escape,
    };
    let instruction = match keyword {
        Keyword::From => parts.from(sink).map(Instruction::From),
        Keyword::Run => parts.run(sink).map(Instruction::Run),
        Keyword::Cmd => parts.command(sink).map(Instruction::Cmd),
        Keyword::Entrypoint => parts.command(sink).map(Instruction::Entrypoint),
        Keyword::Shell => parts.shell(sink).map(Instruction::Shell),
        Keyword::Env => parts.pairs(sink).map(Instruction::Env),
        Keyword::Label => parts.pairs(sink).map(Instruction::Label),
        Keyword::Arg => parts.arguments(sink).map(Instruction::Arg),
        Keyword::Copy => parts.copy(sink).map(Instruction::Copy),
        Keyword::Add => parts.add(sink).map(Instruction::Add),
        Keyword::Expose => parts
            .at_least_one(sink)
            .map(|()| Instruction::Expose(words::split_blanks(&parts.arguments))),
        Keyword::Volume => parts.volume(sink).map(Instruction::Volume),
        Keyword::User => parts.exactly_one(sink).map(Instruction::User),
        Keyword::Workdir => parts.exactly_one(sink).map(Instruction::Workdir),
        Keyword::Stopsignal => parts.exactly_one(sink).map(Instruction::Stopsignal),
        Keyword::Maintainer => parts.exactly_one(sink).map(Instruction::Maintainer),
        Keyword::Healthcheck => parts.healthcheck(sink).map(Instruction::Healthcheck),
        Keyword::Onbuild => parts.onbuild(written, sink).map(Instruction::Onbuild),
    };
    instruction.unwrap_or(Instruction::Unknown(parts.arguments))
}

fn unknown_instruction(keyword: &Mapped) -> Diagnostic {
    let text = keyword.text();
    let message = suggest(format!("unknown instruction: {}", clip(text)), text, Keyword::names());
    let error = Diagnostic::error("unknown-instruction", keyword.span(), message);
    match nearest(text, Keyword::names()) {
        Some(name) => error.with_fix(keyword.span(), name),
        None => error,
    }
}

fn known_flags(keyword: Keyword) -> &'static [(&'static str, Kind)] {
    match keyword {
        Keyword::From => &[("platform", Kind::Text)],
        Keyword::Run => &[
            ("mount", Kind::List),
            ("network", Kind::Text),
            ("security", Kind::Text),
            ("device", Kind::List),
        ],
        Keyword::Copy => &[
            ("from", Kind::Text),
            ("chown", Kind::Text),
            ("chmod", Kind::Text),
            ("link", Kind::Bool),
            ("parents", Kind::Bool),
            ("exclude", Kind::List),
        ],
        Keyword::Add => &[
            ("chown", Kind::Text),
            ("chmod", Kind::Text),
            ("link", Kind::Bool),
            ("keep-git-dir", Kind::Bool),
            ("checksum", Kind::Text),
            ("unpack", Kind::Bool),
            ("exclude", Kind::List),
        ],
        Keyword::Healthcheck => &[
            ("interval", Kind::Text),
            ("timeout", Kind::Text),
            ("start-period", Kind::Text),
            ("start-interval", Kind::Text),
            ("retries", Kind::Text),
        ],
        _ => &[],
    }
}

impl Parts<'_> {
    fn error(&self, place: &Mapped, message: String, sink: &mut Sink) {
        // An instruction without arguments is marked at its keyword.
        let place = if place.is_empty() { &self.keyword } else { place };
        sink.push(Diagnostic::error("invalid-arguments", place.span(), message));
    }

    fn at_least_one(&self, sink: &mut Sink) -> Option<()> {
        if self.arguments.is_empty() {
            self.error(
                &self.arguments,
                format!("{} requires at least one argument", self.name),
                sink,
            );
            return None;
        }
        Some(())
    }

    /// All of the arguments as one.
    fn exactly_one(&self, sink: &mut Sink) -> Option<Mapped> {
        if self.arguments.is_empty() {
            self.error(
                &self.arguments,
                format!("{} requires exactly one argument", self.name),
                sink,
            );
            return None;
        }
        Some(self.arguments.clone())
    }

    /// Text as JSON; `None` after an error.
    fn json(&self, text: &Mapped, sink: &mut Sink) -> Option<JsonForm> {
        let form = json_form::parse(text);
        if let JsonForm::NotStrings(span) = form {
            let message = "only string type is allowed in JSON arrays";
            sink.push(
                Diagnostic::error("json-form", span, message)
                    .with_help("write every element in double quotes"),
            );
            return None;
        }
        Some(form)
    }

    fn command_of(&self, text: &Mapped, sink: &mut Sink) -> Option<Command> {
        Some(match self.json(text, sink)? {
            JsonForm::Strings(words) => Command::Exec(words),
            _ => Command::Shell(text.clone()),
        })
    }

    fn command(&self, sink: &mut Sink) -> Option<Command> {
        self.command_of(&self.arguments, sink)
    }

    /// The words of a JSON array, or else those between blanks.
    fn list(&self, sink: &mut Sink) -> Option<Vec<Mapped>> {
        Some(match self.json(&self.arguments, sink)? {
            JsonForm::Strings(words) => words,
            _ => words::split_blanks(&self.arguments),
        })
    }

    fn from(&self, sink: &mut Sink) -> Option<From> {
        let words = words::split_blanks(&self.arguments);
        let alias = match words.as_slice() {
            [_] => None,
            [_, keyword, written] if keyword.text().eq_ignore_ascii_case("as") => {
                let name = written.text().to_lowercase();
                let is_tail = |c: char| {
                    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.')
                };
                if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(is_tail)
                {
                    let message = format!(
                        "invalid name for build stage: {:?}, name can't start with a number or contain symbols",
                        clip(written.text())
                    );
                    self.error(written, message, sink);
                    return None;
                }
                Some(Alias { keyword: keyword.clone(), written: written.clone(), name })
            }
            _ => {
                self.error(
                    &self.arguments,
                    "FROM requires either one or three arguments".into(),
                    sink,
                );
                return None;
            }
        };
        let image = words.into_iter().next()?;
        Some(From { image, platform: self.flags.text("platform"), alias })
    }

    fn run(&self, sink: &mut Sink) -> Option<Run> {
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
    fn choice<T: std::marker::Copy>(
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

    fn shell(&self, sink: &mut Sink) -> Option<Vec<Mapped>> {
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

    fn pairs(&self, sink: &mut Sink) -> Option<Pairs> {
        self.at_least_one(sink)?;
        let words = words::split_quoted(&self.arguments, self.escape);
        let legacy = words.first().is_some_and(|word| !word.text().contains('='));
        if legacy {
            let (key, value) = words::split_first(&self.arguments);
            if value.is_empty() {
                self.error(&key, format!("{} must have two arguments", self.name), sink);
                return None;
            }
            return Some(Pairs { pairs: vec![Pair { key, value }], legacy });
        }
        let mut pairs = Vec::with_capacity(words.len());
        for word in words {
            let text = word.text();
            let Some(equals) = text.find('=') else {
                let message = format!(
                    "Syntax error - can't find = in {:?}. Must be of the form: name=value",
                    clip(text)
                );
                self.error(&word, message, sink);
                return None;
            };
            if equals == 0 {
                self.error(&word, format!("{} names can not be blank", self.name), sink);
                return None;
            }
            pairs.push(Pair {
                key: word.slice(0..equals),
                value: word.slice(equals + 1..text.len()),
            });
        }
        Some(Pairs { pairs, legacy })
    }

    fn arguments(&self, sink: &mut Sink) -> Option<Vec<Argument>> {
        self.at_least_one(sink)?;
        let mut arguments = Vec::new();
        for word in words::split_quoted(&self.arguments, self.escape) {
            let text = word.text();
            arguments.push(match text.find('=') {
                None => Argument { name: word, default: None },
                Some(0) => {
                    self.error(&word, "ARG names can not be blank".into(), sink);
                    return None;
                }
                Some(at) => Argument {
                    name: word.slice(0..at),
                    default: Some(word.slice(at + 1..text.len())),
                },
            });
        }
        Some(arguments)
    }

    fn transfer(&self, sink: &mut Sink) -> Option<Transfer> {
        let mut words = self.list(sink)?;
        let Some(destination) = words.pop().filter(|_| !words.is_empty()) else {
            let message = format!(
                "{} requires at least two arguments, but only one was provided. Destination could not be determined",
                self.name
            );
            self.error(&self.arguments, message, sink);
            return None;
        };
        // In the JSON form no heredoc was read, and `<<EOF` is the name of a file.
        if self.heredocs.is_empty() {
            return Some(Transfer { sources: words, inline: Vec::new(), destination });
        }
        if heredoc::opener(destination.clone()).is_some() {
            self.error(
                &destination,
                format!("{} cannot accept a heredoc as a destination", self.name),
                sink,
            );
            return None;
        }
        let mut sources = Vec::new();
        let mut inline = Vec::new();
        for word in words {
            // By place: a name may be used twice, but bodies follow in the order of their words.
            let span = word.span();
            match self
                .heredocs
                .binary_search_by_key(&span.start, |heredoc| heredoc.word.span().start)
            {
                Ok(index) if self.heredocs[index].word.span() == span => {
                    inline.push(self.heredocs[index].clone());
                }
                _ => sources.push(word),
            }
        }
        Some(Transfer { sources, inline, destination })
    }

    fn copy(&self, sink: &mut Sink) -> Option<Copy> {
        Some(Copy {
            transfer: self.transfer(sink)?,
            from: self.flags.text("from"),
            chown: self.flags.text("chown"),
            chmod: self.flags.text("chmod"),
            link: self.flags.boolean("link"),
            parents: self.flags.boolean("parents"),
            exclude: self.flags.all("exclude").collect(),
        })
    }

    fn add(&self, sink: &mut Sink) -> Option<Add> {
        Some(Add {
            transfer: self.transfer(sink)?,
            chown: self.flags.text("chown"),
            chmod: self.flags.text("chmod"),
            link: self.flags.boolean("link"),
            keep_git_dir: self.flags.boolean("keep-git-dir"),
            checksum: self.flags.text("checksum"),
            unpack: self.flags.boolean("unpack"),
            exclude: self.flags.all("exclude").collect(),
        })
    }

    fn volume(&self, sink: &mut Sink) -> Option<Vec<Mapped>> {
        let paths = self.list(sink)?;
        if paths.is_empty() {
            self.error(&self.arguments, "VOLUME requires at least one argument".into(), sink);
            return None;
        }
        if paths.iter().any(|path| path.trim().is_empty()) {
            self.error(&self.arguments, "VOLUME specified can not be an empty string".into(), sink);
            return None;
        }
        Some(paths.iter().map(Mapped::trim).collect())
    }

    fn healthcheck(&self, sink: &mut Sink) -> Option<Healthcheck> {
        self.at_least_one(sink)?;
        let all = self.arguments.text();
        let end = all.find(char::is_whitespace).unwrap_or(all.len());
        let kind = self.arguments.slice(0..end);
        let rest = self.arguments.slice(end..all.len()).trim();
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
            Err(_) => {
                let message = format!("--retries must be a number, not {:?}", clip(written.text()));
                self.error(&written, message, sink);
            }
        }
        None
    }

    fn onbuild(&self, written: &Written<'_>, sink: &mut Sink) -> Option<Onbuild> {
        self.at_least_one(sink)?;
        let (keyword, _) = words::split_first(&self.arguments);
        let forbidden = match Keyword::parse(keyword.text()) {
            Some(Keyword::Onbuild) => {
                Some("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned())
            }
            Some(inner @ (Keyword::Maintainer | Keyword::From)) => {
                Some(format!("{} isn't allowed as an ONBUILD trigger", inner.name()))
            }
            _ => None,
        };
        if let Some(message) = forbidden {
            self.error(&keyword, message, sink);
            return None;
        }
        // Not the trimmed text: blanks at the end are stored too.
        let whole = written.text;
        let tail = whole.text();
        let after_keyword = tail.trim_start().get(self.keyword.text().len()..)?.trim_start();
        let inner = whole.slice(tail.len() - after_keyword.len()..tail.len());
        let mut expression = inner.text().to_owned();
        for heredoc in self.heredocs {
            expression.push('\n');
            expression.push_str(heredoc.body.text());
            expression.push_str(&heredoc.name);
        }
        let mut found = Sink::default();
        let trigger = Box::new(build(&Written { text: &self.arguments, ..*written }, &mut found));
        // BuildKit reads a trigger only when an image is built on this one; this image can be built.
        sink.absorb(found, |error| error.code != "json-form");
        Some(Onbuild { expression, trigger })
    }
}
