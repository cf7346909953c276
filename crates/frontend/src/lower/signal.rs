//! The names of signals.

const NAMES: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// Whether a text names a signal: a number other than zero, or a name in any case, with or without `SIG`.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    NAMES.contains(&name) || is_real_time(name)
}

/// `RTMIN+1` to `RTMIN+15` and `RTMAX-14` to `RTMAX-1`.
fn is_real_time(name: &str) -> bool {
    let within = |prefix, largest| {
        let offset: Option<u8> = name
            .strip_prefix(prefix)
            .filter(|rest| !rest.starts_with(['0', '+']))
            .and_then(|rest| rest.parse().ok());
        offset.is_some_and(|offset| offset <= largest)
    };
    within("RTMIN+", 15) || within("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for good in ["SIGTERM", "term", "9", "SigKill", "RTMIN", "SIGRTMIN+15", "rtmax-1", "99"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in
            ["", "0", "SIG", "SIGFOO", "RTMIN+16", "RTMIN+0", "RTMIN++1", "RTMAX-15", "TERM "]
        {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
