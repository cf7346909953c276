//! What the checks know of the context: the files at its top, as the build sees them.

use rbuild_frontend::{ContextFiles, parse_dockerignore};
use rbuild_solver::PatternMatcher;

use crate::commands::build::input::Input;
use crate::error::{CommandError, Kind};

/// Lists the top of the context; a context that is not a folder has no files to speak of.
pub(super) fn of_context(input: &Input) -> Result<ContextFiles, CommandError> {
    let Some(folder) = &input.context else { return Ok(ContextFiles::default()) };
    let patterns = input.ignore.as_ref().map(|file| parse_dockerignore(&file.text));
    // A pattern that is malformed was refused before.
    let ignored = PatternMatcher::new(patterns.unwrap_or_default()).unwrap_or_default();
    let fail = |error| {
        CommandError::caused(
            Kind::Environment,
            format!("cannot list `{}`", folder.display()),
            error,
        )
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        // Names that are not UTF-8 are none that a check knows.
        if let Ok(name) = entry.map_err(fail)?.file_name().into_string()
            && !ignored.matches(name.as_bytes())
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(ContextFiles { top: names })
}
