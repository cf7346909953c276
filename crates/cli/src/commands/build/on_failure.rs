//! `--on-failure`: what a failed step has left goes where the user wants it, such as the report of failed tests.

use std::sync::Arc;

use rbuild_exporter::BuildResult;
use rbuild_oci::{Digest, ImageConfig, Platform};
use rbuild_solver::{Op, Progress, Snapshot, Vertex};
use rbuild_worker::Worker;

use super::annotations;
use super::plan::{self, PlannedOutput};
use super::platforms::Results;
use super::result;
use crate::args::BuildArgs;
use crate::error::{CommandError, Kind};
use crate::wiring::Session;

/// All of `--on-failure`, checked before the build begins.
#[derive(Clone, Debug)]
pub(crate) struct OnFailurePlan(Vec<(PlannedOutput, Option<String>)>);

impl OnFailurePlan {
    /// Finds out where files would go, or what is wrong with that.
    pub(crate) fn new(args: &BuildArgs) -> Result<Self, CommandError> {
        let mut outputs = Vec::new();
        for on_failure in &args.on_failure {
            // Names are for the build that succeeds.
            let output = on_failure.output.clone().with_compression(args.compression);
            let planned = plan::planned(&output, &[])?;
            if let Some(planned) = &planned {
                annotations::check_types(planned)?;
                let mut noted = annotations::of(planned).iter();
                // What a step has left is for one platform.
                noted.try_for_each(|annotation| annotations::check_index(annotation, false))?;
            }
            outputs.extend(planned.map(|planned| (planned, on_failure.src.clone())));
        }
        if let Some(twice) = plan::written_twice(outputs.iter().map(|(output, _)| output)) {
            let message = format!("two of --on-failure go to {twice}: one would be lost");
            return Err(CommandError::usage(message));
        }
        Ok(Self(outputs))
    }

    /// All of them.
    pub(super) fn outputs(&self) -> impl Iterator<Item = &PlannedOutput> {
        self.0.iter().map(|(output, _)| output)
    }

    /// Writes what `vertex`, which failed, has left; returns what went wrong with that.
    pub(crate) async fn export(
        self,
        session: &Arc<Session>,
        worker: &Worker,
        vertex: &Vertex,
        left: Option<&Snapshot>,
        progress: &Progress,
    ) -> Vec<CommandError> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let Some(left) = left else {
            let name = &vertex.meta.name;
            progress.warn(match vertex.op {
                Op::Exec(_) => {
                    format!("--on-failure: `{name}` did not run, so there are no files to export")
                }
                _ => {
                    format!("--on-failure: `{name}` runs nothing, so there are no files to export")
                }
            });
            return Vec::new();
        };
        let mut errors = Vec::new();
        for (output, src) in self.0 {
            let exported = Self::one(session, worker, vertex, left, (output, src), progress).await;
            errors.extend(exported.err().map(|error| {
                let reason = error.reason();
                CommandError::new(Kind::Environment, format!("--on-failure: {reason}"))
            }));
        }
        errors
    }

    async fn one(
        session: &Arc<Session>,
        worker: &Worker,
        vertex: &Vertex,
        left: &Snapshot,
        (output, src): (PlannedOutput, Option<String>),
        progress: &Progress,
    ) -> Result<(), CommandError> {
        let part = match &src {
            None => None,
            Some(path) => {
                let seed = Digest::of(format!("{left:?} {path}").as_bytes());
                let part = worker.part_of(left, path, &seed).await.map_err(|error| {
                    let message = format!("cannot take {path:?} out of what the step has left");
                    CommandError::caused(Kind::Environment, message, error)
                })?;
                Some(part)
            }
        };
        let snapshot = part.as_ref().unwrap_or(left).clone();
        let result = BuildResult {
            snapshot,
            config: config(vertex),
            base_history: 0,
            epoch: None,
            inline_cache: None,
        };
        let exported =
            result::write(session, output, &Results::single(result), "what failed", progress).await;
        // Nobody needs the copy any more; when that fails, it is collected.
        for layer in part.iter().flat_map(Snapshot::layers) {
            let _ = session.store.layers.remove(layer);
        }
        exported.map(drop)
    }
}

/// How a container of what a step has left runs: as the step did.
fn config(vertex: &Vertex) -> ImageConfig {
    let platform = vertex.platform.clone().unwrap_or_else(Platform::host);
    let mut config = ImageConfig {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        ..ImageConfig::default()
    };
    if let Op::Exec(exec) = &vertex.op {
        config.config.env.clone_from(&exec.meta.env);
        config.config.working_dir.clone_from(&exec.meta.cwd);
        config.config.user.clone_from(&exec.meta.user);
    }
    config
}
