//! The `--name=value` flags before an instruction's arguments.

use super::lexer::clip;
use super::mapped::Mapped;
use super::sink::Sink;
use crate::diagnostic::Diagnostic;
use crate::source::Spanned;
use crate::suggest::suggest;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing, `true` or `false`.
    Bool,
    /// One value.
    Text,
    /// A value each time it is given.
    List,
}

/// The flags of one instruction that are known and well formed.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    found: Vec<Flag>,
}

#[derive(Debug)]
struct Flag {
    name: &'static str,
    word: Mapped,
    value: Option<Mapped>,
}

impl Flags {
    /// Sorts the words of flags; what is wrong with any goes to `sink`.
    pub(crate) fn parse(
        words: Vec<Mapped>,
        known: &[(&'static str, Kind)],
        sink: &mut Sink,
    ) -> Self {
        let mut found: Vec<Flag> = Vec::new();
        for word in words {
            let text = word.text();
            let equals = text.find('=');
            let name = text[..equals.unwrap_or(text.len())].trim_start_matches("--");
            let value = equals.map(|at| word.slice(at + 1..text.len()));
            let Some((name, kind)) = known.iter().find(|(known, _)| *known == name).copied() else {
                let message = format!("unknown flag: --{}", clip(name));
                let message = suggest(message, name, known.iter().map(|(known, _)| *known));
                let end = word.text().find('=').unwrap_or(word.text().len());
                sink.push(Diagnostic::error("unknown-flag", word.span_of(0..end), message));
                continue;
            };
            if kind != Kind::List
                && let Some(earlier) = found.iter().find(|flag| flag.name == name)
            {
                let error = Diagnostic::error(
                    "duplicate-flag",
                    word.span(),
                    format!("duplicate flag specified: --{name}"),
                );
                sink.push(error.with_other(earlier.word.span(), "the first"));
                continue;
            }
            let is_missing = match kind {
                Kind::Bool => value.as_ref().is_some_and(Mapped::is_empty),
                Kind::Text | Kind::List => value.is_none(),
            };
            if is_missing {
                let message = format!("missing a value on flag: --{name}");
                sink.push(Diagnostic::error("missing-flag-value", word.span(), message));
                continue;
            }
            if kind == Kind::Bool
                && let Some(value) = &value
                && parse_bool(value.text()).is_none()
            {
                let message = format!(
                    "expecting boolean value for flag --{name}, not: {}",
                    clip(value.text())
                );
                sink.push(Diagnostic::error("invalid-flag-value", value.span(), message));
                continue;
            }
            found.push(Flag { name, word, value });
        }
        Self { found }
    }

    /// The value of a text flag.
    pub(crate) fn text(&self, name: &str) -> Option<Mapped> {
        self.all(name).next()
    }

    /// A flag as it is written, with its name.
    pub(crate) fn word(&self, name: &str) -> Option<&Mapped> {
        self.found.iter().find(|flag| flag.name == name).map(|flag| &flag.word)
    }

    /// The values of a list flag.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = Mapped> {
        self.found
            .iter()
            .filter(move |flag| flag.name == name)
            .filter_map(|flag| flag.value.clone())
    }

    /// The value of a boolean flag.
    pub(crate) fn boolean(&self, name: &str) -> Option<Spanned<bool>> {
        let flag = self.found.iter().find(|flag| flag.name == name)?;
        let value = flag.value.as_ref().is_none_or(|value| parse_bool(value.text()) == Some(true));
        Some(Spanned { value, span: flag.word.span() })
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}
