//! Where the result of a build goes, and what is said of it.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::try_join_all;
use rbuild_cache::{Image as StoredImage, PullProgress};
use rbuild_exporter::{
    ArchiveForm, BuildResult, DocumentTypes, FileDestination, FilesDestination, Image,
    ImageDestination, ImageForm, LayerForm, export_files, export_image, make_image, needs,
};
use rbuild_oci::{ImageConfig, Manifest, Reference};
use rbuild_solver::Progress;
use rbuild_worker::in_user_namespace;

use super::failure::BuildError;
use super::metadata;
use crate::args::{BuildArgs, SaveArgs};
use crate::commands::images::{DOCUMENT_LIMIT, image_name, print};
use crate::error::{CommandError, Kind};
use crate::output::{ArchiveKind, ImageOptions, OutputSpec, PushOptions};
use crate::printable;
use crate::progress::ByteBars;
use crate::wiring::Session;

/// All outputs of a build, checked before it begins.
#[derive(Debug)]
pub(crate) struct Plan {
    outputs: Vec<PlannedOutput>,
    names: Vec<Reference>,
}

#[derive(Debug)]
enum PlannedOutput {
    Image {
        options: ImageOptions,
        types: DocumentTypes,
        /// `None` where registries are all.
        destination: Option<ImageDestination>,
        push: Option<PlannedPush>,
    },
    Files(FilesDestination),
}

/// Registries that an image goes to.
#[derive(Debug)]
struct PlannedPush {
    /// Those without a tag get it by its digest.
    names: Vec<Reference>,
    insecure: bool,
}

/// A build that is done.
#[derive(Debug)]
pub(crate) struct Built {
    /// The last image that was exported.
    image: Option<Image>,
    names: Vec<String>,
    /// Lines that are printed at the end.
    pub(crate) warnings: Vec<String>,
}

/// Finds out where results go, or what is wrong with that.
pub(crate) fn plan(args: &BuildArgs) -> Result<Plan, CommandError> {
    let mut names = args.tag.iter().map(|tag| image_name(tag)).collect::<Result<Vec<_>, _>>()?;
    let mut outputs = Vec::new();
    let default = [OutputSpec::default_image()];
    let specs = if args.output.is_empty() { &default[..] } else { &args.output };
    let is_image = |spec: &OutputSpec| matches!(spec, OutputSpec::Image { .. });
    // A push beside a folder or an archive is an output of its own.
    let pushed = if args.push && !specs.iter().any(is_image) { &default[..] } else { &[] };
    let mut own_names = Vec::new();
    for spec in specs.iter().chain(pushed) {
        let with_names = |own: &[String]| {
            let own = own.iter().map(|name| image_name(name)).collect::<Result<Vec<_>, _>>()?;
            Ok::<_, CommandError>(names.iter().cloned().chain(own).collect::<Vec<_>>())
        };
        match spec {
            OutputSpec::Image { names: own, options, store, push } => {
                let push = PushOptions { push: push.push || args.push, ..*push };
                let texts: Vec<&str> = args.tag.iter().chain(own).map(String::as_str).collect();
                let push = planned_push(&texts, push)?;
                let by_digest = push.as_ref().is_some_and(|push| push.names[0].tag().is_none());
                let all = with_names(own)?;
                own_names.extend(all[names.len()..].iter().cloned());
                // Where it has no tag at the registry, it should not have one here.
                let names = if by_digest { Vec::new() } else { all };
                outputs.push(PlannedOutput::Image {
                    options: *options,
                    types: types(options, DocumentTypes::Oci),
                    destination: store.then_some(ImageDestination::Store { names }),
                    push,
                });
            }
            OutputSpec::Archive { form, destination, names: own, options } => {
                let form = match form {
                    ArchiveKind::Oci => ArchiveForm::Oci,
                    ArchiveKind::Docker => ArchiveForm::Docker,
                };
                outputs.push(PlannedOutput::Image {
                    options: *options,
                    types: types(options, DocumentTypes::Oci),
                    destination: Some(ImageDestination::Archive {
                        form,
                        names: with_names(own)?,
                        file: destination.clone(),
                    }),
                    push: None,
                });
            }
            OutputSpec::Tar(file) => {
                outputs.push(PlannedOutput::Files(FilesDestination::Tar(file.clone())));
            }
            OutputSpec::Local(path) => {
                outputs.push(PlannedOutput::Files(FilesDestination::Folder {
                    path: path.clone(),
                    keep_owners: !in_user_namespace(),
                }));
            }
            OutputSpec::CacheOnly => {}
        }
    }
    for name in own_names {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let only_files = !outputs.is_empty()
        && outputs.iter().all(|output| matches!(output, PlannedOutput::Files(_)));
    if args.iidfile.is_some() && only_files {
        return Err(CommandError::usage(
            "local and tar exporters are incompatible with image ID file",
        ));
    }
    if let Some(twice) = written_twice(&outputs) {
        return Err(CommandError::usage(format!("two outputs go to {twice}: one would be lost")));
    }
    Ok(Plan { outputs, names })
}

/// Checks what is said about a push of an image with these names.
fn planned_push(names: &[&str], options: PushOptions) -> Result<Option<PlannedPush>, CommandError> {
    let PushOptions { push, by_digest, insecure } = options;
    if !push {
        let given = [("push-by-digest", by_digest), ("registry.insecure", insecure)];
        return match given.iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(CommandError::usage(format!("{key}=true needs push=true"))),
            None => Ok(None),
        };
    }
    if names.is_empty() {
        return Err(CommandError::usage("tag is needed when pushing to registry")
            .hint("give the image a name with -t"));
    }
    let name = |text: &&str| {
        let name = image_name(text)?;
        if !by_digest {
            return Ok(name);
        }
        // What `image_name` accepted is a reference; it has filled in the tag that must not be there.
        match Reference::parse(text) {
            Ok(name) if name.tag().is_none() => Ok(name),
            _ => Err(CommandError::usage(format!("can't push tagged ref {text} by digest"))),
        }
    };
    let names = names.iter().map(name).collect::<Result<Vec<_>, CommandError>>()?;
    Ok(Some(PlannedPush { names, insecure }))
}

/// A place that more than one output would be written to.
fn written_twice(outputs: &[PlannedOutput]) -> Option<String> {
    let mut seen = HashSet::new();
    let file = |output: &PlannedOutput| match output {
        PlannedOutput::Image {
            destination: Some(ImageDestination::Archive { file, .. }), ..
        }
        | PlannedOutput::Files(FilesDestination::Tar(file)) => Some(file.clone()),
        _ => None,
    };
    outputs.iter().filter_map(file).find(|file| !seen.insert(file.clone())).map(|file| match file {
        FileDestination::Stdout => "standard output".to_owned(),
        FileDestination::Path(path) => format!("`{}`", path.display()),
    })
}

fn types(options: &ImageOptions, default: DocumentTypes) -> DocumentTypes {
    match options.oci_types {
        None => default,
        Some(true) => DocumentTypes::Oci,
        Some(false) => DocumentTypes::Docker,
    }
}

/// Writes every output.
pub(crate) async fn export(
    session: &Arc<Session>,
    plan: Plan,
    result: BuildResult,
    progress: &Progress,
) -> Result<Built, BuildError> {
    let names = plan.names.iter().map(ToString::to_string).collect();
    let mut built = Built { image: None, names, warnings: Vec::new() };
    let result = Arc::new(result);
    for output in plan.outputs {
        let vertex = progress.start(match &output {
            PlannedOutput::Image {
                destination: Some(ImageDestination::Archive { form: ArchiveForm::Oci, .. }),
                ..
            } => "exporting to oci image format",
            PlannedOutput::Image {
                destination: Some(ImageDestination::Archive { .. }), ..
            } => "exporting to docker image format",
            PlannedOutput::Image { .. } => "exporting to image",
            PlannedOutput::Files(FilesDestination::Tar(_)) => "exporting to client tarball",
            PlannedOutput::Files(FilesDestination::Folder { .. }) => {
                "exporting to client directory"
            }
        });
        let pull = PullProgress { progress: progress.clone(), vertex };
        let exported = one(session, output, &result, &pull).await;
        progress.complete(vertex, false, exported.as_ref().err().map(CommandError::reason));
        if let Some(image) = exported? {
            if image.surplus_history > 0 {
                progress.warn(format!(
                    "the history of the image has {} entries with a layer that does not exist; they are marked as empty",
                    image.surplus_history
                ));
            }
            built.image = Some(image);
        }
    }
    Ok(built)
}

async fn one(
    session: &Arc<Session>,
    output: PlannedOutput,
    result: &Arc<BuildResult>,
    pull: &PullProgress,
) -> Result<Option<Image>, CommandError> {
    match output {
        PlannedOutput::Image { options, types, destination, push } => {
            let layers = LayerForm { compression: options.compression, epoch: result.epoch };
            let needs =
                needs(session.export_store(), &result.snapshot, layers).map_err(export_error)?;
            let wanted = match destination {
                Some(ImageDestination::Archive { .. }) => &needs.blobs,
                _ => &needs.disputed,
            };
            for layer in wanted {
                session.images.ensure_layer_blob(layer, pull).await.map_err(fetch_error)?;
            }
            if needs.files {
                session
                    .images
                    .ensure_unpacked(&result.snapshot, pull)
                    .await
                    .map_err(fetch_error)?;
            }
            let image = {
                let (session, result) = (Arc::clone(session), Arc::clone(result));
                blocking(move || {
                    let store = session.export_store();
                    let image = make_image(store, &result, ImageForm { layers, types })?;
                    if let Some(destination) = destination {
                        export_image(store, &image, &destination, result.epoch)?;
                    }
                    Ok(image)
                })
                .await?
            };
            if let Some(PlannedPush { names, insecure }) = push {
                let plain_http = names.iter().filter(|_| insecure);
                let plain_http = plain_http.map(|name| name.registry().to_owned()).collect();
                let pushes = session.pushes(plain_http);
                pushes.push(&image.descriptor, &names, pull).await.map_err(push_error)?;
            }
            Ok(Some(image))
        }
        PlannedOutput::Files(destination) => {
            session.images.ensure_unpacked(&result.snapshot, pull).await.map_err(fetch_error)?;
            let (session, result) = (Arc::clone(session), Arc::clone(result));
            blocking(move || {
                export_files(session.export_store(), &result, &destination).map(|()| None)
            })
            .await
        }
    }
}

/// Runs an export where it may keep a thread busy.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, rbuild_exporter::ExportError> + Send + 'static,
) -> Result<T, CommandError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(export_error),
        Err(panic) => Err(CommandError::caused(Kind::Environment, "the export stopped", panic)),
    }
}

fn export_error(error: impl std::error::Error + Send + Sync + 'static) -> CommandError {
    CommandError::caused(Kind::Environment, "failed to export", error)
}

pub(crate) fn push_error(error: rbuild_cache::PushError) -> CommandError {
    CommandError::caused(Kind::Environment, "failed to push", error)
}

fn fetch_error(error: rbuild_cache::ImageError) -> CommandError {
    CommandError::caused(Kind::Environment, "cannot fetch a layer of the base image", error)
}

impl Built {
    /// Writes and prints what the user asked to know.
    pub(crate) fn report(&self, args: &BuildArgs) -> Result<(), CommandError> {
        if let Some(path) = &args.metadata_file {
            let document = metadata::document(self.image.as_ref(), &self.names);
            let mut bytes = serde_json::to_vec_pretty(&document).expect("a JSON value serialises");
            bytes.push(b'\n');
            metadata::write(path, &bytes)?;
        }
        // The configuration's digest is what docker calls the image's id.
        let id = self.image.as_ref().map(|image| image.manifest.config.digest.to_string());
        if let (Some(path), Some(id)) = (&args.iidfile, &id) {
            metadata::write(path, id.as_bytes())?;
        }
        if args.quiet {
            return id.map_or(Ok(()), |id| print(format!("{id}\n").as_bytes()));
        }
        let lines: String =
            self.warnings.iter().map(|line| format!("{}\n", printable::line(line))).collect();
        crate::progress::print_after(&lines);
        Ok(())
    }
}

/// `rbuild save`: an image of the local image store as an archive.
pub(crate) async fn save(
    session: Arc<Session>,
    stored: StoredImage,
    args: &SaveArgs,
) -> Result<(), CommandError> {
    let unreadable = |what: &str, error: Box<dyn std::error::Error + Send + Sync>| {
        CommandError::new(Kind::Environment, format!("cannot read the image's {what}: {error}"))
    };
    let content = &session.store.content;
    let manifest_bytes = content
        .read(&stored.descriptor.digest, DOCUMENT_LIMIT)
        .map_err(|error| unreadable("manifest", error.into()))?;
    if stored.descriptor.media_type.is_index() {
        return Err(CommandError::usage(
            "saving an image of several platforms is not supported yet",
        ));
    }
    let manifest: Manifest = serde_json::from_slice(&manifest_bytes)
        .map_err(|error| unreadable("manifest", error.into()))?;
    let config_bytes = content
        .read(&manifest.config.digest, DOCUMENT_LIMIT)
        .map_err(|error| unreadable("configuration", error.into()))?;
    let config: ImageConfig = serde_json::from_slice(&config_bytes)
        .map_err(|error| unreadable("configuration", error.into()))?;
    let (bars, progress) = ByteBars::start();
    let pull = PullProgress { progress, vertex: stored.descriptor.digest };
    let fetched =
        try_join_all(manifest.layers.iter().map(|layer| session.images.ensure_blob(layer, &pull)))
            .await;
    drop(pull);
    bars.finish().await;
    fetched.map_err(fetch_error)?;
    let image = Image {
        manifest,
        manifest_bytes,
        descriptor: stored.descriptor,
        config_bytes,
        created: config.created,
        surplus_history: 0,
    };
    let names =
        stored.name.as_deref().and_then(|name| Reference::parse(name).ok()).into_iter().collect();
    let file = if args.output == "-" {
        FileDestination::Stdout
    } else {
        FileDestination::Path(args.output.clone().into())
    };
    let form = if args.format == "oci" { ArchiveForm::Oci } else { ArchiveForm::Docker };
    let destination = ImageDestination::Archive { form, names, file };
    blocking(move || export_image(session.export_store(), &image, &destination, None)).await
}
