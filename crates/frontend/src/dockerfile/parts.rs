//! An instruction cut into its parts, and what every instruction asks of them.

use super::ast::{Command, Escape, Heredoc};
use super::flags::Flags;
use super::json_form::{self, JsonForm};
use super::mapped::Mapped;
use super::sink::Sink;
use super::words;
use crate::diagnostic::Diagnostic;

/// The parts of an instruction.
pub(super) struct Parts<'a> {
    /// The instruction's name in upper case.
    pub(super) name: &'static str,
    pub(super) keyword: Mapped,
    pub(super) flags: Flags,
    /// What comes after the flags, without blanks around.
    pub(super) arguments: Mapped,
    pub(super) heredocs: &'a [Heredoc],
    pub(super) escape: Escape,
}

impl Parts<'_> {
    pub(super) fn error(&self, place: &Mapped, message: String, sink: &mut Sink) {
        // An instruction without arguments is marked at its keyword.
        let place = if place.is_empty() { &self.keyword } else { place };
        sink.push(Diagnostic::error("invalid-arguments", place.span(), message));
    }

    pub(super) fn at_least_one(&self, sink: &mut Sink) -> Option<()> {
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
    pub(super) fn exactly_one(&self, sink: &mut Sink) -> Option<Mapped> {
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
    pub(super) fn json(&self, text: &Mapped, sink: &mut Sink) -> Option<JsonForm> {
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

    pub(super) fn command_of(&self, text: &Mapped, sink: &mut Sink) -> Option<Command> {
        Some(match self.json(text, sink)? {
            JsonForm::Strings(words) => Command::Exec(words),
            _ => Command::Shell(text.clone()),
        })
    }

    pub(super) fn command(&self, sink: &mut Sink) -> Option<Command> {
        self.command_of(&self.arguments, sink)
    }

    /// The words of a JSON array, or else those between blanks.
    pub(super) fn list(&self, sink: &mut Sink) -> Option<Vec<Mapped>> {
        Some(match self.json(&self.arguments, sink)? {
            JsonForm::Strings(words) => words,
            _ => words::split_blanks(&self.arguments),
        })
    }
}
