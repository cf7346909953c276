//! Amounts as people type them.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::config::NOTHING;
use crate::error::CommandError;

/// `1h30m`, `45s`, `500ms`, `2d`: numbers with a unit each.
pub(crate) fn duration(text: &str) -> Result<Duration, CommandError> {
    let wrong =
        || CommandError::usage(format!("`{text}` is no duration: write it as 90s, 24h or 1h30m"));
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let amount: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..].find(|c: char| !c.is_ascii_alphabetic());
        let (unit, after) = rest[digits..].split_at(unit.unwrap_or(rest.len() - digits));
        let seconds = match unit {
            "d" => 86_400.0,
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return Err(wrong()),
        };
        let part = Duration::try_from_secs_f64(amount * seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// More steps than there can be.
const MOST_JOBS: NonZeroUsize = NonZeroUsize::new(u32::MAX as usize).expect("it is not zero");

/// How many steps may run at the same time; `none` for as many as are ready.
pub(crate) fn checked_jobs(text: &str) -> Result<NonZeroUsize, String> {
    if text == NOTHING {
        return Ok(MOST_JOBS);
    }
    let jobs: Result<NonZeroUsize, _> = text.parse();
    jobs.map(|jobs| jobs.min(MOST_JOBS))
        .map_err(|_| format!("`{text}` is no number of steps: it is 1 or more, or none"))
}

/// What was typed, if it is a [`duration`], or 0 or `none` for no limit.
pub(crate) fn checked_time_limit(text: &str) -> Result<String, String> {
    match (text, duration(text)) {
        ("0" | NOTHING, _) | (_, Ok(_)) => Ok(text.to_owned()),
        (_, Err(error)) => Err(error.reason()),
    }
}

/// What was typed, if it is an amount of [`space`].
pub(crate) fn checked_space(text: &str) -> Result<String, String> {
    space(text, 0).map(|_| text.to_owned()).map_err(|error| error.reason())
}

/// `512m`, `2g`, `1.5GiB`, `1000`: bytes as docker reads them, with units of 1024.
pub(crate) fn memory(text: &str) -> Result<u64, CommandError> {
    let wrong =
        || CommandError::usage(format!("`{text}` is no size: write it as 2g, 512m or 1000"));
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let amount: f64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = text[digits..].trim_start().to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(wrong()),
    };
    let bytes = amount * f64::from(shift).exp2();
    // What the kernel can count.
    if bytes < i64::MAX as f64 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// `10GB`, `512MiB`, `1000`, `20%` of `whole`: bytes with decimal or binary units. `none` is no limit.
pub(crate) fn space(text: &str, whole: u64) -> Result<Option<u64>, CommandError> {
    let wrong = || {
        CommandError::usage(format!(
            "`{text}` is no amount of space: write it as 10GB, 512MB, 1GiB, 20% of the disk, or none"
        ))
    };
    if text == NOTHING {
        return Ok(None);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let amount: f64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "%" if amount <= 100.0 => whole as f64 / 100.0,
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        "tib" => 1_099_511_627_776.0,
        _ => return Err(wrong()),
    };
    Ok(Some((amount * unit) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        assert_eq!(duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration("1.5s500ms").unwrap(), Duration::from_secs(2));
        for bad in ["", "h", "5", "5x", "1e99d", "1s5", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for (text, bytes) in
            [("2g", 2 << 30), ("512m", 512 << 20), ("1.5KiB", 1536), ("64MB", 64 << 20), ("7b", 7)]
        {
            assert_eq!(memory(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "g", "2x", "-1", "1 gg", "1ib2", "9999999t", "99999999999999999999"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }
    #[test]
    fn space_is_counted_in_either_kind_of_units() {
        for (text, bytes) in [("1.5GB", 1_500_000_000), ("1KiB", 1024), ("20%", 100), ("7", 7)] {
            assert_eq!(space(text, 500).unwrap(), Some(bytes), "{text}");
        }
        assert_eq!(space("none", 500).unwrap(), None);
        for bad in ["", "GB", "5X", "-1", "101%", "all"] {
            assert!(space(bad, 500).is_err(), "{bad}");
        }
    }
}
