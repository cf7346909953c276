//! What a step's process is and what it sees, as plain data.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::terminal::TerminalSpec;
use crate::platforms::Emulator;

/// Everything about a step that the sandbox must know. Descriptors travel beside it; mounts and the network refer to them by index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The program and its arguments. A program without a slash is searched for in the `PATH` of `env`, inside the root.
    pub args: Vec<String>,
    /// `KEY=value`, complete: nothing is inherited. `HOME` is filled in from `/etc/passwd` when it is absent.
    pub env: Vec<String>,
    /// The working directory; made, 0755 and owned by the user, when it is missing.
    pub cwd: String,
    /// The user as in a Dockerfile's `USER`: empty, `name`, `uid`, `name:group`, `uid:gid`. Names are looked up inside the root.
    pub user: String,
    /// The host name.
    pub hostname: String,
    /// Lines added to `/etc/hosts`.
    pub extra_hosts: Vec<ExtraHost>,
    /// The contents of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// Which network the step sees.
    pub network: NetworkMode,
    /// Whether a confined step has `CAP_NET_RAW`. Seccomp leaves it little more than `ping`; but a 32-bit program can have packet sockets,
    /// and then sees what others send in the same network.
    pub raw_packets: bool,
    /// Whether the step is confined.
    pub security: SecurityMode,
    /// Limits to set; all others are inherited.
    pub rlimits: Vec<Rlimit>,
    /// The control groups that the step is put into before it sees anything.
    pub control_groups: Vec<ControlGroup>,
    /// What is mounted over the root, in this order, after `/proc`, `/dev`, `/sys` and before `/etc/resolv.conf` and `/etc/hosts`, unless it covers
    /// those.
    pub mounts: Vec<Mount>,
    /// Makes the root itself read-only (what is mounted over it is not touched).
    pub root_read_only: bool,
    /// Exit codes that count as success.
    pub valid_exit_codes: Vec<i32>,
    /// Index of the descriptor that is the step's standard input, in place of /dev/null. The step can open again whatever it is, with its
    /// own rights, and must not have more of it than of a pipe.
    pub stdin: Option<usize>,
    /// A terminal in place of the three streams.
    pub terminal: Option<TerminalSpec>,
    /// What runs the programs of other architectures, those that the step's programs start included. The step is then in a user
    /// namespace of its own, with the ids that it would have anyway.
    pub emulators: Vec<Emulator>,
    /// Whether `uname` tells of a machine of 32 bits.
    pub is_32_bit: bool,
}

/// The host name of a step that names none; BuildKit's.
pub(crate) const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

impl SandboxSpec {
    /// Makes the spec of `args` run by root in `/`, confined, with an empty environment and the build's network.
    #[must_use]
    pub fn new(args: Vec<String>) -> Self {
        Self {
            args,
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            hostname: DEFAULT_HOSTNAME.to_owned(),
            extra_hosts: Vec::new(),
            resolv_conf: String::new(),
            network: NetworkMode::Host,
            raw_packets: true,
            security: SecurityMode::Sandbox,
            rlimits: Vec::new(),
            control_groups: Vec::new(),
            mounts: Vec::new(),
            root_read_only: false,
            valid_exit_codes: vec![0],
            stdin: None,
            terminal: None,
            emulators: Vec::new(),
            is_32_bit: false,
        }
    }

    /// The contents of the step's `/etc/hosts`.
    pub(crate) fn hosts_file(&self) -> String {
        let mut hosts = format!(
            "127.0.0.1\tlocalhost {}\n::1\tlocalhost ip6-localhost ip6-loopback\n",
            self.hostname
        );
        for extra in &self.extra_hosts {
            hosts.push_str(&extra.address);
            hosts.push('\t');
            hosts.push_str(&extra.host);
            hosts.push('\n');
        }
        hosts
    }

    /// Every mount over the root beyond `/proc`, `/dev` and `/sys`: the asked ones with their index, then the two files of the network. Such a
    /// file stays below what is mounted over it or over its directory.
    pub(crate) fn all_mounts(&self) -> Vec<(Option<usize>, Mount)> {
        let network_file = |destination: &str, contents: String| Mount {
            destination: destination.to_owned(),
            kind: MountKind::File { contents: contents.into_bytes(), mode: 0o644, uid: 0, gid: 0 },
            attributes: MountAttributes {
                read_only: true,
                no_suid: true,
                no_exec: true,
                no_dev: true,
            },
        };
        let files = [
            network_file("/etc/resolv.conf", self.resolv_conf.clone()),
            network_file("/etc/hosts", self.hosts_file()),
        ];
        let is_covered = |file: &Mount| {
            let file = Path::new(&file.destination);
            self.mounts.iter().any(|mount| file.starts_with(&mount.destination))
        };
        let (below, above): (Vec<Mount>, Vec<Mount>) = files.into_iter().partition(is_covered);
        let asked = self.mounts.iter().cloned().enumerate();
        let asked = asked.map(|(index, mount)| (Some(index), mount));
        let network = |files: Vec<Mount>| files.into_iter().map(|file| (None, file));
        network(below).chain(asked).chain(network(above)).collect()
    }
}

/// A control group of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlGroup {
    /// Index of the descriptor of its `cgroup.procs`, open for writing.
    pub descriptor: usize,
    /// Its directory, which is removed after the step if the build is not there to do so.
    pub path: String,
}

/// One line of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// The host's name.
    pub host: String,
    /// Its IP address.
    pub address: String,
}

/// Which network a step sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The network of the build itself.
    Host,
    /// A network of its own in which there is only the loopback device.
    None,
    /// A network namespace that exists. Other steps may be in it at the same time.
    Joined {
        /// Index of the namespace's descriptor.
        descriptor: usize,
    },
}

impl NetworkMode {
    /// Whether the step is in another network namespace than the build.
    pub(crate) fn is_isolated(self) -> bool {
        match self {
            Self::Host => false,
            Self::None | Self::Joined { .. } => true,
        }
    }
}

/// Whether a step is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecurityMode {
    /// Docker's default capabilities, seccomp filter, masked and read-only paths.
    Sandbox,
    /// Every capability that the build itself has, no filter, nothing masked. Namespaces still apply.
    Insecure,
}

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// What is limited.
    pub resource: RlimitResource,
    /// The soft limit; `None` is unlimited.
    pub soft: Option<u64>,
    /// The hard limit; `None` is unlimited. Raising it needs `CAP_SYS_RESOURCE`.
    pub hard: Option<u64>,
}

/// A resource that can be limited; the names of `--ulimit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names of setrlimit(2)")]
pub enum RlimitResource {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

/// Something mounted over the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where, as an absolute path; symbolic links are followed inside the root. Made when missing, and then removed after the run
    /// if it is still empty.
    pub destination: String,
    /// What.
    pub kind: MountKind,
    /// With which restrictions.
    pub attributes: MountAttributes,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A detached mount (from `fsmount`, or from `open_tree` with `OPEN_TREE_CLONE`) that is attached as it is.
    Attach {
        /// Index of the mount's descriptor.
        descriptor: usize,
    },
    /// A part of a detached mount: what `path` leads to inside it, links included.
    Part {
        /// Index of the mount's descriptor.
        descriptor: usize,
        /// The path.
        path: String,
    },
    /// A bind of the file or directory that is open as `descriptor`, submounts included.
    Bind {
        /// Index of the descriptor.
        descriptor: usize,
    },
    /// An empty tmpfs.
    Tmpfs {
        /// Its size limit in bytes; the kernel's default is half of the memory.
        size: Option<u64>,
        /// The mode of its root.
        mode: u32,
    },
    /// One file that exists in memory only, for secrets and for files that the sandbox makes.
    File {
        /// What is in it.
        contents: Vec<u8>,
        /// Its mode.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// Restrictions of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountAttributes {
    /// Nothing can be written, in submounts neither.
    pub read_only: bool,
    /// Set-user-id bits and file capabilities are ignored.
    pub no_suid: bool,
    /// Nothing can be executed.
    pub no_exec: bool,
    /// Device nodes cannot be opened.
    pub no_dev: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_file_has_the_host_and_the_extra_hosts() {
        let mut spec = SandboxSpec::new(vec!["true".to_owned()]);
        spec.extra_hosts.push(ExtraHost { host: "db".to_owned(), address: "10.0.0.7".to_owned() });
        assert_eq!(
            spec.hosts_file(),
            "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.7\tdb\n"
        );
    }

    #[test]
    fn network_files_are_mounted_read_only_and_last_unless_they_are_covered() {
        let mut spec = SandboxSpec::new(vec!["true".to_owned()]);
        spec.resolv_conf = "nameserver 10.0.0.1\n".to_owned();
        spec.mounts.push(Mount {
            destination: "/cache".to_owned(),
            kind: MountKind::Tmpfs { size: None, mode: 0o1777 },
            attributes: MountAttributes::default(),
        });
        let order = |spec: &SandboxSpec| -> Vec<(Option<usize>, String)> {
            let mounts = spec.all_mounts().into_iter();
            mounts.map(|(index, mount)| (index, mount.destination)).collect()
        };
        let (resolv_conf, hosts) =
            ((None, "/etc/resolv.conf".to_owned()), (None, "/etc/hosts".to_owned()));
        let cache = (Some(0), "/cache".to_owned());
        assert_eq!(order(&spec), [cache.clone(), resolv_conf.clone(), hosts.clone()]);
        let mounts = spec.all_mounts();
        assert!(
            mounts[1..]
                .iter()
                .all(|(_, mount)| mount.attributes.read_only && mount.attributes.no_exec)
        );
        assert_eq!(
            mounts[1].1.kind,
            MountKind::File {
                contents: b"nameserver 10.0.0.1\n".to_vec(),
                mode: 0o644,
                uid: 0,
                gid: 0
            }
        );
        for (destination, covered) in [("/etc/hosts", 1), ("/etc", 2), ("/et", 0)] {
            spec.mounts[0].destination = destination.to_owned();
            let place = order(&spec).iter().position(|(index, _)| index.is_some());
            assert_eq!(place, Some(covered), "{destination}");
        }
    }
}
