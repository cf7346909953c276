//! The executor of a build.

use std::num::NonZeroUsize;
use std::sync::Arc;

use rbuild_cache::{ImageSource, Layers, Overlay, PullProgress, StatCacheError, TreeError};
use rbuild_oci::Digest;
use rbuild_solver::{
    ExecOp, ExecuteCall, Executor, FileOp, LayerId, Op, Output, Progress, Selector, Snapshot,
    Vertex,
};
use tokio::sync::Semaphore;

use crate::context::Contexts;
use crate::entitlements::Entitlements;
use crate::exec::{ExecError, Step};
use crate::file::{self, Input};
use crate::operation_error::OperationError;
use crate::sandbox::{Sandbox, host_resolv_conf};
use crate::snapshots::Snapshots;
use crate::{diff, exec, merge, source};

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
    /// Starts steps.
    pub sandbox: Sandbox,
    /// What steps may ask for.
    pub entitlements: Entitlements,
    /// Where pulls are reported that a cache key needs.
    pub progress: Progress,
    /// How many steps may run at the same time; `None` is as many as are ready.
    pub max_steps: Option<NonZeroUsize>,
}

/// Does the operations of a build.
#[derive(Debug)]
pub struct Worker {
    snapshots: Arc<Snapshots>,
    contexts: Arc<Contexts>,
    images: ImageSource,
    sandbox: Sandbox,
    entitlements: Entitlements,
    progress: Progress,
    steps: Option<Semaphore>,
    /// For work that keeps processors and disk busy and a thread waiting.
    blocking: Semaphore,
}

impl Worker {
    /// Makes a worker.
    pub fn new(parts: WorkerParts) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            snapshots: Arc::new(Snapshots::new(parts.layers, parts.overlay)),
            contexts: Arc::new(parts.contexts),
            images: parts.images,
            sandbox: parts.sandbox,
            entitlements: parts.entitlements,
            progress: parts.progress,
            steps: parts.max_steps.map(|most| Semaphore::new(most.get())),
            blocking: Semaphore::new(2 * processors),
        }
    }

    /// Remembers what was learned of the user's folders; see [`Contexts::save`].
    pub fn save_contexts(&self) -> Result<(), StatCacheError> {
        self.contexts.save()
    }

    async fn file(
        &self,
        op: &FileOp,
        call: &ExecuteCall<'_>,
    ) -> Result<Vec<Output>, OperationError> {
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
        let made = self.blocking(move || file::run(&op, inputs, &snapshots, &seed)).await?;
        Ok(made.into_iter().map(Output::Snapshot).collect())
    }

    async fn exec(
        &self,
        op: &ExecOp,
        call: &ExecuteCall<'_>,
    ) -> Result<Vec<Output>, OperationError> {
        self.entitlements.check_exec(op)?;
        let inputs = self.snapshots_of(call).await?;
        for input in &inputs {
            self.unpack(input, call.vertex.digest, call.progress).await?;
        }
        let _running = match &self.steps {
            Some(steps) => steps.acquire().await.ok(),
            None => None,
        };
        let (op, snapshots) = (op.clone(), Arc::clone(&self.snapshots));
        let step = self
            .blocking(move || {
                let resolv_conf =
                    host_resolv_conf(exec::network(op.network)).map_err(ExecError::Sandbox)?;
                Step::prepare(&op, &inputs, &snapshots, resolv_conf)
            })
            .await?;
        step.run(&self.sandbox, call.vertex.digest, call.progress).await?;
        let (snapshots, seed) = (Arc::clone(&self.snapshots), call.layer_seed);
        let made = self.blocking(move || step.commit(&snapshots, &seed)).await?;
        Ok(made.into_iter().map(Output::Snapshot).collect())
    }

    /// The inputs of a vertex as states in the store. Of a user's folder all files are copied: only what selects
    /// from one can use it in place.
    async fn snapshots_of(&self, call: &ExecuteCall<'_>) -> Result<Vec<Snapshot>, OperationError> {
        let mut inputs = Vec::with_capacity(call.inputs.len());
        for (position, input) in call.inputs.iter().enumerate() {
            inputs.push(match input {
                Output::Snapshot(snapshot) => snapshot.clone(),
                Output::Local(source) => {
                    let position = (position as u64).to_le_bytes();
                    let parts = [call.layer_seed.as_bytes(), &position[..]];
                    let id = LayerId::derived("rbuild.local.v1", &parts);
                    let context = self.contexts.tree(source)?;
                    let snapshots = Arc::clone(&self.snapshots);
                    self.blocking(move || file::copy_context(&context, &snapshots, id)).await?
                }
            });
        }
        Ok(inputs)
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
        Ok(self.images.ensure_unpacked(snapshot, &progress).await?)
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
        let _permit = self.blocking.acquire().await;
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
            Op::Source(source) => source::key(source, vertex, &self.images).await,
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

    async fn execute(&self, call: ExecuteCall<'_>) -> Result<Vec<Output>, OperationError> {
        match &call.vertex.op {
            Op::Source(source) => Ok(vec![source::run(source, call.vertex, &self.images).await?]),
            Op::Exec(exec) => self.exec(exec, &call).await,
            Op::File(file) => self.file(file, &call).await,
            Op::Merge(merge) => {
                let inputs = self.snapshots_of(&call).await?;
                Ok(vec![Output::Snapshot(merge::run(merge, &inputs)?)])
            }
            Op::Diff(diff) => {
                let inputs = self.snapshots_of(&call).await?;
                Ok(vec![Output::Snapshot(diff::run(diff, &inputs)?)])
            }
        }
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
