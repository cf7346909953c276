//! `rbuild debug`: a shell, or a command, in the state of a step of an earlier build.

mod input;
mod state;
mod terminal;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use rbuild_cache::Store;
use rbuild_solver::{Event, LogStream, Progress, ProgressReceiver};
use rbuild_worker::{Inspection, OperationError, StepLimits, Streams, Worker};

use self::input::Input;
use self::state::Found;
use self::terminal::InTerminal;
use super::builds::{self, Chosen};
use crate::args::{BuildArgs, DebugArgs, LimitArgs};
use crate::commands::build::{entitlements, in_runtime, provided_by, step_limits};
use crate::error::{CommandError, Kind};
use crate::machine::Machine;
use crate::printable;
use crate::progress::print_after;
use crate::wiring::{Bounds, Session};

/// The shell that images have.
const SHELL: &str = "/bin/sh";

/// `rbuild debug [STEP] [-- COMMAND...]`. The exit code is that of what ran.
pub(crate) fn debug(
    store: Store,
    args: &DebugArgs,
    machine: &Machine,
) -> Result<ExitCode, CommandError> {
    let given = BuildArgs {
        secret: args.secret.clone(),
        ssh: args.ssh.clone(),
        allow: args.allow.clone(),
        ..BuildArgs::default()
    };
    let provided = provided_by(&given)?;
    let chosen = builds::choose(&store, args.build.as_deref())?;
    let step = match &args.step {
        Some(text) => builds::find_step(&chosen.record, text)?,
        None => builds::failed_step(&chosen.record)?,
    };
    // Until the end: what the step has left stays meanwhile.
    let held = store.builds.hold(&chosen.project).map_err(builds::unreadable)?;
    let session = Session::open(store, machine, &provided)?;
    let Found { vertex, inputs, root, folders, missing } =
        state::find(&session, &chosen, step, args.before)?;
    let (inspection, absent) = Inspection::new(&vertex, inputs, root, &provided);
    for line in missing.iter().chain(&absent) {
        note(line);
    }
    let mut code = 0;
    in_runtime(async {
        let (progress, events) = Progress::channel();
        // The channel ends with what runs, and the worker stays.
        let discard = Progress::discard();
        let entitlements = entitlements(&given);
        let bounds = Bounds { entitlements, limits: limits(&chosen), jobs: None };
        let worker = session.worker(folders, bounds, provided, &discard)?;
        code = if args.command.is_empty() {
            shell(&worker, &inspection, args, progress, events).await?
        } else {
            let input = Input::open().map_err(|error| {
                CommandError::caused(Kind::Environment, "cannot read standard input", error)
            })?;
            let command = args.command.clone();
            let ran = run(&worker, &inspection, command, input, progress, events).await;
            ran.or_else(|error| error.exit_code().map(|code| told(&error, code)).ok_or(error))
                .map_err(failed)?
        };
        Ok(())
    })?;
    drop(held);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// What bounded the steps of the build, but in time: somebody may sit before it.
fn limits(chosen: &Chosen) -> StepLimits {
    let mut resource = chosen.record.resources.clone();
    if resource.is_empty() {
        return StepLimits::none();
    }
    resource.push("best-effort".to_owned());
    match step_limits(&LimitArgs { resource, ..LimitArgs::default() }) {
        Ok((limits, warnings)) => {
            warnings.iter().for_each(|warning| note(warning));
            limits
        }
        Err(error) => {
            note(&format!("steps are not limited: {}", error.reason()));
            StepLimits::none()
        }
    }
}

/// Says why a command could not be executed; the exit code tells it, too.
fn told(error: &OperationError, code: i32) -> i32 {
    print_after(&format!("ERROR: {}\n", printable::text(&crate::error::chain(error))));
    code
}

fn note(line: &str) {
    print_after(&format!("NOTE: {}\n", printable::line(line)));
}

/// Opens a shell: the one that was asked for, or the step's own, or else the usual one.
async fn shell(
    worker: &Worker,
    inspection: &Inspection,
    args: &DebugArgs,
    progress: Progress,
    events: ProgressReceiver,
) -> Result<i32, CommandError> {
    let wanted = args.shell.as_deref().or_else(|| inspection.shell()).unwrap_or(SHELL);
    let interactive = std::io::stdin().is_terminal();
    if !interactive {
        return Err(CommandError::usage("standard input is no terminal, so there can be no shell")
            .hint("run a command instead: rbuild debug -- COMMAND"));
    }
    let mut shells = vec![wanted];
    if wanted != SHELL {
        shells.push(SHELL);
    }
    // What is reported while a shell has the screen would only disturb it.
    let shown = tokio::spawn(show(events));
    let mut result = Err(no_shell());
    for shell in shells {
        let in_terminal = InTerminal { worker, inspection, progress: &progress };
        match in_terminal.run(vec![shell.to_owned()]).await {
            Ok(code) => {
                result = Ok(code);
                break;
            }
            Err(terminal::Error::Step(error)) if error.is_missing_program() => {
                if shell != SHELL {
                    note(&format!("there is no {shell} in the image, so this is {SHELL}"));
                }
            }
            Err(terminal::Error::Step(error)) => {
                result = Err(failed(*error));
                break;
            }
            Err(terminal::Error::Terminal(error)) => {
                result =
                    Err(CommandError::caused(Kind::Environment, "cannot use the terminal", error));
                break;
            }
        }
    }
    drop(progress);
    let _ = shown.await;
    result
}

fn no_shell() -> CommandError {
    CommandError::new(Kind::Environment, format!("there is no shell in the image: no {SHELL}"))
        .hint("name one with --shell, or copy the files out: rbuild build --on-failure=type=local,dest=FOLDER")
}

fn failed(error: OperationError) -> CommandError {
    let error = CommandError::caused(Kind::Environment, "cannot run in the step's state", error);
    match error.reason().contains("is not allowed") {
        true => error.hint("give --allow as for the build"),
        false => error,
    }
}

/// Runs a command; its streams are ours.
async fn run(
    worker: &Worker,
    inspection: &Inspection,
    command: Vec<String>,
    mut input: Input,
    progress: Progress,
    events: ProgressReceiver,
) -> Result<i32, OperationError> {
    let shown = tokio::spawn(show(events));
    let streams = Streams::Piped { stdin: input.end.take() };
    let ran = worker.inspect(inspection, command, streams, &progress).await;
    input.finish().await;
    drop(progress);
    let _ = shown.await;
    ran
}

/// Hands on what the command prints, as it comes; and warnings.
async fn show(mut events: ProgressReceiver) {
    while let Some(event) = events.recv().await {
        // Nobody is left to tell when a stream is gone.
        let _ = match event {
            Event::Log(chunk) if chunk.stream == LogStream::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(&chunk.bytes).and_then(|()| out.flush())
            }
            Event::Log(chunk) => std::io::stderr().write_all(&chunk.bytes),
            Event::Warning { message, .. } => {
                note(&message);
                Ok(())
            }
            _ => Ok(()),
        };
    }
}

/// For messages: what a build was of.
pub(crate) fn of(chosen: &Chosen) -> String {
    format!("build {} of {}", chosen.record.id, chosen.record.subject.dockerfile)
}
