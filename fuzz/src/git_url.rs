//! Addresses of git repositories.

use rbuild_frontend::GitUrl;

/// Nothing in an accepted address can be taken for an option, lead out of the repository, or change when it is written
/// and read again.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let url = match GitUrl::parse(text) {
        Ok(Some(url)) => url,
        Ok(None) => return,
        Err(error) => {
            assert!(error.to_string().len() <= 10 * text.len() + 200);
            return;
        }
    };
    assert!(!url.remote.starts_with('-'), "{url:?}");
    // `ext::command` is a program to run; what is before an IPv6 address or a path is no name of one.
    let helper = url.remote.split_once("::").map(|(before, _)| before);
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    assert!(!helper.is_some_and(|before| before.chars().all(is_scheme)), "{url:?}");
    for name in [Some(&url.reference), url.checksum.as_ref()].into_iter().flatten() {
        assert!(!name.starts_with(['-', '+', ':']), "{url:?}");
        assert!(!name.contains(['\0', '\n', ' ', ':', '~', '^', '?', '*', '[', '\\']), "{url:?}");
        assert!(!name.contains(".."), "{url:?}");
    }
    assert!(!url.subdir.starts_with('/') && !url.subdir.ends_with('/'), "{url:?}");
    assert!(url.subdir.split('/').all(|element| element != ".." && element != "."), "{url:?}");
    let source = url.source();
    assert!(source.identifier.starts_with("git://"));
    assert_eq!(source.attrs["git.fullurl"], url.remote);
    if url.is_ambiguous {
        // It has got the scheme that it came without, and may lack the `.git` that it then would need.
        assert!(url.remote.starts_with("https://github.com/"), "{url:?}");
        return;
    }
    // The remote itself is an address of the same repository.
    let again = GitUrl::parse(&url.remote).expect("it was accepted").expect("it is git's");
    assert_eq!(again.remote, url.remote);
    assert_eq!((again.reference, again.subdir), (String::new(), String::new()));
}
