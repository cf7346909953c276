//! Choosing among the builds that a store remembers, and among their steps.

use rbuild_cache::{BuildId, BuildRecord, StepRecord, Store};

use crate::error::{CommandError, Kind};
use crate::printable;
use crate::progress::format;

/// A build that was chosen.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) project: String,
    pub(crate) record: BuildRecord,
}

/// Something of the history cannot be read.
pub(crate) fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> CommandError {
    CommandError::caused(Kind::Environment, "cannot read what is remembered of builds", error)
}

/// The build of this name, or of which this is the beginning; or the last one.
pub(crate) fn choose(store: &Store, id: Option<&str>) -> Result<Chosen, CommandError> {
    let all = store.builds.all().map_err(unreadable)?;
    let wanted =
        |(_, found): &&(String, BuildId)| id.is_none_or(|id| found.as_str().starts_with(id));
    for (project, id) in all.iter().filter(wanted) {
        if let Some(record) = store.builds.read(project, id).map_err(unreadable)? {
            return Ok(Chosen { project: project.clone(), record });
        }
    }
    Err(match id {
        None => CommandError::usage("no build is remembered: nothing was built yet in this store"),
        Some(id) => {
            let known: Vec<_> = all.iter().take(8).map(|(_, id)| id.as_str()).collect();
            CommandError::usage(format!("no build `{id}` is remembered"))
                .hint(format!("the latest ones: {}", known.join(", ")))
        }
    })
}

/// The step that made a build fail.
pub(crate) fn failed_step(record: &BuildRecord) -> Result<&StepRecord, CommandError> {
    record.failed().ok_or_else(|| {
        CommandError::usage(format!("no step of the last build ({}) failed: name one", record.id))
            .preface(list(record.steps.iter()))
    })
}

/// The step of a number (`7` or `#7`), or the one whose name is this or has this in it.
pub(crate) fn find_step<'a>(
    record: &'a BuildRecord,
    text: &str,
) -> Result<&'a StepRecord, CommandError> {
    if let Ok(number) = text.trim_start_matches('#').parse::<u32>() {
        return record.numbered(number).ok_or_else(|| none(record, text));
    }
    if let Some(step) = record.steps.iter().find(|step| step.name == text) {
        return Ok(step);
    }
    let text_lower = text.to_lowercase();
    let has = |step: &&StepRecord| step.name.to_lowercase().contains(&text_lower);
    let found: Vec<&StepRecord> = record.steps.iter().filter(has).collect();
    match found.as_slice() {
        [] => Err(none(record, text)),
        [step] => Ok(step),
        several => Err(CommandError::usage(format!("several steps match `{text}`: give a number"))
            .preface(list(several.iter().copied()))),
    }
}

fn none(record: &BuildRecord, text: &str) -> CommandError {
    CommandError::usage(format!("the build {} has no step `{text}`", record.id))
        .preface(list(record.steps.iter()))
}

/// The steps that can be named, a line each.
pub(crate) fn list<'a>(steps: impl Iterator<Item = &'a StepRecord>) -> String {
    let shown = steps.filter(|step| step.number.is_some() && !format::is_internal(&step.name));
    let mut steps: Vec<_> = shown.collect();
    steps.sort_by_key(|step| step.number);
    steps
        .iter()
        .map(|step| {
            let number = step.number.unwrap_or_default();
            let state = format!("{:?}", step.state).to_lowercase();
            format!("#{number:<3} {state:<8} {}\n", printable::line(&step.name))
        })
        .collect()
}
