//! What is wrong with a Dockerfile, where, and what to do about it.

use std::borrow::Cow;

use crate::source::Span;

/// After how many messages no warnings are added while lowering.
pub(crate) const MAX_WARNINGS: usize = 1_000;
/// After how many no near words are looked for, and among how many: it takes long when there are many.
pub(crate) const MAX_SUGGESTIONS: usize = 100;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It builds, but perhaps not what was meant.
    Warning,
    /// It does not build.
    Error,
}

/// A message about a place in a [`Source`](crate::Source).
///
/// It does not hold the source: who shows it passes the source that was parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind of message: a lint rule's name as BuildKit spells it (`StageNameCasing`), or an error's code.
    pub code: &'static str,
    /// How bad it is.
    pub level: Level,
    /// One line, as BuildKit words it where it has the same message.
    pub message: Cow<'static, str>,
    /// The place that it is about.
    pub span: Span,
    /// What is to be said right at that place; empty for nothing.
    pub label: Cow<'static, str>,
    /// Other places that matter.
    pub labels: Vec<Label>,
    /// What to do, or why.
    pub help: Option<Cow<'static, str>>,
    /// Where to read on.
    pub url: Option<&'static str>,
    /// Changes to the text that mend it, all together.
    pub fixes: Vec<Edit>,
}

/// A place and what there is to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What.
    pub text: Cow<'static, str>,
}

/// A change to the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What to take out; empty to insert.
    pub span: Span,
    /// What to put there.
    pub replacement: String,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(code: &'static str, span: Span, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Level::Error, code, span, message.into())
    }

    /// A warning at `span`.
    pub fn warning(code: &'static str, span: Span, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Level::Warning, code, span, message.into())
    }

    fn new(level: Level, code: &'static str, span: Span, message: Cow<'static, str>) -> Self {
        Self {
            code,
            level,
            message,
            span,
            label: Cow::Borrowed(""),
            labels: Vec::new(),
            help: None,
            url: None,
            fixes: Vec::new(),
        }
    }

    /// With a text at its place.
    #[must_use]
    pub fn with_label(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.label = text.into();
        self
    }

    /// With another place.
    #[must_use]
    pub fn with_other(mut self, span: Span, text: impl Into<Cow<'static, str>>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// With advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<Cow<'static, str>>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With an address to read on.
    #[must_use]
    pub fn with_url(mut self, url: &'static str) -> Self {
        self.url = Some(url);
        self
    }

    /// With a change that mends it.
    #[must_use]
    pub fn with_fix(mut self, span: Span, replacement: impl Into<String>) -> Self {
        self.fixes.push(Edit { span, replacement: replacement.into() });
        self
    }

    /// Whether it keeps the file from being built.
    pub fn is_error(&self) -> bool {
        self.level == Level::Error
    }
}
