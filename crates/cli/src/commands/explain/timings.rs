//! `rbuild explain --timings`: where the time of a build went.

use std::collections::HashMap;
use std::time::Duration;

use rbuild_cache::{StepRecord, StepState, Store};
use rbuild_oci::Digest;
use rbuild_solver::llb;
use serde_json::json;

use super::moment;
use crate::commands::builds::{Chosen, unreadable};
use crate::commands::images;
use crate::error::CommandError;
use crate::progress::format;

/// The table, or a JSON document a line.
pub(super) fn table(store: &Store, chosen: &Chosen, json: bool) -> Result<String, CommandError> {
    let record = &chosen.record;
    let waited_for = critical_path(store, chosen)?;
    let mut steps: Vec<&StepRecord> =
        record.steps.iter().filter(|step| step.number.is_some()).collect();
    steps.sort_by_key(|step| step.number);
    if json {
        let lines = steps.iter().map(|step| {
            let line = json!({
                "build": record.id,
                "number": step.number,
                "name": step.name,
                "state": step.state,
                "milliseconds": took(step).as_millis() as u64,
                "waited_for": waited_for.contains(&step.stored()),
            });
            line.to_string() + "\n"
        });
        return Ok(lines.collect());
    }
    let rows: Vec<[String; 5]> = steps
        .iter()
        .map(|step| {
            let state = match step.state {
                StepState::Waiting => "waiting",
                StepState::Cached => "cached",
                StepState::Done => "ran",
                StepState::Failed => "failed",
                StepState::Canceled => "canceled",
            };
            let path = if waited_for.contains(&step.stored()) { "*" } else { "" };
            [
                format!("#{}", step.number.unwrap_or_default()),
                format::seconds(took(step)),
                state.to_owned(),
                path.to_owned(),
                step.name.clone(),
            ]
        })
        .collect();
    let whole = Duration::from_millis(record.ended.0.saturating_sub(record.started.0));
    Ok(format!(
        "Build {} of {}\n{} at {}, {} in all; * is what it waited for\n\n{}",
        record.id,
        crate::printable::line(&record.subject.dockerfile),
        format!("{:?}", record.state).to_lowercase(),
        moment(record.ended),
        format::seconds(whole),
        images::table(["STEP", "TIME", "STATE", "PATH", "NAME"], &rows)
    ))
}

fn took(step: &StepRecord) -> Duration {
    match (step.started, step.ended) {
        (Some(started), Some(ended)) => Duration::from_millis(ended.0.saturating_sub(started.0)),
        _ => Duration::ZERO,
    }
}

/// The chain of vertices, each an input of the next, that took longest together.
fn critical_path(store: &Store, chosen: &Chosen) -> Result<Vec<Digest>, CommandError> {
    let Some(target) = chosen.record.graph else { return Ok(Vec::new()) };
    let Some(bytes) = store.builds.graph(&chosen.project, &target).map_err(unreadable)? else {
        return Ok(Vec::new());
    };
    let (graph, _) = llb::from_bytes(&bytes).map_err(unreadable)?;
    let times: HashMap<Digest, Duration> = chosen
        .record
        .steps
        .iter()
        .filter(|step| step.state != StepState::Cached)
        .map(|step| (step.stored(), took(step)))
        .collect();
    // Per vertex: how long the chain up to it took, and which input it goes through.
    let mut chains: Vec<(Duration, Option<usize>)> = Vec::with_capacity(graph.vertices().len());
    for vertex in graph.vertices() {
        let before = vertex.inputs.iter().map(|edge| edge.vertex.index());
        let longest = before.max_by_key(|index| chains[*index].0);
        let until = longest.map_or(Duration::ZERO, |index| chains[index].0);
        let own = times.get(&vertex.digest).copied().unwrap_or_default();
        chains.push((until + own, longest));
    }
    let mut path = Vec::new();
    let mut at = (0..chains.len()).max_by_key(|index| chains[*index].0);
    while let Some(index) = at.filter(|index| !chains[*index].0.is_zero()) {
        let digest = graph.vertices()[index].digest;
        if times.get(&digest).is_some_and(|time| !time.is_zero()) {
            path.push(digest);
        }
        at = chains[index].1;
    }
    Ok(path)
}
