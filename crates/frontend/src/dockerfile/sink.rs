//! Where the parser puts what it finds.

use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// After so many errors the rest of a file is not read: it is not a Dockerfile, and would only fill the memory.
const MAX_ERRORS: usize = 1_000;

/// The diagnostics so far.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    diagnostics: Vec<Diagnostic>,
    errors: usize,
}

impl Sink {
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.errors += usize::from(diagnostic.is_error());
        self.diagnostics.push(diagnostic);
    }

    pub(crate) fn extend(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        diagnostics.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    /// Whether to give up.
    pub(crate) fn is_full(&self) -> bool {
        self.errors >= MAX_ERRORS
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Adds what another one found, with its errors as warnings where `is_harmless` says so.
    pub(crate) fn absorb(&mut self, other: Self, is_harmless: impl Fn(&Diagnostic) -> bool) {
        for mut diagnostic in other.diagnostics {
            if diagnostic.is_error() && is_harmless(&diagnostic) {
                diagnostic.level = crate::diagnostic::Level::Warning;
            }
            self.push(diagnostic);
        }
    }

    /// All of them in the order of the text.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
        if let Some(last) = self.diagnostics.last().filter(|_| self.errors >= MAX_ERRORS) {
            let message =
                format!("too many errors: after {} the rest of the file was not read", self.errors);
            self.diagnostics.push(Diagnostic::error(
                "too-many-errors",
                Span::at(last.span.end),
                message,
            ));
        }
        self.diagnostics
    }
}
