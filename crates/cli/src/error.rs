//! How a command fails: what is printed, and the exit code.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};

use rbuild_cache::IndexError;
pub(crate) use rbuild_solver::chain;
use rbuild_worker::OwnerError;
use rustix::io::Errno;

use crate::printable;

/// What kind of failure it is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Something that was typed is wrong: 2.
    Usage,
    /// The build failed: 1.
    Build,
    /// The machine, a registry or the disk does not let it happen: 1.
    Environment,
    /// Interrupted by the user: 130, as a shell says it of SIGINT.
    Interrupted,
    /// An answer that scripts tell apart by its exit code.
    Answer(u8),
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct CommandError {
    kind: Kind,
    /// Printed before the error: a drawn source line, the end of a step's output.
    preface: String,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    hints: Vec<String>,
    /// What failed besides; printed after it.
    more: Vec<Self>,
}

impl CommandError {
    /// A failure without a cause below it.
    pub(crate) fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            preface: String::new(),
            message: message.to_string(),
            source: None,
            hints: Vec::new(),
            more: Vec::new(),
        }
    }

    /// Adds an error that came after this one, which stays the reason of the failure.
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.more.push(more);
        self
    }

    /// Nothing more to say: what was asked for was found, and told; the exit code is 1.
    pub(crate) fn told() -> Self {
        Self::new(Kind::Build, "")
    }

    /// As [`CommandError::told`], with an exit code of its own.
    pub(crate) fn told_with(code: u8) -> Self {
        Self::new(Kind::Answer(code), "")
    }

    /// Wrong usage.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A failure that an error below explains.
    pub(crate) fn caused(
        kind: Kind,
        message: impl fmt::Display,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self { source: Some(Box::new(source)), ..Self::new(kind, message) }
    }

    /// Adds something that the user can do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds a text that is printed before the error.
    pub(crate) fn preface(mut self, text: impl Into<String>) -> Self {
        self.preface = text.into();
        self
    }

    /// The message and what caused it, without what is printed around.
    pub(crate) fn reason(&self) -> String {
        match self.source.as_deref().map(|source| (source.to_string(), chain(source))) {
            Some((first, causes)) if first == self.message => causes,
            Some((_, causes)) => format!("{}: {causes}", self.message),
            None => self.message.clone(),
        }
    }

    /// Whether the user stopped it.
    pub(crate) fn is_interruption(&self) -> bool {
        self.kind == Kind::Interrupted
    }

    /// Whether a file's owner could not be set.
    pub(crate) fn is_about_owners(&self) -> bool {
        self.source.as_deref().is_some_and(|source| cause::<OwnerError>(source).is_some())
    }

    /// The exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Usage => 2,
            Kind::Build | Kind::Environment => 1,
            Kind::Interrupted => 130,
            Kind::Answer(code) => code,
        }
    }
}

/// The first of this type among an error and what caused it.
pub(crate) fn cause<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|one| one.downcast_ref())
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.preface)?;
        if self.message.is_empty() {
            return Ok(());
        }
        writeln!(f, "ERROR: {}", printable::text(&self.reason()))?;
        self.more.iter().try_for_each(|more| more.fmt(f))?;
        self.hints.iter().try_for_each(|hint| writeln!(f, "hint: {}", printable::text(hint)))?;
        match self.source.as_deref().is_some_and(|source| is_about_room(source)) {
            true => writeln!(f, "hint: {MAKE_ROOM}"),
            false => Ok(()),
        }
    }
}

impl Error for CommandError {}

/// What can be done about a full disk, whichever it is.
const MAKE_ROOM: &str = "a disk is full, or what may be used of it: `rbuild du` shows what the store takes, and `rbuild prune` makes room in it";

/// Whether something could not be written for want of room.
fn is_about_room(error: &(dyn Error + 'static)) -> bool {
    let is_full = |error: &(dyn Error + 'static)| {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
            || matches!(error.downcast_ref(), Some(&(Errno::NOSPC | Errno::DQUOT)))
            || error.downcast_ref().is_some_and(IndexError::is_full)
    };
    std::iter::successors(Some(error), |&error| error.source()).any(is_full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_has_a_hint() {
        for full in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let inner = io::Error::from(full);
            let error = CommandError::caused(Kind::Environment, "cannot write", inner);
            assert!(error.to_string().ends_with(&format!("hint: {MAKE_ROOM}\n")), "{error}");
        }
        let error = CommandError::caused(Kind::Build, "cannot write", Errno::NOSPC);
        assert!(error.to_string().contains("rbuild prune"), "{error}");
        let error = CommandError::caused(Kind::Build, "cannot write", Errno::IO);
        assert!(!error.to_string().contains("hint"), "{error}");
    }

    #[test]
    fn causes_follow_and_are_not_repeated() {
        let inner = std::io::Error::other("disk on fire");
        let error = CommandError::caused(Kind::Environment, "cannot open the store", inner)
            .hint("try water");
        assert_eq!(
            error.to_string(),
            "ERROR: cannot open the store: disk on fire\nhint: try water\n"
        );
        assert_eq!(error.reason(), "cannot open the store: disk on fire");
        assert_eq!(error.exit_code(), 1);
        assert_eq!(CommandError::usage("no").exit_code(), 2);
        assert_eq!(
            (CommandError::told().to_string().as_str(), CommandError::told().exit_code()),
            ("", 1)
        );
    }

    #[test]
    fn messages_do_not_command_the_terminal() {
        let inner = std::io::Error::other("no host \u{1b}]0;title\u{7}");
        let error = CommandError::caused(Kind::Environment, "cannot pull\u{9b}2J", inner);
        assert_eq!(
            error.to_string(),
            "ERROR: cannot pull\\u{9b}2J: no host \\u{1b}]0;title\\u{7}\n"
        );
    }
}
