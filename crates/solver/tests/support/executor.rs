use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rbuild_oci::{Digest, Hasher};
use rbuild_solver::{
    ExecuteCall, Executed, Executor, FileActionKind, LastLayer, LayerId, Mount, Op, Output,
    Presence, Selector, Snapshot, Vertex,
};
use tokio::sync::Barrier;

/// The model of a file system: what is in the two files `/a` and `/b`.
pub(crate) type Files = [Digest; 2];

/// Two files that have something to do with `text`.
fn files_of(text: &str) -> Files {
    ["a", "b"].map(|file| Digest::of(format!("{text}/{file}").as_bytes()))
}

fn mix(domain: &str, parts: &[Digest]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(domain.as_bytes());
    parts.iter().for_each(|part| hasher.update(part.as_bytes()));
    hasher.finish()
}

/// What is special about a vertex.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    Fail,
    Hang,
    Meet(Arc<Barrier>),
    YieldNothing,
    /// Makes nothing where that will do.
    Defer,
}

/// An executor over [`Files`] that notes what it is asked.
#[derive(Debug, Default)]
pub(crate) struct Lab {
    /// What sources and folders have, by identifier.
    pub(crate) outside: Mutex<HashMap<String, Files>>,
    /// By name of the vertex.
    pub(crate) behaviours: HashMap<String, Behaviour>,
    layers: Mutex<HashMap<LayerId, Files>>,
    calls: Mutex<Vec<String>>,
    running: Mutex<(usize, usize)>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LabError {
    #[error("exit code 1")]
    Failed,
    #[error("`{0}` is not there")]
    NotFound(String),
}

/// Counts what runs, also when it is cancelled.
struct Busy<'a>(&'a Lab);

impl<'a> Busy<'a> {
    fn new(lab: &'a Lab) -> Self {
        let mut running = lab.running.lock().unwrap();
        running.0 += 1;
        running.1 = running.1.max(running.0);
        Self(lab)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.running.lock().unwrap().0 -= 1;
    }
}

impl Lab {
    pub(crate) fn new(outside: &[&str]) -> Self {
        let lab = Self::default();
        outside.iter().for_each(|identifier| lab.set(identifier, identifier));
        lab
    }

    /// Changes what a source has.
    pub(crate) fn set(&self, identifier: &str, text: &str) {
        self.outside.lock().unwrap().insert(identifier.to_owned(), files_of(text));
    }

    /// The calls since the last time, in order.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    /// Whether a call was made since the calls were taken.
    pub(crate) fn calls_contain(&self, call: &str) -> bool {
        self.calls.lock().unwrap().iter().any(|other| other == call)
    }

    /// The names of what was executed since the last time, sorted.
    pub(crate) fn take_executed(&self) -> Vec<String> {
        let calls = self.take_calls();
        let names = calls.iter().filter_map(|call| call.strip_prefix("execute "));
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.sort();
        names
    }

    /// How many run now.
    pub(crate) fn running(&self) -> usize {
        self.running.lock().unwrap().0
    }

    /// How many ran at one time at most.
    pub(crate) fn most_running(&self) -> usize {
        self.running.lock().unwrap().1
    }

    fn note(&self, call: &str, vertex: &Vertex) {
        self.calls.lock().unwrap().push(format!("{call} {}", vertex.meta.name));
    }

    /// What an output has.
    pub(crate) fn files(&self, output: &Output) -> Files {
        match output {
            Output::Local(source) => self.outside.lock().unwrap()[&source.identifier],
            Output::Snapshot(snapshot) => match snapshot.layers() {
                [] => files_of("empty"),
                layers => self.layers.lock().unwrap()[layers.last().unwrap()],
            },
        }
    }

    /// What operations do, on files. Which parts of the inputs come into which outputs is what keys rest on.
    pub(crate) fn compute(&self, vertex: &Vertex, inputs: &[Files]) -> Vec<Files> {
        let input = |number: Option<u32>| match number {
            Some(number) => inputs[number as usize],
            None => files_of("empty"),
        };
        match &vertex.op {
            Op::Source(source) => vec![self.outside.lock().unwrap()[&source.identifier]],
            Op::Exec(exec) => {
                let domain = exec.meta.args.join(" ");
                let seen: Vec<_> = exec
                    .mounts
                    .iter()
                    .flat_map(|mount| select(input(mount.input), &mount.selector))
                    .collect();
                let write = |mount: &Mount| {
                    let old = input(mount.input);
                    let new = |file: &str| mix(&format!("{domain} {}{file}", mount.dest), &seen);
                    match exec.meta.args[0].as_str() {
                        "constant" => files_of(&domain),
                        // Only one file tells what was seen.
                        "half" => [new("a"), files_of(&domain)[1]],
                        _ if mount.selector == "/a" => [new("a"), old[1]],
                        _ if mount.selector == "/b" => [old[0], new("b")],
                        _ => [new("a"), new("b")],
                    }
                };
                exec.mounts.iter().filter(|mount| mount.output.is_some()).map(write).collect()
            }
            Op::File(file) => {
                let [action] = file.actions.as_slice() else { panic!("one action") };
                let FileActionKind::Copy(copy) = &action.kind else { panic!("a copy") };
                let (old, from) = (input(action.input), input(action.secondary_input));
                let mut files = old;
                match copy.src.as_str() {
                    "/a" => files[0] = from[0],
                    "/b" => files[1] = from[1],
                    _ => files = from,
                }
                vec![files]
            }
            Op::Merge(merge) => {
                let parts: Vec<_> = merge.inputs.iter().flat_map(|number| input(*number)).collect();
                vec![["a", "b"].map(|file| mix(&format!("merge {file}"), &parts))]
            }
            Op::Diff(diff) => {
                let parts = [input(diff.lower), input(diff.upper)].concat();
                vec![["a", "b"].map(|file| mix(&format!("diff {file}"), &parts))]
            }
        }
    }
}

fn select(files: Files, path: &str) -> Vec<Digest> {
    match path {
        "/a" => vec![files[0]],
        "/b" => vec![files[1]],
        _ => files.to_vec(),
    }
}

impl Executor for Lab {
    type Error = LabError;

    async fn source_key(&self, vertex: &Vertex) -> Result<Digest, LabError> {
        self.note("source_key", vertex);
        let Op::Source(source) = &vertex.op else { panic!("{vertex:?} is no source") };
        assert_eq!(source.local_name(), None, "folders have no key");
        let outside = self.outside.lock().unwrap();
        let files = outside.get(&source.identifier);
        let files = files.ok_or_else(|| LabError::NotFound(source.identifier.clone()))?;
        Ok(mix("image", files))
    }

    async fn content_digest(
        &self,
        output: &Output,
        selector: &Selector,
        consumer: &Vertex,
    ) -> Result<Digest, LabError> {
        self.note("content", consumer);
        tokio::task::yield_now().await;
        match selector.path.as_str() {
            path @ ("/" | "/a" | "/b") => Ok(mix("content", &select(self.files(output), path))),
            path => Err(LabError::NotFound(path.to_owned())),
        }
    }

    async fn execute(&self, call: ExecuteCall<'_>) -> Result<Executed, LabError> {
        let vertex = call.vertex;
        self.note("execute", vertex);
        let _busy = Busy::new(self);
        tokio::task::yield_now().await;
        match self.behaviours.get(&vertex.meta.name) {
            Some(Behaviour::Fail) => return Err(LabError::Failed),
            Some(Behaviour::Hang) => std::future::pending().await,
            Some(Behaviour::Meet(barrier)) => {
                barrier.wait().await;
            }
            Some(Behaviour::YieldNothing) => return Ok(Executed::now(Vec::new())),
            Some(Behaviour::Defer) | None => {}
        }
        let inputs: Vec<_> = call.inputs.iter().map(|input| self.files(input)).collect();
        let outputs =
            self.compute(vertex, &inputs).into_iter().enumerate().map(|(number, files)| {
                let layer = match &vertex.op {
                    // The same image has the same layers, however often it is looked at.
                    Op::Source(_) => LayerId::derived("image", &[mix("image", &files).as_bytes()]),
                    _ => LayerId::derived("step", &[call.layer_seed.as_bytes(), &[number as u8]]),
                };
                let other = self.layers.lock().unwrap().insert(layer, files);
                assert!(other.is_none_or(|other| other == files), "a layer is made once");
                Output::Snapshot(Snapshot::new(vec![layer]))
            });
        let defers = matches!(self.behaviours.get(&vertex.meta.name), Some(Behaviour::Defer));
        let last = match defers && call.need < Presence::Files {
            true => LastLayer::Nothing,
            false => LastLayer::Files,
        };
        Ok(Executed { outputs: outputs.collect(), last })
    }
}
