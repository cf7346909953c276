//! From limits to what is written into which file of a control group: pure.

use super::limits::{Controller, ResourceLimits, SwapLimit};

/// The two interfaces of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// One file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file: &'static str,
    pub(super) text: String,
    /// Whether a kernel that does not have the file is fine.
    pub(super) optional: bool,
}

fn setting(file: &'static str, text: impl ToString) -> Setting {
    Setting { file, text: text.to_string(), optional: false }
}

/// The files of one controller, in the order in which the kernel takes them.
pub(super) fn settings(
    limits: &ResourceLimits,
    controller: Controller,
    version: Version,
) -> Vec<Setting> {
    match (controller, version) {
        (Controller::Memory, Version::V1) => memory_v1(limits),
        (Controller::Memory, Version::V2) => memory_v2(limits),
        (Controller::Cpu, Version::V1) => cpu_v1(limits),
        (Controller::Cpu, Version::V2) => cpu_v2(limits),
        // The files have one name and form in both.
        (Controller::Cpuset, _) => {
            let cpus = limits.cpuset_cpus.iter().map(|list| setting("cpuset.cpus", list));
            let mems = limits.cpuset_mems.iter().map(|list| setting("cpuset.mems", list));
            cpus.chain(mems).collect()
        }
    }
}

fn memory_v1(limits: &ResourceLimits) -> Vec<Setting> {
    // Of memory and swap together, and so never below that of the memory, which has to be set first.
    const TOTAL: &str = "memory.memsw.limit_in_bytes";
    let mut files = Vec::new();
    files.extend(limits.memory.map(|bytes| setting("memory.limit_in_bytes", bytes)));
    match (limits.memory, limits.memory_swap) {
        (_, Some(SwapLimit::Bytes(bytes))) => files.push(setting(TOTAL, bytes)),
        (_, Some(SwapLimit::Unlimited)) => {
            files.push(Setting { optional: true, ..setting(TOTAL, -1) });
        }
        (Some(memory), None) => {
            let total = setting(TOTAL, memory.saturating_mul(2));
            files.push(Setting { optional: true, ..total });
        }
        (None, None) => {}
    }
    files
}

fn memory_v2(limits: &ResourceLimits) -> Vec<Setting> {
    // Of the swap alone.
    const SWAP: &str = "memory.swap.max";
    let mut files = Vec::new();
    files.extend(limits.memory.map(|bytes| setting("memory.max", bytes)));
    match (limits.memory, limits.memory_swap) {
        (memory, Some(SwapLimit::Bytes(bytes))) => {
            files.push(setting(SWAP, bytes.saturating_sub(memory.unwrap_or(0))));
        }
        (_, Some(SwapLimit::Unlimited)) => {
            files.push(Setting { optional: true, ..setting(SWAP, "max") });
        }
        (Some(memory), None) => files.push(Setting { optional: true, ..setting(SWAP, memory) }),
        (None, None) => {}
    }
    files
}

fn cpu_v1(limits: &ResourceLimits) -> Vec<Setting> {
    let mut files = Vec::new();
    files.extend(limits.cpu_shares.map(|shares| setting("cpu.shares", shares)));
    files.extend(limits.cpu_period.map(|period| setting("cpu.cfs_period_us", period)));
    files.extend(limits.cpu_quota.map(|quota| setting("cpu.cfs_quota_us", quota)));
    files
}

fn cpu_v2(limits: &ResourceLimits) -> Vec<Setting> {
    let mut files = Vec::new();
    files.extend(limits.cpu_shares.map(|shares| setting("cpu.weight", weight(shares))));
    if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
        let quota = limits.cpu_quota.map_or("max".to_owned(), |quota| quota.to_string());
        let period = limits.cpu_period.unwrap_or(100_000);
        files.push(setting("cpu.max", format!("{quota} {period}")));
    }
    files
}

/// Shares of 2 to 262144 as a weight of 1 to 10000; how all container runtimes convert them.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(limits: &ResourceLimits, version: Version, expected: &[(&str, &str)]) {
        let files: Vec<Setting> = limits
            .controllers()
            .into_iter()
            .flat_map(|controller| settings(limits, controller, version))
            .collect();
        let files: Vec<_> = files.iter().map(|file| (file.file, file.text.as_str())).collect();
        assert_eq!(files, expected);
    }

    #[test]
    fn limits_become_files_of_either_version() {
        let limits = ResourceLimits {
            memory: Some(1 << 20),
            memory_swap: Some(SwapLimit::Bytes(3 << 20)),
            cpu_shares: Some(1024),
            cpu_period: Some(50_000),
            cpu_quota: Some(25_000),
            cpuset_cpus: Some("0-1".to_owned()),
            cpuset_mems: Some("0".to_owned()),
        };
        check(
            &limits,
            Version::V2,
            &[
                ("memory.max", "1048576"),
                ("memory.swap.max", "2097152"),
                ("cpu.weight", "39"),
                ("cpu.max", "25000 50000"),
                ("cpuset.cpus", "0-1"),
                ("cpuset.mems", "0"),
            ],
        );
        check(
            &limits,
            Version::V1,
            &[
                ("memory.limit_in_bytes", "1048576"),
                ("memory.memsw.limit_in_bytes", "3145728"),
                ("cpu.shares", "1024"),
                ("cpu.cfs_period_us", "50000"),
                ("cpu.cfs_quota_us", "25000"),
                ("cpuset.cpus", "0-1"),
                ("cpuset.mems", "0"),
            ],
        );
    }

    #[test]
    fn what_is_not_said_follows_docker() {
        let memory = ResourceLimits { memory: Some(100), ..ResourceLimits::default() };
        check(&memory, Version::V2, &[("memory.max", "100"), ("memory.swap.max", "100")]);
        let expected = [("memory.limit_in_bytes", "100"), ("memory.memsw.limit_in_bytes", "200")];
        check(&memory, Version::V1, &expected);
        let swap = ResourceLimits { memory_swap: Some(SwapLimit::Unlimited), ..memory };
        check(&swap, Version::V2, &[("memory.max", "100"), ("memory.swap.max", "max")]);
        let quota = ResourceLimits { cpu_quota: Some(1000), ..ResourceLimits::default() };
        check(&quota, Version::V2, &[("cpu.max", "1000 100000")]);
        let period = ResourceLimits { cpu_period: Some(1000), ..ResourceLimits::default() };
        check(&period, Version::V2, &[("cpu.max", "max 1000")]);
        check(&ResourceLimits::default(), Version::V2, &[]);
        assert_eq!((weight(2), weight(262_144), weight(0)), (1, 10_000, 1));
    }
}
