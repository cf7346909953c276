//! Installing the filter.

use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::filter::{Family, program};
use crate::sys;

/// Filters the system calls of the process and of all that it starts, for steps that have `capabilities`. It cannot be undone.
pub(in super::super) fn install(capabilities: CapabilitySet) -> Result<(), Errno> {
    match sys::install_seccomp_filter(&program(Family::NATIVE, capabilities)) {
        // A kernel without seccomp; BuildKit goes on as well.
        Err(Errno::NOSYS) => Ok(()),
        result => result,
    }
}
