//! Writing the result of a build to where it goes, and what is said of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rbuild_cache::PullProgress;
use rbuild_exporter::{
    ArchiveForm, AttestationForm, BuildResult, DocumentTypes, FilesDestination, Image,
    ImageDestination, ImageForm, IndexContents, LayerForm, NamedDocument, NeededBlob, PlacedFiles,
    annotate, deferred_files, export_files, export_image, image_needs, make_attestation_manifest,
    make_image, make_index,
};
use rbuild_oci::{Platform, Reference};
use rbuild_solver::{Event, Progress};
use serde_json::Value;

use super::attest::Attesting;
use super::failure::BuildError;
use super::metadata;
use super::plan::{NeededLayers, Plan, PlannedOutput, PlannedPush};
use super::platforms::Results;
use crate::annotation::{AnnotationKind, annotations_of};
use crate::args::BuildArgs;
use crate::commands::images::print;
use crate::error::{CommandError, Kind};
use crate::output::ImageOptions;
use crate::printable;
use crate::wiring::Session;

/// A build that is done.
#[derive(Debug)]
pub(crate) struct Built {
    /// The last image or index that was exported.
    image: Option<NamedDocument>,
    names: Vec<String>,
    /// How it was made, by platform, if that was asked.
    provenance: Vec<(Platform, Value)>,
    /// Lines that are printed at the end.
    pub(crate) warnings: Vec<String>,
}

/// Writes every output.
pub(crate) async fn export(
    session: &Arc<Session>,
    plan: Plan,
    results: &Results,
    progress: &Progress,
) -> Result<Built, BuildError> {
    let names = plan.names.iter().map(ToString::to_string).collect();
    let mut built = Built { image: None, names, provenance: Vec::new(), warnings: Vec::new() };
    if let Some(attesting) = &results.attesting {
        let pull = session.reporting(progress);
        for snapshot in attesting.scanned() {
            session.images.ensure_unpacked(snapshot, &pull).await.map_err(fetch_error)?;
        }
        let platforms = results.each.iter().map(|each| each.platform.clone());
        built.provenance = attesting.provenance(platforms);
    }
    for output in plan.outputs {
        if let Some(image) = write(session, output, results, "", progress).await? {
            built.image = Some(image);
        }
    }
    Ok(built)
}

/// Writes one output. `what` says what is exported, if it is not the build's result.
pub(super) async fn write(
    session: &Arc<Session>,
    output: PlannedOutput,
    results: &Results,
    what: &str,
    progress: &Progress,
) -> Result<Option<NamedDocument>, CommandError> {
    let engine;
    let to = match &output {
        PlannedOutput::Image {
            destination: Some(ImageDestination::Archive { form, .. }), ..
        } => match form {
            ArchiveForm::Oci => "oci image format",
            ArchiveForm::Docker => "docker image format",
        },
        PlannedOutput::Image { destination: Some(ImageDestination::Folder { .. }), .. } => {
            "oci image format"
        }
        PlannedOutput::Image { load: Some(load), .. } => {
            engine = load.engine.to_string();
            &engine
        }
        PlannedOutput::Image { .. } => "image",
        PlannedOutput::Files { destination: FilesDestination::Tar(_), .. } => "client tarball",
        PlannedOutput::Files { .. } => "client directory",
    };
    let what = if what.is_empty() { String::new() } else { format!("{what} ") };
    let vertex = progress.start(&format!("exporting {what}to {to}"));
    let pull = PullProgress { progress: progress.clone(), vertex };
    let results = match output.epoch() {
        None => results.clone(),
        Some(epoch) => results.no_later_than(epoch),
    };
    let exported = one(session, output, &results, &pull).await;
    let error = match exported.as_ref().err().map(CommandError::reason) {
        // It is done once more, when what a cache promised is built.
        Some(message) if session.images.has_broken() => {
            progress.send(Event::Warning { vertex: Some(vertex), message });
            None
        }
        error => error,
    };
    progress.complete(vertex, false, error);
    exported
}

async fn one(
    session: &Arc<Session>,
    output: PlannedOutput,
    results: &Results,
    pull: &PullProgress,
) -> Result<Option<NamedDocument>, CommandError> {
    let all_names: Vec<Reference> = output.names().to_vec();
    match output {
        PlannedOutput::Image { options, types, needed, unpack, destination, push, load } => {
            let attesting = results.attesting.clone();
            let types = if attesting.is_some() { oci_types(types, &pull.progress) } else { types };
            let unpack = unpack || attesting.as_ref().is_some_and(Attesting::needs_files);
            let mut images = Vec::with_capacity(results.each.len());
            for platform in &results.each {
                let result = &platform.result;
                if options.rewrite_timestamp == Some(true) && result.epoch.is_none() {
                    let message = "rewrite-timestamp=true changes nothing without a time: set SOURCE_DATE_EPOCH or source-date-epoch";
                    pull.progress.warn(message.to_owned());
                }
                let layers = layer_form(&options, result.epoch);
                let form =
                    ImageForm { layers, types, foreign: options.foreign, count: options.count };
                let image = image(session, result, form, (needed, unpack), pull).await?;
                let of =
                    |kind| annotations_of(&options.annotations, kind, Some(&platform.platform));
                let mut image =
                    annotate(session.export_store(), image, of(AnnotationKind::Manifest))
                        .map_err(export_error)?;
                image.descriptor.annotations.extend(of(AnnotationKind::ManifestDescriptor));
                images.push(image);
            }
            let of_index = |kind| annotations_of(&options.annotations, kind, None);
            let [index_annotations, index_descriptor] =
                [AnnotationKind::Index, AnnotationKind::IndexDescriptor].map(of_index);
            let epoch = results.each.iter().find_map(|platform| platform.result.epoch);
            let is_index = results.is_split;
            let loaded = load.zip(images.first().cloned());
            let document = {
                let (session, progress) = (Arc::clone(session), pull.progress.clone());
                let platforms = results.each.clone();
                blocking(move || {
                    let store = session.export_store();
                    let document = match &images[..] {
                        [image] if !is_index && attesting.is_none() => NamedDocument::from(image),
                        images => {
                            let mut index = index_of(images, index_annotations, types);
                            if let Some(attesting) = attesting {
                                let form = match options.attestation_image {
                                    false => AttestationForm::Artifact,
                                    true => AttestationForm::Image,
                                };
                                for (number, image) in images.iter().enumerate() {
                                    let snapshot = &platforms[number].result.snapshot;
                                    let about = (snapshot, image);
                                    let said = attesting
                                        .of_image(store, number, about, &all_names, &progress)?;
                                    let image = &image.descriptor;
                                    index.entries.push(make_attestation_manifest(
                                        store, image, &all_names, &said, form,
                                    )?);
                                }
                            }
                            let mut index = make_index(store, index)?;
                            index.descriptor.annotations = index_descriptor;
                            let created = images.iter().filter_map(|image| image.created.clone());
                            index.created(created.max())
                        }
                    };
                    Ok(document)
                })
                .await?
            };
            // To make a name last takes as long as the disk needs for the layers: they are sent meanwhile.
            let (named, pushed) = tokio::join!(
                async {
                    let Some(destination) = destination else { return Ok(()) };
                    let (session, document) = (Arc::clone(session), document.clone());
                    blocking(move || {
                        export_image(session.export_store(), &document, &destination, epoch)
                    })
                    .await
                },
                async {
                    let Some(PlannedPush { names, insecure }) = push else { return Ok(()) };
                    let insecure_names = names.iter().filter(|_| insecure);
                    let insecure = insecure_names.map(|name| name.registry().to_owned()).collect();
                    let pushes = session.pushes(insecure);
                    let pushed = pushes.push(&document.descriptor, &names, pull).await;
                    pushed.map(drop).map_err(push_error)
                },
            );
            named?;
            pushed?;
            if let Some((load, image)) = loaded {
                load.run(session, &image, pull).await?;
            }
            Ok(Some(document))
        }
        PlannedOutput::Files { destination, options } => {
            let is_split = options.split.unwrap_or(results.is_split);
            let mut files = Vec::with_capacity(results.each.len());
            for platform in &results.each {
                let result = Arc::clone(&platform.result);
                let folder = if is_split { platform.folder() } else { String::new() };
                files.push(PlacedFiles { folder, result, attestations: Vec::new() });
            }
            let attesting = results.attesting.clone();
            let is_as_it_is = attesting.is_none()
                && deferred_files(session.export_store(), &files, &destination).is_some();
            if !is_as_it_is {
                for PlacedFiles { result, .. } in &files {
                    unpacked(session, result, pull).await?;
                }
            }
            let (session, progress) = (Arc::clone(session), pull.progress.clone());
            // In one folder, what is said of one platform must not replace what is said of another.
            let suffixes: Vec<String> = match results.each.as_slice() {
                several @ [_, _, ..] if !is_split => {
                    several.iter().map(|platform| format!(".{}", platform.folder())).collect()
                }
                _ => vec![String::new(); files.len()],
            };
            blocking(move || {
                if let Some(attesting) = attesting {
                    let store = session.export_store();
                    for (number, files) in files.iter_mut().enumerate() {
                        let snapshot = &files.result.snapshot;
                        let mut said = attesting.of_files(store, number, snapshot, &progress)?;
                        for attestation in &mut said {
                            let name = &attestation.file_name;
                            let dot = name.find('.').unwrap_or(name.len());
                            let (stem, rest) = name.split_at(dot);
                            let prefix = &options.attestation_prefix;
                            let suffix = &suffixes[number];
                            attestation.file_name = format!("{prefix}{stem}{suffix}{rest}");
                        }
                        files.attestations = said;
                    }
                }
                export_files(session.export_store(), &files, &destination).map(|()| None)
            })
            .await
        }
    }
}

/// Makes sure that the files of a result are there.
async fn unpacked(
    session: &Session,
    result: &BuildResult,
    pull: &PullProgress,
) -> Result<(), CommandError> {
    session.images.ensure_unpacked(&result.snapshot, pull).await.map_err(fetch_error)
}

/// Attestations are OCI's documents, and so is what lists them.
fn oci_types(types: DocumentTypes, progress: &Progress) -> DocumentTypes {
    if types == DocumentTypes::Docker {
        progress
            .warn("attestations need OCI media types: they are used for the image, too".to_owned());
    }
    DocumentTypes::Oci
}

/// Makes the image of one result, with the layers that are needed; `unpack` if all are to be unpacked.
async fn image(
    session: &Arc<Session>,
    result: &Arc<BuildResult>,
    form: ImageForm,
    (needed, unpack): (NeededLayers, bool),
    pull: &PullProgress,
) -> Result<Image, CommandError> {
    let needs = image_needs(session.export_store(), result, form).map_err(export_error)?;
    let base = result.base_layers();
    let is_needed = |blob: &&NeededBlob| match needed {
        NeededLayers::All => true,
        NeededLayers::Added => !base.contains(&blob.layer) || needs.disputed.contains(blob),
        NeededLayers::Disputed => needs.disputed.contains(blob),
    };
    for blob in needs.blobs.iter().filter(is_needed).chain(&needs.convert) {
        session
            .images
            .ensure_layer_blob(&blob.layer, blob.first, pull)
            .await
            .map_err(fetch_error)?;
    }
    let unpacked = match unpack {
        true => result.snapshot.clone(),
        false => result.snapshot.lowest(needs.unpacked),
    };
    session.images.ensure_unpacked(&unpacked, pull).await.map_err(fetch_error)?;
    let (layers, has_cache) = (result.snapshot.layers().len(), result.inline_cache.is_some());
    let image = {
        let (session, result) = (Arc::clone(session), Arc::clone(result));
        blocking(move || make_image(session.export_store(), &result, form)).await?
    };
    if has_cache && image.manifest.layers.len() < layers {
        let message =
            "the image has no inline cache: a build cannot go on from merged layers (layers=)";
        pull.progress.warn(message.to_owned());
    }
    if image.surplus_history > 0 {
        pull.progress.warn(format!(
            "the history of the image has {} entries with a layer that does not exist; they are marked as empty",
            image.surplus_history
        ));
    }
    Ok(image)
}

/// The index of images.
fn index_of(
    images: &[Image],
    annotations: BTreeMap<String, String>,
    types: DocumentTypes,
) -> IndexContents {
    let entries = images.iter().map(|image| image.descriptor.clone()).collect();
    IndexContents { entries, annotations, types }
}

/// How the layers of an image are written.
pub(super) fn layer_form(options: &ImageOptions, epoch: Option<i64>) -> LayerForm {
    let ImageOptions { compression, existing, rewrite_timestamp, .. } = *options;
    let epoch = epoch.filter(|_| rewrite_timestamp != Some(false));
    LayerForm { compression: compression.unwrap_or_default(), existing, epoch }
}

/// Runs an export where it may keep a thread busy.
pub(crate) async fn blocking<T: Send + 'static>(
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

pub(crate) fn fetch_error(error: rbuild_cache::ImageError) -> CommandError {
    CommandError::caused(Kind::Environment, "cannot fetch a layer of the image", error)
}

impl Built {
    /// Writes and prints what the user asked to know.
    pub(crate) fn report(&self, args: &BuildArgs) -> Result<(), CommandError> {
        if let Some(path) = &args.metadata_file {
            let image = self.image.as_ref();
            let document = metadata::document(image, &self.names, &self.provenance);
            let mut bytes = serde_json::to_vec_pretty(&document).expect("a JSON value serialises");
            bytes.push(b'\n');
            metadata::write(path, &bytes)?;
        }
        // The configuration's digest is what docker calls the image's id; an index has but its own.
        let id = self.image.as_ref();
        let id = id.map(|image| image.config.unwrap_or(image.descriptor.digest).to_string());
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
