//! Asks the frontend, in rounds: it names the images it must know, they are resolved side by side, and it is
//! asked again (design D8).

use std::collections::BTreeSet;

use futures_util::future::{join_all, try_join_all};
use rbuild_cache::{ImageName, PullMode};
use rbuild_frontend::{
    Build, BuildOptions, Checks, Diagnostic, Dockerfile, Evaluation, ImageLocation, ImageQuery,
    ImageSet, Level, Outcome, Outline, RenderOptions, ResolvedImage, Source, Span, Stages,
    similar_image, similar_stage,
};
use rbuild_oci::Platform;
use rbuild_solver::{Progress, SourceLocation, SourceOp};
use rbuild_worker::{PlatformSupport, Platforms};

use super::failure::excerpt;
use super::input::Input;
use super::platforms::Joined;
use super::remote;
use super::request::Request;
use crate::error::{CommandError, Kind};
use crate::paths;
use crate::wiring::Session;

/// What the frontend made of a Dockerfile.
#[derive(Debug)]
pub(crate) struct Lowered {
    pub(crate) joined: Joined,
    pub(crate) source: Source,
    /// Warnings as they are listed at the end of a build.
    pub(crate) warnings: Vec<String>,
}

/// What there is to say of a Dockerfile that is not built.
#[derive(Debug)]
pub(crate) struct Evaluated {
    pub(crate) source: Source,
    pub(crate) dockerfile: Dockerfile,
    pub(crate) outline: Outline,
    /// The warnings that are wanted, in the order of the text.
    pub(crate) warnings: Vec<Diagnostic>,
    /// What keeps the file from being built.
    pub(crate) errors: Vec<Diagnostic>,
}

/// Where images are looked up, and how.
pub(crate) type Registries<'a> = (&'a Session, PullMode, &'a Progress);

/// Parses a Dockerfile; one that is for another frontend is refused.
pub(crate) fn read(
    input: &Input,
    options: &BuildOptions,
    progress: &Progress,
) -> Result<(Source, Dockerfile), CommandError> {
    let vertex = progress.start(&format!("[internal] load build definition from {}", input.name));
    let source = Source::from_bytes(&input.name, &input.dockerfile).map_err(|error| {
        CommandError::caused(Kind::Build, format!("cannot read `{}`", input.name), error)
    })?;
    let dockerfile = rbuild_frontend::parse(&source);
    progress.complete(vertex, false, None);
    match rbuild_frontend::foreign_frontend(&source, &dockerfile, options) {
        Some(error) => Err(refused(&source, &dockerfile, &[error])),
        None => Ok((source, dockerfile)),
    }
}

/// Parses a Dockerfile, and lowers it for each platform.
pub(crate) async fn lower(
    session: &Session,
    input: &Input,
    request: &Request,
    pull: PullMode,
    progress: &Progress,
) -> Result<Lowered, CommandError> {
    let options = &request.options;
    let (source, dockerfile) = read(input, options, progress)?;
    if dockerfile.has_errors() {
        return Err(refused(&source, &dockerfile, &dockerfile.diagnostics));
    }
    let checks =
        checks(&dockerfile, options).map_err(|error| refused(&source, &dockerfile, &[*error]))?;
    let mut warnings = dockerfile.diagnostics.clone();
    warnings.extend(rbuild_frontend::check(&dockerfile));
    let mut each = request.each();
    if let Some(epoch) = rbuild_frontend::epoch_source(&dockerfile, options) {
        let time = remote::time(session, &epoch.name, &epoch.context, progress).await?;
        each.iter_mut().for_each(|options| options.epoch_time = time);
    }

    let mut images = ImageSet::new();
    let builds = loop {
        let (builds, queries) = lower_each(&dockerfile, &each, &images)
            .map_err(|errors| refused(&source, &dockerfile, &errors))?;
        if queries.is_empty() {
            break builds;
        }
        let resolved = queries.iter().map(|query| async {
            let resolved = resolve(query, options, (session, pull, progress)).await;
            resolved.map_err(|error| located(error, &source, &dockerfile, query))
        });
        let resolved = try_join_all(resolved).await?;
        for options in &mut each {
            note_platforms(options, resolved.iter()).await;
        }
        for (query, image) in queries.iter().zip(resolved) {
            images.insert(query, image);
        }
    };
    // What holds for several platforms is said once.
    for (number, build) in builds.iter().enumerate() {
        let was_said = |warning: &&Diagnostic| {
            builds[..number].iter().any(|other| other.warnings.contains(warning))
        };
        warnings.extend(build.warnings.iter().filter(|warning| !was_said(warning)).cloned());
    }
    let found = checks.filter(&dockerfile, warnings);
    let warnings = warning_lines(&source, &dockerfile, &found);
    if found.iter().any(Diagnostic::is_error) {
        // The warnings are the error, so that they are told although nothing is built.
        let lines: String = warnings.iter().map(|line| format!("{line}\n")).collect();
        return Err(refused(&source, &dockerfile, &found).preface(lines));
    }
    let joined = Joined::new(builds, &request.platforms);
    Ok(Lowered { joined, source, warnings })
}

/// Lowers with each of the options; says which images have to be known first, each once.
fn lower_each(
    dockerfile: &Dockerfile,
    each: &[BuildOptions],
    images: &ImageSet,
) -> Result<(Vec<Build>, Vec<ImageQuery>), Vec<Diagnostic>> {
    let (mut builds, mut queries) = (Vec::new(), Vec::<ImageQuery>::new());
    for options in each {
        match rbuild_frontend::lower(dockerfile, options, images)? {
            Outcome::Ready(build) => builds.push(*build),
            Outcome::NeedsImages(needed) => {
                for query in needed {
                    let is_same = |other: &ImageQuery| {
                        other.location == query.location && other.platform == query.platform
                    };
                    if !queries.iter().any(is_same) {
                        queries.push(query);
                    }
                }
            }
        }
    }
    Ok((builds, queries))
}

/// Looks into a Dockerfile without building it, and asks what its images are; one that cannot be found is an error of
/// the file's.
pub(crate) async fn evaluate(
    source: Source,
    dockerfile: Dockerfile,
    options: &BuildOptions,
    stages: Stages,
    (session, pull, progress): Registries<'_>,
) -> Evaluated {
    let mut images = ImageSet::new();
    let mut unknown: Vec<Diagnostic> = Vec::new();
    let mut options = options.clone();
    loop {
        let mut evaluation = rbuild_frontend::evaluate(&dockerfile, &options, &images, stages);
        let is_done = evaluation.missing.is_empty()
            || !unknown.is_empty()
            || evaluation.diagnostics.iter().any(Diagnostic::is_error);
        if is_done {
            evaluation.diagnostics.append(&mut unknown);
            return Evaluated::new(source, dockerfile, &options, evaluation);
        }
        let queries = &evaluation.missing;
        let registries = (session, pull, progress);
        let resolved = queries.iter().map(|query| resolve(query, &options, registries));
        let resolved = join_all(resolved).await;
        note_platforms(&mut options, resolved.iter().flatten()).await;
        for (query, image) in queries.iter().zip(resolved) {
            match image {
                Ok(image) => images.insert(query, image),
                Err(error) => unknown.push(Diagnostic::error("image", query.span, error.reason())),
            }
        }
    }
}

/// The same without looking at images: what one could define is left unsaid.
pub(crate) fn evaluate_text(
    source: Source,
    dockerfile: Dockerfile,
    options: &BuildOptions,
    stages: Stages,
) -> Evaluated {
    let evaluation = rbuild_frontend::evaluate(&dockerfile, options, &ImageSet::new(), stages);
    Evaluated::new(source, dockerfile, options, evaluation)
}

impl Evaluated {
    /// What the text alone says.
    pub(crate) fn of_text(source: Source, dockerfile: Dockerfile) -> Self {
        let (errors, warnings) =
            dockerfile.diagnostics.iter().cloned().partition(Diagnostic::is_error);
        Self { source, dockerfile, outline: Outline::default(), warnings, errors }
    }

    fn new(
        source: Source,
        dockerfile: Dockerfile,
        options: &BuildOptions,
        evaluation: Evaluation,
    ) -> Self {
        let mut evaluated = Self::of_text(source, dockerfile);
        let mut warnings = rbuild_frontend::check(&evaluated.dockerfile);
        // A file with errors was not evaluated, and what there is to say of it was said.
        if !evaluated.dockerfile.has_errors() {
            let (errors, others): (Vec<_>, Vec<_>) =
                evaluation.diagnostics.into_iter().partition(Diagnostic::is_error);
            evaluated.errors.extend(errors);
            warnings.extend(others);
            evaluated.outline = evaluation.outline;
        }
        evaluated.keep_wanted(warnings, options);
        evaluated
    }

    /// Adds those warnings that the file and the options want to see.
    pub(crate) fn keep_wanted(&mut self, mut warnings: Vec<Diagnostic>, options: &BuildOptions) {
        warnings.append(&mut self.warnings);
        match checks(&self.dockerfile, options) {
            Ok(checks) => {
                self.warnings = checks.filter(&self.dockerfile, warnings);
                // That there are some is what the exit code says.
                self.warnings.retain(|diagnostic| !diagnostic.is_error());
            }
            Err(error) => self.errors.push(*error),
        }
    }
}

/// Notes for which of the images' platforms steps can be run here.
async fn note_platforms(options: &mut BuildOptions, images: impl Iterator<Item = &ResolvedImage>) {
    if options.platform.is_some() {
        return;
    }
    let own = options.build_platform.architecture.clone();
    let platforms: BTreeSet<Platform> = images
        .map(|image| image.config.platform().normalize())
        .filter(|platform| platform.os == "linux" && platform.architecture != own)
        .collect();
    if platforms.is_empty() {
        return;
    }
    // Finding out may start a program.
    let runs = tokio::task::spawn_blocking(move || {
        let known = Platforms::new(paths::programs());
        let can_run = |platform: &Platform| {
            !matches!(known.support(platform), PlatformSupport::Missing { .. })
        };
        platforms.into_iter().filter(can_run).collect::<Vec<_>>()
    });
    options.emulated.extend(runs.await.unwrap_or_default());
}

fn checks(dockerfile: &Dockerfile, options: &BuildOptions) -> Result<Checks, Box<Diagnostic>> {
    let given = options.build_args.get("BUILDKIT_DOCKERFILE_CHECK");
    Checks::of(dockerfile, given.map(String::as_str))
}

async fn resolve(
    query: &ImageQuery,
    options: &BuildOptions,
    (session, pull, progress): Registries<'_>,
) -> Result<ResolvedImage, CommandError> {
    let name = match &query.location {
        ImageLocation::Registry(reference) => ImageName::Reference(reference.clone()),
        ImageLocation::OciLayout { layout, .. } => ImageName::layout(layout).map_err(|error| {
            CommandError::caused(Kind::Usage, format!("cannot use `oci-layout://{layout}`"), error)
        })?,
    };
    let shown = match &query.location {
        ImageLocation::Registry(reference) => reference.to_string(),
        ImageLocation::OciLayout { .. } => name.to_string(),
    };
    let who = match options.multi_platform {
        true => format!("{} internal", query.platform.full_name()),
        false => "internal".to_owned(),
    };
    let vertex = progress.start(&format!("[{who}] load metadata for {shown}"));
    match session.images.resolve(&name, &query.platform, pull).await {
        Ok(image) => {
            progress.complete(vertex, false, None);
            Ok(ResolvedImage {
                source: SourceOp::new(image.name.identifier()),
                config: image.config,
            })
        }
        Err(error) => {
            progress.complete(vertex, false, Some(error.to_string()));
            let written = match &query.location {
                ImageLocation::Registry(reference) => reference.familiar(),
                ImageLocation::OciLayout { context, .. } => context.clone(),
            };
            let written = written.strip_suffix(":latest").unwrap_or(&written);
            let message = format!(
                "failed to build: failed to solve: {written}: failed to resolve source metadata for {shown}"
            );
            Err(CommandError::caused(Kind::Environment, message, error))
        }
    }
}

/// The error of an image that cannot be had, with the line that names it; perhaps a stage was meant.
fn located(
    error: CommandError,
    source: &Source,
    dockerfile: &Dockerfile,
    query: &ImageQuery,
) -> CommandError {
    let line = source.line(query.span.start);
    let file = source.name().to_owned();
    let location = SourceLocation { file, first_line: line, last_line: line };
    let error = error.preface(excerpt(source, &location));
    let ImageLocation::Registry(reference) = &query.location else { return error };
    let name = reference.familiar();
    let name = name.strip_suffix(":latest").unwrap_or(&name);
    match (similar_stage(dockerfile, name), similar_image(name)) {
        (Some(stage), _) => {
            error.hint(format!("no stage is called {name:?}: did you mean {stage:?}?"))
        }
        (None, Some(image)) => error.hint(format!("did you mean {image:?}?")),
        (None, None) => error,
    }
}

/// The error of a Dockerfile that cannot be built, with every fault drawn.
fn refused(source: &Source, dockerfile: &Dockerfile, diagnostics: &[Diagnostic]) -> CommandError {
    let errors: Vec<Diagnostic> =
        diagnostics.iter().filter(|diagnostic| diagnostic.level == Level::Error).cloned().collect();
    // What is wrong with an option is at no place of the file.
    let is_placed = |error: &Diagnostic| error.span != Span::at(0) || source.is_empty();
    let placed: Vec<Diagnostic> = errors.iter().filter(|error| is_placed(error)).cloned().collect();
    let drawn = match placed.as_slice() {
        [] => String::new(),
        placed => rbuild_frontend::render(source, placed, render_options()),
    };
    let first = errors.first().map(|error| dockerfile.compat_message(source, error));
    let message = format!("failed to build: failed to solve: {}", first.unwrap_or_default());
    let error = CommandError::new(Kind::Build, message).preface(drawn);
    match errors.first().filter(|first| !is_placed(first)).and_then(|first| first.help.as_deref()) {
        Some(help) => error.hint(help),
        None => error,
    }
}

/// How diagnostics are drawn on standard error.
pub(crate) fn render_options() -> RenderOptions {
    const WIDTH: usize = 120;
    const MOST: usize = 20;
    RenderOptions { color: crate::progress::stderr_takes_colour(), width: WIDTH, limit: MOST }
}

/// Warnings as they are listed at the end of a build: ` - Rule: message (line N)`.
fn warning_lines(source: &Source, dockerfile: &Dockerfile, found: &[Diagnostic]) -> Vec<String> {
    let warnings: Vec<&Diagnostic> =
        found.iter().filter(|warning| warning.level == Level::Warning).collect();
    if warnings.is_empty() {
        return Vec::new();
    }
    let plural = if warnings.len() == 1 { "" } else { "s" };
    // As buildx words it, for scripts that look for the line.
    let head = format!(" {} warning{plural} found (use docker --debug to expand):", warnings.len());
    let line = |warning| format!(" - {}", dockerfile.compat_message(source, warning));
    std::iter::once(head).chain(warnings.into_iter().map(line)).collect()
}
