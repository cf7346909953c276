//! Names in archives: any bytes but NUL.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The path that `bytes` spell.
pub(crate) fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// A name in an archive, cleaned: relative, without `.`, `..`, empty components and slashes at the ends.
///
/// `..` takes back the component before it and means nothing at the root, as in `filepath.Clean("/" + name)`:
/// absolute names and names that would lead out of the root become names inside, as containerd has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CleanName {
    path: Vec<u8>,
    /// Where the last component starts.
    last: usize,
}

impl CleanName {
    /// `None` if there is a NUL in it.
    pub(crate) fn new(name: &[u8]) -> Option<Self> {
        if name.contains(&0) {
            return None;
        }
        let mut path = Vec::with_capacity(name.len());
        for component in name.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => path.truncate(path.iter().rposition(|&byte| byte == b'/').unwrap_or(0)),
                _ => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(component);
                }
            }
        }
        let last = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        Some(Self { path, last })
    }

    pub(crate) fn is_root(&self) -> bool {
        self.path.is_empty()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.path
    }

    /// Empty for what is directly in the root.
    pub(crate) fn parent(&self) -> &[u8] {
        &self.path[..self.last.saturating_sub(1)]
    }

    pub(crate) fn last(&self) -> &[u8] {
        &self.path[self.last..]
    }

    pub(crate) fn last_c(&self) -> CString {
        c_string(self.last())
    }

    pub(crate) fn path(&self) -> PathBuf {
        path_of(&self.path)
    }

    /// The name of something else in the same directory.
    pub(crate) fn sibling(&self, name: &[u8]) -> Self {
        Self { path: [&self.path[..self.last], name].concat(), last: self.last }
    }
}

/// A component for a system call.
pub(crate) fn c_string(component: &[u8]) -> CString {
    CString::new(component).expect("cleaned names hold no NUL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_the_root() {
        let clean = |name: &str| {
            CleanName::new(name.as_bytes())
                .map(|name| String::from_utf8(name.as_bytes().to_vec()).unwrap())
        };
        for (name, cleaned) in [
            ("a/b", "a/b"),
            ("./a//b/.", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("../../etc/passwd", "etc/passwd"),
            ("a/../../b", "b"),
            ("a/b/..", "a"),
            ("..", ""),
            ("./", ""),
            ("...", "..."),
        ] {
            assert_eq!(clean(name).as_deref(), Some(cleaned), "{name}");
        }
        assert_eq!(clean("a\0b"), None);
    }

    #[test]
    fn names_have_parents() {
        let name = CleanName::new(b"a/b/c").unwrap();
        assert_eq!((name.parent(), name.last()), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(name.sibling(b"d").as_bytes(), b"a/b/d");
        let name = CleanName::new(b"a").unwrap();
        assert_eq!((name.parent(), name.last()), (&b""[..], &b"a"[..]));
        assert_eq!(name.sibling(b"d").as_bytes(), b"d");
    }
}
