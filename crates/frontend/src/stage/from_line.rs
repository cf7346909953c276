//! Evaluation of a FROM line, and the lint rules about it.

use std::collections::HashSet;

use rbuild_oci::{Platform, Reference};

use crate::check::{Rule, warning};
use crate::diagnostic::{Diagnostic, MAX_SUGGESTIONS, MAX_WARNINGS};
use crate::dockerfile::ast::From;
use crate::dockerfile::mapped::Mapped;
use crate::environment::Environment;
use crate::shell::{Expansion, Shell};
use crate::source::Span;
use crate::suggest::nearest;

/// What FROM lines see.
#[derive(Debug)]
pub(super) struct Globals<'a> {
    pub(super) shell: Shell,
    pub(super) environment: &'a Environment,
    /// The names of all ARGs, also of those without a value.
    pub(super) declared: &'a HashSet<&'a str>,
    /// The platform that fills in what a platform leaves out.
    pub(super) build_platform: &'a Platform,
}

impl Globals<'_> {
    /// The expanded name of the base.
    pub(super) fn image(
        &self,
        from: &From,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<String, Box<Diagnostic>> {
        let expansion = self.expand(&from.image, diagnostics)?;
        if expansion.value.is_empty() {
            let message = format!("base name ({}) should not be blank", from.image.text());
            let error = Diagnostic::error("blank-base", from.image.span(), message);
            return Err(Box::new(self.with_suggestion(error, &expansion)));
        }
        Ok(expansion.value)
    }

    /// The platform that FROM asks for.
    pub(super) fn platform(
        &self,
        from: &From,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<Option<Platform>, Box<Diagnostic>> {
        let Some(written) = &from.platform else { return Ok(None) };
        let expansion = self.expand(written, diagnostics)?;
        if expansion.value.is_empty() {
            let message = format!("empty platform value from expression {}", written.text());
            let error = Diagnostic::error("platform", written.span(), message);
            return Err(Box::new(self.with_suggestion(error, &expansion)));
        }
        let platform =
            Platform::parse_with(&expansion.value, self.build_platform).map_err(|error| {
                let message = format!("failed to parse platform {}: {error}", written.text());
                let error = Diagnostic::error("platform", written.span(), message);
                Box::new(self.with_suggestion(error, &expansion))
            })?;
        diagnostics.extend(self.lint_platform(from, written, &expansion, &platform));
        Ok(Some(platform))
    }

    fn lint_platform(
        &self,
        from: &From,
        written: &Mapped,
        expansion: &Expansion<'_>,
        platform: &Platform,
    ) -> Option<Diagnostic> {
        match expansion.variables.as_slice() {
            [variable] if variable.name == "TARGETPLATFORM" && variable.is_set => {
                let is_all = self.environment.get("TARGETPLATFORM") == Some(&expansion.value);
                let message = format!(
                    "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
                    written.text()
                );
                is_all.then(|| {
                    let diagnostic =
                        warning(Rule::RedundantTargetPlatform, written.span(), message);
                    match without_flag(from) {
                        Some(span) => diagnostic.with_fix(span, ""),
                        None => diagnostic,
                    }
                })
            }
            [] => {
                // A stage that is named for its platform has a reason for it.
                let stage = from.alias.as_ref().map_or("", |alias| alias.name.as_str());
                if stage.contains(&platform.os) || stage.contains(&platform.architecture) {
                    return None;
                }
                let message = format!(
                    "FROM --platform flag should not use constant value {:?}",
                    expansion.value
                );
                Some(warning(Rule::FromPlatformFlagConstDisallowed, written.span(), message))
            }
            _ => None,
        }
    }

    fn expand<'t>(
        &self,
        text: &'t Mapped,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<Expansion<'t>, Box<Diagnostic>> {
        let expansion = self.shell.expand(text.text(), self.environment).map_err(|error| {
            let span = text.span_of(error.range.clone());
            Box::new(Diagnostic::error("expansion", span, error.to_string()))
        })?;
        for variable in expansion.unset() {
            if self.declared.contains(variable.name) || diagnostics.len() > MAX_WARNINGS {
                continue;
            }
            let mut message = format!("FROM argument '{}' is not declared", variable.name);
            if diagnostics.len() <= MAX_SUGGESTIONS
                && let Some(near) = self.nearest(variable.name)
            {
                message.extend([" (did you mean ", near, "?)"]);
            }
            let span = text.span_of(variable.range.clone());
            diagnostics.push(warning(Rule::UndefinedArgInFrom, span, message));
        }
        Ok(expansion)
    }

    fn nearest(&self, name: &str) -> Option<&str> {
        nearest(
            name,
            self.environment.names().chain(self.declared.iter().copied()).take(MAX_WARNINGS),
        )
    }

    /// With the name that a variable without a value was probably meant to have.
    fn with_suggestion(&self, error: Diagnostic, expansion: &Expansion<'_>) -> Diagnostic {
        match expansion.unset().find_map(|variable| self.nearest(variable.name)) {
            Some(near) => error.with_help(format!("did you mean {near}?")),
            None => error.with_help(
                "FROM sees only ARGs that come before the first FROM, and the platform arguments",
            ),
        }
    }
}

/// The flag with the blank behind it; `None` if they are not on one line.
fn without_flag(from: &From) -> Option<Span> {
    let (flag, image) = (from.platform_flag?, from.image.span());
    (image.start == flag.end + 1).then(|| Span::new(flag.start, image.start))
}

/// Whether the file names a base without any build argument. `defaults` are the global arguments then.
pub(super) fn lint_default(
    from: &From,
    shell: Shell,
    defaults: &Environment,
) -> Option<Diagnostic> {
    let expansion = shell.expand(from.image.text(), defaults).ok()?;
    if Reference::parse(&expansion.value).is_ok() {
        return None;
    }
    let message = format!(
        "Default value for ARG {} results in empty or invalid base image name",
        from.image.text()
    );
    Some(warning(Rule::InvalidDefaultArgInFrom, from.image.span(), message))
}
