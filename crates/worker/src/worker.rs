//! The executor of a build.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rbuild_cache::{
    CacheMount, CacheMountKey, CacheMounts, DeferredLayers, FreshCacheMount, ImageSource, Layers,
    Overlay, PickedFiles, PullProgress, RenewCacheMount, StatCacheError, TakenCacheMount, Tree,
    TreeError,
};
use rbuild_oci::{Digest, Platform};
use rbuild_solver::{
    CopyAction, Event, ExecOp, ExecuteCall, Executed, Executor, FileAction, FileActionKind, FileOp,
    LastLayer, LayerId, LogStream, MountKind, NetworkMode, Op, Output, Presence, Progress,
    SecurityMode, Selector, Snapshot, SourceOp, Vertex,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::cache_mounts::{self, StepCaches, TakenCaches, WantedCache};
use crate::cgroup::OomKills;
use crate::context::Contexts;
use crate::entitlements::Entitlements;
use crate::exec::{ExecError, Step, StepParts};
use crate::file::{self, CopyArchiver, FileError, Input};
use crate::mounts::StepInput;
use crate::network::{BuildNetwork, StepNetwork};
use crate::operation_error::OperationError;
use crate::platforms::{Platforms, StepPlatform};
use crate::remote::RemoteSources;
use crate::sandbox::Sandbox;
use crate::secrets::Provided;
use crate::snapshots::Snapshots;
use crate::source::Sources;
use crate::step_limits::StepLimits;
use crate::{diff, merge};

/// What a step says that has to run again; see `local_mounts`.
const CHANGED_MEANWHILE: &str =
    "a folder that this step has mounted was changed meanwhile: it runs again, on a copy\n";

/// What a [`Worker`] works with.
#[derive(Debug)]
pub struct WorkerParts {
    /// The store's layer directories.
    pub layers: Layers,
    /// How they are put on top of one another.
    pub overlay: Arc<Overlay>,
    /// The user's folders.
    pub contexts: Contexts,
    /// Finds images and fetches their layers.
    pub images: ImageSource,
    /// Fetches repositories and files.
    pub remotes: RemoteSources,
    /// Starts steps.
    pub sandbox: Sandbox,
    /// Knows what runs steps of other platforms.
    pub platforms: Platforms,
    /// What steps may ask for.
    pub entitlements: Entitlements,
    /// The folders where the program pasta is looked for, when a step needs a network; without it, steps have the host's.
    pub programs: Vec<PathBuf>,
    /// What steps may use of the user's.
    pub provided: Provided,
    /// The store's directories that outlive builds.
    pub cache_mounts: CacheMounts,
    /// Where pulls are reported that a cache key needs.
    pub progress: Progress,
    /// How many steps may run at the same time; `None` is as many as are ready.
    pub max_steps: Option<NonZeroUsize>,
    /// What bounds each of them.
    pub limits: StepLimits,
    /// Where layers are put that nobody needs yet.
    pub deferred: DeferredLayers,
}

/// What a step that failed has left.
#[derive(Clone, Debug)]
pub struct LeftByStep {
    /// The step's vertex.
    pub vertex: Digest,
    /// What it worked on, by input of the vertex.
    pub inputs: Vec<Output>,
    /// The files of its root. The last layer is in the store, and no key finds it.
    pub state: Snapshot,
}

/// What a step runs on, and the permission to.
pub(crate) struct Ground<'a> {
    inputs: Vec<StepInput>,
    cache_keys: Vec<Option<CacheMountKey>>,
    caches: TakenCaches,
    platform: Option<Platform>,
    network: StepNetwork,
    _running: Option<SemaphorePermit<'a>>,
}

/// Does the operations of a build.
#[derive(Debug)]
pub struct Worker {
    snapshots: Arc<Snapshots>,
    contexts: Arc<Contexts>,
    images: ImageSource,
    remotes: RemoteSources,
    pub(crate) sandbox: Sandbox,
    platforms: Arc<Platforms>,
    network: BuildNetwork,
    entitlements: Entitlements,
    provided: Arc<Provided>,
    caches: Arc<StepCaches>,
    progress: Progress,
    steps: Option<Semaphore>,
    limits: Arc<StepLimits>,
    deferred: DeferredLayers,
    archiver: Option<Arc<CopyArchiver>>,
    /// From before the first step.
    oom_before: OnceLock<OomKills>,
    /// For work that keeps processors and disk busy and a thread waiting.
    blocking: OnceLock<Semaphore>,
    /// What failed steps have left, if that is to be kept.
    left: Option<Mutex<Vec<LeftByStep>>>,
}

impl Worker {
    /// Makes a worker.
    pub fn new(parts: WorkerParts) -> Self {
        Self {
            snapshots: Arc::new(Snapshots::new(parts.layers, parts.overlay)),
            contexts: Arc::new(parts.contexts),
            images: parts.images,
            remotes: parts.remotes,
            sandbox: parts.sandbox,
            platforms: Arc::new(parts.platforms),
            network: BuildNetwork::new(parts.programs),
            entitlements: parts.entitlements,
            provided: Arc::new(parts.provided),
            caches: Arc::new(StepCaches::new(parts.cache_mounts)),
            progress: parts.progress,
            steps: parts.max_steps.map(|most| Semaphore::new(most.get())),
            limits: Arc::new(parts.limits),
            deferred: parts.deferred,
            archiver: None,
            oom_before: OnceLock::new(),
            blocking: OnceLock::new(),
            left: None,
        }
    }

    /// Makes layers of what failed steps leave; see [`Worker::left`].
    #[must_use]
    pub fn keeping_failed(self) -> Self {
        Self { left: Some(Mutex::default()), ..self }
    }

    /// Makes archives of what is copied from the user's folders where that is all that is needed of it.
    #[must_use]
    pub fn archiving(self, archiver: CopyArchiver) -> Self {
        Self { archiver: Some(Arc::new(archiver)), ..self }
    }

    /// What failed steps have left since it was asked for last.
    pub fn left(&self) -> Vec<LeftByStep> {
        let left =
            self.left.as_ref().map(|left| left.lock().unwrap_or_else(PoisonError::into_inner));
        left.map(|mut left| std::mem::take(&mut *left)).unwrap_or_default()
    }

    /// The part of a state that a COPY of `path` to an empty directory makes.
    pub async fn part_of(
        &self,
        state: &Snapshot,
        path: &str,
        seed: &Digest,
    ) -> Result<Snapshot, OperationError> {
        let copy = CopyAction {
            src: path.to_owned(),
            dest: "/".to_owned(),
            allow_wildcard: true,
            dir_copy_contents: true,
            follow_symlink: true,
            ..CopyAction::default()
        };
        let action = FileAction {
            input: None,
            secondary_input: Some(0),
            output: Some(0),
            kind: FileActionKind::Copy(copy),
        };
        let op = FileOp { actions: vec![action] };
        let (snapshots, seed, state) = (Arc::clone(&self.snapshots), *seed, state.clone());
        let made = self
            .blocking(move || file::run(&op, vec![Input::Snapshot(state)], &snapshots, &seed))
            .await?;
        Ok(made.into_iter().next().unwrap_or_default())
    }

    /// The files of a local source that these selectors pick.
    pub fn files_of(
        &self,
        folder: &SourceOp,
        selectors: &[Selector],
    ) -> Result<PickedFiles, OperationError> {
        let tree = self.contexts.tree(folder)?;
        let everything = [Selector::everything()];
        let selectors = if selectors.is_empty() { &everything } else { selectors };
        PickedFiles::of(&tree, selectors)
            .map_err(|source| checksum_error(&Output::Local(Arc::new(folder.clone())), source))
    }

    /// Remembers what was learned of the user's folders; see [`Contexts::save`].
    pub fn save_contexts(&self) -> Result<(), StatCacheError> {
        self.contexts.save()
    }

    fn sources<'a>(&'a self, progress: &'a Progress) -> Sources<'a> {
        Sources { images: &self.images, remotes: &self.remotes, progress }
    }

    async fn file(&self, op: &FileOp, call: &ExecuteCall<'_>) -> Result<Executed, OperationError> {
        let mut inputs = Vec::with_capacity(call.inputs.len());
        for input in call.inputs {
            inputs.push(match input {
                Output::Snapshot(snapshot) => {
                    self.unpack(snapshot, call.vertex.digest, call.progress).await?;
                    Input::Snapshot(snapshot.clone())
                }
                Output::Local(source) => Input::Context(self.contexts.tree(source)?),
            });
        }
        let (op, snapshots, seed) = (op.clone(), Arc::clone(&self.snapshots), call.layer_seed);
        let (need, deferred) = (call.need, self.deferred.clone());
        let archiver = self.archiver.clone();
        self.blocking(move || {
            if let Some((planned, below)) = file::plan_op(&op, &inputs, &snapshots)? {
                let id = file::layer_id(&seed, 0);
                let (state, last) = match (file::needed_now(&op, &inputs, need), archiver) {
                    (LastLayer::Archive, Some(archiver)) => {
                        (archiver.archive(&planned, id)?, LastLayer::Archive)
                    }
                    (LastLayer::Files | LastLayer::Archive, _) => {
                        (planned.write(&below, &snapshots, id)?, LastLayer::Files)
                    }
                    (LastLayer::Nothing, _) => {
                        let state = planned.state(id);
                        if need > Presence::Known {
                            deferred.add(id, planned.defer(&snapshots, id));
                        }
                        (state, LastLayer::Nothing)
                    }
                };
                return Ok(Executed { outputs: vec![Output::Snapshot(state)], last });
            }
            let made = file::run(&op, inputs, &snapshots, &seed)?;
            Ok::<_, FileError>(Executed::now(made.into_iter().map(Output::Snapshot).collect()))
        })
        .await
    }

    async fn exec(
        &self,
        op: &ExecOp,
        call: &ExecuteCall<'_>,
    ) -> Result<Vec<Output>, OperationError> {
        let ground = self.ground(op, call).await?;
        // What is not confined could make the mount of a folder writable.
        let mut in_place = op.security == SecurityMode::Sandbox;
        let oom_before = *self.oom_before.get_or_init(OomKills::now);
        let step = loop {
            let step = self.open(op, &ground, in_place).await?;
            if let Err(error) =
                step.run(&self.sandbox, call.vertex.digest, call.progress, oom_before).await
            {
                self.keep(step, call).await;
                return Err(error.into());
            }
            let (step, saw_its_inputs) = self
                .blocking(move || {
                    let saw_its_inputs = step.saw_its_inputs();
                    Ok::<_, ExecError>((step, saw_its_inputs))
                })
                .await?;
            if saw_its_inputs {
                break step;
            }
            in_place = false;
            let why = CHANGED_MEANWHILE.as_bytes().to_vec();
            call.progress.log(call.vertex.digest, LogStream::Stderr, why).await;
        };
        let (snapshots, seed) = (Arc::clone(&self.snapshots), call.layer_seed);
        let made = self.blocking(move || step.commit(&snapshots, &seed)).await?;
        Ok(made.into_iter().map(Output::Snapshot).collect())
    }

    /// Gets everything that a step needs, and waits for the permission to run it.
    pub(crate) async fn ground(
        &self,
        op: &ExecOp,
        call: &ExecuteCall<'_>,
    ) -> Result<Ground<'_>, OperationError> {
        self.entitlements.check_exec(op)?;
        // Before anything is fetched, which gives time to replace the program.
        self.sandbox.prepare().map_err(ExecError::from)?;
        let granted = async {
            let mut inputs = Vec::with_capacity(call.inputs.len());
            for position in 0..call.inputs.len() {
                inputs.push(self.step_input(op, call, position).await?);
            }
            // Before the permission to run, which those who hold what it waits for may need.
            let caches = self.take_caches(op, call).await?;
            let running = match &self.steps {
                Some(steps) => steps.acquire().await.ok(),
                None => None,
            };
            Ok((inputs, caches, running))
        };
        // Without namespaces there is the host's network only.
        let wanted = if self.sandbox.is_chroot() { NetworkMode::Host } else { op.network };
        // The first step of a build makes the network, while what it stands on may have to be fetched.
        let network = async {
            let network = self.network.of_step(wanted, &self.sandbox, &self.progress);
            network.await.map_err(|error| OperationError::from(ExecError::from(error)))
        };
        let ((inputs, (cache_keys, caches), running), network) =
            tokio::try_join!(granted, network)?;
        let platform = call.vertex.platform.clone();
        Ok(Ground { inputs, cache_keys, caches, platform, network, _running: running })
    }

    /// Opens the mounts of a step, and gives it its network.
    pub(crate) async fn open(
        &self,
        op: &ExecOp,
        ground: &Ground<'_>,
        in_place: bool,
    ) -> Result<Step, OperationError> {
        let (op, inputs, snapshots) =
            (op.clone(), ground.inputs.clone(), Arc::clone(&self.snapshots));
        let (cache_keys, caches) = (ground.cache_keys.clone(), ground.caches.clone());
        let (provided, limits) = (Arc::clone(&self.provided), Arc::clone(&self.limits));
        let (platforms, platform) = (Arc::clone(&self.platforms), ground.platform.clone());
        let is_chroot = self.sandbox.is_chroot();
        // On copies nothing is mounted that could cover what is ignored.
        let in_place = in_place && !self.snapshots.are_copies();
        let opened = self.blocking(move || {
            let parts = StepParts {
                op,
                inputs,
                provided,
                limits,
                caches,
                platform: StepPlatform::new(&platforms, platform),
                is_chroot,
                cache_keys,
                in_place,
            };
            Step::prepare(parts, &snapshots)
        });
        let mut step = opened.await?;
        step.connect(&ground.network)?;
        Ok(step)
    }

    /// Keeps what a failed step has left, if that is wanted.
    async fn keep(&self, step: Step, call: &ExecuteCall<'_>) {
        let Some(left) = &self.left else { return };
        let (snapshots, seed) = (Arc::clone(&self.snapshots), call.layer_seed);
        let kept = self.blocking(move || step.leave(&snapshots, &seed)).await;
        match kept {
            Ok(state) => left.lock().unwrap_or_else(PoisonError::into_inner).push(LeftByStep {
                vertex: call.vertex.digest,
                inputs: call.inputs.to_vec(),
                state,
            }),
            Err(error) => {
                let message = format!("cannot keep what the failed step has left: {error}");
                call.progress.send(Event::Warning { vertex: Some(call.vertex.digest), message });
            }
        }
    }

    /// An input of a step. Of a folder of which something stays all files are copied into the store.
    async fn step_input(
        &self,
        op: &ExecOp,
        call: &ExecuteCall<'_>,
        position: usize,
    ) -> Result<StepInput, OperationError> {
        let mut uses = op.mounts.iter().filter(|mount| mount.input == Some(position as u32));
        let stays = uses.any(|mount| mount.dest == "/" || mount.output.is_some());
        if let Output::Local(source) = &call.inputs[position]
            && !stays
        {
            return Ok(StepInput::Local(self.contexts.tree(source)?));
        }
        let snapshot = self.snapshot_of(call, position).await?;
        self.unpack(&snapshot, call.vertex.digest, call.progress).await?;
        Ok(StepInput::Snapshot(snapshot))
    }

    /// Takes the cache mounts of a step, and waits for those that another step uses. Gives for each mount of the
    /// operation which one it is.
    ///
    /// They are taken in the order of their keys, so that no two steps wait for each other.
    async fn take_caches(
        &self,
        op: &ExecOp,
        call: &ExecuteCall<'_>,
    ) -> Result<(Vec<Option<CacheMountKey>>, TakenCaches), OperationError> {
        let mut keys = Vec::with_capacity(op.mounts.len());
        let mut wanted: BTreeMap<CacheMountKey, WantedCache> = BTreeMap::new();
        for mount in &op.mounts {
            let MountKind::Cache { id, sharing } = &mount.kind else {
                keys.push(None);
                continue;
            };
            let mut content = None;
            let mut digest = None;
            if let Some(input) = mount.input {
                let output = call.inputs.get(input as usize);
                let output = output.ok_or(OperationError::NoSuchInput(input))?;
                let path = mount.selector.clone();
                let selector = Selector { path, follow_symlink: true, ..Selector::default() };
                digest = Some(self.content_digest(output, &selector, call.vertex).await?);
                content = Some((self.tree_of(output).await?, selector));
            }
            let key = CacheMountKey { id: id.clone(), content: digest };
            let sharing = cache_mounts::sharing(*sharing);
            wanted
                .entry(key.clone())
                .and_modify(|wanted| wanted.sharing = wanted.sharing.max(sharing))
                .or_insert(WantedCache { sharing, content });
            keys.push(Some(key));
        }
        let mut taken = TakenCaches::new();
        for (key, wanted) in wanted {
            let renew = if self.caches.must_empty(&key, call.vertex.meta.ignore_cache) {
                RenewCacheMount::Always
            } else if self.images.has_remote_mounts() {
                RenewCacheMount::IfEmpty
            } else {
                RenewCacheMount::Never
            };
            for pause in cache_mounts::pauses() {
                let (caches, sharing, of) = (Arc::clone(&self.caches), wanted.sharing, key.clone());
                let mount =
                    match self.blocking(move || caches.try_take(&of, sharing, renew)).await? {
                        TakenCacheMount::Ready(mount) => mount,
                        TakenCacheMount::Fresh(fresh) => {
                            self.begin_cache(&key, wanted, fresh, renew, call).await?
                        }
                        TakenCacheMount::Busy => {
                            tokio::time::sleep(pause).await;
                            continue;
                        }
                    };
                taken.insert(key, Arc::new(mount));
                break;
            }
        }
        Ok((keys, taken))
    }

    /// Makes a new cache mount what a cache of another machine says, or else what it begins with.
    async fn begin_cache(
        &self,
        key: &CacheMountKey,
        wanted: WantedCache,
        fresh: FreshCacheMount,
        renew: RenewCacheMount,
        call: &ExecuteCall<'_>,
    ) -> Result<CacheMount, OperationError> {
        // Who ignores caches ignores those too.
        if renew == RenewCacheMount::IfEmpty {
            let (progress, vertex) = (call.progress.clone(), call.vertex.digest);
            let progress = PullProgress { progress, vertex };
            let filled = self.images.fill_mount(key, &fresh, &progress).await;
            if filled.map_err(FileError::from)? {
                return self.blocking(move || fresh.ready().map_err(FileError::from)).await;
            }
        }
        self.blocking(move || wanted.begin(fresh)).await
    }

    /// The files of an output, to select from.
    async fn tree_of(&self, output: &Output) -> Result<Arc<Tree>, OperationError> {
        match output {
            Output::Local(source) => Ok(self.contexts.tree(source)?),
            Output::Snapshot(snapshot) => {
                let (snapshots, snapshot) = (Arc::clone(&self.snapshots), snapshot.clone());
                self.blocking(move || snapshots.tree(&snapshot)).await
            }
        }
    }

    /// The inputs of a vertex as states in the store.
    async fn snapshots_of(&self, call: &ExecuteCall<'_>) -> Result<Vec<Snapshot>, OperationError> {
        let mut inputs = Vec::with_capacity(call.inputs.len());
        for position in 0..call.inputs.len() {
            inputs.push(self.snapshot_of(call, position).await?);
        }
        Ok(inputs)
    }

    /// An input as a state in the store. Of a user's folder all files are copied: only what selects from one can use
    /// it in place.
    async fn snapshot_of(
        &self,
        call: &ExecuteCall<'_>,
        position: usize,
    ) -> Result<Snapshot, OperationError> {
        match &call.inputs[position] {
            Output::Snapshot(snapshot) => Ok(snapshot.clone()),
            Output::Local(source) => {
                let position = (position as u64).to_le_bytes();
                let parts = [call.layer_seed.as_bytes(), &position[..]];
                let id = LayerId::derived("rbuild.local.v1", &parts);
                let context = self.contexts.tree(source)?;
                let snapshots = Arc::clone(&self.snapshots);
                self.blocking(move || file::copy_context(&context, &snapshots, id)).await
            }
        }
    }

    /// Fetches and unpacks what of a state is not in the store yet.
    async fn unpack(
        &self,
        snapshot: &Snapshot,
        vertex: Digest,
        progress: &Progress,
    ) -> Result<(), OperationError> {
        if snapshot.is_empty() {
            return Ok(());
        }
        let progress = PullProgress { progress: progress.clone(), vertex };
        // On the heap, as is what an operation does that is not for files: of copies there are thousands at once, and their futures must
        // not have the size of a fetch.
        Box::pin(self.images.ensure_unpacked(snapshot, &progress)).await?;
        Ok(())
    }

    /// Runs what would keep an async thread waiting.
    async fn blocking<T, E>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, OperationError>
    where
        T: Send + 'static,
        E: Into<OperationError> + Send + 'static,
    {
        let permits = || {
            let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            Semaphore::new(2 * processors)
        };
        let _permit = self.blocking.get_or_init(permits).acquire().await;
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done.map_err(Into::into),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down, and so is who waits for this.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Executor for Worker {
    type Error = OperationError;

    async fn source_key(&self, vertex: &Vertex) -> Result<Digest, OperationError> {
        match &vertex.op {
            Op::Source(source) => self.sources(&self.progress).key(source, vertex).await,
            _ => Ok(vertex.digest),
        }
    }

    async fn content_digest(
        &self,
        output: &Output,
        selector: &Selector,
        consumer: &Vertex,
    ) -> Result<Digest, OperationError> {
        if let Output::Snapshot(snapshot) = output {
            self.unpack(snapshot, consumer.digest, &self.progress).await?;
        }
        if let Output::Local(source) = output {
            let digest = self.contexts.tree(source)?.digest_at_a_glance(selector);
            if let Some(digest) = digest.map_err(|source| checksum_error(output, source))? {
                return Ok(digest);
            }
        }
        let (output, selector) = (output.clone(), selector.clone());
        let (contexts, snapshots) = (Arc::clone(&self.contexts), Arc::clone(&self.snapshots));
        self.blocking(move || {
            let tree = match &output {
                Output::Snapshot(snapshot) => snapshots.tree(snapshot)?,
                Output::Local(source) => contexts.tree(source)?,
            };
            tree.content_digest(&selector).map_err(|source| checksum_error(&output, source))
        })
        .await
    }

    async fn execute(&self, call: ExecuteCall<'_>) -> Result<Executed, OperationError> {
        let outputs = match &call.vertex.op {
            Op::Source(source) => {
                let sources = self.sources(call.progress);
                vec![Box::pin(sources.run(source, call.vertex)).await?]
            }
            Op::Exec(exec) => Box::pin(self.exec(exec, &call)).await?,
            Op::File(file) => return self.file(file, &call).await,
            Op::Merge(merge) => {
                let inputs = self.snapshots_of(&call).await?;
                vec![Output::Snapshot(merge::run(merge, &inputs)?)]
            }
            Op::Diff(diff) => {
                let inputs = self.snapshots_of(&call).await?;
                vec![Output::Snapshot(diff::run(diff, &inputs)?)]
            }
        };
        Ok(Executed::now(outputs))
    }
}

fn checksum_error(of: &Output, source: TreeError) -> OperationError {
    let of = match of {
        Output::Local(source) => format!("ref {}", source.split().1),
        Output::Snapshot(snapshot) => match snapshot.layers().last() {
            Some(layer) => format!("ref {layer}"),
            None => "ref scratch".to_owned(),
        },
    };
    OperationError::Checksum { of, source }
}
