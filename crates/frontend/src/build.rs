//! What a build is asked for and what the frontend makes of it.

use std::collections::BTreeMap;

use rbuild_oci::{ImageConfig, Platform, Reference};
use rbuild_solver::{Edge, Graph, HostIp, NetworkMode, SourceOp, Ulimit};

use crate::diagnostic::Diagnostic;
use crate::images::ImageQuery;

/// What is to be built of a Dockerfile, and how.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// The Dockerfile's name, as vertices and messages show it.
    pub file_name: String,
    /// The stage that is wanted; the last one if missing.
    pub target: Option<String>,
    /// `--build-arg`. `SOURCE_DATE_EPOCH`, the proxy arguments and those that begin with `BUILDKIT_` mean something to
    /// the build itself.
    pub build_args: BTreeMap<String, String>,
    /// `--label`: put into the config last, without a trace in the history.
    pub labels: BTreeMap<String, String>,
    /// The platform that was asked for; the build platform if missing.
    pub platform: Option<Platform>,
    /// The platform that steps run on.
    pub build_platform: Platform,
    /// Other platforms of Linux that steps can be run for. Where none was asked for, an image that is only for one of these
    /// is used for that.
    pub emulated: Vec<Platform>,
    /// Whether step names say their platform, as they do when there are several.
    pub multi_platform: bool,
    /// Whether stages and the context are looked into for packages, where the file asks for it.
    pub scans: bool,
    /// Which steps have to run although their result is known.
    pub no_cache: NoCache,
    /// `--build-context`, by name (`name` or `name::platform`).
    pub contexts: BTreeMap<String, NamedContext>,
    /// The main context if it is fetched; else it is the local source `context`.
    pub context: Option<RemoteContext>,
    /// The patterns of the main context's `.dockerignore`: see [`parse_dockerignore`](crate::parse_dockerignore).
    pub context_ignore: Vec<String>,
    /// The time, in seconds since 1970, of what [`epoch_source`](crate::epoch_source()) names, if it has one.
    pub epoch_time: Option<i64>,
    /// How many layers an image may have: where it is built there is a limit.
    pub max_layers: usize,
    /// `--add-host`
    pub extra_hosts: Vec<HostIp>,
    /// `--network`: the network of steps that ask for none.
    pub network: NetworkMode,
    /// The host name that steps see; empty for the default one.
    pub hostname: String,
    /// `--ulimit`
    pub ulimits: Vec<Ulimit>,
    /// `--shm-size`: bytes of `/dev/shm`; 0 for the default.
    pub shm_size: i64,
    /// `--cgroup-parent`; empty for none.
    pub cgroup_parent: String,
}

impl BuildOptions {
    /// Nothing asked for but a build on and for `build_platform`.
    pub fn new(build_platform: Platform) -> Self {
        Self {
            file_name: "Dockerfile".to_owned(),
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platform: None,
            build_platform,
            emulated: Vec::new(),
            multi_platform: false,
            scans: false,
            no_cache: NoCache::Stages(Vec::new()),
            contexts: BTreeMap::new(),
            context: None,
            context_ignore: Vec::new(),
            epoch_time: None,
            max_layers: usize::MAX,
            extra_hosts: Vec::new(),
            network: NetworkMode::Default,
            hostname: String::new(),
            ulimits: Vec::new(),
            shm_size: 0,
            cgroup_parent: String::new(),
        }
    }

    /// The platform that is built for.
    pub fn target_platform(&self) -> &Platform {
        self.platform.as_ref().unwrap_or(&self.build_platform)
    }
}

/// Which steps have to run although their result is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoCache {
    /// `--no-cache`: all.
    All,
    /// `--no-cache-filter`: those of these stages, in any letter case.
    Stages(Vec<String>),
}

/// Which stages of a file are looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stages {
    /// All.
    All,
    /// The target, and those that it needs.
    Target,
}

/// What a named context stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// `docker-image://`
    Image(Reference),
    /// `docker-image://scratch`: nothing.
    Scratch,
    /// `oci-layout://`, with what follows it.
    OciLayout(String),
    /// A folder, which is the local source of the context's name.
    Local {
        /// The patterns of its own `.dockerignore`.
        ignore: Vec<String>,
    },
    /// A git repository, or something behind an HTTP address.
    Remote(RemoteContext),
    /// `target:`, a stage of the same file: in FROM one that comes before.
    Stage(String),
}

/// A context that is fetched. No ignore file applies to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteContext {
    /// From where.
    pub source: SourceOp,
    /// Whether it is an archive, whose content is meant.
    pub unpack: bool,
}

/// What [`lower`](crate::lower()) comes to.
#[derive(Debug)]
pub enum Outcome {
    /// These images have to be known first; then ask again. Each is named once.
    NeedsImages(Vec<ImageQuery>),
    /// All is known.
    Ready(Box<Build>),
}

/// A build that can be run.
#[derive(Debug)]
pub struct Build {
    /// What is to be done; only what the target needs.
    pub graph: Graph,
    /// The state that becomes the image; `None` is an image without files.
    pub target: Option<Edge>,
    /// What is looked into for packages beside it, if [`BuildOptions::scans`] says so.
    pub scans: Vec<Scan>,
    /// The image's config. `rootfs.diff_ids` is empty, as layers are not known yet; history entries without a time get
    /// that of their layer.
    pub config: ImageConfig,
    /// How many entries of the config's history are the base image's.
    pub base_history: usize,
    /// The platform of the target stage.
    pub platform: Platform,
    /// The name of the target stage, if it has one.
    pub target_name: Option<String>,
    /// The stages that are needed, in the file's order.
    pub stages: Vec<StageSummary>,
    /// The local folders that are read.
    pub locals: Vec<LocalUse>,
    /// `SOURCE_DATE_EPOCH` in seconds.
    pub source_date_epoch: Option<i64>,
    /// The warnings that need evaluation, unfiltered: those of the text alone come from [`check`](crate::check()), and
    /// [`Checks::filter`](crate::Checks::filter) drops what is not wanted.
    pub warnings: Vec<Diagnostic>,
}

/// Files that are looked into for packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The stage, or `context`.
    pub name: String,
    /// Its files.
    pub target: Edge,
}

/// A stage that is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageSummary {
    /// Its name, or `stage-N`.
    pub name: String,
    /// How many steps its step names count.
    pub steps: usize,
}

/// A local folder that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalUse {
    /// `context` for the main one, else the named context's name.
    pub name: String,
    /// The paths that are looked at, possibly with wildcards; `None` for all.
    pub follow_paths: Option<Vec<String>>,
}
