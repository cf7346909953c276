//! What git says when it fails, and what is to be done about it.

use super::access::Access;
use super::redirect::is_refused;

/// How much of it is shown.
const SHOWN: usize = 1000;

/// The end of what git complained of, without its progress.
pub(super) fn last(words: &str) -> String {
    let is_progress = |line: &&str| {
        let line = line.trim_start_matches("remote: ");
        [
            "Enumerating",
            "Counting",
            "Compressing",
            "Receiving",
            "Resolving",
            "Unpacking",
            "Total",
            "Updating",
        ]
        .iter()
        .any(|word| line.starts_with(word))
            && (line.contains("objects")
                || line.contains("deltas")
                || line.contains("files")
                || line.contains("reused"))
    };
    let lines = words.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    let kept: Vec<&str> = lines.filter(|line| !is_progress(line)).collect();
    let words = kept.join("\n");
    let mut start = words.len().saturating_sub(SHOWN);
    while !words.is_char_boundary(start) {
        start += 1;
    }
    let shown = words[start..].chars();
    shown.map(|it| if it.is_control() && it != '\n' { ' ' } else { it }).collect()
}

/// What would help, in brackets; nothing if that is not known.
pub(super) fn advice(said: &str, access: &Access) -> &'static str {
    let says = |words: &str| said.contains(words);
    if says("Host key verification failed") {
        return "\n(the host is not in ~/.ssh/known_hosts: look at what ssh-keyscan says, and add it)";
    }
    if says("Permission denied (") {
        return match access.has_agent() {
            false => "\n(no SSH agent was given: name one, or a key, with --ssh default)",
            true => "\n(the agent given with --ssh has no key that the host takes)",
        };
    }
    let asks = ["could not read Username", "could not read Password", "unable to get password"];
    if asks.iter().any(|words| says(words)) {
        return "\n(the repository needs a login: give a token with --secret id=GIT_AUTH_TOKEN)";
    }
    if says("Authentication failed") || says("returned error: 401") || says("returned error: 403") {
        return "\n(the host does not take the login that was given)";
    }
    if is_refused(said) {
        return "\n(a login is never carried on to another host, where a redirect leads: give that address)";
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_no_complaint() {
        let said = "remote: Counting objects: 50% (1/2)\rremote: Counting objects: 100% (2/2), done.\n\
                    remote: Total 2 (delta 0), reused 0\nReceiving objects: 9%\rfatal: a\x1b[1mb\nremote: gone\n";
        assert_eq!(last(said), "fatal: a [1mb\nremote: gone");
        let long = "\u{e9}".repeat(SHOWN);
        assert_eq!(last(&long), "\u{e9}".repeat(SHOWN / 2));
    }
}
