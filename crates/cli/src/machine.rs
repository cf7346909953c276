//! What a run of rbuild is on this machine.

use std::path::PathBuf;

use rbuild_worker::Identity;

use crate::args::{Command, Isolation, Snapshotter};
use crate::registry_args::RegistryArgs;

/// Who rbuild is, and how it goes about it.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Where this program is, that is, what sandboxes are started from.
    pub(crate) program: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) snapshotter: Snapshotter,
    pub(crate) isolation: Isolation,
    pub(crate) registries: RegistryArgs,
    /// The file with defaults of flags that was named.
    pub(crate) config: Option<PathBuf>,
}

impl Isolation {
    /// Of the steps of a command.
    pub(crate) fn of(command: &Command) -> Self {
        match command {
            Command::Build(args) => args.isolation,
            Command::Debug(args) => args.isolation,
            _ => Self::Auto,
        }
    }
}
