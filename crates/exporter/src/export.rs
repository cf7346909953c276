//! From a build's result to what the user asked for.

use std::path::PathBuf;
use std::sync::Arc;

use rbuild_cache::{ContentError, DeferredLayer, INLINE_CACHE, IndexError, LeaseError};
use rbuild_oci::{ImageConfig, Reference, ReferenceError};
use rbuild_solver::{LayerId, Snapshot};

use crate::archive::{ArchiveError, ArchiveForm, write_archive};
use crate::attestation::Attestation;
use crate::attested_files::{AttestedFiles, AttestedFilesError};
use crate::build_cache::{CacheExportError, FinishedRecords, inline_cache};
use crate::collision::{self, CollisionError};
use crate::image::{DocumentTypes, ForeignLayers, Image, assemble};
use crate::image_folder::write_image_folder;
use crate::index::NamedDocument;
use crate::layers::{ExportStore, LayerError, LayerForm, Needs, image_layers, needs};
use crate::layout_folder::LayoutFolderError;
use crate::local::{FolderMode, LocalError, write_folder, write_planned};
use crate::local_planned;
use crate::output_file::FileDestination;
use crate::sbom::InventoryError;
use crate::squashed::{self, LayerCount, merge_history, merged_layer};
use crate::tree::{PlacedTree, TreeError, write_planned_tar, write_tar};

/// What a build made.
#[derive(Clone, Debug)]
pub struct BuildResult {
    /// The files.
    pub snapshot: Snapshot,
    /// How a container of it runs; `rootfs.diff_ids` is empty.
    pub config: ImageConfig,
    /// How many entries of the history belong to the base image.
    pub base_history: usize,
    /// `SOURCE_DATE_EPOCH`, seconds since 1970.
    pub epoch: Option<i64>,
    /// What was built, if images are to be caches too.
    pub inline_cache: Option<FinishedRecords>,
}

impl BuildResult {
    /// The layers of the base image, as far as its history tells.
    pub fn base_layers(&self) -> &[LayerId] {
        let history = self.config.history.iter().take(self.base_history);
        let count = history.filter(|entry| !entry.empty_layer).count();
        let layers = self.snapshot.layers();
        &layers[..count.min(layers.len())]
    }
}

/// Where an image goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageDestination {
    /// The local image store, under these names.
    Store {
        /// The names; none leaves the image without one.
        names: Vec<Reference>,
        /// Whether each of them with the image's digest is a name of its own, too.
        canonical: bool,
        /// A name that is made of the image's digest.
        dangling: Option<DanglingName>,
    },
    /// An archive.
    Archive {
        /// Which kind.
        form: ArchiveForm,
        /// The names written into it.
        names: Vec<Reference>,
        /// Where.
        file: FileDestination,
    },
    /// A folder with an OCI image layout, beside the images that it has.
    Folder {
        /// The names in it.
        names: Vec<Reference>,
        /// Where.
        folder: PathBuf,
    },
}

/// A name `PREFIX@DIGEST` for what may lose its other names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DanglingName {
    /// What is before the digest.
    pub prefix: String,
    /// Whether only an image gets it that has no other name.
    pub only_without_name: bool,
}

/// Where the files of a result go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilesDestination {
    /// One tar.
    Tar(FileDestination),
    /// A folder.
    Folder {
        /// Its path; it is made when missing.
        path: PathBuf,
        /// What becomes of what it holds beside the result.
        mode: FolderMode,
        /// Whether owners are kept: only for real root. Others own what they build.
        keep_owners: bool,
    },
}

/// How an image is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageForm {
    /// The layers.
    pub layers: LayerForm,
    /// The documents.
    pub types: DocumentTypes,
    /// Layers that must not be distributed.
    pub foreign: ForeignLayers,
    /// How many layers there are.
    pub count: LayerCount,
}

impl ImageForm {
    /// The layers that stay, and whether those above them are merged.
    fn split(self, result: &BuildResult) -> (Snapshot, bool) {
        let layers = result.snapshot.layers();
        let kept = &layers[..self.count.kept(result)];
        (Snapshot::new(kept.to_vec()), kept.len() < layers.len())
    }
}

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// An archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A folder with an image.
    #[error(transparent)]
    Folder(#[from] LayoutFolderError),
    /// A name that is made of the image's digest.
    #[error("cannot name the image `{text}`")]
    Reference {
        /// The name.
        text: String,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// A tar of the files.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The cache inside of the image.
    #[error("cannot write the cache into the image")]
    Cache(#[from] CacheExportError),
    /// Files of several platforms, for one folder.
    #[error(transparent)]
    Collision(#[from] CollisionError),
    /// A folder.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The result's files.
    #[error(transparent)]
    Files(#[from] AttestedFilesError),
    /// The packages among them.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// The image's documents.
    #[error("cannot store the image's manifest and configuration")]
    Documents(#[from] ContentError),
    /// The claim on them.
    #[error("cannot keep the image's documents from being collected")]
    Pin(#[from] LeaseError),
    /// The image's names.
    #[error("cannot name the image in the local image store")]
    Name(#[from] IndexError),
}

/// Finds out what must be fetched before [`make_image`].
pub fn image_needs(
    store: ExportStore<'_>,
    result: &BuildResult,
    form: ImageForm,
) -> Result<Needs, LayerError> {
    let (kept, merged) = form.split(result);
    let mut needs = needs(store, &kept, form.layers)?;
    if merged {
        let kept = kept.layers().len();
        if squashed::is_missing(store, &result.snapshot, kept, form.layers)? {
            needs.unpacked = result.snapshot.layers().len();
        }
    }
    Ok(needs)
}

/// Makes the image of a result: its layers' blobs and its documents, all in the content store.
pub fn make_image(
    store: ExportStore<'_>,
    result: &BuildResult,
    form: ImageForm,
) -> Result<Image, ExportError> {
    let (kept, merged) = form.split(result);
    let mut layers = image_layers(store, &kept, form.layers)?;
    let mut config = result.config.clone();
    let (base_history, epoch) = (result.base_history, result.epoch);
    let mut surplus_history = 0;
    if merged {
        let kept = kept.layers().len();
        let mut merged = merged_layer(store, &result.snapshot, kept, form.layers)?;
        let times = squashed::times(store, &result.snapshot, kept)?;
        merged.created = times[kept..].iter().flatten().max().copied();
        layers.push(merged);
        surplus_history = merge_history(&mut config, base_history, &times, kept, epoch);
    }
    // What a base image says of its layers is said of no others.
    config.extra.remove(INLINE_CACHE);
    // Merged layers are no states that a build can go on from.
    if let Some(records) = result.inline_cache.as_ref().filter(|_| !merged) {
        let cache = inline_cache(store, records, &result.snapshot, &layers, epoch)?;
        config.extra.insert(INLINE_CACHE.to_owned(), cache.into());
    }
    let mut image = assemble(config, base_history, &layers, (form.types, form.foreign), epoch);
    image.surplus_history += surplus_history;
    store.lease.pin_blobs(&[image.descriptor.digest, image.manifest.config.digest])?;
    store.content.put(&image.config_bytes)?;
    store.content.put(&image.manifest_bytes)?;
    Ok(image)
}

/// Writes an image or an index to an archive, or names it in the local image store.
pub fn export_image(
    store: ExportStore<'_>,
    document: &NamedDocument,
    destination: &ImageDestination,
    epoch: Option<i64>,
) -> Result<(), ExportError> {
    match destination {
        ImageDestination::Store { names, canonical, dangling } => {
            let mut descriptor = document.descriptor.clone();
            descriptor.annotations.clear();
            let digest = descriptor.digest;
            let mut names: Vec<Reference> = names.iter().map(Reference::with_default_tag).collect();
            if *canonical {
                let pinned: Vec<_> = names.iter().map(|name| name.pinned(digest)).collect();
                names.extend(pinned);
            }
            if let Some(dangling) = dangling
                && (names.is_empty() || !dangling.only_without_name)
            {
                let text = format!("{}@{digest}", dangling.prefix);
                let name = Reference::parse(&text);
                names.push(name.map_err(|source| ExportError::Reference { text, source })?);
            }
            let names: Vec<String> = names.iter().map(Reference::to_string).collect();
            let mut new = Vec::new();
            for name in &names {
                let there = store.index.image(name)?;
                if there.is_none_or(|there| there.descriptor != descriptor) {
                    new.push(name);
                }
            }
            // Names must not point to what a power cut could still take. What has its name already was made to
            // last then, and waiting for the disk again would be for nothing.
            if names.is_empty() || !new.is_empty() {
                store.content.sync()?;
            }
            if names.is_empty() {
                store.index.add_image(&descriptor)?;
            }
            for name in new {
                store.index.tag_image(name, &descriptor)?;
            }
        }
        ImageDestination::Archive { form, names, file } => {
            write_archive(document, names, *form, store.content, epoch, file)?;
        }
        ImageDestination::Folder { names, folder } => {
            write_image_folder(document, names, store.content, folder)?;
        }
    }
    Ok(())
}

/// Files of one platform, and where they go.
#[derive(Clone, Debug)]
pub struct PlacedFiles {
    /// The folder of the destination; empty for its top.
    pub folder: String,
    /// What has the files.
    pub result: Arc<BuildResult>,
    /// What is said of them, in files beside them.
    pub attestations: Vec<Attestation>,
}

/// The copy that files consist of, if it was deferred and can go to a destination without being done before. Other files must be
/// unpacked for [`export_files`].
pub fn deferred_files(
    store: ExportStore<'_>,
    files: &[PlacedFiles],
    destination: &FilesDestination,
) -> Option<Arc<DeferredLayer>> {
    let [PlacedFiles { folder, result, attestations }] = files else { return None };
    let [layer] = result.snapshot.layers() else { return None };
    if !folder.is_empty() || !attestations.is_empty() {
        return None;
    }
    let fits = |layer: &Arc<DeferredLayer>| match destination {
        FilesDestination::Tar(_) => true,
        FilesDestination::Folder { mode, .. } => {
            *mode == FolderMode::Add && local_planned::fits(&layer.copy)
        }
    };
    store.deferred.get(layer).filter(fits)
}

/// Writes the files of a result, or of one result a platform.
pub fn export_files(
    store: ExportStore<'_>,
    files: &[PlacedFiles],
    destination: &FilesDestination,
) -> Result<(), ExportError> {
    if let Some(deferred) = deferred_files(store, files, destination) {
        let epoch = files.iter().find_map(|files| files.result.epoch);
        match destination {
            FilesDestination::Tar(file) => write_planned_tar(&deferred.copy, file, epoch)?,
            FilesDestination::Folder { path, keep_owners, .. } => {
                write_planned(&deferred.copy, path, (epoch, *keep_owners))?;
            }
        }
        return Ok(());
    }
    let views = files
        .iter()
        .map(|PlacedFiles { result, attestations, .. }| {
            AttestedFiles::open(store, &result.snapshot, attestations, result.epoch)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let trees: Vec<PlacedTree<'_>> = views
        .iter()
        .zip(files)
        .map(|(view, PlacedFiles { folder, result, .. })| PlacedTree {
            root: view.root(),
            folder,
            epoch: result.epoch,
        })
        .collect();
    match destination {
        FilesDestination::Tar(file) => write_tar(&trees, file)?,
        FilesDestination::Folder { path, mode, keep_owners } => {
            if trees.len() > 1 && trees.iter().all(|tree| tree.folder.is_empty()) {
                let platforms =
                    files.iter().map(|files| files.result.config.platform().to_string());
                let named: Vec<_> = trees.iter().map(|tree| tree.root).zip(platforms).collect();
                collision::check(&named)?;
            }
            write_folder(&trees, path, (*mode, *keep_owners))?;
        }
    }
    Ok(())
}
