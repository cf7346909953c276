//! What bounds steps, as it is typed: docker's flags, and buildx's `--resource`.

use std::time::Duration;

use rbuild_solver::Ulimit;
use rbuild_worker::{CgroupError, ControlGroups, ResourceLimits, StepLimits, SwapLimit};

use crate::args::LimitArgs;
use crate::commands::amounts::{duration, memory};
use crate::config::NOTHING;
use crate::error::{CommandError, Kind, chain};

/// The least memory that a limit may be, docker's.
const LEAST_MEMORY: u64 = 6 << 20;

/// The names of `--ulimit`.
const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// What bounds every step, and warnings about what cannot be kept.
pub(crate) fn step_limits(args: &LimitArgs) -> Result<(StepLimits, Vec<String>), CommandError> {
    let (limits, best_effort) = resources(args)?;
    let bounds = StepLimits {
        timeout: args.timeout.as_deref().map(bound).transpose()?.flatten(),
        idle_timeout: args.idle_timeout.as_deref().map(bound).transpose()?.flatten(),
        ..StepLimits::none()
    };
    let parent = args.cgroup_parent.as_deref().unwrap_or_default();
    if limits.is_empty() && parent.is_empty() {
        return Ok((bounds, Vec::new()));
    }
    let (groups, given_up) = ControlGroups::open(limits, parent, best_effort).map_err(|error| {
        if matches!(error, CgroupError::Parent { .. }) {
            return CommandError::usage(format!("`--cgroup-parent`: {error}"));
        }
        let hint = error.hint();
        let error = CommandError::caused(Kind::Environment, "cannot limit what steps use", error);
        hint.into_iter().fold(error, CommandError::hint)
    })?;
    let warning = |error: &CgroupError| format!("a limit of steps is not kept: {}", chain(error));
    Ok((StepLimits { groups, ..bounds }, given_up.iter().map(warning).collect()))
}

/// How long something may take; zero and `none` are for ever.
fn bound(text: &str) -> Result<Option<Duration>, CommandError> {
    if text == "0" || text == NOTHING {
        return Ok(None);
    }
    Ok(Some(duration(text)?).filter(|bound| !bound.is_zero()))
}

/// What was typed of resources, as pairs of `--resource`; of what is no pair, nothing.
pub(super) fn pairs_of(args: &LimitArgs) -> Vec<String> {
    let pairs = pairs(args).map(|(pairs, _)| pairs).unwrap_or_default();
    pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// What was typed of resources, and whether those that cannot be had may be left out.
fn resources(args: &LimitArgs) -> Result<(ResourceLimits, bool), CommandError> {
    let (pairs, best_effort) = pairs(args)?;
    let mut limits = ResourceLimits::default();
    for (name, value) in &pairs {
        set(&mut limits, name, value)?;
    }
    check(&limits)?;
    Ok((limits, best_effort))
}

/// What was typed, if it is one or several resources.
pub(crate) fn checked_resource(text: &str) -> Result<String, String> {
    let args = LimitArgs { resource: vec![text.to_owned()], ..LimitArgs::default() };
    let set_all = |(pairs, _): (Vec<(String, String)>, bool)| {
        let mut limits = ResourceLimits::default();
        pairs.iter().try_for_each(|(name, value)| set(&mut limits, name, value))
    };
    pairs(&args).and_then(set_all).map(|()| text.to_owned()).map_err(|error| error.reason())
}

/// Names and values of what was typed; of one name the last counts.
fn pairs(args: &LimitArgs) -> Result<(Vec<(String, String)>, bool), CommandError> {
    let mut best_effort = false;
    let flags = [
        ("memory", &args.memory),
        ("memory-swap", &args.memory_swap),
        ("cpu-shares", &args.cpu_shares),
        ("cpu-period", &args.cpu_period),
        ("cpu-quota", &args.cpu_quota),
        ("cpuset-cpus", &args.cpuset_cpus),
        ("cpuset-mems", &args.cpuset_mems),
    ];
    let mut pairs: Vec<(String, String)> = Vec::new();
    for text in &args.resource {
        // Lists of processors have commas of their own: what has no name belongs to what is before it.
        for field in text.split(',') {
            match (field.split_once('='), pairs.last_mut()) {
                (Some((name, value)), _) => pairs.push((name.trim().to_owned(), value.to_owned())),
                (None, _) if field == "best-effort" => best_effort = true,
                (None, Some((name, value))) if name.starts_with("cpuset-") => {
                    value.extend([",", field]);
                }
                _ => {
                    let message =
                        format!("`--resource {text}`: `{field}` is not of the form NAME=VALUE");
                    return Err(CommandError::usage(message));
                }
            }
        }
    }
    // The flags count where both are given.
    pairs.extend(
        flags.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))),
    );
    Ok((pairs, best_effort))
}

fn set(limits: &mut ResourceLimits, name: &str, value: &str) -> Result<(), CommandError> {
    let number = |least: u64, most: u64| {
        let number = value.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| {
            CommandError::usage(format!(
                "`{name}` of `{value}`: it is a number from {least} to {most}"
            ))
        })
    };
    match name {
        // As docker has it: no limit, as if nothing was said.
        "memory" | "memory-swap" | "cpu-shares" | "cpu-period" | "cpu-quota" if value == "0" => {}
        "memory" => {
            let bytes = memory(value)?;
            if bytes < LEAST_MEMORY {
                let message =
                    format!("`memory` of `{value}`: the least that steps can be limited to is 6m");
                return Err(CommandError::usage(message));
            }
            limits.memory = Some(bytes);
        }
        "memory-swap" => {
            limits.memory_swap = Some(match value {
                "-1" => SwapLimit::Unlimited,
                value => SwapLimit::Bytes(memory(value)?),
            });
        }
        "cpu-shares" => limits.cpu_shares = Some(number(2, 262_144)?),
        "cpu-period" => limits.cpu_period = Some(number(1000, 1_000_000)?),
        "cpu-quota" => {
            limits.cpu_quota = match value {
                "-1" => None,
                _ => Some(number(1000, u64::from(u32::MAX))?),
            };
        }
        "cpuset-cpus" => limits.cpuset_cpus = Some(list(name, value)?),
        "cpuset-mems" => limits.cpuset_mems = Some(list(name, value)?),
        _ => {
            return Err(CommandError::usage(format!("unknown resource `{name}`")).hint(
                "known are memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems and best-effort",
            ));
        }
    }
    Ok(())
}

/// Numbers and ranges: `0-2,4`.
fn list(name: &str, value: &str) -> Result<String, CommandError> {
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    let is_range = |part: &str| match part.split_once('-') {
        Some((first, last)) => is_number(first) && is_number(last),
        None => is_number(part),
    };
    if value.split(',').all(is_range) {
        return Ok(value.to_owned());
    }
    Err(CommandError::usage(format!("`{name}` of `{value}`: write it as 0-2,4")))
}

fn check(limits: &ResourceLimits) -> Result<(), CommandError> {
    match (limits.memory, limits.memory_swap) {
        (None, Some(_)) => Err(CommandError::usage(
            "`memory-swap` is the limit of memory and swap together, so `memory` has to be given, too",
        )),
        (Some(memory), Some(SwapLimit::Bytes(total))) if total < memory => {
            Err(CommandError::usage(
                "`memory-swap` is the limit of memory and swap together, and cannot be less than `memory`",
            ))
        }
        _ => Ok(()),
    }
}

/// `--ulimit NAME=SOFT[:HARD]`; of one name the last counts.
pub(crate) fn ulimits(args: &LimitArgs) -> Result<Vec<Ulimit>, CommandError> {
    let mut limits: Vec<Ulimit> = Vec::new();
    for text in &args.ulimit {
        let limit = ulimit(text)?;
        limits.retain(|other| other.name != limit.name);
        limits.push(limit);
    }
    // In no particular order, and yet the same key for the same limits.
    limits.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(limits)
}

fn ulimit(text: &str) -> Result<Ulimit, CommandError> {
    let wrong = |reason: &str| {
        CommandError::usage(format!("`--ulimit {text}`: {reason}"))
            .hint("write it as NAME=SOFT or NAME=SOFT:HARD, such as nofile=1024:2048")
    };
    let (name, value) = text.split_once('=').ok_or_else(|| wrong("it has no `=`"))?;
    if !ULIMITS.contains(&name) {
        return Err(wrong("there is no such limit"));
    }
    let number = |text: &str| match text.parse::<i64>() {
        Ok(number) if number >= -1 => Ok(number),
        _ => Err(wrong("a limit is a number, or -1 for none")),
    };
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(wrong("the soft limit is above the hard one"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// `--shm-size`, in bytes; 0 without it.
pub(crate) fn shm_size(args: &LimitArgs) -> Result<i64, CommandError> {
    let Some(text) = &args.shm_size else { return Ok(0) };
    match i64::try_from(memory(text)?) {
        Ok(size) if size > 0 => Ok(size),
        _ => Err(CommandError::usage(format!("`--shm-size {text}`: the size must be above 0"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &LimitArgs) -> Result<(ResourceLimits, bool), String> {
        resources(args).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_and_pairs_say_the_same() {
        let flags = LimitArgs {
            memory: Some("2g".to_owned()),
            memory_swap: Some("-1".to_owned()),
            cpu_shares: Some("512".to_owned()),
            cpu_quota: Some("50000".to_owned()),
            cpuset_cpus: Some("0-1,3".to_owned()),
            ..LimitArgs::default()
        };
        let pairs = LimitArgs {
            resource: vec![
                "memory=2g,memory-swap=-1,best-effort".to_owned(),
                "cpu-shares=512,cpuset-cpus=0-1,3,cpu-quota=50000".to_owned(),
            ],
            ..LimitArgs::default()
        };
        let (limits, best_effort) = parsed(&pairs).unwrap();
        assert_eq!((limits.clone(), false), parsed(&flags).unwrap());
        assert!(best_effort);
        assert_eq!(limits.memory, Some(2 << 30));
        let none = LimitArgs { cpu_quota: Some("-1".to_owned()), ..LimitArgs::default() };
        assert!(parsed(&none).unwrap().0.is_empty());
    }

    #[test]
    fn wrong_limits_are_refused() {
        for (pair, reason) in [
            ("memory=1m", "the least"),
            ("memory=x", "no size"),
            ("memory-swap=1g", "`memory` has to be given"),
            ("memory=1g,memory-swap=512m", "cannot be less"),
            ("cpu-shares=1", "from 2 to"),
            ("cpu-quota=1", "from 1000 to"),
            ("cpuset-cpus=a", "0-2,4"),
            ("cpus=2", "unknown resource `cpus`"),
            ("memory", "NAME=VALUE"),
        ] {
            let args = LimitArgs { resource: vec![pair.to_owned()], ..LimitArgs::default() };
            let error = parsed(&args).unwrap_err();
            assert!(error.contains(reason), "{pair}: {error}");
        }
    }

    #[test]
    fn ulimits_and_shared_memory() {
        let args = |texts: &[&str]| LimitArgs {
            ulimit: texts.iter().map(|text| (*text).to_owned()).collect(),
            ..LimitArgs::default()
        };
        let limits = ulimits(&args(&["nofile=5", "core=-1", "nofile=1024:2048"])).unwrap();
        let limits: Vec<_> = limits.iter().map(|l| (l.name.as_str(), l.soft, l.hard)).collect();
        assert_eq!(limits, [("core", -1, -1), ("nofile", 1024, 2048)]);
        for wrong in ["nofile", "files=1", "nofile=x", "nofile=5:4", "nofile=-1:4", "nofile=-2"] {
            assert!(ulimits(&args(&[wrong])).is_err(), "{wrong}");
        }
        let size = |text: &str| {
            shm_size(&LimitArgs { shm_size: Some(text.to_owned()), ..LimitArgs::default() })
        };
        assert_eq!(size("128m").unwrap(), 128 << 20);
        assert!(size("0").is_err() && size("x").is_err());
        assert_eq!(shm_size(&LimitArgs::default()).unwrap(), 0);
    }
}
