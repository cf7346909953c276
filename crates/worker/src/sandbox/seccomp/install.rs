//! Installing the filter.

use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::filter::{Family, program};
use crate::sys::{self, BpfInstruction};

/// A filter that is ready to be installed.
#[derive(Debug)]
pub(in super::super) struct Filter {
    capabilities: CapabilitySet,
    program: Vec<BpfInstruction>,
}

impl Filter {
    /// For steps that have `capabilities`.
    pub(in super::super) fn new(capabilities: CapabilitySet) -> Self {
        Self { capabilities, program: program(Family::NATIVE, capabilities) }
    }

    pub(in super::super) fn is_for(&self, capabilities: CapabilitySet) -> bool {
        self.capabilities == capabilities
    }

    /// Filters the system calls of the process and of all that it starts. It cannot be undone.
    pub(in super::super) fn install(&self) -> Result<(), Errno> {
        match sys::install_seccomp_filter(&self.program) {
            // A kernel without seccomp; BuildKit goes on as well.
            Err(Errno::NOSYS) => Ok(()),
            result => result,
        }
    }
}
