//! `rbuild check`: what works but is probably not meant, and mending it. Without the store, the network and root.

mod files;
mod fix;
mod sarif;

use std::path::{Path, PathBuf};

use rbuild_frontend::{ContextFiles, Dockerfile, Source, Stages, check_own};
use rbuild_solver::Progress;

use super::build::call::document;
use super::build::frontend::{self, Evaluated};
use super::build::input::{self, Input};
use super::build::request::Request;
use super::images::print;
use crate::args::{BuildArgs, CheckArgs, CheckFormat};
use crate::error::{CommandError, Kind};

/// `rbuild check`.
pub(crate) fn check(args: &CheckArgs) -> Result<(), CommandError> {
    let build_args = BuildArgs {
        context: Some(args.context.clone()),
        file: args.file.clone(),
        target: args.target.clone(),
        build_arg: args.build_arg.clone(),
        ..BuildArgs::default()
    };
    let input = Input::read(&build_args, &std::env::temp_dir())?;
    let request = Request::new(&build_args, &input, |name| std::env::var(name).ok())?;
    let (source, dockerfile) = frontend::read(&input, &request.options, &Progress::discard())?;
    let checker = Checker {
        request,
        stages: if args.target.is_none() { Stages::All } else { Stages::Target },
        files: files::of_context(&input)?,
    };
    let mut evaluated = checker.look(source, dockerfile);
    if args.fix {
        let path = dockerfile_path(args, &build_args)?;
        evaluated = fix::fix(&checker, evaluated, &path)?;
    }
    report(&evaluated, args, &shown_path(args, &input))
}

/// How a file is looked at, each time that it changes.
#[derive(Debug)]
pub(crate) struct Checker {
    request: Request,
    stages: Stages,
    files: ContextFiles,
}

impl Checker {
    /// Everything that there is to say of a text.
    fn look(&self, source: Source, dockerfile: Dockerfile) -> Evaluated {
        let options = &self.request.options;
        let own = check_own(&source, &dockerfile, &self.files);
        // Without registries there is nothing to wait for.
        let mut evaluated = frontend::evaluate_text(source, dockerfile, options, self.stages);
        evaluated.keep_wanted(own, options);
        evaluated
    }
}

fn report(evaluated: &Evaluated, args: &CheckArgs, path: &str) -> Result<(), CommandError> {
    match args.format {
        CheckFormat::Json => print(document::pretty(&document::check(evaluated)).as_bytes())?,
        CheckFormat::Sarif => print(document::pretty(&sarif::log(evaluated, path)).as_bytes())?,
        CheckFormat::Text => {
            let mut found = evaluated.warnings.clone();
            found.extend(evaluated.errors.iter().cloned());
            let options = rbuild_frontend::RenderOptions {
                color: crate::progress::stdout_takes_colour(),
                limit: usize::MAX,
                ..frontend::render_options()
            };
            let mut text = rbuild_frontend::render(&evaluated.source, &found, options);
            text.push_str(&summary(evaluated));
            print(text.as_bytes())?;
        }
    }
    match evaluated.warnings.is_empty() && evaluated.errors.is_empty() {
        true => Ok(()),
        false => Err(CommandError::told()),
    }
}

fn summary(evaluated: &Evaluated) -> String {
    let name = evaluated.source.name();
    let count = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    let (warnings, errors) = (evaluated.warnings.len(), evaluated.errors.len());
    if warnings + errors == 0 {
        return format!("{name}: no warnings\n");
    }
    let fixable = evaluated.warnings.iter().filter(|warning| !warning.fixes.is_empty()).count();
    let mut text = format!("\n{name}: {}", count(warnings, "warning"));
    if errors > 0 {
        text.extend([", ", &count(errors, "error")]);
    }
    if fixable > 0 {
        text.extend(["; `rbuild check --fix` mends ", &fixable.to_string()]);
    }
    text + "\n"
}

fn dockerfile_path(args: &CheckArgs, build_args: &BuildArgs) -> Result<PathBuf, CommandError> {
    if args.file.as_deref() == Some("-") || args.context == "-" {
        return Err(CommandError::usage("--fix needs a Dockerfile that is a file"));
    }
    let path = input::dockerfile_path(build_args, Path::new(&args.context));
    path.canonicalize().map_err(|error| {
        CommandError::caused(Kind::Usage, format!("cannot open `{}`", path.display()), error)
    })
}

/// The file's path as code hosts need it: relative to where the check runs, where it can be said that way.
fn shown_path(args: &CheckArgs, input: &Input) -> String {
    match &args.file {
        Some(file) if file != "-" => file.clone(),
        _ => Path::new(&args.context).join(&input.name).display().to_string(),
    }
}
