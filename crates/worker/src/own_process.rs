//! The processes that a build starts from its own program.

use std::process::ExitCode;

use crate::{network, sandbox};

/// Becomes a process that a build started for itself (a step's sandbox, or the keeper of a network) if this program was started as
/// one, and returns the code with which `main` is to return at once.
///
/// To be called first in `main`, before any thread exists and before anything reads the standard input, which is a control socket.
#[must_use]
pub fn init_main_if_requested() -> Option<ExitCode> {
    sandbox::init_main_if_requested().or_else(network::keeper_main_if_requested)
}
