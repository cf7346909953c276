//! Durations and sizes as BuildKit prints them.

use std::time::{Duration, SystemTime};

/// Time from `start` to `end`; zero when a clock went backwards.
pub(crate) fn between(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

/// Seconds with one decimal: `0.3s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// Seconds since a step began, as a log line starts: three decimals below 10 s, two below 100 s, then one.
pub(crate) fn log_time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let decimals = if seconds < 10.0 {
        3
    } else if seconds < 100.0 {
        2
    } else {
        1
    };
    format!("{seconds:.decimals$}")
}

/// Bytes with decimal units and three digits that count: `1.05MB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{}", UNITS[unit])
}

/// Whether a name is that of work that no instruction asks for: `[internal] ..`, `[linux/arm64 internal] ..`.
pub(crate) fn is_internal(name: &str) -> bool {
    let label = name.strip_prefix('[').and_then(|name| name.split_once(']'));
    label.is_some_and(|(label, _)| label.split(' ').next_back() == Some("internal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(log_time(Duration::from_millis(123)), "0.123");
        assert_eq!(log_time(Duration::from_millis(12_345)), "12.35");
        assert_eq!(log_time(Duration::from_millis(123_456)), "123.5");
        assert_eq!(bytes(999), "999B");
        assert_eq!(bytes(1_050_000), "1.05MB");
        assert_eq!(bytes(34_000), "34.0kB");
        assert_eq!(bytes(340_000_000), "340MB");
    }

    #[test]
    fn internal_work_is_told_from_steps() {
        for (name, expected) in [
            ("[internal] load build context", true),
            ("[linux/arm64 internal] load metadata for x", true),
            ("[internal 1/2] RUN x", false),
            ("[build 1/2] RUN echo [internal]", false),
            ("internal", false),
        ] {
            assert_eq!(is_internal(name), expected, "{name}");
        }
    }
}
