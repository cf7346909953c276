//! Looking into the state of a step: a program of the user's choice in place of the step's own.
//!
//! The step's mounts, environment, user, working directory, network and limits are what they were; what is written
//! goes to a layer on top that is thrown away.

use rbuild_solver::{
    ExecMeta, ExecOp, ExecuteCall, Mount, MountKind, NetworkMode, Op, Output, Presence, Progress,
    SecurityMode, Snapshot, Vertex, VertexId, VertexMeta,
};

use std::os::fd::OwnedFd;

use crate::cgroup::OomKills;
use crate::exec::ExecError;
use crate::operation_error::OperationError;
use crate::sandbox::Terminal;
use crate::secrets::Provided;
use crate::worker::Worker;

/// What a program reads and writes.
#[derive(Debug)]
pub enum Streams {
    /// The output goes to the events; the input is this pipe or socket, or else /dev/null.
    Piped {
        /// The step may do with it whatever it likes.
        stdin: Option<OwnedFd>,
    },
    /// All of them are a terminal.
    Terminal(Terminal),
}

/// A step to look into.
#[derive(Clone, Debug)]
pub struct Inspection {
    vertex: Vertex,
    op: ExecOp,
    inputs: Vec<Output>,
}

impl Inspection {
    /// A step, its inputs (`None` is one that there is nothing of any more), and the state of its root in place of the one
    /// that it began with. A vertex that runs nothing is looked into as root, with the usual `PATH`.
    ///
    /// Also says which of the step's mounts and variables will not be there.
    pub fn new(
        vertex: &Vertex,
        inputs: Vec<Option<Output>>,
        root: Option<Snapshot>,
        provided: &Provided,
    ) -> (Self, Vec<String>) {
        let mut op = match &vertex.op {
            Op::Exec(op) => (**op).clone(),
            _ => plain(),
        };
        let mut absent = Vec::new();
        op.mounts.retain_mut(|mount| {
            mount.output = None;
            let is_root = mount.dest == "/";
            let (what, is_there) = match &mount.kind {
                MountKind::Secret { id, .. } => (
                    format!("secret {id:?} (give it with --secret)"),
                    provided.secrets.get(id).is_some(),
                ),
                MountKind::Ssh { id, .. } => (
                    format!("SSH agent {id:?} (give it with --ssh)"),
                    provided.agents.contains_key(id),
                ),
                MountKind::Bind | MountKind::Cache { .. } | MountKind::Tmpfs { .. } => {
                    let input = mount.input.and_then(|input| inputs.get(input as usize));
                    let is_there = is_root || input.is_none_or(Option::is_some);
                    ("what is mounted there (its files are gone)".to_owned(), is_there)
                }
            };
            if !is_there {
                absent.push(format!("{} is not there: no {what}", mount.dest));
            }
            is_there
        });
        op.secret_env.retain(|secret| {
            let is_there = provided.secrets.get(&secret.id).is_some();
            if !is_there {
                let (name, id) = (&secret.name, &secret.id);
                absent
                    .push(format!("${name} is not set: no secret {id:?} (give it with --secret)"));
            }
            is_there
        });
        // What is gone is not mounted.
        let empty = || Output::Snapshot(Snapshot::default());
        let mut inputs: Vec<Output> =
            inputs.into_iter().map(|input| input.unwrap_or_else(empty)).collect();
        if let Some(root) = root {
            let input = inputs.len() as u32;
            inputs.push(Output::Snapshot(root));
            for mount in op.mounts.iter_mut().filter(|mount| mount.dest == "/") {
                (mount.input, mount.selector) = (Some(input), String::new());
            }
        }
        let meta = VertexMeta { ignore_cache: false, ..vertex.meta.clone() };
        let vertex = Vertex { meta, ..vertex.clone() };
        (Self { vertex, op, inputs }, absent)
    }

    /// The shell that the step's own command is for, if it is for one.
    pub fn shell(&self) -> Option<&str> {
        match self.op.meta.args.as_slice() {
            [shell, .., flag, _] if flag == "-c" => Some(shell),
            _ => None,
        }
    }
}

/// What runs where there is no step.
fn plain() -> ExecOp {
    ExecOp {
        meta: ExecMeta::default(),
        mounts: vec![Mount::root()],
        network: NetworkMode::Default,
        security: SecurityMode::Sandbox,
        secret_env: Vec::new(),
    }
}

impl Worker {
    /// Runs a program in the state of a step; events go to `progress`. Returns its exit code.
    ///
    /// # Errors
    ///
    /// When it could not be started. That there is no such program is [`OperationError::is_missing_program`].
    pub async fn inspect(
        &self,
        inspection: &Inspection,
        args: Vec<String>,
        streams: Streams,
        progress: &Progress,
    ) -> Result<i32, OperationError> {
        let mut op = inspection.op.clone();
        op.meta.args = args;
        let vertex = Vertex { op: Op::Exec(Box::new(op.clone())), ..inspection.vertex.clone() };
        let call = ExecuteCall {
            id: VertexId::default(),
            vertex: &vertex,
            inputs: &inspection.inputs,
            layer_seed: vertex.digest,
            need: Presence::Files,
            progress,
        };
        let ground = self.ground(&op, &call).await?;
        let in_place = op.security == SecurityMode::Sandbox;
        let mut step = self.open(&op, &ground, in_place).await?;
        match streams {
            Streams::Piped { stdin } => stdin.into_iter().for_each(|stdin| step.feed(stdin)),
            Streams::Terminal(terminal) => step.attach(terminal),
        }
        match step.run(&self.sandbox, vertex.digest, progress, OomKills::now()).await {
            Ok(()) => Ok(0),
            Err(ExecError::Exit { code, .. }) => Ok(code),
            Err(error) => Err(error.into()),
        }
    }
}
