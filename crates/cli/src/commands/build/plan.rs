//! Where the result of a build goes, checked before the build begins.

use std::collections::HashSet;
use std::io::IsTerminal as _;
use std::path::Path;

use rbuild_exporter::{
    ArchiveForm, DanglingName, DocumentTypes, FileDestination, FilesDestination, FolderMode,
    ImageDestination,
};
use rbuild_oci::Reference;
use rbuild_solver::Presence;
use rbuild_worker::in_user_namespace;

use super::engine;
use super::load::PlannedLoad;
use crate::args::BuildArgs;
use crate::commands::images::image_name;
use crate::error::CommandError;
use crate::output::{
    ArchiveKind, ArchivePlace, FilesOptions, ImageOptions, OutputSpec, PushOptions, StoreOptions,
};

/// All outputs of a build.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(super) outputs: Vec<PlannedOutput>,
    /// All names that the image gets somewhere.
    pub(super) names: Vec<Reference>,
}

/// One output.
#[derive(Clone, Debug)]
pub(super) enum PlannedOutput {
    Image {
        options: ImageOptions,
        types: DocumentTypes,
        /// Which layers are fetched for it.
        needed: NeededLayers,
        /// Whether layers are unpacked, too.
        unpack: bool,
        /// `None` where registries are all.
        destination: Option<ImageDestination>,
        push: Option<PlannedPush>,
        load: Option<PlannedLoad>,
    },
    Files {
        destination: FilesDestination,
        options: FilesOptions,
    },
}

/// Which layers that are elsewhere must be here for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NeededLayers {
    /// All: what is written holds them.
    All,
    /// Those on top of the base image: only a cache has them, and nobody promised to keep that.
    Added,
    /// Those without which the manifest might be wrong.
    Disputed,
}

/// Registries that an image goes to.
#[derive(Clone, Debug)]
pub(super) struct PlannedPush {
    /// Those without a tag get it by its digest.
    pub(super) names: Vec<Reference>,
    /// Whether they are believed to be who they say, and may speak plain HTTP.
    pub(super) insecure: bool,
}

impl Plan {
    /// What must be there of the layers of the result.
    pub(super) fn need(&self) -> Presence {
        let need_of = |output: &PlannedOutput| match output {
            PlannedOutput::Image { .. } => Presence::Archive,
            // The files may go there straight from where they come from.
            PlannedOutput::Files { .. } => Presence::Planned,
        };
        self.outputs.iter().map(need_of).max().unwrap_or(Presence::Known)
    }

    /// Whether an output is an image.
    pub(super) fn has_image(&self) -> bool {
        self.outputs.iter().any(|output| matches!(output, PlannedOutput::Image { .. }))
    }
}

/// Finds out where results go, or what is wrong with that.
pub(super) fn plan(args: &BuildArgs) -> Result<Plan, CommandError> {
    let default = [OutputSpec::default_image()];
    let load = [OutputSpec::load()];
    let is_load = |spec: &OutputSpec| matches!(spec, OutputSpec::Load { .. });
    let loaded = if args.load && !args.output.iter().any(is_load) { &load[..] } else { &[] };
    let specs: &[OutputSpec] = match args.output.as_slice() {
        [] if args.load => &[],
        [] => &default[..],
        specs => specs,
    };
    let is_image = |spec: &OutputSpec| matches!(spec, OutputSpec::Image { .. });
    // A push beside a folder or an archive is an output of its own.
    let pushed = if args.push && !specs.iter().any(is_image) { &default[..] } else { &[] };
    let (mut outputs, mut names) = (Vec::new(), Vec::new());
    for spec in specs.iter().chain(loaded).chain(pushed) {
        let planned = match spec.clone().with_compression(args.compression) {
            OutputSpec::Image { names, options, store, push } => {
                let push = PushOptions { push: push.push || args.push, ..push };
                planned(&OutputSpec::Image { names, options, store, push }, &args.tag)?
            }
            other => planned(&other, &args.tag)?,
        };
        for name in planned.iter().flat_map(PlannedOutput::names) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        outputs.extend(planned);
    }
    let only_files = !outputs.is_empty()
        && outputs.iter().all(|output| matches!(output, PlannedOutput::Files { .. }));
    if args.iidfile.is_some() && only_files {
        return Err(CommandError::usage(
            "local and tar exporters are incompatible with image ID file",
        ));
    }
    if let Some(twice) = written_twice(outputs.iter()) {
        return Err(CommandError::usage(format!("two outputs go to {twice}: one would be lost")));
    }
    Ok(Plan { outputs, names })
}

impl Plan {
    /// The folders with images in them that outputs are put into.
    pub(super) fn layout_folders(&self) -> impl Iterator<Item = &Path> {
        self.outputs.iter().filter_map(|output| match output {
            PlannedOutput::Image {
                destination: Some(ImageDestination::Folder { folder, .. }),
                ..
            } => Some(folder.as_path()),
            _ => None,
        })
    }

    /// Refuses outputs that cannot hold results for so many platforms, written as those of several or not.
    pub(super) fn check(&self, platforms: usize, is_index: bool) -> Result<(), CommandError> {
        self.outputs.iter().try_for_each(|output| match output {
            PlannedOutput::Image {
                destination: Some(ImageDestination::Archive { form: ArchiveForm::Docker, .. }),
                ..
            } if is_index => Err(CommandError::usage(
                "docker exporter does not currently support exporting manifest lists",
            )
            .hint("write them as type=oci, or build for one platform without attestations")),
            PlannedOutput::Image { load: Some(_), .. } if is_index => Err(CommandError::usage(
                "docker exporter does not currently support exporting manifest lists",
            )
            .hint(
                "load one platform without attestations, or put them into the local image store",
            )),
            PlannedOutput::Files {
                destination,
                options: FilesOptions { split: Some(false), .. },
            } if platforms > 1 => {
                let what = match destination {
                    FilesDestination::Tar(_) => "type=tar",
                    FilesDestination::Folder { mode: FolderMode::Replace, .. } => "mode=delete",
                    FilesDestination::Folder { .. } => return Ok(()),
                };
                let message = format!("{what} with platform-split=false is for one platform");
                Err(CommandError::usage(message)
                    .hint("type=local with mode=copy takes the files of several"))
            }
            _ => Ok(()),
        })
    }
}

/// An output, checked; `None` for one that goes nowhere. `tags` are names besides its own.
pub(super) fn planned(
    spec: &OutputSpec,
    tags: &[String],
) -> Result<Option<PlannedOutput>, CommandError> {
    let references = |own: &[String]| {
        tags.iter().chain(own).map(|name| image_name(name)).collect::<Result<Vec<_>, _>>()
    };
    Ok(match spec {
        OutputSpec::Image { names: own, options, store, push } => {
            let names = references(own)?;
            let push = planned_push(&names, tags.iter().chain(own), *push)?;
            let has_tags = push.as_ref().is_none_or(|push| push.names == names);
            // Where it has no tag at the registry, it should not have one here.
            let names = if has_tags { names } else { Vec::new() };
            let unpack = store.as_ref().is_some_and(|store| store.unpack);
            let needed = match &store {
                // What is pushed is at the registry that it names, and what has no name is not there to stay.
                Some(StoreOptions { allow_incomplete: false, dangling, .. })
                    if push.is_none() && (!names.is_empty() || dangling.is_some()) =>
                {
                    NeededLayers::Added
                }
                _ => NeededLayers::Disputed,
            };
            let destination = match store.clone() {
                None => None,
                Some(StoreOptions { canonical, dangling, .. }) => {
                    if let Some(DanglingName { prefix, .. }) = &dangling {
                        image_name(prefix)?;
                    }
                    Some(ImageDestination::Store { names, canonical, dangling })
                }
            };
            let types = types(options, DocumentTypes::Oci);
            let (options, load) = (options.clone(), None);
            Some(PlannedOutput::Image { options, types, needed, unpack, destination, push, load })
        }
        OutputSpec::Archive { form, place, names: own, options } => {
            let form = match form {
                ArchiveKind::Oci => ArchiveForm::Oci,
                ArchiveKind::Docker => ArchiveForm::Docker,
            };
            let names = references(own)?;
            let destination = match place.clone() {
                ArchivePlace::File(file) => {
                    check_file(&file)?;
                    ImageDestination::Archive { form, names, file }
                }
                ArchivePlace::Folder(folder) => ImageDestination::Folder { names, folder },
            };
            Some(PlannedOutput::Image {
                options: options.clone(),
                types: types(options, DocumentTypes::Oci),
                needed: NeededLayers::All,
                unpack: false,
                destination: Some(destination),
                push: None,
                load: None,
            })
        }
        OutputSpec::Load { names: own, options } => {
            let names = references(own)?;
            let engine = engine::find(|name| std::env::var(name).ok())?;
            Some(PlannedOutput::Image {
                options: options.clone(),
                types: types(options, DocumentTypes::Oci),
                needed: NeededLayers::Disputed,
                unpack: false,
                destination: None,
                push: None,
                load: Some(PlannedLoad { engine, names }),
            })
        }
        OutputSpec::Tar { file, options } => {
            check_file(file)?;
            let destination = FilesDestination::Tar(file.clone());
            Some(PlannedOutput::Files { destination, options: options.clone() })
        }
        OutputSpec::Local { folder, mode, options } => {
            let (path, mode) = (folder.clone(), *mode);
            let keep_owners = !in_user_namespace();
            let destination = FilesDestination::Folder { path, mode, keep_owners };
            Some(PlannedOutput::Files { destination, options: options.clone() })
        }
        OutputSpec::CacheOnly => None,
    })
}

/// Refuses to write an archive where a person reads.
fn check_file(file: &FileDestination) -> Result<(), CommandError> {
    if *file == FileDestination::Stdout && std::io::stdout().is_terminal() {
        let message = "dest=FILE is needed: an archive is not written to a terminal";
        return Err(CommandError::usage(message));
    }
    Ok(())
}

/// Checks what is said about a push of an image with these names, which were typed as `texts`.
fn planned_push<'a>(
    names: &[Reference],
    texts: impl Iterator<Item = &'a String>,
    options: PushOptions,
) -> Result<Option<PlannedPush>, CommandError> {
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
    if !by_digest {
        return Ok(Some(PlannedPush { names: names.to_vec(), insecure }));
    }
    let untagged = |text: &String| match Reference::parse(text) {
        Ok(name) if name.tag().is_none() => Ok(name),
        _ => Err(CommandError::usage(format!("can't push tagged ref {text} by digest"))),
    };
    let names = texts.map(untagged).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(PlannedPush { names, insecure }))
}

impl PlannedOutput {
    /// The names that its image gets.
    pub(super) fn names(&self) -> &[Reference] {
        match self {
            Self::Image { push: Some(push), .. } => &push.names,
            Self::Image { load: Some(load), .. } => &load.names,
            Self::Image {
                destination:
                    Some(
                        ImageDestination::Store { names, .. }
                        | ImageDestination::Archive { names, .. }
                        | ImageDestination::Folder { names, .. },
                    ),
                ..
            } => names,
            Self::Image { .. } | Self::Files { .. } => &[],
        }
    }

    /// What the output has in place of the build's `SOURCE_DATE_EPOCH`.
    pub(super) fn epoch(&self) -> Option<i64> {
        match self {
            Self::Image { options, .. } => options.epoch,
            Self::Files { options, .. } => options.epoch,
        }
    }
}

/// A place that more than one output would be written to.
pub(super) fn written_twice<'a>(
    outputs: impl Iterator<Item = &'a PlannedOutput>,
) -> Option<String> {
    let mut seen = HashSet::new();
    let file = |output: &PlannedOutput| match output {
        PlannedOutput::Image {
            destination: Some(ImageDestination::Archive { file, .. }), ..
        }
        | PlannedOutput::Files { destination: FilesDestination::Tar(file), .. } => {
            Some(file.clone())
        }
        _ => None,
    };
    outputs.filter_map(file).find(|file| !seen.insert(file.clone())).map(|file| match file {
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
