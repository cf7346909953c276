//! `rbuild logs`: what steps have printed.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::SystemTime;

use rbuild_cache::{DiskError, KeptBuild, KeptStep, Logs, Printed, PrintedBy, Store};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::images::{print, table};
use crate::args::LogsArgs;
use crate::error::{CommandError, Kind};
use crate::printable;
use crate::progress::format;

/// Steps that are listed when several match.
const MOST_LISTED: usize = 20;

/// `rbuild logs`.
pub(crate) fn logs(store: &Store, args: &LogsArgs) -> Result<(), CommandError> {
    let logs = store.logs();
    if args.builds {
        return list_builds(&logs, args.json);
    }
    let build = find_build(&logs, &args.build)?;
    match &args.step {
        None => list_steps(&build, args.json),
        Some(wanted) => {
            let step = find_step(&build, wanted)?;
            print_step(&logs, &build, step, args.stream.as_deref())
        }
    }
}

fn unreadable(error: DiskError) -> CommandError {
    CommandError::caused(Kind::Environment, "cannot read the logs", error)
}

fn find_build(logs: &Logs, wanted: &str) -> Result<KeptBuild, CommandError> {
    let ids = logs.ids().map_err(unreadable)?;
    let none = |message: String| {
        CommandError::new(Kind::Environment, message)
            .hint("rbuild logs --builds lists those that are kept")
    };
    let id = if wanted == "last" {
        ids.last().ok_or_else(|| none("there is no log of any build".to_owned()))?
    } else {
        let mut found = ids.iter().filter(|id| id.starts_with(wanted));
        match (found.next(), found.next()) {
            (Some(id), None) => id,
            (None, _) => return Err(none(format!("there is no log of a build `{wanted}`"))),
            (Some(_), Some(_)) => {
                return Err(none(format!("`{wanted}` is the beginning of several builds' ids")));
            }
        }
    };
    let build = logs.build(id).map_err(unreadable)?;
    build.ok_or_else(|| none(format!("the log of the build `{id}` was just removed")))
}

/// The step that is meant: by number, by digest, by the whole of its name, or by a part of it.
fn find_step<'a>(build: &'a KeptBuild, wanted: &str) -> Result<&'a KeptStep, CommandError> {
    let number = wanted.strip_prefix('#').unwrap_or(wanted).parse::<u32>().ok();
    if let Some(number) = number
        && let Some(step) = build.steps.iter().find(|step| step.number == Some(number))
    {
        return Ok(step);
    }
    let digest = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let is_digest = digest.len() >= 6 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    let has_digest = |step: &&KeptStep| {
        let vertex = step.vertex.to_string();
        is_digest && vertex.strip_prefix("sha256:").is_some_and(|hex| hex.starts_with(digest))
    };
    let has_name = |step: &&KeptStep| step.name == wanted;
    let has_part = |step: &&KeptStep| step.name.contains(wanted);
    let kinds: [&dyn Fn(&&KeptStep) -> bool; 3] = [&has_digest, &has_name, &has_part];
    // A number that is not of a step is no part of a name either, but a long one may be the beginning of a digest.
    let kinds = if number.is_some() { &kinds[..1] } else { &kinds[..] };
    for is_meant in kinds {
        let found: Vec<&KeptStep> = build.steps.iter().filter(is_meant).collect();
        match found.as_slice() {
            [] => {}
            [step] => return Ok(step),
            several => {
                let names = several.iter().take(MOST_LISTED).map(|step| {
                    format!("\n  {} {}", shown_number(step), printable::line(&step.name))
                });
                let names: String = names.collect();
                let message = format!("`{wanted}` is in the names of several steps:{names}");
                return Err(CommandError::new(Kind::Usage, message));
            }
        }
    }
    let message = format!("the build `{}` has no step `{wanted}`", build.id);
    Err(CommandError::new(Kind::Environment, message).hint("rbuild logs lists the steps"))
}

fn shown_number(step: &KeptStep) -> String {
    step.number.map_or_else(|| "-".to_owned(), |number| format!("#{number}"))
}

fn print_step(
    logs: &Logs,
    build: &KeptBuild,
    step: &KeptStep,
    stream: Option<&str>,
) -> Result<(), CommandError> {
    let found;
    let (build, step) = if step.cached && step.bytes == 0 {
        // It did not run: what is asked for is what it printed when it did.
        found = logs.maker_of(step).map_err(unreadable)?.ok_or_else(|| {
            let message = format!(
                "`{}` was cached, and the log of the run that made it is not kept",
                step.name
            );
            CommandError::new(Kind::Environment, message)
                .hint("rbuild build --no-cache runs it again")
        })?;
        (&found.0, &found.1)
    } else {
        (build, step)
    };
    let Some(mut output) = build.output(step).map_err(unreadable)? else { return Ok(()) };
    let is_wanted = |by: PrintedBy| match stream {
        Some("stdout") => by == PrintedBy::Stdout,
        Some("stderr") => by == PrintedBy::Stderr,
        _ => true,
    };
    let mut out = io::stdout().lock();
    let mut screen = out.is_terminal().then(Lines::default);
    while let Some(Printed { by, bytes, .. }) = output.next_piece().map_err(unreadable)? {
        if !is_wanted(by) {
            continue;
        }
        let written = match &mut screen {
            None => out.write_all(&bytes),
            Some(lines) => lines.write(&bytes, &mut out),
        };
        match written {
            // Who reads has enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(cannot_print)?,
        }
    }
    screen.map_or(Ok(()), |lines| lines.finish(&mut out)).map_err(cannot_print)
}

fn cannot_print(error: io::Error) -> CommandError {
    CommandError::caused(Kind::Environment, "cannot print", error)
}

/// Output on its way to a terminal, which it must not command.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    fn write(&mut self, bytes: &[u8], out: &mut impl io::Write) -> io::Result<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.flush(out)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self, out: &mut impl io::Write) -> io::Result<()> {
        let line = String::from_utf8_lossy(&self.partial);
        writeln!(out, "{}", printable::output(line.trim_end_matches('\n')))?;
        self.partial.clear();
        Ok(())
    }

    fn finish(mut self, out: &mut impl io::Write) -> io::Result<()> {
        if self.partial.is_empty() { Ok(()) } else { self.flush(out) }
    }
}

fn list_builds(logs: &Logs, json: bool) -> Result<(), CommandError> {
    let mut rows = Vec::new();
    let mut documents = String::new();
    for id in logs.ids().map_err(unreadable)? {
        let Some(build) = logs.build(&id).map_err(unreadable)? else { continue };
        let bytes = build.steps.iter().map(|step| step.bytes).sum();
        if json {
            let document = BuildDocument {
                id: &build.id,
                title: &build.title,
                started: timestamp(build.started),
                ended: build.ended.map(timestamp),
                state: build_state(&build),
                steps: build.steps.len(),
                bytes,
            };
            documents.push_str(&serde_json::to_string(&document).expect("its keys are strings"));
            documents.push('\n');
        } else {
            rows.push([
                build.id.clone(),
                build_state(&build).to_owned(),
                build.ended.map_or_else(String::new, |end| {
                    format::seconds(format::between(build.started, end))
                }),
                build.steps.len().to_string(),
                format::bytes(bytes),
                printable::line(&build.title).into_owned(),
            ]);
        }
    }
    if !json {
        documents = table(["BUILD", "STATE", "TIME", "STEPS", "OUTPUT", "WHAT"], &rows);
    }
    print(documents.as_bytes())
}

fn list_steps(build: &KeptBuild, json: bool) -> Result<(), CommandError> {
    if json {
        let lines = build.steps.iter().map(|step| {
            let document = StepDocument {
                build: &build.id,
                number: step.number,
                name: &step.name,
                vertex: step.vertex.to_string(),
                state: step_state(build, step),
                started: step.started.map(timestamp),
                completed: step.completed.map(timestamp),
                error: step.error.as_deref(),
                bytes: step.bytes,
            };
            serde_json::to_string(&document).expect("its keys are strings") + "\n"
        });
        return print(lines.collect::<String>().as_bytes());
    }
    let mut steps: Vec<&KeptStep> = build.steps.iter().collect();
    steps.sort_by_key(|step| step.number.unwrap_or(u32::MAX));
    let rows: Vec<[String; 5]> = steps
        .into_iter()
        .map(|step| {
            let time = match (step.started, step.completed) {
                (Some(start), Some(end)) if !step.cached => {
                    format::seconds(format::between(start, end))
                }
                _ => String::new(),
            };
            let size = if step.bytes > 0 { format::bytes(step.bytes) } else { String::new() };
            let name = printable::line(&step.name).into_owned();
            [shown_number(step), step_state(build, step).to_owned(), time, size, name]
        })
        .collect();
    let head = format!(
        "Build {} ({}): {}\n\n",
        build.id,
        build_state(build),
        printable::line(&build.title)
    );
    print((head + &table(["STEP", "STATE", "TIME", "OUTPUT", "NAME"], &rows)).as_bytes())
}

fn build_state(build: &KeptBuild) -> &'static str {
    match build.ended {
        Some(_) if build.failed => "failed",
        Some(_) => "done",
        None if build.is_running => "running",
        None => "interrupted",
    }
}

fn step_state(build: &KeptBuild, step: &KeptStep) -> &'static str {
    match (&step.error, step.completed) {
        (Some(error), _) if error == crate::progress::CANCELLED => "canceled",
        (Some(_), _) => "failed",
        (None, Some(_)) if step.cached => "cached",
        (None, Some(_)) => "done",
        (None, None) if build.is_running => "running",
        (None, None) => "interrupted",
    }
}

fn timestamp(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}

#[derive(Serialize)]
struct BuildDocument<'a> {
    id: &'a str,
    title: &'a str,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    state: &'static str,
    steps: usize,
    bytes: u64,
}

#[derive(Serialize)]
struct StepDocument<'a> {
    build: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    name: &'a str,
    vertex: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    bytes: u64,
}
