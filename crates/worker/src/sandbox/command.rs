//! Finding and executing the step's program.

use std::ffi::CString;

use rustix::fs::{FileType, stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::sys;

/// Why a program could not be executed. The texts are those that people know from runc.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum CommandError {
    /// There are no arguments.
    #[error("exec: no command given")]
    Empty,
    /// An argument or a variable has a zero byte in it.
    #[error("exec: {text:?} contains a zero byte")]
    ZeroByte {
        /// The text.
        text: String,
    },
    /// No directory of `PATH` has it.
    #[error("exec: {program:?}: executable file not found in $PATH")]
    NotInPath {
        /// The program as it was named.
        program: String,
    },
    /// The kernel did not execute it.
    #[error("exec: {program:?}: {}", describe(program, *.errno, *.exists))]
    Exec {
        /// The program's path.
        program: String,
        /// Why.
        errno: i32,
        /// Whether there is a file of that name.
        exists: bool,
    },
}

impl CommandError {
    /// 127 for what is not there, 126 for what cannot be executed; as in a shell.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Empty | Self::NotInPath { .. } => 127,
            Self::Exec { errno, .. } if Errno::from_raw_os_error(*errno) == Errno::NOENT => 127,
            Self::ZeroByte { .. } | Self::Exec { .. } => 126,
        }
    }
}

fn describe(program: &str, errno: i32, exists: bool) -> String {
    match Errno::from_raw_os_error(errno) {
        Errno::NOENT if exists => {
            "no such file or directory (its interpreter or loader is missing)".to_owned()
        }
        Errno::NOENT => format!("stat {program}: no such file or directory"),
        Errno::ACCESS => "permission denied".to_owned(),
        Errno::NOEXEC => "exec format error".to_owned(),
        Errno::TOOBIG => "argument list too long".to_owned(),
        errno => std::io::Error::from(errno).to_string(),
    }
}

/// A program with everything that `execve(2)` wants, made before the last steps so that nothing can fail in between.
#[derive(Debug)]
pub(super) struct Command {
    program: String,
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Command {
    /// Prepares a command. A program without a slash becomes one candidate for each directory of `PATH`.
    pub(super) fn new(args: &[String], env: &[String]) -> Result<Self, CommandError> {
        let program =
            args.first().filter(|program| !program.is_empty()).ok_or(CommandError::Empty)?;
        let candidates = if program.contains('/') {
            vec![c_string(program)?]
        } else {
            let path =
                env.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default();
            // An empty entry is the working directory for a shell; runc and Go refuse it, and so do we.
            path.split(':')
                .filter(|directory| !directory.is_empty())
                .map(|directory| {
                    c_string(&format!("{}/{program}", directory.trim_end_matches('/')))
                })
                .collect::<Result<_, _>>()?
        };
        let strings = |strings: &[String]| {
            strings.iter().map(|text| c_string(text)).collect::<Result<_, _>>()
        };
        Ok(Self { program: program.clone(), candidates, args: strings(args)?, env: strings(env)? })
    }

    /// Becomes the program; returns only when that fails.
    pub(super) fn execute(&self) -> CommandError {
        let mut refused = None;
        for candidate in &self.candidates {
            let errno = sys::execve(candidate, &self.args, &self.env);
            let exists = stat(candidate.as_c_str())
                .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) != FileType::Directory);
            let failed = || CommandError::Exec {
                program: candidate.to_string_lossy().into_owned(),
                errno: errno.raw_os_error(),
                exists,
            };
            match errno {
                // A later directory may have another.
                Errno::NOENT | Errno::NOTDIR if !exists && self.candidates.len() > 1 => {}
                Errno::ACCESS if self.candidates.len() > 1 => {
                    refused.get_or_insert_with(failed);
                }
                _ if !exists && !self.program.contains('/') => {}
                _ => return failed(),
            }
        }
        refused.unwrap_or_else(|| CommandError::NotInPath { program: self.program.clone() })
    }
}

fn c_string(text: &str) -> Result<CString, CommandError> {
    CString::new(text).map_err(|_| CommandError::ZeroByte { text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(program: &str, path: &str) -> Vec<String> {
        let command =
            Command::new(&[program.to_owned()], &["A=b".to_owned(), format!("PATH={path}")])
                .unwrap();
        command.candidates.iter().map(|path| path.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn path_is_searched_in_order_for_plain_names_only() {
        assert_eq!(candidates("sh", "/bin:/usr/bin/"), ["/bin/sh", "/usr/bin/sh"]);
        assert_eq!(candidates("sh", "::/bin:"), ["/bin/sh"]);
        assert_eq!(candidates("./sh", "/bin"), ["./sh"]);
        assert_eq!(candidates("/x/sh", "/bin"), ["/x/sh"]);
    }

    #[test]
    fn wrong_commands_are_refused() {
        assert_eq!(Command::new(&[], &[]).unwrap_err(), CommandError::Empty);
        assert!(matches!(
            Command::new(&["a".to_owned(), "b\0".to_owned()], &[]),
            Err(CommandError::ZeroByte { .. })
        ));
    }

    #[test]
    fn failures_have_the_codes_of_a_shell() {
        let failed =
            Command::new(&["nonesuch".to_owned()], &["PATH=/bin".to_owned()]).unwrap().execute();
        assert_eq!(failed.to_string(), "exec: \"nonesuch\": executable file not found in $PATH");
        assert_eq!(failed.exit_code(), 127);
        let failed = Command::new(&["/nonesuch/x".to_owned()], &[]).unwrap().execute();
        assert_eq!(
            failed.to_string(),
            "exec: \"/nonesuch/x\": stat /nonesuch/x: no such file or directory"
        );
        assert_eq!(failed.exit_code(), 127);
        let failed = Command::new(&["/etc/passwd".to_owned()], &[]).unwrap().execute();
        assert_eq!(failed.to_string(), "exec: \"/etc/passwd\": permission denied");
        assert_eq!(failed.exit_code(), 126);
        let failed = Command::new(&["passwd".to_owned()], &["PATH=/bin/nonesuch:/etc".to_owned()])
            .unwrap()
            .execute();
        assert_eq!(failed.to_string(), "exec: \"/etc/passwd\": permission denied");
    }
}
