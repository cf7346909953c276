//! The network that the steps of a build have for themselves: made when the first step needs it, and gone with the build.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rbuild_solver::{NetworkMode, Progress, chain};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::OnceCell;

use super::keeper::KEEPER_ARGUMENT;
use super::pasta;
use super::resolv_conf::HostResolvConf;
use super::tun;
use crate::program::find_program;
use crate::sandbox::{self, Sandbox, SandboxSpec, receive_descriptors};

/// How long pasta may take to be ready; it needs some hundredths of a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// A step cannot be given a network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The host's DNS configuration could not be read.
    #[error("cannot read `{path}`")]
    ResolvConf {
        /// The file.
        path: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The machine has no address by which a step could reach it.
    #[error(
        "cannot tell the address of this machine for the host name `{host}` (`host-gateway`): it has no route to others"
    )]
    HostGateway {
        /// The name that should have the address.
        host: String,
        /// The cause.
        source: io::Error,
    },
    /// The way out of the network of the build is gone.
    #[error("the network of the build is gone: pasta ended")]
    Ended,
    /// The namespace could not be handed on.
    #[error("cannot use the network of the build")]
    Descriptor {
        /// The cause.
        source: io::Error,
    },
}

/// Gives steps their networks. Those of one build that ask for nothing share one.
#[derive(Debug)]
pub(crate) struct BuildNetwork {
    programs: Vec<PathBuf>,
    made: OnceCell<Made>,
}

/// What steps get that ask for nothing.
#[derive(Debug)]
enum Made {
    Private(Box<Private>),
    /// The host's network, after a warning.
    Host,
}

#[derive(Debug)]
struct Private {
    namespace: Arc<OwnedFd>,
    resolv_conf: String,
    /// Whether no packet for the host's loopback leaves it.
    is_filtered: bool,
    /// While this is open, the keeper lives.
    control: UnixStream,
    _keeper: Child,
}

/// The network of one step.
#[derive(Debug)]
pub(crate) struct StepNetwork {
    namespace: Namespace,
    resolv_conf: String,
    raw_packets: bool,
}

#[derive(Debug)]
enum Namespace {
    Host,
    /// One of the step's own.
    New,
    Joined(Arc<OwnedFd>),
}

impl BuildNetwork {
    /// `programs` are the folders where pasta is looked for, the program that connects networks; without it, steps have the host's.
    pub(crate) fn new(programs: Vec<PathBuf>) -> Self {
        Self { programs, made: OnceCell::new() }
    }

    /// The network of a step. The first that asks for nothing waits until the network of the build is there.
    pub(crate) async fn of_step(
        &self,
        mode: NetworkMode,
        sandbox: &Sandbox,
        progress: &Progress,
    ) -> Result<StepNetwork, NetworkError> {
        let (namespace, resolv_conf, raw_packets) = match mode {
            NetworkMode::Default => {
                match self.made.get_or_try_init(|| self.make(sandbox, progress)).await? {
                    Made::Private(private) if private.has_ended() => {
                        return Err(NetworkError::Ended);
                    }
                    Made::Private(private) => {
                        let namespace = Namespace::Joined(Arc::clone(&private.namespace));
                        (namespace, private.resolv_conf.clone(), private.is_filtered)
                    }
                    // A step that did not ask for this network sees nothing of what others send in it.
                    Made::Host => {
                        (Namespace::Host, HostResolvConf::read()?.in_host_network(), false)
                    }
                }
            }
            NetworkMode::Host => (Namespace::Host, HostResolvConf::read()?.in_host_network(), true),
            NetworkMode::None => {
                (Namespace::New, HostResolvConf::read()?.in_own_network(None), true)
            }
        };
        Ok(StepNetwork { namespace, resolv_conf, raw_packets })
    }

    /// Makes the network, and warns of what it is not.
    async fn make(&self, sandbox: &Sandbox, progress: &Progress) -> Result<Made, NetworkError> {
        let (made, finding) =
            connect(sandbox, find_program("pasta", &self.programs).as_deref()).await?;
        if finding != NetworkFinding::Private {
            progress.warn(finding.to_string());
        }
        Ok(made)
    }
}

/// Finds out what network the steps of a build would have, by making it. `pasta` is the program that connects it, if there is one.
///
/// # Errors
///
/// When no step could have a network.
pub async fn try_network(
    sandbox: &Sandbox,
    pasta: Option<&Path>,
) -> Result<NetworkFinding, NetworkError> {
    connect(sandbox, pasta).await.map(|(_, finding)| finding)
}

/// What the network of the steps of a build is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkFinding {
    /// One of their own.
    Private,
    /// One of their own, but packets for the host's loopback may leave it.
    NotFiltered {
        /// The program that connects it.
        program: PathBuf,
        /// Why.
        reason: String,
    },
    /// The host's.
    Host {
        /// Why.
        reason: String,
        /// What would change that, if it is known.
        fix: Option<&'static str>,
    },
}

impl NetworkFinding {
    /// What would give steps a better one, if it is known.
    #[must_use]
    pub fn fix(&self) -> Option<&'static str> {
        match self {
            Self::Host { fix, .. } => *fix,
            Self::Private | Self::NotFiltered { .. } => None,
        }
    }
}

impl std::fmt::Display for NetworkFinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Private => write!(f, "the steps have a network of their own"),
            Self::NotFiltered { program, reason } => write!(
                f,
                "a step that means to can reach what listens on this machine's loopback device, if `{}` is of before 2024: \
                 its packets cannot be filtered: {reason}",
                program.display()
            ),
            Self::Host { reason, .. } => {
                write!(f, "the steps have the host's network, not one of their own: {reason}")
            }
        }
    }
}

async fn connect(
    sandbox: &Sandbox,
    pasta: Option<&Path>,
) -> Result<(Made, NetworkFinding), NetworkError> {
    let instead = |reason: String, fix| Ok((Made::Host, NetworkFinding::Host { reason, fix }));
    let Some(program) = pasta else {
        const FIX: &str = "apt-get install passt";
        return instead("`pasta` is not installed (Debian package `passt`)".to_owned(), Some(FIX));
    };
    let host = HostResolvConf::read()?;
    let forwarded = host.is_loopback_only().then_some(pasta::FORWARDED_DNS);
    let start = start(sandbox, program, forwarded.is_some());
    let started = match tokio::time::timeout(PATIENCE, start).await {
        Ok(Ok(started)) => started,
        Ok(Err(error)) => {
            // Its own words do not say what to do.
            let about_device = error.to_string().contains("tun").then(tun::check);
            return match about_device {
                Some(Err(obstacle)) => instead(chain(&obstacle), Some(obstacle.fix())),
                _ => instead(format!("`{}` failed: {error}", program.display()), None),
            };
        }
        Err(_) => return instead(format!("`{}` does not get ready", program.display()), None),
    };
    let is_filtered = started.not_filtered.is_none();
    let finding = match started.not_filtered {
        None => NetworkFinding::Private,
        Some(reason) => NetworkFinding::NotFiltered { program: program.to_owned(), reason },
    };
    let private = Private {
        namespace: Arc::new(started.namespace),
        resolv_conf: host.in_own_network(forwarded),
        is_filtered,
        control: started.control,
        _keeper: started.keeper,
    };
    Ok((Made::Private(Box::new(private)), finding))
}

/// A keeper with its namespace.
#[derive(Debug)]
struct Started {
    namespace: OwnedFd,
    /// Why packets for the host's loopback may leave it.
    not_filtered: Option<String>,
    control: UnixStream,
    keeper: Child,
}

/// Starts a keeper and waits for its namespace.
async fn start(sandbox: &Sandbox, program: &Path, forward_dns: bool) -> io::Result<Started> {
    let (control, theirs) = StdUnixStream::pair()?;
    control.set_nonblocking(true)?;
    let mut control = UnixStream::from_std(control)?;
    let keeper = sandbox
        .command(KEEPER_ARGUMENT)
        .map_err(io::Error::other)?
        .arg(program)
        .args(pasta::arguments(forward_dns))
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let received = control
        .async_io(Interest::READABLE, || receive_descriptors(control.as_fd()))
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::other("its keeper ended without a word"),
            _ => error,
        })?;
    if let Some(namespace) = received.into_iter().next() {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.push(control.read_u8().await?);
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let not_filtered = Some(line).filter(|line| !line.is_empty());
        return Ok(Started { namespace, not_filtered, control, keeper });
    }
    let mut reason = String::new();
    control.read_to_string(&mut reason).await?;
    Err(io::Error::other(reason))
}

impl Private {
    /// Whether the keeper has closed its end, which it does when pasta ended.
    fn has_ended(&self) -> bool {
        matches!(self.control.try_read(&mut [0]), Ok(0))
    }
}

impl StepNetwork {
    /// Completes the description of a step that is to have this network. `descriptors` are what it refers to.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(crate) fn connect(
        &self,
        spec: &mut SandboxSpec,
        descriptors: &mut Vec<OwnedFd>,
    ) -> Result<(), NetworkError> {
        spec.resolv_conf.clone_from(&self.resolv_conf);
        spec.raw_packets = self.raw_packets;
        spec.network = match &self.namespace {
            Namespace::Host => sandbox::NetworkMode::Host,
            Namespace::New => sandbox::NetworkMode::None,
            Namespace::Joined(namespace) => {
                let namespace = namespace.try_clone();
                descriptors.push(namespace.map_err(|source| NetworkError::Descriptor { source })?);
                sandbox::NetworkMode::Joined { descriptor: descriptors.len() - 1 }
            }
        };
        Ok(())
    }
}
