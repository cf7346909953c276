//! What a step may use.

/// Limits that the kernel keeps for a step and everything that it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Most bytes of memory.
    pub memory: Option<u64>,
    /// Memory and swap together. Without it, twice the memory where the kernel counts swap.
    pub memory_swap: Option<SwapLimit>,
    /// Share of the processors relative to others, 2 to 262144; others have 1024.
    pub cpu_shares: Option<u64>,
    /// Length of a period in microseconds, 1000 to 1000000; 100000 when there is only a quota.
    pub cpu_period: Option<u64>,
    /// Microseconds of processor time in each period; `None` is no limit.
    pub cpu_quota: Option<u64>,
    /// Processors to run on, such as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use, such as `0`.
    pub cpuset_mems: Option<String>,
}

/// A limit of memory and swap together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapLimit {
    /// As much swap as there is.
    Unlimited,
    /// Most bytes of both.
    Bytes(u64),
}

impl ResourceLimits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The controllers that keep them.
    pub(super) fn controllers(&self) -> Vec<Controller> {
        let memory = self.memory.is_some() || self.memory_swap.is_some();
        let cpu =
            self.cpu_shares.is_some() || self.cpu_period.is_some() || self.cpu_quota.is_some();
        let cpuset = self.cpuset_cpus.is_some() || self.cpuset_mems.is_some();
        [(memory, Controller::Memory), (cpu, Controller::Cpu), (cpuset, Controller::Cpuset)]
            .into_iter()
            .filter_map(|(needed, controller)| needed.then_some(controller))
            .collect()
    }
}

/// A part of the kernel that limits something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Controller {
    Memory,
    Cpu,
    Cpuset,
}

impl Controller {
    pub(super) const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Cpuset];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
        }
    }
}
