//! The `--mount` of RUN: options as written, and what they mean once variables are expanded.

use super::mapped::Mapped;

/// The options of one `--mount`, in order, not expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    /// The flag's value as written.
    pub written: Mapped,
    pub(crate) fields: Vec<Field>,
}

/// One `key=value` or `key` of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    /// All of it.
    pub(crate) written: Mapped,
    pub(crate) value: Option<Mapped>,
}

/// A mount whose options are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// Files of a stage, image or context.
    Bind {
        /// Where.
        target: String,
        /// Which path; the root if missing.
        source: Option<String>,
        /// Of which stage, context or image; the build context if missing.
        from: Option<String>,
        /// Whether writing fails; else it is allowed and forgotten.
        read_only: bool,
    },
    /// A directory that stays between builds.
    Cache {
        /// Where.
        target: String,
        /// Its name; the cleaned target if missing.
        id: Option<String>,
        /// Which path its first content comes from.
        source: Option<String>,
        /// Of which stage, context or image; nothing if missing.
        from: Option<String>,
        /// What happens when two steps want it.
        sharing: Sharing,
        /// Whether writing fails.
        read_only: bool,
        /// Mode and owner of a fresh one.
        attributes: Attributes,
    },
    /// Memory.
    Tmpfs {
        /// Where.
        target: String,
        /// At most so many bytes.
        size: Option<u64>,
        /// Whether writing fails.
        read_only: bool,
    },
    /// A secret as a file or an environment variable.
    Secret {
        /// Which.
        id: String,
        /// Where; the default place if missing and there is no `env`.
        target: Option<String>,
        /// In which environment variable.
        env: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Mode and owner of the file.
        attributes: Attributes,
    },
    /// The socket of an SSH agent.
    Ssh {
        /// Which.
        id: String,
        /// Where; the default place if missing.
        target: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Mode and owner of the socket.
        attributes: Attributes,
    },
}

/// What happens when two steps want one cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Both use it at once.
    #[default]
    Shared,
    /// The second gets its own.
    Private,
    /// The second waits.
    Locked,
}

/// Mode and owner; what is missing has a default that depends on the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}
