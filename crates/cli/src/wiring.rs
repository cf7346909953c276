//! Builds the real objects from what was typed: the one place that knows every implementation.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use rbuild_cache::{
    Buckets, BucketsOptions, Credentials, DeferredLayers, DownloadsOptions, HostFiles, ImagePush,
    ImageSource, ImageSourceOptions, Lease, LocalRecords, Overlay, OverlayXattrs, PullProgress,
    RegistryClient, RegistryOptions, Store,
};
use rbuild_exporter::ExportStore;
use rbuild_solver::Progress;
use rbuild_worker::{
    Contexts, Entitlements, GitOptions, Identity, OpenFiles, Platforms, Provided, RemoteSources,
    Sandbox, StepLimits, Worker, WorkerParts,
};

use crate::args::{Isolation, Snapshotter};
use crate::error::{CommandError, Kind};
use crate::machine::Machine;
use crate::paths;
use crate::registry_args::RegistryArgs;

/// Everything that one run works with.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) store: Store,
    pub(crate) lease: Lease,
    pub(crate) overlay: Arc<Overlay>,
    pub(crate) images: ImageSource,
    registry: RegistryClient,
    registries: RegistryArgs,
    pub(crate) buckets: Buckets,
    pub(crate) remotes: RemoteSources,
    deferred: DeferredLayers,
    open_files: OpenFiles,
    isolation: Isolation,
    /// What sandboxes are started from.
    program: PathBuf,
}

/// What bounds the steps of a build.
#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) entitlements: Entitlements,
    pub(crate) limits: StepLimits,
    /// How many steps run at the same time; `None` is as many as are ready.
    pub(crate) jobs: Option<NonZeroUsize>,
}

impl Bounds {
    /// For graphs without steps.
    pub(crate) fn nothing_allowed() -> Self {
        Self { entitlements: Entitlements::default(), limits: StepLimits::none(), jobs: None }
    }
}

/// Descriptors of a vertex at work: a step has its layer, its mount, its process and pipes.
const FILES_OF_A_VERTEX: u64 = 16;

impl Session {
    /// Puts a session together. Hosts are told what of `provided` is meant for them.
    pub(crate) fn open(
        store: Store,
        machine: &Machine,
        provided: &Provided,
    ) -> Result<Self, CommandError> {
        let open_files = rbuild_worker::raise_open_files();
        let lease = store.lease().map_err(|error| {
            CommandError::caused(Kind::Environment, "cannot take a lease on the store", error)
        })?;
        let xattrs = if rbuild_worker::in_user_namespace() || !rbuild_worker::may_mount() {
            OverlayXattrs::User
        } else {
            OverlayXattrs::Trusted
        };
        let overlay = Overlay::new(xattrs, &store.layers);
        let overlay = Arc::new(match machine.snapshotter {
            // Without mounts there is no other way.
            _ if machine.isolation == Isolation::Chroot => overlay.copying(),
            Snapshotter::Auto => overlay.copying_if_refused(),
            Snapshotter::Overlay => overlay,
            Snapshotter::Copy => overlay.copying(),
        });
        let options = ImageSourceOptions {
            ignore_chown_errors: matches!(machine.identity, Identity::SingleId { .. }),
            ..ImageSourceOptions::default()
        };
        let registry = RegistryClient::new(registry_options(&machine.registries));
        let images = ImageSource::new(
            &store,
            lease.clone(),
            Arc::clone(&overlay),
            registry.clone(),
            options,
        );
        let buckets = Buckets::new(buckets_options);
        let deferred = DeferredLayers::default();
        let images = images.with_buckets(buckets.clone()).with_deferred(deferred.clone());
        let http = DownloadsOptions { proxies: paths::proxies(), ..DownloadsOptions::default() };
        let git = GitOptions {
            environment: paths::git_environment(),
            known_hosts: paths::known_hosts(),
            ..GitOptions::default()
        };
        let remotes = RemoteSources::new(&store, lease.clone(), http, git, provided);
        Ok(Self {
            store,
            lease,
            overlay,
            images,
            registry,
            registries: machine.registries.clone(),
            buckets,
            remotes,
            deferred,
            open_files,
            isolation: machine.isolation,
            program: machine.program.clone(),
        })
    }

    /// The same session, for which these registries may be anybody.
    #[must_use]
    pub(crate) fn trusting(self, insecure: Vec<String>) -> Self {
        if insecure.is_empty() {
            return self;
        }
        let registry = self.client_trusting(insecure);
        Self { images: self.images.with_registry(registry.clone()), registry, ..self }
    }

    /// How many vertices may be at work at the same time: half of the descriptors are theirs.
    pub(crate) fn max_parallelism(&self) -> Option<NonZeroUsize> {
        let most = self.open_files.limit? / 2 / FILES_OF_A_VERTEX;
        NonZeroUsize::new(usize::try_from(most.max(1)).ok()?)
    }

    /// The store's parts that exporters use.
    pub(crate) fn export_store(&self) -> ExportStore<'_> {
        ExportStore {
            content: &self.store.content,
            layers: &self.store.layers,
            index: &self.store.index,
            lease: &self.lease,
            overlay: &self.overlay,
            deferred: &self.deferred,
        }
    }

    fn client_trusting(&self, mut insecure: Vec<String>) -> RegistryClient {
        let options = registry_options(&self.registries);
        insecure.extend(options.insecure);
        RegistryClient::new(RegistryOptions { insecure, ..options })
    }

    /// Pushes images of the store; `insecure` registries may be anybody.
    pub(crate) fn pushes(&self, insecure: Vec<String>) -> ImagePush {
        let registry = match insecure.is_empty() {
            true => self.registry.clone(),
            false => self.client_trusting(insecure),
        };
        ImagePush::new(&self.store, self.lease.clone(), self.images.clone(), registry)
    }

    /// Reports what is fetched for no vertex in particular.
    pub(crate) fn reporting(&self, progress: &Progress) -> PullProgress {
        PullProgress { progress: progress.clone(), ..PullProgress::discard() }
    }

    /// How steps are kept apart from the machine.
    pub(crate) fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// The cache of solves.
    pub(crate) fn records(&self) -> LocalRecords {
        LocalRecords::new(&self.store, self.lease.clone()).with_deferred(self.deferred.clone())
    }

    /// The executor of solves. `folders` are the local sources, `bounds` what steps may ask for and use, and
    /// `provided` what they may use.
    pub(crate) fn worker(
        &self,
        folders: BTreeMap<String, PathBuf>,
        bounds: Bounds,
        provided: Provided,
        progress: &Progress,
    ) -> Result<Worker, CommandError> {
        let sandbox = match self.isolation {
            Isolation::Auto => Sandbox::open_when_needed(&self.program),
            Isolation::Chroot => Sandbox::open_chroot().map_err(|error| {
                CommandError::caused(Kind::Environment, "cannot prepare the sandbox", error)
            })?,
        };
        let sandbox = sandbox.with_rlimits(vec![self.open_files.inherited]);
        Ok(Worker::new(WorkerParts {
            layers: self.store.layers.clone(),
            overlay: Arc::clone(&self.overlay),
            images: self.images.clone(),
            remotes: self.remotes.clone(),
            contexts: Contexts::new(folders, self.store.root().join("tmp"), self.store.contexts()),
            sandbox,
            platforms: Platforms::new(paths::programs()),
            programs: paths::programs(),
            entitlements: bounds.entitlements,
            provided,
            cache_mounts: self.store.cache_mounts.clone(),
            progress: progress.clone(),
            max_steps: bounds.jobs,
            limits: bounds.limits,
            deferred: self.deferred.clone(),
        }))
    }
}

/// How registries are reached.
pub(crate) fn registry_options(args: &RegistryArgs) -> RegistryOptions {
    let mirrors = args.registry_mirror.iter();
    let mirrors = mirrors.map(|of| (of.registry.clone(), of.mirrors.clone())).collect();
    RegistryOptions {
        hosts: HostFiles { mirrors, ..paths::host_files() },
        insecure: args.insecure_registry.clone(),
        credentials: Credentials::from_files(paths::credential_files()),
        proxies: paths::proxies(),
        ..RegistryOptions::default()
    }
}

/// How buckets are reached. Settings of AWS's that cannot be read are an error where a cache in a bucket is named, not for all else.
fn buckets_options() -> BucketsOptions {
    let aws = paths::aws_settings().unwrap_or_default();
    BucketsOptions {
        proxies: paths::proxies(),
        credentials: aws.credentials().unwrap_or_default(),
        endpoint: aws.endpoint,
        certificates: aws.authorities.into_iter().collect(),
    }
}
