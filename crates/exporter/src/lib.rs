//! Writes what a build made: images, archives, folders.
//!
//! Nothing here knows registries, graphs or progress bars, and nothing is fetched: [`needs`] says what must be
//! there first. [`make_image`] turns a [`BuildResult`] into an [`Image`], [`make_index`] lists several, [`export_image`] and
//! [`export_files`] put it where the user wants it. Read [`BuildResult`] and [`Image`] first.

mod annotate;
mod archive;
mod attestation;
mod attested_files;
mod build_cache;
mod collision;
mod converted;
mod engine;
mod export;
mod image;
mod image_folder;
mod index;
mod layers;
mod layout_folder;
mod local;
mod local_planned;
mod output_file;
mod provenance;
mod sbom;
mod squashed;
mod tree;
mod verified;
mod walk;

pub use annotate::annotate;
pub use archive::{ArchiveError, ArchiveForm};
pub use attestation::{
    Attestation, AttestationForm, PROVENANCE_V1, SPDX_DOCUMENT, Subject, image_purl,
    image_subjects, make_attestation_manifest,
};
pub use attested_files::AttestedFilesError;
pub use build_cache::{
    BucketDocument, CacheDocuments, CacheExportError, CacheForm, CacheLayout, FinishedRecords,
    make_bucket_document, make_cache, missing_blobs, write_cache_layout,
};
pub use collision::CollisionError;
pub use engine::{DockerEngine, Engine, EngineError, EnginePlace, Podman};
pub use export::{
    BuildResult, DanglingName, ExportError, FilesDestination, ImageDestination, ImageForm,
    PlacedFiles, deferred_files, export_files, export_image, image_needs, make_image,
};
pub use image::{DocumentTypes, ForeignLayers, Image, ImageLayer, assemble};
pub use index::{IndexContents, NamedDocument, make_index};
pub use layers::{
    ExistingBlobs, ExportStore, LayerError, LayerForm, NeededBlob, Needs, archive_copy, needs,
};
pub use layout_folder::LayoutFolderError;
pub use local::{FolderMode, LocalError};
pub use output_file::{FileDestination, OutputFileError};
pub use provenance::{
    BuildFacts, ConfigSource, ProvenanceMode, ProvenanceOptions, ResolvedSource, SourceDigest,
    SourceText, provenance,
};
pub use sbom::{
    Described, Distribution, Ecosystem, Found, Inventory, InventoryError, LayerFiles,
    LayerInventory, Package, ScannedFile, scan_layer, snapshot_inventory, spdx_document,
};
pub use squashed::LayerCount;
pub use tree::TreeError;
pub use walk::WalkError;
