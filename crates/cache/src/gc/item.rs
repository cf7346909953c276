//! What a store lists: things with a size, that can be given up one by one.

use std::time::SystemTime;

/// What kind of thing takes space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ItemKind {
    /// A layer directory.
    Layer,
    /// A blob.
    Blob,
    /// A cache mount.
    CacheMount,
    /// What is remembered of the files of a build context.
    Context,
    /// A mirror of a git repository.
    Repository,
    /// What a failed step has left, for `rbuild debug`.
    Left,
    /// What the steps of a build have printed.
    Log,
    /// What is remembered of the builds of one project.
    Builds,
}

impl ItemKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Layer,
        Self::Blob,
        Self::CacheMount,
        Self::Context,
        Self::Repository,
        Self::Left,
        Self::Log,
        Self::Builds,
    ];

    /// BuildKit's name where it has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layer => "regular",
            Self::Blob => "blob",
            Self::CacheMount => "exec.cachemount",
            Self::Context => "source.local",
            Self::Repository => "source.git.checkout",
            Self::Left => "debug",
            Self::Log => "log",
            Self::Builds => "build",
        }
    }

    /// The kind of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether what is in it changes.
    pub fn is_mutable(self) -> bool {
        !matches!(self, Self::Layer | Self::Blob | Self::Left)
    }

    /// Whether it is about builds and no cache: given up only when everything is meant, or it by its name.
    pub(super) fn is_internal(self) -> bool {
        matches!(self, Self::Log | Self::Builds)
    }
}

/// One thing in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Unique among those of its kind: a layer id, a digest, or the name of a file.
    pub id: String,
    /// What it is.
    pub kind: ItemKind,
    /// The name that a Dockerfile gave it.
    pub name: Option<String>,
    /// The id of the layer that it was made on.
    pub parents: Vec<String>,
    /// What made it, for people.
    pub description: String,
    /// Bytes of whole blocks.
    pub size: u64,
    /// When it became known.
    pub created: Option<SystemTime>,
    /// When it, or something that was made on it, was last used.
    pub used: Option<SystemTime>,
    /// How often it was found in the cache.
    pub uses: u64,
    /// Whether an image or a living build needs it, so that it cannot be given up.
    pub in_use: bool,
    /// Whether an image has it, too.
    pub shared: bool,
}
