//! Durations and sizes as Go's libraries read them.

use std::time::Duration;

/// Reads a duration such as `1h30m`, `1.5s` or `0`; the error is worded as Go's.
///
/// A negative one is read as [`None`], for no field of a Dockerfile may be negative.
pub(crate) fn parse_duration(text: &str) -> Result<Option<Duration>, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Some(Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split_digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let unit: u64 = match &after[..end] {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1,
            // Both the micro sign and the Greek letter.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60 * 1_000_000_000,
            "h" => 3_600 * 1_000_000_000,
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        let fraction = format!("0.{fraction}").parse::<f64>().unwrap_or_default() * unit as f64;
        total = whole
            .checked_mul(unit)
            .and_then(|nanoseconds| nanoseconds.checked_add(fraction as u64))
            .and_then(|nanoseconds| nanoseconds.checked_add(total))
            // Go's durations are signed.
            .filter(|nanoseconds| *nanoseconds <= i64::MAX as u64)
            .ok_or_else(invalid)?;
        rest = &after[end..];
    }
    Ok((!negative || total == 0).then(|| Duration::from_nanos(total)))
}

/// Reads a size such as `64m`, `1.5GiB` or `4096`, in powers of 1024.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' '))? + 1;
    let number = text[..end].strip_suffix(' ').unwrap_or(&text[..end]);
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    let shift = match text[end..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    let bytes = number * (1_u64 << shift) as f64;
    (bytes < i64::MAX as f64).then_some(bytes as u64)
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("+5s", 5_000_000_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("2µs", 2_000),
            ("2μs", 2_000),
            ("0.000000001s", 1),
            ("-0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Some(Duration::from_nanos(nanoseconds))), "{text}");
        }
        assert_eq!(parse_duration("-1s"), Ok(None));
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("-", "time: invalid duration \"-\""),
            ("s", "time: invalid duration \"s\""),
            (".s", "time: invalid duration \".s\""),
            ("5", "time: missing unit in duration \"5\""),
            ("5d", "time: unknown unit \"d\" in duration \"5d\""),
            ("5 s", "time: unknown unit \" s\" in duration \"5 s\""),
            ("99999999999999999999s", "time: invalid duration \"99999999999999999999s\""),
            ("9999999h", "time: invalid duration \"9999999h\""),
        ] {
            assert_eq!(parse_duration(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64m", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("1 KB", 1 << 10),
            ("2t", 2 << 40),
            ("1P", 1 << 50),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "1x", "-1", "1e3", "1..2", "1  m", "99999p", "inf", "é1"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
