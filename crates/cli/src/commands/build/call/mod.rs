//! `--call`: what a build says of itself without running (section 1.18 of the behaviour reference).

pub(crate) mod document;
mod text;

use super::frontend::Evaluated;
use crate::args::{Call, Method};
use crate::commands::images::print;
use crate::error::{CommandError, Kind};

/// Prints the answer. Warnings, unless they are to be ignored, and errors give exit code 1.
pub(crate) fn answer(evaluated: &Evaluated, call: Call) -> Result<(), CommandError> {
    if call.method != Method::Check
        && let Some(error) = evaluated.errors.first()
    {
        let drawn = rbuild_frontend::render(
            &evaluated.source,
            &evaluated.errors,
            super::frontend::render_options(),
        );
        let message = evaluated.dockerfile.compat_message(&evaluated.source, error);
        return Err(CommandError::new(
            Kind::Build,
            format!("failed to build: failed to solve: {message}"),
        )
        .preface(drawn));
    }
    let answer = match (call.method, call.json) {
        (Method::Outline, true) => document::pretty(&document::outline(evaluated)),
        (Method::Outline, false) => text::outline(&evaluated.outline),
        (Method::Targets, true) => document::pretty(&document::targets(evaluated)),
        (Method::Targets, false) => text::targets(&rbuild_frontend::targets(&evaluated.dockerfile)),
        (_, true) => document::pretty(&document::check(evaluated)),
        (_, false) => text::check(evaluated),
    };
    print(answer.as_bytes())?;
    if call.method != Method::Check {
        return Ok(());
    }
    match evaluated.errors.first() {
        // In JSON it is told already.
        Some(_) if call.json => Err(CommandError::told()),
        Some(error) => {
            let message = evaluated.dockerfile.compat_message(&evaluated.source, error);
            let excerpt = text::excerpt_of(evaluated, error);
            Err(CommandError::new(Kind::Build, message).preface(excerpt))
        }
        None if !evaluated.warnings.is_empty() && !call.ignore_status => Err(CommandError::told()),
        None => Ok(()),
    }
}
