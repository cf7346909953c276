//! Which warnings are wanted.

use super::rule::Rule;
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::Dockerfile;
use crate::dockerfile::mapped::Mapped;
use crate::source::Span;

/// What `# check=` or its build argument says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks {
    skip: Selection,
    experimental: Selection,
    error: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Selection {
    All,
    Named(Vec<String>),
}

impl Default for Selection {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

/// Why check options cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckOptionError {
    /// Not `skip`, `error` or `experimental`, or without a value.
    #[error("failed to parse check options: invalid check option {0:?}")]
    Unknown(String),
    /// The value of `error` is neither true nor false.
    #[error(
        "failed to parse check options: failed to parse check option {option:?}: strconv.ParseBool: parsing {value:?}: invalid syntax"
    )]
    NotBoolean {
        /// The option.
        option: String,
        /// Its value.
        value: String,
    },
}

impl Checks {
    /// Reads `skip=A,B;error=true;experimental=all`.
    ///
    /// # Errors
    /// If an option is unknown or `error` is not a boolean.
    pub fn parse(text: &str) -> Result<Self, CheckOptionError> {
        let mut checks = Self::default();
        if text.trim().is_empty() {
            return Ok(checks);
        }
        for option in text.split(';') {
            let (key, value) = option
                .split_once('=')
                .ok_or_else(|| CheckOptionError::Unknown(option.to_owned()))?;
            match key.trim() {
                "skip" => checks.skip = Selection::parse(value),
                "experimental" => checks.experimental = Selection::parse(value),
                "error" => {
                    checks.error = match value.trim() {
                        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                        value => {
                            let (option, value) = (option.to_owned(), value.to_owned());
                            return Err(CheckOptionError::NotBoolean { option, value });
                        }
                    }
                }
                other => return Err(CheckOptionError::Unknown(other.to_owned())),
            }
        }
        Ok(checks)
    }

    /// What counts for a file: `given`, the build argument `BUILDKIT_DOCKERFILE_CHECK`, or else its own `# check=`
    /// line; without either, every rule that is not experimental.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(dockerfile: &Dockerfile, given: Option<&str>) -> Result<Self, Box<Diagnostic>> {
        let (text, span) = match (given, &dockerfile.directives.check) {
            (Some(given), _) => (given, Span::at(0)),
            (None, Some(check)) => (check.text(), check.span()),
            (None, None) => return Ok(Self::default()),
        };
        Self::parse(text)
            .map_err(|error| Box::new(Diagnostic::error("check-option", span, error.to_string())))
    }

    /// Keeps the warnings that are wanted, in the order of the text, and adds an error if there must be none.
    ///
    /// Errors, and warnings that no rule makes, pass.
    pub fn filter(&self, dockerfile: &Dockerfile, diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let mut at_statement = SkippedAt { dockerfile, index: None, selections: Vec::new() };
        let mut kept: Vec<_> = diagnostics
            .into_iter()
            .filter(|diagnostic| self.wants(diagnostic, &mut at_statement))
            .collect();
        kept.sort_by_key(|diagnostic| diagnostic.span);
        if self.error {
            let mut violated: Vec<&Diagnostic> =
                kept.iter().filter(|diagnostic| is_lint(diagnostic)).collect();
            violated.sort_by_key(|diagnostic| diagnostic.code);
            violated.dedup_by_key(|diagnostic| diagnostic.code);
            if let Some(first) = violated.first() {
                let rules: Vec<&str> = violated.iter().map(|diagnostic| diagnostic.code).collect();
                let message = format!("lint violation found for rules: {}", rules.join(", "));
                let span =
                    dockerfile.directives.check.as_ref().map_or(first.span, |check| check.span());
                kept.push(Diagnostic::error("lint-violation", span, message));
            }
        }
        kept
    }

    fn wants(&self, diagnostic: &Diagnostic, at_statement: &mut SkippedAt<'_>) -> bool {
        if !is_lint(diagnostic) {
            return true;
        }
        let code = diagnostic.code;
        let is_experimental = Rule::parse(code).is_some_and(Rule::is_experimental);
        let is_off = is_experimental && !self.experimental.has(code);
        !is_off && !self.skip.has(code) && !at_statement.has(diagnostic.span, code)
    }
}

impl Selection {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self::All,
            names => Self::Named(names.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }

    fn has(&self, rule: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name == rule),
        }
    }
}

/// Whether a rule made it.
fn is_lint(diagnostic: &Diagnostic) -> bool {
    !diagnostic.is_error() && Rule::parse(diagnostic.code).is_some()
}

/// What `# check=skip=` comments right above an instruction say, remembered for the instruction asked about last.
struct SkippedAt<'a> {
    dockerfile: &'a Dockerfile,
    index: Option<usize>,
    selections: Vec<Selection>,
}

impl SkippedAt<'_> {
    fn has(&mut self, span: Span, rule: &str) -> bool {
        let statements = &self.dockerfile.statements;
        let after = statements.partition_point(|statement| statement.span.start <= span.start);
        let Some(index) = after.checked_sub(1) else { return false };
        if self.index != Some(index) {
            self.index = Some(index);
            self.selections = statements[index].comments.iter().filter_map(skipped).collect();
        }
        self.selections.iter().any(|selection| selection.has(rule))
    }
}

fn skipped(comment: &Mapped) -> Option<Selection> {
    Checks::parse(options(comment)?).ok().map(|checks| checks.skip)
}

/// What a `check=` comment above an instruction says; `None` for any other comment.
pub(super) fn options(comment: &Mapped) -> Option<&str> {
    comment.text().strip_prefix("check")?.trim_start().strip_prefix('=')
}
