//! How a build fails: the step, the end of its output, the marked line of the Dockerfile (section 5.3 of the
//! behaviour reference).

use rbuild_cache::TreeError;
use rbuild_frontend::Source;
use rbuild_solver::{SolveError, SourceLocation, Vertex};
use rbuild_worker::{CgroupError, ExecError, NotAllowed, OperationError};

use crate::commands::WITHOUT_NAMESPACES;
use crate::commands::context::Ignore;
use crate::error::{CommandError, Kind, cause};
use crate::printable;
use crate::progress::FailedStep;

/// Lines shown around the marked ones.
const AROUND: usize = 3;
/// The longest line that is shown whole.
const LONGEST: usize = 200;

/// A build that failed.
#[derive(Debug)]
pub(crate) enum BuildError {
    /// A vertex failed.
    Step {
        /// What goes after `failed to solve`.
        error: CommandError,
        /// The marked lines.
        excerpt: String,
    },
    /// Anything else.
    Other(CommandError),
}

impl From<CommandError> for BuildError {
    fn from(error: CommandError) -> Self {
        Self::Other(error)
    }
}

impl BuildError {
    /// The failure of a vertex. `ignore` is the main context's ignore file.
    pub(crate) fn step<E, S>(
        error: SolveError<E, S>,
        source: Option<&Source>,
        ignore: Option<&Ignore>,
    ) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
        S: std::error::Error + Send + Sync + 'static,
    {
        let excerpt = match (&error.location, source) {
            (Some(location), Some(source)) => excerpt(source, location),
            _ => String::new(),
        };
        let mut hints =
            cause::<TreeError>(&error.kind).map_or_else(Vec::new, |missing| hints(missing, ignore));
        hints.extend(cause::<CgroupError>(&error.kind).and_then(CgroupError::hint).map(Into::into));
        let error =
            CommandError::caused(Kind::Build, "failed to build: failed to solve", error.kind);
        Self::Step { error: hints.into_iter().fold(error, CommandError::hint), excerpt }
    }

    /// A vertex that asks for what was not allowed.
    pub(crate) fn not_allowed(error: NotAllowed, vertex: &Vertex, source: Option<&Source>) -> Self {
        let excerpt = match (&vertex.meta.location, source) {
            (Some(location), Some(source)) => excerpt(source, location),
            _ => String::new(),
        };
        let error =
            CommandError::new(Kind::Build, format!("failed to build: failed to solve: {error}"))
                .hint(format!("if you trust what is built, give --allow {}", error.entitlement));
        Self::Step { error, excerpt }
    }

    /// The same, with warnings of the Dockerfile, one of which may say why.
    pub(crate) fn with_warnings(mut self, warnings: &[String]) -> Self {
        if let Self::Step { excerpt, .. } = &mut self {
            excerpt.extend(warnings.iter().flat_map(|line| [line.as_str(), "\n"]));
        }
        self
    }

    /// The same, with what a user can do.
    pub(crate) fn with_hint(self, hint: &str) -> Self {
        match self {
            Self::Step { error, excerpt } => Self::Step { error: error.hint(hint), excerpt },
            other => other,
        }
    }

    /// The same, with errors that came after it.
    pub(crate) fn with_more(self, more: Vec<CommandError>) -> Self {
        match self {
            Self::Step { error, excerpt } => {
                Self::Step { error: more.into_iter().fold(error, CommandError::and), excerpt }
            }
            other => other,
        }
    }

    /// The error with everything that explains it. `failed` is the step as the display saw it.
    pub(crate) fn into_command_error(self, failed: Option<&FailedStep>) -> CommandError {
        match self {
            Self::Other(error) => error,
            Self::Step { error, excerpt } => {
                let output = failed.map_or_else(String::new, |step| {
                    let name = printable::line(&step.name);
                    let tail: String = step.tail.iter().flat_map(|line| [line, "\n"]).collect();
                    format!("------\n > {name}:\n{tail}------\n")
                });
                error.preface(output + &excerpt)
            }
        }
    }
}

/// Why a file may be missing, and which may have been meant.
/// What helps against a failure that is no fault of the Dockerfile's.
pub(crate) fn advice(error: &OperationError) -> Option<String> {
    let OperationError::Exec(error) = error else { return None };
    match error {
        ExecError::SecretNotFound(id) => {
            Some(format!("give it: --secret id={id},src=FILE, or --secret id={id},env=VARIABLE"))
        }
        ExecError::NoAgent(id) => {
            let agent = if id == "default" { id.clone() } else { format!("{id}=SOCKET") };
            Some(format!("give one: --ssh {agent}, or --ssh {id}=KEY"))
        }
        ExecError::Sandbox(error) if error.fix().is_some() => Some(WITHOUT_NAMESPACES.to_owned()),
        _ => None,
    }
}

fn hints(missing: &TreeError, ignore: Option<&Ignore>) -> Vec<String> {
    let TreeError::NotFound { path, ignored, similar } = missing else { return Vec::new() };
    let mut hints = Vec::new();
    if *ignored {
        let relative = path.trim_start_matches('/');
        let line =
            ignore.and_then(|ignore| Some(ignore.shown(ignore.line_of(relative.as_bytes())?)));
        hints.push(match line {
            Some(line) => format!("{path:?} is there, but ignored by {line}"),
            None => format!("{path:?} is there, but the ignore file of its context hides it"),
        });
    }
    if !ignored && similar.contains(path) {
        hints.push(format!(
            "{path:?} is there, but it is a link that leads nowhere, or a link leads to it that is not followed here"
        ));
    }
    let names: Vec<String> =
        similar.iter().filter(|name| *name != path).map(|name| format!("{name:?}")).collect();
    if !names.is_empty() {
        hints.push(format!("did you mean {}?", names.join(" or ")));
    }
    hints
}

/// The lines of a location with some around them; marked ones begin with `>>>`.
pub(crate) fn excerpt(source: &Source, location: &SourceLocation) -> String {
    let (first, last) = (location.first_line as usize, location.last_line as usize);
    let from = first.saturating_sub(AROUND).max(1);
    let to = last.saturating_add(AROUND);
    let rule = "-".repeat(20);
    let mut text = format!("{}:{first}\n{rule}\n", printable::line(&location.file));
    for (number, line) in source.text().lines().enumerate().map(|(index, line)| (index + 1, line)) {
        if number < from {
            continue;
        }
        if number > to {
            break;
        }
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let line: String =
            line.chars().filter(|c| !c.is_control() || *c == '\t').take(LONGEST).collect();
        text.extend([format!("{number:4} | {mark} {line}").trim_end(), "\n"]);
    }
    text + &rule + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_the_lines_of_the_step() {
        let source =
            Source::new("Dockerfile", "FROM a\n\nRUN b \\\n  c\nRUN d\nRUN e\nRUN f\nRUN g\n");
        let location =
            SourceLocation { file: "Dockerfile".to_owned(), first_line: 3, last_line: 4 };
        let expected = "Dockerfile:3\n--------------------\n   1 |     FROM a\n   2 |\n   3 | >>> RUN b \\\n   4 | >>>   c\n   \
                        5 |     RUN d\n   6 |     RUN e\n   7 |     RUN f\n--------------------\n";
        assert_eq!(excerpt(&source.expect("a short text"), &location), expected);
    }
}
