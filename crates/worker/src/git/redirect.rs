//! Where a host sends a git that has a login for it.
//!
//! git would say the login to wherever a redirect leads, so it follows none (see [`command`](super::command)). A redirect
//! to the same host is followed here: git is told the new address, and asks again.

/// A redirect, as addresses of repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Redirect {
    pub(super) from: String,
    pub(super) to: String,
}

/// What a git adds to the address of a repository when it asks what there is.
const REFERENCES: &str = "/info/refs?service=git-upload-pack";

/// Whether git complains of a redirect that it does not follow.
pub(super) fn is_refused(said: &str) -> bool {
    ["301", "302", "303", "307", "308"]
        .iter()
        .any(|code| said.contains(&format!("returned error: {code}")))
}

impl Redirect {
    /// Finds it in what git says with `GIT_TRACE_CURL`.
    pub(super) fn of(trace: &str) -> Option<Self> {
        let from = trace.rsplit("unable to access '").next()?.split('\'').next()?;
        let location = trace.lines().rev().find_map(|line| {
            let (_, header) = line.split_once("Recv header: ")?;
            let (name, value) = header.split_once(':')?;
            name.eq_ignore_ascii_case("location").then(|| value.trim())
        })?;
        let from = from.trim_end_matches('/');
        let to = match location.strip_prefix('/').filter(|path| !path.starts_with('/')) {
            Some(path) => {
                let (scheme, authority) = origin(from)?;
                format!("{scheme}://{authority}/{path}")
            }
            None => location.to_owned(),
        };
        let to = to.strip_suffix(REFERENCES)?;
        // In a setting for git the first `=` is the end of its name.
        let is_clean = !to.contains(|it: char| it == '=' || it.is_whitespace() || it.is_control());
        is_clean.then(|| Self { from: from.to_owned(), to: to.to_owned() })
    }

    /// Whether it leads to the same host, and not from an encrypted connection to one that is not.
    pub(super) fn is_within_host(&self) -> bool {
        let (Some((from, host)), Some((to, other))) = (origin(&self.from), origin(&self.to)) else {
            return false;
        };
        let is_same =
            host.eq_ignore_ascii_case(other) && !other.contains('@') && self.from != self.to;
        let same_scheme = from.eq_ignore_ascii_case(to) && matches!(to, "http" | "https");
        is_same && (same_scheme || (from.eq_ignore_ascii_case("http") && to == "https"))
    }
}

/// The scheme of an address, and its host with the port.
fn origin(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    Some((scheme, rest.split(['/', '?', '#']).next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_read_from_what_git_tells() {
        let of = |asked: &str, location: &str| {
            let trace = format!(
                "12:00:00.1 http.c:1 <= Recv header: HTTP/1.1 301 Moved\n12:00:00.1 http.c:1 <= Recv header: {location}\n\
                 fatal: unable to access '{asked}': The requested URL returned error: 301\n"
            );
            assert!(is_refused(&trace));
            Redirect::of(&trace)
        };
        for (asked, location, to, is_within) in [
            ("http://h/r/", "Location: http://h/r.git", "http://h/r.git", true),
            ("http://h/r/", "location: https://h/r", "https://h/r", true),
            ("https://h/r/", "location: http://h/r", "http://h/r", false),
            ("http://h:1/r/", "Location: http://h/r", "http://h/r", false),
            ("http://h/r/", "Location: http://h.evil/r", "http://h.evil/r", false),
            ("http://h/r/", "Location: http://h@evil/r", "http://h@evil/r", false),
            ("http://h/r/", "Location: //evil/r", "//evil/r", false),
            ("http://h/r/", "Location: ext::sh -c x", "", false),
            ("http://h/r/", "Location: http://h/r?a=b", "", false),
            ("http://h/r/", "Location: /s", "http://h/s", true),
            ("http://h/r/", "Location: http://h/r", "http://h/r", false),
        ] {
            let found = of(asked, &format!("{location}{REFERENCES}"));
            let found =
                found.as_ref().map(|it| (it.from.as_str(), it.to.as_str(), it.is_within_host()));
            let from = asked.trim_end_matches('/');
            assert_eq!(found, (!to.is_empty()).then_some((from, to, is_within)), "{location}");
        }
        assert_eq!(of("http://h/r/", "Location: http://h/login"), None);
        assert_eq!(of("http://h/r/", "Server: x"), None);
    }
}
