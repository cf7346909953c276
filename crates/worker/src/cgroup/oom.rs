//! Whether the kernel killed something for want of memory.

use std::fs;
use std::path::Path;

use super::hierarchy::hierarchies;
use super::limits::Controller;
use super::settings::Version;

/// How many processes the kernel had killed for want of memory, as far as this process can see: on the machine, and in
/// the control group that the build itself is in, whose limit may be that of a container around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OomKills {
    machine: u64,
    surroundings: u64,
}

impl OomKills {
    /// Counts.
    pub(crate) fn now() -> Self {
        let machine = fs::read_to_string("/proc/vmstat").unwrap_or_default();
        let own = hierarchies()
            .into_iter()
            .filter(|hierarchy| hierarchy.has(Controller::Memory, &hierarchy.own))
            .map(|hierarchy| in_group(&hierarchy.own, hierarchy.version));
        Self { machine: count(&machine), surroundings: own.sum() }
    }

    /// Whether there were more of them than `before`.
    pub(crate) fn is_more_than(self, before: Self) -> bool {
        self.machine > before.machine || self.surroundings > before.surroundings
    }
}

/// How many processes of a group the kernel has killed for its limit.
pub(super) fn in_group(group: &Path, version: Version) -> u64 {
    let file = match version {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events",
    };
    count(&fs::read_to_string(group.join(file)).unwrap_or_default())
}

fn count(text: &str) -> u64 {
    text.lines().filter_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_counter_of_either_version() {
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
        assert_eq!(count("low 0\noom 5\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(count("oom_kill_disable 0\n"), 0);
    }
}
