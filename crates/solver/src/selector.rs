//! Which files of an input matter to a vertex.

use rbuild_oci::Digest;

/// Picks files of a state: what a copy reads, or what a mount shows.
///
/// Paths are relative to the root of the state; `/` and the empty path are all of it. A path that is not there
/// is an error, a pattern that matches nothing is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    /// A path, or a pattern of Go's `filepath.Match` per path element when `wildcard`; clean.
    pub path: String,
    /// Whether `path` is a pattern.
    pub wildcard: bool,
    /// Whether a symbolic link that `path` names is followed.
    pub follow_symlink: bool,
    /// Whether a directory stands for its contents: its own mode and owner do not count then.
    pub contents_only: bool,
    /// Below a directory, only what matches one of these counts (patterns of `.dockerignore`); empty is all.
    pub include: Vec<String>,
    /// Below a directory, what matches one of these does not count.
    pub exclude: Vec<String>,
    /// Paths, from the root and not from `path`, that must exist and be picked; only with `include`.
    pub required: Vec<String>,
}

impl Selector {
    /// All files.
    pub fn everything() -> Self {
        Self { path: "/".to_owned(), ..Self::default() }
    }

    /// A digest that differs where the selection differs.
    pub fn digest(&self) -> Digest {
        let mut hasher = rbuild_oci::Hasher::default();
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        add(self.path.as_bytes());
        add(&[
            u8::from(self.wildcard),
            u8::from(self.follow_symlink),
            u8::from(self.contents_only),
        ]);
        for list in [&self.include, &self.exclude, &self.required] {
            add(&(list.len() as u64).to_le_bytes());
            list.iter().for_each(|pattern| add(pattern.as_bytes()));
        }
        hasher.finish()
    }
}
