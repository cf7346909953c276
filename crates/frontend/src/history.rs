//! The history of an image, and the forms in which Go prints what stands in it.

use std::fmt::Write;
use std::time::Duration;

use rbuild_oci::{Healthcheck, History};

const COMMENT: &str = "buildkit.dockerfile.v0";

/// An entry of the history; without a time it gets that of its layer.
pub(crate) fn entry(created_by: String, has_layer: bool, created: Option<&str>) -> History {
    History {
        created: created.map(str::to_owned),
        created_by,
        comment: COMMENT.to_owned(),
        empty_layer: !has_layer,
        ..History::default()
    }
}

/// `["a" "b"]`: Go's `%q` of a list.
pub(crate) fn quoted_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// `[a b]`: Go's `%v` of a list.
pub(crate) fn plain_list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// Go's `%q`.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            ' '..='~' => quoted.push(character),
            _ if is_printable(character) => quoted.push(character),
            _ => push_code(&mut quoted, character.into()),
        }
    }
    quoted.push('"');
    quoted
}

fn push_code(text: &mut String, code: u32) {
    let written = match code {
        0..=0x7f => write!(text, "\\x{code:02x}"),
        0x80..=0xffff => write!(text, "\\u{code:04x}"),
        _ => write!(text, "\\U{code:08x}"),
    };
    written.expect("writing to a string cannot fail");
}

fn is_printable(character: char) -> bool {
    // Marks are escaped by `escape_debug` at the start of a text only, so something stands before.
    !character.is_control()
        && !character.is_whitespace()
        && !['x', character].iter().collect::<String>().escape_debug().to_string().contains('\\')
}

/// `{Test:[CMD-SHELL x] Interval:30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3}`: Go's `%+v`.
pub(crate) fn healthcheck(check: &Healthcheck) -> String {
    format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        plain_list(&check.test),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
        check.retries
    )
}

/// Nanoseconds as Go prints them: `1h2m3.5s`, `1.5ms`, `0s`.
fn duration(nanoseconds: i64) -> String {
    let duration = Duration::from_nanos(nanoseconds.unsigned_abs());
    if duration.is_zero() {
        return "0s".to_owned();
    }
    let nanoseconds = duration.as_nanos();
    for (unit, length) in [("ns", 1), ("µs", 1_000), ("ms", 1_000_000)] {
        if nanoseconds < length * 1_000 {
            return decimal(nanoseconds, length) + unit;
        }
    }
    let (hours, minutes) = (duration.as_secs() / 3600, duration.as_secs() / 60 % 60);
    let seconds = decimal(nanoseconds % 60_000_000_000, 1_000_000_000) + "s";
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

/// `value / unit` with as many decimals as it takes.
fn decimal(value: u128, unit: u128) -> String {
    let digits = unit.ilog10() as usize;
    let fraction = format!("{:0digits$}", value % unit);
    match fraction.trim_end_matches('0') {
        "" => (value / unit).to_string(),
        fraction => format!("{}.{fraction}", value / unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        for (text, expected) in [
            ("plain é €", r#""plain é €""#),
            ("a\"b\\c\n\t\u{7}", r#""a\"b\\c\n\t\a""#),
            ("\0\u{7f}\u{a0}\u{200b}", r#""\x00\x7f\u00a0\u200b""#),
            ("e\u{301}", "\"e\u{301}\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
        assert_eq!(quoted_list(&["a".into(), "b c".into()]), r#"["a" "b c"]"#);
    }

    #[test]
    fn durations_as_go_does() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (1_000_000, "1ms"),
            (999_900_000, "999.9ms"),
            (30_000_000_000, "30s"),
            (61_500_000_000, "1m1.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(duration(nanoseconds), expected);
        }
    }
}
