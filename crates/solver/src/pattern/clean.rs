//! Lexical path cleaning.

/// The shortest path that lexically means the same, as Go's `path.Clean`: no `.`, no empty elements, no `..`
/// other than at the front of a relative path. The empty path becomes `.`.
pub fn clean_path(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut clean = String::with_capacity(path.len() + 1);
    // How much of it are `..` that lead out of a relative path.
    let mut outside = 0;
    for element in path.split('/') {
        match element {
            "" | "." => {}
            ".." if clean.len() > outside => {
                let parent = clean[outside..].rfind('/').map_or(outside, |at| outside + at);
                clean.truncate(parent);
            }
            ".." if rooted => {}
            _ => {
                if rooted || !clean.is_empty() {
                    clean.push('/');
                }
                clean.push_str(element);
                if element == ".." {
                    outside = clean.len();
                }
            }
        }
    }
    if clean.is_empty() {
        clean.push(if rooted { '/' } else { '.' });
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_as_go_does() {
        for (path, expected) in [
            ("", "."),
            (".", "."),
            ("./", "."),
            ("/", "/"),
            ("//a//b/", "/a/b"),
            ("a/./b/../c", "a/c"),
            ("a/..", "."),
            ("../a/../..", "../.."),
            ("../../a/b/..", "../../a"),
            ("a/b/../../../c", "../c"),
            ("/a/b/../../../c/", "/c"),
            ("/../a", "/a"),
            ("/..", "/"),
            ("...", "..."),
        ] {
            assert_eq!(clean_path(path), expected, "{path}");
        }
    }
}
