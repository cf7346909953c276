//! What a vertex does: LLB's operations (`solver/pb/ops.proto` of BuildKit) as plain values.
//!
//! Field meanings are LLB's. [`crate::llb`] converts to and from the protobuf messages; an operation's digest
//! is that of its canonical encoding.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Brings something in from outside the graph.
    Source(SourceOp),
    /// Runs a process.
    Exec(Box<ExecOp>),
    /// Changes files without running anything.
    File(FileOp),
    /// Puts states on top of one another.
    Merge(MergeOp),
    /// Takes the changes between two states.
    Diff(DiffOp),
}

impl Op {
    /// How many outputs it has.
    pub fn output_count(&self) -> usize {
        match self {
            Self::Source(_) | Self::Merge(_) | Self::Diff(_) => 1,
            Self::Exec(exec) => exec.mounts.iter().filter(|mount| mount.output.is_some()).count(),
            Self::File(file) => {
                file.actions.iter().filter(|action| action.output.is_some()).count()
            }
        }
    }
}

/// Something from outside: `scheme://identifier` with attributes (`solver/pb/attr.go`).
///
/// Schemes are `docker-image`, `oci-layout`, `local`, `git`, `http` and `https`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SourceOp {
    /// The whole identifier, such as `docker-image://docker.io/library/busybox:latest@sha256:...` or
    /// `local://context`.
    pub identifier: String,
    /// Attributes, such as `local.excludepatterns` (a JSON list) or `local.followpaths`.
    pub attrs: BTreeMap<String, String>,
}

impl SourceOp {
    /// A source without attributes.
    pub fn new(identifier: impl Into<String>) -> Self {
        Self { identifier: identifier.into(), attrs: BTreeMap::new() }
    }

    /// The scheme and what follows `://`; an identifier without it has an empty scheme.
    pub fn split(&self) -> (&str, &str) {
        self.identifier.split_once("://").unwrap_or(("", &self.identifier))
    }

    /// Where it comes from as people may see it: the address that is fetched, without a password.
    pub fn shown(&self) -> String {
        let fragment = self.identifier.split_once('#').map_or("", |(_, fragment)| fragment);
        match self.attrs.get("git.fullurl") {
            Some(url) if fragment.is_empty() => redact_url(url),
            Some(url) => format!("{}#{fragment}", redact_url(url)),
            None => redact_url(&self.identifier),
        }
    }

    /// Where it comes from as strangers may see it: [`Self::shown`], and of what is fetched by HTTP without the query, which is
    /// often what opens it.
    pub fn shown_to_all(&self) -> String {
        let shown = self.shown();
        match self.split().0 {
            "http" | "https" => shown.split(['?', '#']).next().unwrap_or_default().to_owned(),
            _ => shown,
        }
    }

    /// The name of a `local://` source.
    pub fn local_name(&self) -> Option<&str> {
        self.identifier.strip_prefix("local://")
    }
}

/// An address as it may be shown: with `xxxxx` for a name and password. What is no address is shown as it is.
pub fn redact_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    match authority.rsplit_once('@') {
        None => text.to_owned(),
        Some((user, _)) => {
            let hidden = if user.contains(':') { "xxxxx:xxxxx" } else { "xxxxx" };
            format!("{scheme}://{hidden}{}", &rest[user.len()..])
        }
    }
}

/// Runs a process on mounts. Output `n` is the state of the mount with `output == n` after the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOp {
    /// What is run.
    pub meta: ExecMeta,
    /// On what; one of them is the root, `dest == "/"`.
    pub mounts: Vec<Mount>,
    /// Which network it sees.
    pub network: NetworkMode,
    /// How confined it is.
    pub security: SecurityMode,
    /// Secrets given as environment variables.
    pub secret_env: Vec<SecretEnv>,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecMeta {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// `user[:group]` as in the image configuration; empty is root.
    pub user: String,
    /// Proxy variables: given to the process, not part of the key.
    pub proxy_env: Option<ProxyEnv>,
    /// Additional lines of `/etc/hosts`.
    pub extra_hosts: Vec<HostIp>,
    /// Host name; empty is the default one.
    pub hostname: String,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// Parent of the control group.
    pub cgroup_parent: String,
    /// Whether made mount points are removed with their parents.
    pub remove_mount_stubs_recursive: bool,
    /// Exit codes that count as success; empty means only 0.
    pub valid_exit_codes: Vec<i32>,
}

/// The proxy variables; each is set in both letter cases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyEnv {
    /// `http_proxy`.
    pub http: String,
    /// `https_proxy`.
    pub https: String,
    /// `ftp_proxy`.
    pub ftp: String,
    /// `no_proxy`.
    pub no: String,
    /// `all_proxy`.
    pub all: String,
}

/// A line of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostIp {
    /// Host name.
    pub host: String,
    /// Its address.
    pub ip: String,
}

/// A limit, as of setrlimit(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// Lower-case name without `RLIMIT_`, such as `nofile`.
    pub name: String,
    /// Soft limit; -1 is unlimited.
    pub soft: i64,
    /// Hard limit; -1 is unlimited.
    pub hard: i64,
}

/// A secret in an environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretEnv {
    /// Which secret.
    pub id: String,
    /// Which variable.
    pub name: String,
    /// Whether a missing secret is fine.
    pub optional: bool,
}

/// Something mounted for a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Index of the vertex's input that is mounted; `None` is an empty directory.
    pub input: Option<u32>,
    /// Path inside the input; empty is all of it.
    pub selector: String,
    /// Where it is mounted, absolute; `/` is the root.
    pub dest: String,
    /// Which output of the vertex the mount's state becomes; `None` when it is thrown away.
    pub output: Option<u32>,
    /// Whether the process may not write.
    pub readonly: bool,
    /// What kind of mount it is.
    pub kind: MountKind,
}

impl Mount {
    /// The usual root: input 0, and its state afterwards is output 0.
    pub fn root() -> Self {
        Self {
            input: Some(0),
            selector: String::new(),
            dest: "/".to_owned(),
            output: Some(0),
            readonly: false,
            kind: MountKind::Bind,
        }
    }
}

/// The kinds of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// An input's files.
    Bind,
    /// A directory that outlives the build.
    Cache {
        /// Its name.
        id: String,
        /// Who may use it at the same time.
        sharing: CacheSharing,
    },
    /// Memory.
    Tmpfs {
        /// Most bytes; 0 is the kernel's default.
        size: i64,
    },
    /// A secret as a file.
    Secret {
        /// Which one.
        id: String,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permission bits.
        mode: u32,
        /// Whether a missing secret is fine.
        optional: bool,
    },
    /// A forwarded SSH agent.
    Ssh {
        /// Which one.
        id: String,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permission bits.
        mode: u32,
        /// Whether a missing agent is fine.
        optional: bool,
    },
}

/// How several steps share one cache mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheSharing {
    /// All at once.
    Shared,
    /// Each its own.
    Private,
    /// One after the other.
    Locked,
}

/// Which network a process sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// The builder's default.
    Default,
    /// The host's.
    Host,
    /// Only a loopback.
    None,
}

/// How confined a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityMode {
    /// As an ordinary container.
    Sandbox,
    /// With everything the builder itself may do.
    Insecure,
}

/// Changes files: actions in order, each on an input or on the state an earlier action left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOp {
    /// The actions.
    pub actions: Vec<FileAction>,
}

/// One action of a [`FileOp`].
///
/// Inputs are numbered as LLB does: below the vertex's number of inputs it is that input, from there on it is
/// the state after action `n - inputs`; `None` is an empty directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAction {
    /// The state that is changed.
    pub input: Option<u32>,
    /// The state that is copied from; only for [`FileActionKind::Copy`].
    pub secondary_input: Option<u32>,
    /// Which output of the vertex the state becomes; `None` when only later actions use it.
    pub output: Option<u32>,
    /// What is done.
    pub kind: FileActionKind,
}

/// What a [`FileAction`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileActionKind {
    /// Copies files from the secondary input.
    Copy(CopyAction),
    /// Writes a file.
    Mkfile(MkfileAction),
    /// Makes a directory.
    Mkdir(MkdirAction),
    /// Removes files.
    Rm(RmAction),
    /// Makes a symbolic link.
    Symlink(SymlinkAction),
}

/// Copies files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyAction {
    /// Path in the secondary input, possibly with wildcards.
    pub src: String,
    /// Path in the changed state. A trailing slash means a directory.
    pub dest: String,
    /// New owner; `None` keeps the source's.
    pub owner: Option<ChownSpec>,
    /// New permission bits; `None` keeps the source's.
    pub mode: Option<u32>,
    /// New permission bits in symbolic form (`u=rwX,go=rX`); empty for none.
    pub mode_str: String,
    /// Whether a symbolic link that `src` names is followed.
    pub follow_symlink: bool,
    /// Whether a directory `src` stands for its contents.
    pub dir_copy_contents: bool,
    /// Whether an archive `src` is unpacked.
    pub attempt_unpack: bool,
    /// Whether missing parents of `dest` are made.
    pub create_dest_path: bool,
    /// Whether `src` may have wildcards.
    pub allow_wildcard: bool,
    /// Whether a wildcard that matches nothing is fine.
    pub allow_empty_wildcard: bool,
    /// Modification time for everything copied, nanoseconds since the epoch; `None` keeps the source's.
    pub timestamp: Option<i64>,
    /// Only what matches one of these is copied; empty is everything.
    pub include_patterns: Vec<String>,
    /// What matches one of these is not copied.
    pub exclude_patterns: Vec<String>,
    /// Whether what stands at the destination with another type is replaced.
    pub always_replace_existing: bool,
    /// Paths, from the source's root, that must be there; only with include patterns.
    pub required_paths: Vec<String>,
}

/// Writes a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MkfileAction {
    /// Its path.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Contents.
    pub data: Vec<u8>,
    /// Owner; `None` is root.
    pub owner: Option<ChownSpec>,
    /// Modification time, nanoseconds since the epoch; `None` is now.
    pub timestamp: Option<i64>,
}

/// Makes a directory; one that exists is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MkdirAction {
    /// Its path.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Whether missing parents are made.
    pub make_parents: bool,
    /// Owner of what is made; `None` is root.
    pub owner: Option<ChownSpec>,
    /// Modification time, nanoseconds since the epoch; `None` is now.
    pub timestamp: Option<i64>,
}

/// Removes files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RmAction {
    /// The path, possibly with wildcards.
    pub path: String,
    /// Whether a missing path is fine.
    pub allow_not_found: bool,
    /// Whether the path may have wildcards.
    pub allow_wildcard: bool,
}

/// Makes a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymlinkAction {
    /// What the link says.
    pub target: String,
    /// Where the link is.
    pub path: String,
    /// Owner; `None` is root.
    pub owner: Option<ChownSpec>,
    /// Modification time, nanoseconds since the epoch; `None` is now.
    pub timestamp: Option<i64>,
}

/// A new owner and group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChownSpec {
    /// The user.
    pub user: Option<Owner>,
    /// The group; `None` is the user's own.
    pub group: Option<Owner>,
}

/// A user or group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// By name, looked up in `/etc/passwd` or `/etc/group` of an input (numbered as in [`FileAction`]).
    Name {
        /// The name.
        name: String,
        /// Whose files say what it means; `None` for an empty state, which knows no names.
        input: Option<u32>,
    },
    /// By number.
    Id(u32),
}

/// Puts the inputs on top of one another, the first at the bottom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeOp {
    /// Indexes of the vertex's inputs; `None` is an empty state.
    pub inputs: Vec<Option<u32>>,
}

/// Yields what has to be put on top of `lower` to get `upper`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffOp {
    /// Index of the lower input; `None` is an empty state.
    pub lower: Option<u32>,
    /// Index of the upper input; `None` is an empty state.
    pub upper: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("https://a:b@h/x@y", "https://xxxxx:xxxxx@h/x@y"),
            ("https://a@h/x", "https://xxxxx@h/x"),
            ("https://a:b@c:d@h:1?q", "https://xxxxx:xxxxx@h:1?q"),
            ("https://h/a:b@c", "https://h/a:b@c"),
            ("git@h:x", "git@h:x"),
        ] {
            assert_eq!(redact_url(url), shown);
        }
        let mut git = SourceOp::new("git://h/r#main:d");
        git.attrs.insert("git.fullurl".to_owned(), "https://a:b@h/r".to_owned());
        assert_eq!(git.shown(), "https://xxxxx:xxxxx@h/r#main:d");
        assert_eq!(git.shown_to_all(), git.shown());
        assert_eq!(SourceOp::new("https://a@h/f?x=1#y").shown_to_all(), "https://xxxxx@h/f");
    }
}
