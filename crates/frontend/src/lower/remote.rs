//! Sources that are no paths.

/// A source that is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remote {
    /// A git repository.
    Git,
    /// Anything else behind a URL.
    Http,
}

/// What kind of address a source is; `None` for a path. `github.com/a/b` cannot be told from one, and is one.
pub(super) fn remote(source: &str) -> Option<Remote> {
    let is_web = source.starts_with("http://") || source.starts_with("https://");
    if is_web {
        let path = source.split(['#', '?']).next().unwrap_or(source);
        let is_git = path.ends_with(".git");
        return Some(if is_git { Remote::Git } else { Remote::Http });
    }
    let is_word = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let is_short = source.split_once('@').is_some_and(|(user, rest)| {
        let host = rest.split_once(':').map_or("", |(host, _)| host);
        is_word(user) && !host.is_empty() && !host.contains('/')
    });
    let is_git = source.starts_with("git://") || source.starts_with("ssh://") || is_short;
    is_git.then_some(Remote::Git)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (source, expected) in [
            ("a", None),
            ("github.com/a/b", None),
            ("a@b", None),
            ("dir/a@b:c", None),
            ("http://x/y", Some(Remote::Http)),
            ("https://x/y.tar?x.git", Some(Remote::Http)),
            ("https://x/y.git", Some(Remote::Git)),
            ("https://x/y.git#main:sub", Some(Remote::Git)),
            ("git://x/y", Some(Remote::Git)),
            ("ssh://x/y", Some(Remote::Git)),
            ("git@github.com:a/b", Some(Remote::Git)),
        ] {
            assert_eq!(remote(source), expected, "{source}");
        }
    }
}
