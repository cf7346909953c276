//! Asks the frontend, in rounds: it names the images it must know, they are resolved side by side, and it is
//! asked again (design D8).

use futures_util::future::try_join_all;
use rbuild_cache::{ImageName, PullMode};
use rbuild_frontend::{
    Build, BuildOptions, Checks, Diagnostic, ImageLocation, ImageQuery, ImageSet, Level, Outcome,
    RenderOptions, ResolvedImage, Source,
};
use rbuild_solver::{Progress, SourceOp};

use super::input::Input;
use crate::error::{CommandError, Kind};
use crate::wiring::Session;

/// What the frontend made of a Dockerfile.
#[derive(Debug)]
pub(crate) struct Lowered {
    pub(crate) build: Box<Build>,
    pub(crate) source: Source,
    pub(crate) warnings: Vec<Diagnostic>,
}

/// Parses and lowers a Dockerfile.
pub(crate) async fn lower(
    session: &Session,
    input: &Input,
    options: &BuildOptions,
    pull: PullMode,
    progress: &Progress,
) -> Result<Lowered, CommandError> {
    let vertex = progress.start(&format!("[internal] load build definition from {}", input.name));
    let source = Source::from_bytes(&input.name, &input.dockerfile).map_err(|error| {
        CommandError::caused(Kind::Build, format!("cannot read `{}`", input.name), error)
    })?;
    let dockerfile = rbuild_frontend::parse(&source);
    progress.complete(vertex, false, None);
    if dockerfile.has_errors() {
        return Err(refused(&source, &dockerfile.diagnostics));
    }
    let checks = Checks::of(&dockerfile).map_err(|error| refused(&source, &[*error]))?;
    let mut warnings = dockerfile.diagnostics.clone();
    warnings.extend(rbuild_frontend::check(&dockerfile));

    let mut images = ImageSet::new();
    let build = loop {
        match rbuild_frontend::lower(&dockerfile, options, &images)
            .map_err(|errors| refused(&source, &errors))?
        {
            Outcome::Ready(build) => break build,
            Outcome::NeedsImages(queries) => {
                let resolved = queries.iter().map(|query| resolve(session, query, pull, progress));
                for (query, image) in queries.iter().zip(try_join_all(resolved).await?) {
                    images.insert(query, image);
                }
            }
        }
    };
    warnings.extend(build.warnings.iter().cloned());
    let warnings = checks.filter(&dockerfile, warnings);
    if warnings.iter().any(|diagnostic| diagnostic.level == Level::Error) {
        return Err(refused(&source, &warnings));
    }
    Ok(Lowered { build, source, warnings })
}

async fn resolve(
    session: &Session,
    query: &ImageQuery,
    pull: PullMode,
    progress: &Progress,
) -> Result<ResolvedImage, CommandError> {
    let name = match &query.location {
        ImageLocation::Registry(reference) => ImageName::Reference(reference.clone()),
        ImageLocation::OciLayout { layout, .. } => ImageName::layout(layout).map_err(|error| {
            CommandError::caused(Kind::Usage, format!("cannot use `oci-layout://{layout}`"), error)
        })?,
    };
    let vertex = progress.start(&format!("[internal] load metadata for {name}"));
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
            Err(CommandError::caused(
                Kind::Environment,
                format!("failed to resolve `{name}`"),
                error,
            ))
        }
    }
}

/// The error of a Dockerfile that cannot be built, with every fault drawn.
fn refused(source: &Source, diagnostics: &[Diagnostic]) -> CommandError {
    let errors: Vec<Diagnostic> =
        diagnostics.iter().filter(|diagnostic| diagnostic.level == Level::Error).cloned().collect();
    let drawn = rbuild_frontend::render(source, &errors, render_options());
    let first = errors.first().map_or_else(String::new, |error| error.message.to_string());
    let line = errors.first().map_or(1, |error| source.position(error.span.start).line);
    CommandError::new(Kind::Build, format!("dockerfile parse error on line {line}: {first}"))
        .preface(drawn)
}

fn render_options() -> RenderOptions {
    const WIDTH: usize = 120;
    const MOST: usize = 20;
    RenderOptions { color: crate::progress::stderr_takes_colour(), width: WIDTH, limit: MOST }
}

/// Warnings as they are listed at the end of a build: ` - Rule: message (line N)`.
pub(crate) fn warning_lines(source: &Source, warnings: &[Diagnostic]) -> Vec<String> {
    let line = |warning: &Diagnostic| {
        let line = source.position(warning.span.start).line;
        match warning.code {
            "" => format!(" - {} (line {line})", warning.message),
            rule => format!(" - {rule}: {} (line {line})", warning.message),
        }
    };
    let warnings: Vec<&Diagnostic> =
        warnings.iter().filter(|warning| warning.level == Level::Warning).collect();
    if warnings.is_empty() {
        return Vec::new();
    }
    let plural = if warnings.len() == 1 { "" } else { "s" };
    let head = format!(" {} warning{plural} found:", warnings.len());
    std::iter::once(head).chain(warnings.into_iter().map(line)).collect()
}
