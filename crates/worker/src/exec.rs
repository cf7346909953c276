//! Steps: an exec operation in a sandbox on its mounts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use rbuild_cache::{CacheMountKey, View};
use rbuild_oci::{Digest, Platform};
use rbuild_solver::{
    ExecMeta, ExecOp, LayerId, LogStream, Progress, SecurityMode, Snapshot, Ulimit,
};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::agent::Agent;
use crate::cache_mounts::TakenCaches;
use crate::cgroup::{CgroupError, OomKills, StepGroup};
use crate::chroot::{self, NotInChroot};
use crate::file::FileError;
use crate::killed::Killed;
use crate::local_mounts::LocalMount;
use crate::mounts::{Changed, Mounts, StepInput};
use crate::network::{NetworkError, StepNetwork, extra_hosts};
use crate::platforms::StepPlatform;
use crate::processes::ProcessTree;
use crate::sandbox::{
    self, CommandError, ControlGroup, Rlimit, RlimitResource, Sandbox, SandboxError, SandboxSpec,
    Terminal, TerminalSpec, UserError,
};
use crate::secrets::{Provided, Secrets};
use crate::snapshots::{SnapshotError, Snapshots};
use crate::step_limits::{Activity, Overdue, StepLimits};

/// What programs are looked for in when nothing says so; BuildKit's.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a step that was stopped may take to end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The most output that is handed on at once: a pipe's size.
const CHUNK: usize = 64 << 10;

/// From so many bytes on, output is read in large pieces: to wake up for each line of a program that prints without end takes more
/// time than what is done with the line.
const LONG_OUTPUT: usize = 256 << 10;

/// The pipe of long output, in bytes: what an ordinary user may have by default.
const LONG_OUTPUT_PIPE: usize = 1 << 20;

/// How long more of it is waited for when there was little. Nobody sees the difference, and the pipe is not full before.
const LONG_OUTPUT_PAUSE: Duration = Duration::from_millis(1);

/// A step did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It ran and failed. The words are BuildKit's.
    #[error("process {command:?} did not complete successfully: exit code: {code}")]
    Exit {
        /// The program and its arguments.
        command: String,
        /// Its exit code; 128 and the number for a signal.
        code: i32,
        /// Who killed it, if somebody did.
        #[source]
        killed: Option<Killed>,
    },
    /// It could not be started.
    #[error("process {command:?} did not complete successfully: {reason}")]
    Start {
        /// The program and its arguments.
        command: String,
        /// Why.
        reason: CommandError,
    },
    /// Its user is not there.
    #[error("process {command:?} did not complete successfully: {reason}")]
    NoUser {
        /// The program and its arguments.
        command: String,
        /// Who is not there.
        reason: UserError,
    },
    /// It was stopped.
    #[error("process {command:?} was stopped, as {overdue}; its processes were:\n{processes}")]
    Overdue {
        /// The program and its arguments.
        command: String,
        /// Why.
        overdue: Overdue,
        /// What was running then.
        processes: ProcessTree,
    },
    /// Its limits cannot be kept.
    #[error("{0}")]
    Cgroup(#[from] CgroupError),
    /// It cannot be put into its control group.
    #[error("cannot open the control group of the step")]
    EnterCgroup {
        /// Why.
        source: std::io::Error,
    },
    /// It could not be run.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// It could not be given a network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Its files could not be had.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A folder of the user's could not be copied.
    #[error(transparent)]
    File(#[from] FileError),
    /// What a mount shows is not there.
    #[error("cannot mount {selector:?} of the source of the mount at `{dest}`")]
    Selector {
        /// Path in the source.
        selector: String,
        /// Where it was to be mounted.
        dest: String,
        /// Why.
        source: std::io::Error,
    },
    /// Its program is of another architecture, and nothing here runs those.
    #[error("cannot run programs of {platform}: {reason}")]
    NoEmulator {
        /// What the step is for.
        platform: Platform,
        /// What is missing.
        reason: String,
        /// What the kernel said.
        source: Box<Self>,
    },
    /// It is to be emulated and unconfined at once.
    #[error(
        "a step of {platform} with `--security=insecure` cannot be emulated by rbuild, which does that in a user namespace; \
         register an emulator in the machine's binfmt_misc (Debian packages `qemu-user-static` and `binfmt-support`)"
    )]
    EmulatedInsecure {
        /// What the step is for.
        platform: Platform,
    },
    /// It asks for what takes namespaces.
    #[error(transparent)]
    NotInChroot(#[from] NotInChroot),
    /// Its output could not be read.
    #[error("cannot read the output of the step")]
    Output {
        /// Why.
        source: std::io::Error,
    },
    /// Something that this version cannot do.
    #[error("{0} not supported yet")]
    Unsupported(&'static str),
    /// A limit of no known resource.
    #[error("unknown resource limit `{0}`")]
    Ulimit(String),
    /// A secret that a step cannot do without was not given. The words are BuildKit's.
    #[error("secret {0}: not found")]
    SecretNotFound(String),
    /// A secret that is to be a variable cannot be one.
    #[error("secret {0} cannot be an environment variable: it is not UTF-8, or has a zero byte")]
    SecretVariable(String),
    /// An agent that a step cannot do without was not given. The words are BuildKit's.
    #[error("no SSH key {0:?} forwarded from the client")]
    NoAgent(String),
    /// The socket for a step could not be made.
    #[error("cannot make the socket of the SSH agent {id:?}")]
    Agent {
        /// Which agent.
        id: String,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody can connect to an agent any more.
    #[error("cannot serve the SSH agent of the step")]
    ServeAgent {
        /// Why.
        source: std::io::Error,
    },
    /// A cache mount was not taken for the step.
    #[error("the cache mount {0:?} is not there")]
    NoCache(String),
    /// No mount is the root.
    #[error("the step has no mount at `/`")]
    NoRoot,
    /// A mount names an input that there is not.
    #[error("the mount at `{dest}` names input {input}, which there is not")]
    NoSuchInput {
        /// Where it was to be mounted.
        dest: String,
        /// What it names.
        input: u32,
    },
    /// The outputs are not numbered from 0 on.
    #[error("no mount of the step becomes output {0}")]
    NoSuchOutput(u32),
}

/// What a step works on, opened.
#[derive(Debug)]
pub(crate) struct Step {
    spec: SandboxSpec,
    /// The descriptor of the root mount.
    root: OwnedFd,
    /// What the spec's mounts refer to.
    descriptors: Vec<OwnedFd>,
    agents: Vec<Agent>,
    group: Option<StepGroup>,
    limits: Arc<StepLimits>,
    /// What is written to, and what becomes of it. Dropped after the descriptors.
    layers: Vec<Changed>,
    /// Which of them is the root.
    root_layer: usize,
    /// Keeps read-only mounts there.
    _views: Vec<View>,
    /// Keep what they are of there.
    locals: Vec<LocalMount>,
    _caches: TakenCaches,
    platform: StepPlatform,
    command: String,
}

/// What a step is made of.
#[derive(Debug)]
pub(crate) struct StepParts {
    pub(crate) op: ExecOp,
    /// By position in the vertex.
    pub(crate) inputs: Vec<StepInput>,
    pub(crate) provided: Arc<Provided>,
    pub(crate) limits: Arc<StepLimits>,
    pub(crate) caches: TakenCaches,
    pub(crate) platform: StepPlatform,
    /// Whether there are neither namespaces nor mounts.
    pub(crate) is_chroot: bool,
    /// Which of the caches each mount of the operation shows.
    pub(crate) cache_keys: Vec<Option<CacheMountKey>>,
    /// Whether folders of the user's may be used in place.
    pub(crate) in_place: bool,
}

impl Step {
    /// Opens the mounts of an operation. Makes mounts and directories, so not for an async thread.
    pub(crate) fn prepare(parts: StepParts, snapshots: &Snapshots) -> Result<Self, ExecError> {
        let StepParts {
            op,
            inputs,
            provided,
            limits,
            caches,
            platform,
            is_chroot,
            cache_keys,
            in_place,
        } = parts;
        let mut mounts = Mounts {
            inputs: &inputs,
            snapshots,
            provided: &provided,
            caches: &caches,
            descriptors: vec![],
            layers: vec![],
            views: vec![],
            agents: vec![],
            locals: vec![],
            in_place,
        };
        let mut spec = spec(&op, &provided.secrets)?;
        platform.describe(&mut spec)?;
        if is_chroot {
            chroot::check(&op, &spec)?;
        }
        let (mut root, mut root_layer) = (None, 0);
        for (index, mount) in op.mounts.iter().enumerate() {
            if mount.dest == "/" {
                spec.root_read_only = mount.readonly;
                root_layer = mounts.layers.len();
                root = Some(mounts.open_root(mount)?);
            } else {
                let cache = cache_keys.get(index).and_then(Option::as_ref);
                spec.mounts.extend(mounts.open(mount, cache)?);
            }
        }
        let mut descriptors = mounts.descriptors;
        let group = limits.groups.group(&op.meta.cgroup_parent)?;
        let entrances = group.as_ref().map_or(Ok(Vec::new()), StepGroup::entrances);
        for (path, entrance) in entrances.map_err(|source| ExecError::EnterCgroup { source })? {
            spec.control_groups.push(ControlGroup { descriptor: descriptors.len(), path });
            descriptors.push(entrance);
        }
        Ok(Self {
            spec,
            root: root.ok_or(ExecError::NoRoot)?,
            descriptors,
            agents: mounts.agents,
            group,
            limits,
            layers: mounts.layers,
            root_layer,
            _views: mounts.views,
            locals: mounts.locals,
            _caches: caches.clone(),
            platform,
            command: op.meta.args.join(" "),
        })
    }

    /// Gives the step its network.
    pub(crate) fn connect(&mut self, network: &StepNetwork) -> Result<(), ExecError> {
        Ok(network.connect(&mut self.spec, &mut self.descriptors)?)
    }

    /// Gives the step a standard input.
    pub(crate) fn feed(&mut self, stdin: OwnedFd) {
        self.spec.stdin = Some(self.descriptors.len());
        self.descriptors.push(stdin);
    }

    /// Gives the step a terminal in place of its three streams.
    pub(crate) fn attach(&mut self, terminal: Terminal) {
        let (rows, columns) = terminal.size;
        let descriptor = self.descriptors.len();
        self.descriptors.push(terminal.theirs);
        self.spec.terminal = Some(TerminalSpec { descriptor, rows, columns });
    }

    /// Runs the step, which has its network; its output goes to `progress`. Dropping the future kills it. `oom_before` is from before it.
    pub(crate) async fn run(
        &self,
        sandbox: &Sandbox,
        vertex: Digest,
        progress: &Progress,
        oom_before: OomKills,
    ) -> Result<(), ExecError> {
        let descriptors: Vec<BorrowedFd<'_>> = self.descriptors.iter().map(AsFd::as_fd).collect();
        let mut process = sandbox.spawn(&self.spec, self.root.as_fd(), &descriptors)?;
        let activity = Activity::begin();
        let hand_on = HandOn { vertex, progress, activity: &activity };
        let stdout = hand_on.stream(process.stdout.take(), LogStream::Stdout);
        let stderr = hand_on.stream(process.stderr.take(), LogStream::Stderr);
        let (id, stopper) = (process.id(), process.stopper()?);
        let ended = async {
            tokio::try_join!(
                async {
                    let exit = process.wait().await;
                    exit.map_err(|error| self.platform.explain(self.not_run(error)))
                },
                stdout,
                stderr
            )
        };
        let served = try_join_all(self.agents.iter().map(Agent::serve));
        let mut stopped = None;
        let overdue = async {
            let overdue = self.limits.overdue(&activity).await;
            let tree = |process| ProcessTree::of_sandbox(process, !sandbox.is_chroot());
            let processes = id.map(tree).unwrap_or_default();
            stopped = Some((overdue, processes));
            stopper.stop();
            tokio::time::sleep(LAST_WORDS).await;
        };
        let exit = tokio::select! {
            biased;
            ended = ended => Some(ended?.0),
            Err(source) = served => return Err(ExecError::ServeAgent { source }),
            // Whatever keeps it from ending, the kernel has been told.
            () = overdue => None,
        };
        let command = || self.command.clone();
        match (stopped, exit) {
            (Some((overdue, processes)), _) => {
                Err(ExecError::Overdue { command: command(), overdue, processes })
            }
            (None, Some(exit)) if exit.status.is_valid_for(&self.spec) => Ok(()),
            (None, Some(exit)) => {
                let memory = self.limits.groups.limits().memory;
                let killed = Killed::of(exit.status, self.group.as_ref(), memory, oom_before);
                Err(ExecError::Exit { command: command(), code: exit.status.code(), killed })
            }
            (None, None) => {
                unreachable!("nothing ends the wait but the step, or its being overdue")
            }
        }
    }

    fn not_run(&self, error: SandboxError) -> ExecError {
        match error {
            SandboxError::Command(reason) => {
                ExecError::Start { command: self.command.clone(), reason }
            }
            SandboxError::User(reason) => {
                ExecError::NoUser { command: self.command.clone(), reason }
            }
            error => ExecError::Sandbox(error),
        }
    }

    /// Whether the user's folders still are what the step's key was made of, as far as the step has seen them.
    pub(crate) fn saw_its_inputs(&self) -> bool {
        self.locals.iter().all(LocalMount::is_unchanged)
    }

    /// Makes a layer of what the step has written to its root although it failed; returns the state with it.
    pub(crate) fn leave(
        mut self,
        snapshots: &Snapshots,
        seed: &Digest,
    ) -> Result<Snapshot, ExecError> {
        drop(self.root);
        drop(self.descriptors);
        let Changed { layer, base, .. } = self.layers.swap_remove(self.root_layer);
        let id = LayerId::derived("rbuild.failed.v1", &[seed.as_bytes()]);
        Ok(snapshots.commit(layer, &base, id)?)
    }

    /// Makes layers of what the step has written; returns the outputs in order.
    pub(crate) fn commit(
        self,
        snapshots: &Snapshots,
        seed: &Digest,
    ) -> Result<Vec<Snapshot>, ExecError> {
        drop(self.root);
        drop(self.descriptors);
        let mut outputs = Vec::new();
        for Changed { layer, base, output } in self.layers {
            let Some(output) = output else { continue };
            let id = LayerId::derived("rbuild.exec.v1", &[seed.as_bytes(), &output.to_le_bytes()]);
            outputs.push((output, snapshots.commit(layer, &base, id)?));
        }
        outputs.sort_unstable_by_key(|(output, _)| *output);
        let mut ordered = Vec::with_capacity(outputs.len());
        for (output, snapshot) in outputs {
            if output as usize != ordered.len() {
                return Err(ExecError::NoSuchOutput(ordered.len() as u32));
            }
            ordered.push(snapshot);
        }
        Ok(ordered)
    }
}

/// To whom output is handed on.
struct HandOn<'a> {
    vertex: Digest,
    progress: &'a Progress,
    activity: &'a Activity,
}

impl HandOn<'_> {
    /// Hands on what a stream says until its end. Waits while too much of it is unread.
    async fn stream<R: AsyncRead + AsFd + Unpin>(
        &self,
        stream: Option<R>,
        name: LogStream,
    ) -> Result<(), ExecError> {
        let Some(mut stream) = stream else { return Ok(()) };
        let mut read = 0;
        loop {
            let mut buffer = Vec::with_capacity(CHUNK);
            let length = stream
                .read_buf(&mut buffer)
                .await
                .map_err(|source| ExecError::Output { source })?;
            if length == 0 {
                return Ok(());
            }
            self.activity.note();
            self.progress.log(self.vertex, name, buffer).await;
            // It may have waited for long, and the step could not print meanwhile.
            self.activity.note();
            let is_becoming_long = (read..read + length).contains(&LONG_OUTPUT);
            read += length;
            if is_becoming_long {
                // An error means that it stays as it is: an ordinary user has room for a certain number of pages in pipes.
                let _ = rustix::pipe::fcntl_setpipe_size(&stream, LONG_OUTPUT_PIPE);
            }
            if read >= LONG_OUTPUT && length < CHUNK {
                tokio::time::sleep(LONG_OUTPUT_PAUSE).await;
            }
        }
    }
}

/// What an operation says of its process; not yet of its network.
fn spec(op: &ExecOp, secrets: &Secrets) -> Result<SandboxSpec, ExecError> {
    let meta = &op.meta;
    let mut spec = SandboxSpec::new(meta.args.clone());
    spec.env = environment(meta);
    for secret in &op.secret_env {
        let value = match secrets.get(&secret.id) {
            Some(value) => std::str::from_utf8(value)
                .ok()
                .filter(|value| !value.contains('\0'))
                .ok_or_else(|| ExecError::SecretVariable(secret.id.clone()))?,
            // One that is not there is an empty variable.
            None if secret.optional => "",
            None => return Err(ExecError::SecretNotFound(secret.id.clone())),
        };
        spec.env.push(format!("{}={value}", secret.name));
    }
    if !meta.cwd.is_empty() {
        spec.cwd.clone_from(&meta.cwd);
    }
    spec.user.clone_from(&meta.user);
    if !meta.hostname.is_empty() {
        spec.hostname.clone_from(&meta.hostname);
    }
    spec.extra_hosts = extra_hosts(&meta.extra_hosts)?;
    spec.security = match op.security {
        SecurityMode::Sandbox => sandbox::SecurityMode::Sandbox,
        SecurityMode::Insecure => sandbox::SecurityMode::Insecure,
    };
    spec.rlimits = meta.ulimits.iter().map(rlimit).collect::<Result<_, _>>()?;
    if !meta.valid_exit_codes.is_empty() {
        spec.valid_exit_codes.clone_from(&meta.valid_exit_codes);
    }
    Ok(spec)
}

/// The environment, completed by `PATH` and the proxy variables in both letter cases.
fn environment(meta: &ExecMeta) -> Vec<String> {
    let mut env = meta.env.clone();
    if !env.iter().any(|variable| variable.starts_with("PATH=")) {
        env.push(DEFAULT_PATH.to_owned());
    }
    if let Some(proxy) = &meta.proxy_env {
        let proxies = [
            ("http_proxy", &proxy.http),
            ("https_proxy", &proxy.https),
            ("ftp_proxy", &proxy.ftp),
            ("no_proxy", &proxy.no),
            ("all_proxy", &proxy.all),
        ];
        for (name, value) in proxies.into_iter().filter(|(_, value)| !value.is_empty()) {
            env.push(format!("{}={value}", name.to_ascii_uppercase()));
            env.push(format!("{name}={value}"));
        }
    }
    env
}

fn rlimit(ulimit: &Ulimit) -> Result<Rlimit, ExecError> {
    let resource = match ulimit.name.as_str() {
        "as" => RlimitResource::As,
        "core" => RlimitResource::Core,
        "cpu" => RlimitResource::Cpu,
        "data" => RlimitResource::Data,
        "fsize" => RlimitResource::Fsize,
        "locks" => RlimitResource::Locks,
        "memlock" => RlimitResource::Memlock,
        "msgqueue" => RlimitResource::Msgqueue,
        "nice" => RlimitResource::Nice,
        "nofile" => RlimitResource::Nofile,
        "nproc" => RlimitResource::Nproc,
        "rss" => RlimitResource::Rss,
        "rtprio" => RlimitResource::Rtprio,
        "rttime" => RlimitResource::Rttime,
        "sigpending" => RlimitResource::Sigpending,
        "stack" => RlimitResource::Stack,
        _ => return Err(ExecError::Ulimit(ulimit.name.clone())),
    };
    // -1 is unlimited.
    Ok(Rlimit {
        resource,
        soft: u64::try_from(ulimit.soft).ok(),
        hard: u64::try_from(ulimit.hard).ok(),
    })
}

#[cfg(test)]
mod tests {
    use rbuild_solver::{Mount, NetworkMode, ProxyEnv, SecretEnv};

    use super::*;

    fn op() -> ExecOp {
        ExecOp {
            meta: ExecMeta { args: vec!["true".to_owned()], ..ExecMeta::default() },
            mounts: vec![Mount::root()],
            network: NetworkMode::None,
            security: SecurityMode::Sandbox,
            secret_env: Vec::new(),
        }
    }

    #[test]
    fn environment_is_completed() {
        let mut meta = op().meta;
        assert_eq!(environment(&meta), [DEFAULT_PATH]);
        meta.env = vec!["PATH=/x".to_owned()];
        meta.proxy_env = Some(ProxyEnv { http: "h".to_owned(), ..ProxyEnv::default() });
        assert_eq!(environment(&meta), ["PATH=/x", "HTTP_PROXY=h", "http_proxy=h"]);
    }

    #[test]
    fn describes_the_process() {
        let mut op = op();
        op.meta.ulimits.push(Ulimit { name: "nofile".to_owned(), soft: 5, hard: -1 });
        op.meta.extra_hosts.push(rbuild_solver::HostIp { host: "h".into(), ip: "::1".into() });
        op.secret_env.push(SecretEnv { id: "s".into(), name: "S".into(), optional: true });
        let spec = spec(&op, &Secrets::default()).unwrap();
        assert_eq!((spec.rlimits[0].soft, spec.rlimits[0].hard), (Some(5), None));
        assert_eq!(spec.extra_hosts[0].address, "::1");
        assert_eq!(spec.env, [DEFAULT_PATH, "S="]);
        assert_eq!((spec.cwd.as_str(), spec.valid_exit_codes), ("/", vec![0]));
    }

    #[test]
    fn refuses_what_it_cannot_do() {
        let mut with_secret = op();
        with_secret.secret_env.push(SecretEnv {
            id: "s".into(),
            name: "S".into(),
            optional: false,
        });
        let mut secrets = Secrets::default();
        assert_eq!(spec(&with_secret, &secrets).unwrap_err().to_string(), "secret s: not found");
        secrets.insert("s".to_owned(), b"a\0b".to_vec());
        let refused = spec(&with_secret, &secrets).unwrap_err();
        assert!(matches!(refused, ExecError::SecretVariable(_)));
        secrets.insert("s".to_owned(), b"value".to_vec());
        assert_eq!(spec(&with_secret, &secrets).unwrap().env, [DEFAULT_PATH, "S=value"]);
        let mut with_limit = op();
        with_limit.meta.ulimits.push(Ulimit { name: "x".to_owned(), soft: 1, hard: 1 });
        assert!(matches!(spec(&with_limit, &secrets), Err(ExecError::Ulimit(_))));
    }
}
