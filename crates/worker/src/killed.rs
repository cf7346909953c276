//! Who killed a step's program.

use crate::cgroup::{OomKills, StepGroup};
use crate::sandbox::ExitStatus;

/// The number of SIGKILL.
const KILL: i32 = 9;

/// Who killed a step's program, as far as that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Killed {
    /// The kernel, for the step's own limit.
    #[error(
        "out of memory: the kernel killed {processes} process(es) of the step{}",
        limit.map(|bytes| format!(", which may use {} MiB (--memory)", bytes >> 20)).unwrap_or_default()
    )]
    LimitOfStep {
        /// How many.
        processes: u64,
        /// What the step may use.
        limit: Option<u64>,
    },
    /// Probably the kernel, as the machine, or the container around the build, had no more memory.
    #[error(
        "killed by SIGKILL, and meanwhile the kernel has killed for want of memory: \
         the machine, or the container around the build, has too little for the step"
    )]
    Surroundings,
    /// Somebody.
    #[error(
        "killed by SIGKILL, not for want of memory as far as the kernel tells: \
         by a process of the step, or by somebody outside"
    )]
    Somebody,
}

impl Killed {
    /// What is to be said of a step that failed. A shell says with its exit code that its child was killed.
    pub(crate) fn of(
        status: ExitStatus,
        group: Option<&StepGroup>,
        limit: Option<u64>,
        before: OomKills,
    ) -> Option<Self> {
        // Compilers and such report in their own way, and with their own code, that a child was killed.
        let processes = group.map_or(0, StepGroup::oom_kills);
        if processes > 0 {
            return Some(Self::LimitOfStep { processes, limit });
        }
        let is_killed = match status {
            ExitStatus::Signal(signal) => signal == KILL,
            ExitStatus::Code(code) => code == 128 + KILL,
        };
        is_killed.then(|| match OomKills::now().is_more_than(before) {
            true => Self::Surroundings,
            false => Self::Somebody,
        })
    }
}
