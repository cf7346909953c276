//! Remembers what becomes of a build, for `debug`, `explain` and `logs`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rbuild_cache::{
    BuildId, BuildRecord, BuildState, BuildSubject, Builds, InputState, LayerFacts, Store,
};
use rbuild_oci::Digest;
use rbuild_solver::{
    CacheMap, Edge, Graph, Op, Output, Progress, Snapshot, has_secrets, llb, redact_url, redacted,
};
use rbuild_worker::{LeftByStep, Worker};

use super::input::{DOCKERFILE, dockerfile_path};
use super::limits;
use super::remote::Address;
use crate::args::BuildArgs;
use crate::error::{CommandError, chain};
use crate::progress::StepNotes;

/// The record of the running build.
#[derive(Debug)]
pub(crate) struct Recording {
    /// Is told every event.
    pub(crate) notes: StepNotes,
    /// What went wrong with what the last build has left.
    pub(crate) warning: Option<String>,
    builds: Builds,
    id: BuildId,
    subject: BuildSubject,
    project: String,
    started: SystemTime,
    resources: Vec<String>,
    known: Mutex<Known>,
}

/// What becomes known on the way.
#[derive(Debug, Default)]
struct Known {
    graph: Option<Digest>,
    /// Digests that vertices have in the stored graph.
    stored: HashMap<Digest, Digest>,
    folders: BTreeMap<String, PathBuf>,
    left: Vec<LeftByStep>,
}

impl Recording {
    /// Begins, and gives up what the failed step of the last build of the same has left.
    pub(crate) fn begin(store: &Store, args: &BuildArgs) -> Self {
        let subject = subject(args);
        let project = subject.project();
        let given_up = store.builds.give_up(&project).map_err(|error| chain(&error));
        let removed = given_up.and_then(|layer| match layer {
            Some(layer) => store.layers.remove(&layer).map_err(|error| chain(&error)),
            None => Ok(false),
        });
        let warning = removed
            .err()
            .map(|error| format!("cannot remove what a failed step has left: {error}"));
        Self {
            warning,
            notes: StepNotes::default(),
            builds: store.builds.clone(),
            id: BuildId::of_now(),
            subject,
            project,
            started: SystemTime::now(),
            resources: limits::pairs_of(&args.limits),
            known: Mutex::default(),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes which folders the build reads in place. `scratch` is where those that it unpacked are.
    pub(crate) fn folders(&self, folders: &BTreeMap<String, PathBuf>, scratch: &Path) {
        let lasting = folders.iter().filter(|(_, path)| !path.starts_with(scratch));
        self.known().folders = lasting.map(|(name, path)| (name.clone(), path.clone())).collect();
    }

    /// When the build began.
    pub(crate) fn started(&self) -> SystemTime {
        self.started
    }

    /// The name of the build.
    pub(crate) fn id(&self) -> &BuildId {
        &self.id
    }

    /// Notes what is going to be solved, so that it is known of a build that is stopped, too.
    pub(crate) fn planned(&self, graph: &Graph, target: Edge, progress: &Progress) {
        if let Err(error) = self.write_graph(graph, target) {
            progress.warn(format!("cannot remember how the build was made: {}", chain(&error)));
        }
    }

    /// Notes what was solved, whatever became of it: which files the steps that ran have read of folders, and
    /// what the one that failed has left.
    pub(crate) fn solved(
        &self,
        store: &Store,
        graph: &Graph,
        worker: &Worker,
        progress: &Progress,
    ) {
        let mut left = worker.left();
        if let Some(last) = left.last()
            && let Err(error) = self.keep(store, last, graph)
        {
            progress.warn(format!("cannot keep what the failed step has left: {error}"));
            // Often the disk is full, and this is why. What remains is collected as what nobody refers to.
            for layer in left.drain(..).filter_map(|left| left.state.layers().last().copied()) {
                let _ = store.layers.remove(&layer);
            }
        }
        self.known().left = left;
        // Where the graph could not be written, that was said.
        if self.known().graph.is_some()
            && let Err(error) = self.write_files(graph, worker)
        {
            progress.warn(format!("cannot remember how the build was made: {error}"));
        }
    }

    /// The files that a vertex has left, if it is a step that failed.
    pub(crate) fn left_by(&self, vertex: &Digest) -> Option<Snapshot> {
        let known = self.known();
        known.left.iter().find(|left| left.vertex == *vertex).map(|left| left.state.clone())
    }

    /// Makes a layer findable for `debug`, and gives up older ones.
    fn keep(&self, store: &Store, left: &LeftByStep, graph: &Graph) -> Result<(), String> {
        let Some(layer) = left.state.layers().last() else { return Ok(()) };
        let vertex = graph.vertices().iter().find(|vertex| vertex.digest == left.vertex);
        let name = vertex.map_or("", |vertex| &vertex.meta.name);
        let description = format!("left by a failed step: {name}");
        let facts = LayerFacts { description, ..LayerFacts::default() };
        store.index.add_layers(&[(*layer, facts)]).map_err(|error| chain(&error))?;
        let given_up = self.builds.keep(&self.project, layer).map_err(|error| chain(&error))?;
        for layer in given_up {
            store.layers.remove(&layer).map_err(|error| chain(&error))?;
        }
        Ok(())
    }

    fn write_graph(&self, graph: &Graph, target: Edge) -> Result<(), rbuild_cache::BuildsError> {
        let digest = |graph: &Graph, target: Edge| graph.vertex(target.vertex).digest;
        let end = if has_secrets(graph) {
            let (stored, target, changed) = redacted(graph, target);
            self.known().stored = changed;
            let end = digest(&stored, target);
            self.builds.write_graph(&self.project, &end, || llb::to_bytes(&stored, target))?;
            end
        } else {
            let end = digest(graph, target);
            self.builds.write_graph(&self.project, &end, || llb::to_bytes(graph, target))?;
            end
        };
        self.known().graph = Some(end);
        Ok(())
    }

    /// Lists the files of folders that were used by steps which ran: with what was cached, they are known already.
    fn write_files(&self, graph: &Graph, worker: &Worker) -> Result<(), String> {
        for step in &self.notes.ran_on_folders() {
            let vertex = graph.vertices().iter().find(|vertex| vertex.digest == step.vertex);
            let Some(vertex) = vertex else { continue };
            let Some(map) = CacheMap::of(vertex) else { continue };
            for (input, digest) in &step.folders {
                let (Some(edge), Some(keying)) =
                    (vertex.inputs.get(*input), map.inputs.get(*input))
                else {
                    continue;
                };
                let Op::Source(folder) = &graph.vertex(edge.vertex).op else { continue };
                if self.builds.has_files(&self.project, digest) {
                    continue;
                }
                let files =
                    worker.files_of(folder, &keying.content).map_err(|error| chain(&error))?;
                self.builds
                    .write_files(&self.project, digest, &files)
                    .map_err(|error| chain(&error))?;
            }
        }
        Ok(())
    }

    /// Writes the record. Not worth failing for; what is wrong is returned, to be said.
    pub(crate) fn finish(self, done: Result<(), &CommandError>) -> Result<BuildRecord, String> {
        let mut steps = self.notes.take();
        let Known { graph, stored, folders, left } =
            self.known.into_inner().unwrap_or_else(PoisonError::into_inner);
        for step in &mut steps {
            step.stored_vertex = stored.get(&step.vertex).copied();
            if let Some(left) = left.iter().find(|left| left.vertex == step.vertex) {
                step.left = left.state.layers().to_vec();
                step.inputs = left.inputs.iter().map(input_state).collect();
            }
        }
        let state = match done {
            Ok(()) => BuildState::Done,
            Err(error) if error.is_interruption() => BuildState::Canceled,
            Err(_) => BuildState::Failed,
        };
        let record = BuildRecord {
            version: BuildRecord::VERSION,
            id: self.id,
            subject: self.subject,
            started: self.started.into(),
            ended: SystemTime::now().into(),
            state,
            error: done.err().map(CommandError::reason),
            graph,
            folders,
            resources: self.resources,
            steps,
        };
        match self.builds.write(&record) {
            Ok(()) => Ok(record),
            Err(error) => Err(format!("cannot remember this build: {}", chain(&error))),
        }
    }
}

fn input_state(output: &Output) -> InputState {
    match output {
        Output::Snapshot(snapshot) => InputState::Layers(snapshot.layers().to_vec()),
        Output::Local(source) => {
            InputState::Folder(source.local_name().unwrap_or_default().to_owned())
        }
    }
}

/// What a build is of, by its arguments.
pub(crate) fn subject(args: &BuildArgs) -> BuildSubject {
    let context = args.context.as_deref().unwrap_or("-");
    // Links are left alone, and looking them up saved, but for what only they can tell.
    let absolute = |path: &Path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        match path.components().any(|part| part == Component::ParentDir) {
            true => path.canonicalize().unwrap_or(path),
            false => path,
        }
    };
    let is_fetched = |text: &str| matches!(Address::of(text), Ok(Some(_)) | Err(_));
    let mut dockerfile = args.file.clone().unwrap_or_else(|| DOCKERFILE.to_owned());
    let context = if context == "-" || is_fetched(context) {
        redact_url(context)
    } else {
        let folder = absolute(Path::new(context));
        if dockerfile != "-" && !is_fetched(&dockerfile) {
            dockerfile = absolute(&dockerfile_path(args, &folder)).display().to_string();
        }
        folder.display().to_string()
    };
    if let Some(llb) = &args.llb {
        dockerfile = absolute(llb).display().to_string();
    }
    BuildSubject {
        context,
        dockerfile: redact_url(&dockerfile),
        target: args.target.clone(),
        platform: Some(args.platform.join(",")).filter(|platform| !platform.is_empty()),
    }
}
