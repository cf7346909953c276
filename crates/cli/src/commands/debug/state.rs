//! What there is of a step of an earlier build: its operation, what it worked on, and what became of its root.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rbuild_cache::{InputState, StepRecord, StepState};
use rbuild_solver::{CacheKey, CacheStore as _, Edge, Graph, Op, Output, Snapshot, Vertex, llb};

use super::of;
use crate::commands::builds::{Chosen, unreadable};
use crate::error::{CommandError, Kind};
use crate::wiring::Session;

/// A step's state.
pub(super) struct Found {
    pub(super) vertex: Vertex,
    /// By input of the vertex; `None` is one that there is nothing of any more.
    pub(super) inputs: Vec<Option<Output>>,
    /// The root after the step; `None` to begin with the root that the step began with.
    pub(super) root: Option<Snapshot>,
    pub(super) folders: BTreeMap<String, PathBuf>,
    /// What the user should know.
    pub(super) missing: Vec<String>,
}

/// Finds the state of a step: before it ran, or after.
pub(super) fn find(
    session: &Session,
    chosen: &Chosen,
    step: &StepRecord,
    before: bool,
) -> Result<Found, CommandError> {
    let (graph, _) = graph(session, chosen)?;
    let number = step.number.map_or_else(String::new, |number| format!("#{number} "));
    let shown = format!("step {number}{}", step.name);
    let vertex = graph.vertices().iter().find(|vertex| vertex.digest == step.stored());
    let Some(vertex) = vertex else {
        let message = format!("{shown} has no files: it is not a step of the Dockerfile");
        return Err(CommandError::usage(message));
    };
    if matches!(&vertex.op, Op::Source(source) if source.local_name().is_some()) {
        return Err(CommandError::usage(format!("{shown} is a folder of yours: look there")));
    }
    let mut missing = Vec::new();
    let mut inputs = Vec::new();
    for (position, edge) in vertex.inputs.iter().enumerate() {
        let recorded = step.inputs.get(position).and_then(of_record);
        let input = match recorded {
            Some(output) => Some(output),
            None => output(session, chosen, &graph, *edge)?,
        };
        inputs.push(match input {
            Some(Output::Local(source)) => {
                let name = source.local_name().unwrap_or_default();
                let folder = chosen.record.folders.get(name).filter(|folder| folder.is_dir());
                if folder.is_none() {
                    missing
                        .push(format!("the folder of the context {name:?} is not there any more"));
                }
                folder.is_some().then_some(Output::Local(source))
            }
            other => other,
        });
    }
    let gone = |what: &str| {
        CommandError::new(Kind::Environment, format!("{shown}: {what} ({})", of(chosen)))
            .hint("build again, and then debug")
    };
    let root = if before {
        let is_there = match root_input(vertex) {
            Some(input) => inputs.get(input).is_some_and(is_whole),
            None => true,
        };
        if !is_there {
            return Err(gone("what it began with is not in the store"));
        }
        // Other than a step, what changes files has no mount to say which input is its root.
        match &vertex.op {
            Op::Exec(_) => None,
            _ => root_input(vertex).and_then(|input| snapshot(inputs.get(input)?.as_ref()?)),
        }
    } else {
        Some(after(session, step, vertex, &gone)?)
    };
    for layers in root.iter().chain(inputs.iter().flatten().filter_map(as_snapshot)) {
        session.lease.pin_layers(layers.layers()).map_err(|error| {
            CommandError::caused(Kind::Environment, "cannot hold the files of the step", error)
        })?;
    }
    if let Some(root) = &root
        && step.state == StepState::Failed
        && let Some(own) = root.layers().last()
        && !session.store.layers.contains(own).is_ok_and(|is_there| is_there)
    {
        return Err(gone("what it has left was pruned, or given up for a later build"));
    }
    let folders = chosen.record.folders.clone();
    Ok(Found { vertex: vertex.clone(), inputs, root, folders, missing })
}

/// The root of a step after it ran.
fn after(
    session: &Session,
    step: &StepRecord,
    vertex: &Vertex,
    gone: &dyn Fn(&str) -> CommandError,
) -> Result<Snapshot, CommandError> {
    match step.state {
        StepState::Failed if !step.left.is_empty() => Ok(Snapshot::new(step.left.clone())),
        StepState::Failed => {
            Err(gone("it has left no files: it is no RUN, or its command could not be started")
                .hint("--before shows what it began with"))
        }
        StepState::Waiting | StepState::Canceled => {
            Err(gone("it was not done").hint("--before shows what it began with, if that is there"))
        }
        StepState::Cached | StepState::Done => {
            let found = match step.key {
                Some(key) => session.records().lookup(&CacheKey(key)).map_err(unreadable)?,
                None => None,
            };
            let output =
                found.and_then(|record| record.outputs.into_iter().nth(root_output(vertex)));
            output.as_ref().and_then(snapshot).ok_or_else(|| gone("its result was pruned"))
        }
    }
}

/// The graph of a build.
pub(crate) fn graph(session: &Session, chosen: &Chosen) -> Result<(Graph, Edge), CommandError> {
    let none = || {
        let message = format!("{} came to no steps", of(chosen));
        CommandError::new(Kind::Environment, message)
    };
    let target = chosen.record.graph.ok_or_else(none)?;
    let builds = &session.store.builds;
    let bytes = builds.graph(&chosen.project, &target).map_err(unreadable)?.ok_or_else(none)?;
    llb::from_bytes(&bytes).map_err(unreadable)
}

/// Of a folder the graph says more.
fn of_record(input: &InputState) -> Option<Output> {
    match input {
        InputState::Layers(layers) => Some(Output::Snapshot(Snapshot::new(layers.clone()))),
        InputState::Folder(_) => None,
    }
}

/// What an input was, by the cache.
fn output(
    session: &Session,
    chosen: &Chosen,
    graph: &Graph,
    edge: Edge,
) -> Result<Option<Output>, CommandError> {
    let vertex = graph.vertex(edge.vertex);
    if let Op::Source(source) = &vertex.op
        && source.local_name().is_some()
    {
        return Ok(Some(Output::Local(std::sync::Arc::new(source.clone()))));
    }
    let step = chosen.record.steps.iter().find(|step| step.stored() == vertex.digest);
    let Some(key) = step.and_then(|step| step.key) else { return Ok(None) };
    let record = session.records().lookup(&CacheKey(key)).map_err(unreadable)?;
    Ok(record.and_then(|record| record.outputs.into_iter().nth(edge.output as usize)))
}

fn snapshot(output: &Output) -> Option<Snapshot> {
    as_snapshot(output).cloned()
}

fn as_snapshot(output: &Output) -> Option<&Snapshot> {
    match output {
        Output::Snapshot(snapshot) => Some(snapshot),
        Output::Local(_) => None,
    }
}

fn is_whole(input: &Option<Output>) -> bool {
    input.is_some()
}

/// The input that a vertex changes.
fn root_input(vertex: &Vertex) -> Option<usize> {
    let input = match &vertex.op {
        Op::Exec(exec) => exec.mounts.iter().find(|mount| mount.dest == "/")?.input,
        Op::File(file) => file.actions.first()?.input,
        Op::Merge(_) | Op::Diff(_) | Op::Source(_) => None,
    };
    input.map(|input| input as usize)
}

/// The output that is what a vertex changed.
fn root_output(vertex: &Vertex) -> usize {
    match &vertex.op {
        Op::Exec(exec) => {
            let root = exec.mounts.iter().find(|mount| mount.dest == "/");
            root.and_then(|root| root.output).unwrap_or_default() as usize
        }
        _ => 0,
    }
}
