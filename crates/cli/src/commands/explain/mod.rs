//! `rbuild explain`: why a step ran and did not come from the cache.

mod cause;
mod changes;
mod history;
mod timings;

use std::collections::HashSet;

use rbuild_cache::{BuildRecord, BuildState, StepRecord, StepState, Store};
use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;

use self::cause::{Cause, Explanation};
use self::history::History;
use super::builds::{self, Chosen};
use super::images::print;
use crate::args::ExplainArgs;
use crate::error::CommandError;
use crate::printable;

/// Files that are listed of those that changed.
const FILES: usize = 8;

/// `rbuild explain [STEP]`.
pub(crate) fn explain(store: &Store, args: &ExplainArgs) -> Result<(), CommandError> {
    let chosen = builds::choose(store, args.build.as_deref())?;
    if args.timings {
        return print(timings::table(store, &chosen, args.json)?.as_bytes());
    }
    let steps: Vec<&StepRecord> = match &args.step {
        Some(text) => vec![builds::find_step(&chosen.record, text)?],
        None if args.all => {
            let mut steps: Vec<_> =
                chosen.record.steps.iter().filter(|s| s.key.is_some()).collect();
            steps.sort_by_key(|step| step.number);
            steps
        }
        None => first_missed(&chosen.record),
    };
    let history = History::load(store, &chosen)?;
    let mut text = String::new();
    for step in &steps {
        let explanation = cause::explain(&history, step);
        if args.json {
            text.push_str(&json_line(&chosen, &explanation));
        } else {
            text.push_str(&shown(&explanation));
        }
    }
    if steps.is_empty() && !args.json {
        let subject = printable::line(&chosen.record.subject.dockerfile).into_owned();
        let id = &chosen.record.id;
        text = match chosen.record.state {
            BuildState::Done => {
                format!("Every step of build {id} ({subject}) came from the cache.\n")
            }
            BuildState::Failed | BuildState::Canceled => {
                format!("Build {id} ({subject}) ended before a step ran.\n")
            }
        };
    }
    print(text.as_bytes())
}

/// What `rbuild build --explain` says at the end.
pub(crate) fn of_build(store: &Store, record: &BuildRecord) -> Result<String, CommandError> {
    let chosen = Chosen { project: record.subject.project(), record: record.clone() };
    let steps = first_missed(&chosen.record);
    if steps.is_empty() {
        return Ok("Every step came from the cache.\n".to_owned());
    }
    let history = History::load(store, &chosen)?;
    Ok(steps.iter().map(|step| shown(&cause::explain(&history, step))).collect())
}

/// The first step of each stage that ran, in the order of their numbers.
fn first_missed(record: &BuildRecord) -> Vec<&StepRecord> {
    let ran = |step: &&StepRecord| {
        step.key.is_some()
            && match step.state {
                StepState::Done | StepState::Failed => true,
                StepState::Canceled => step.started.is_some(),
                StepState::Cached | StepState::Waiting => false,
            }
    };
    let mut steps: Vec<_> = record.steps.iter().filter(ran).collect();
    steps.sort_by_key(|step| step.number);
    let mut seen = HashSet::new();
    let places = |step: &StepRecord| history::Place::of(&step.name).map(|place| place.stage);
    // A base image is fetched because a step needs it: that step says more.
    steps.retain(|step| !step.name.contains("] FROM ") && seen.insert(places(step)));
    steps
}

/// The lines about one step.
fn shown(explanation: &Explanation) -> String {
    let number = explanation.number.map_or_else(String::new, |number| format!("#{number} "));
    let mut text = format!("{number}{}\n", printable::line(&explanation.name));
    lines(&explanation.cause, &mut text);
    if let Some(with) = &explanation.compared_with {
        text.extend(["    (compared with build ", with.as_str(), ")\n"]);
    }
    text
}

fn lines(cause: &Cause, text: &mut String) {
    let mut line = |words: &str| text.extend(["    ", &*printable::line(words), "\n"]);
    match cause {
        Cause::Cached => line("came from the cache"),
        Cause::Waiting => line("was not begun"),
        Cause::NoStep => line("is no step that could come from the cache"),
        Cause::NoCache => line("ran: --no-cache, or --no-cache-filter for its stage"),
        Cause::NeverBuilt => line("ran: it was never built before"),
        Cause::Pruned { build } => {
            line(&format!("ran: build {build} has had the same, but its result is gone (pruned)"));
        }
        Cause::NotKept { build } => {
            line(&format!(
                "ran: build {build} has had the same, but not kept its files: nothing needed them, or they were pruned"
            ));
        }
        Cause::FailedBefore { build } => {
            line(&format!("ran: it failed in build {build}, and what failed is not cached"));
        }
        Cause::Changed { changes } => {
            for (index, change) in changes.iter().enumerate() {
                let start = if index == 0 { "ran: " } else { "     " };
                line(&format!("{start}{change}"));
            }
        }
        Cause::Files { folder, files, known } => {
            line(&format!("ran: files of the context {folder:?} changed"));
            for file in files.iter().take(FILES) {
                line(&format!("  {file}"));
            }
            if files.len() > FILES {
                line(&format!("  and {} more", files.len() - FILES));
            }
            if !known {
                line("  (which ones is not known any more)");
            }
        }
        Cause::Parent { number, name, cause } => {
            let number = number.map_or_else(String::new, |number| format!("#{number} "));
            line(&format!("ran: what it builds on changed: {number}{name}"));
            let mut inner = String::new();
            lines(cause, &mut inner);
            text.extend(inner.lines().flat_map(|line| ["  ", line, "\n"]));
        }
        Cause::Unknown => line("ran: its key is another one, for a reason that is not recorded"),
    }
}

fn json_line(chosen: &Chosen, explanation: &Explanation) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        build: &'a str,
        #[serde(flatten)]
        explanation: &'a Explanation,
    }
    let line = Line { build: chosen.record.id.as_str(), explanation };
    json!(line).to_string() + "\n"
}

/// A time as people read it, in UTC.
pub(super) fn moment(time: rbuild_cache::Millis) -> String {
    let time = OffsetDateTime::from(std::time::SystemTime::from(time));
    let (date, hour, minute, second) = (time.date(), time.hour(), time.minute(), time.second());
    format!("{date} {hour:02}:{minute:02}:{second:02} UTC")
}
