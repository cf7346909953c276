//! Bytes on disk and at registries: blobs, layers, their index, locks.
//!
//! This crate knows nothing of Dockerfiles and runs nothing. A [`Store`] opens the parts that share one
//! directory: [`Content`] (blobs), [`Layers`] (layer directories), [`Index`] (what is known of both, and images),
//! [`Locks`] and [`Lease`]. [`LocalRecords`] is the solver's cache on top of them. [`Overlay`] and [`View`] show
//! layer directories as one tree; [`diff`] turns a layer directory into an archive.
//! [`Tree`] selects and hashes files of a context folder or of a view.

mod below;
mod builds;
mod cache_mounts;
mod content;
mod copied;
mod copy_data;
mod deferred;
mod disk_error;
mod document_walk;
mod download;
mod gate;
mod gc;
mod http;
mod image_push;
mod image_source;
mod index;
mod layer;
mod layer_of_file;
mod layers;
mod lease;
mod lock;
mod logs;
mod names;
mod oci_layout;
mod open_in_root;
mod overlay;
mod overlay_by_path;
mod part_error;
mod read_file;
mod records;
mod registry;
mod remote_cache;
mod remote_mounts;
mod remove_tree;
mod s3;
mod staging;
mod store;
mod tree;
mod view;

pub use below::Below;
pub use builds::{
    BuildId, BuildRecord, BuildState, BuildSubject, Builds, BuildsError, FileList, InputState,
    ListedFile, ListedKind, Millis, PickedFiles, StepRecord, StepState,
};
pub use cache_mounts::{
    CacheMount, CacheMountError, CacheMountKey, CacheMountUse, CacheMounts, FreshCacheMount,
    RenewCacheMount, TakenCacheMount,
};
pub use content::{BlobWriter, Content, ContentError};
pub use copied::CopyError;
pub use copy_data::DataCopier;
pub use deferred::{DeferredLayer, DeferredLayers};
pub use disk_error::DiskError;
pub use document_walk::{DocumentWalk, DocumentWalkError};
pub use download::{
    Download, DownloadError, DownloadErrorKind, Downloaded, Downloads, DownloadsOptions, Pace,
    percent_decoded,
};
pub use gc::{
    CollectError, DiskSpace, FilterError, Item, ItemFilter, ItemKind, Kept, KindUsage,
    PruneOptions, Pruned, SpaceKeeper, SpaceLimits, Usage, prune,
};
pub use http::{BlobBody, Proxies, RetryPolicy, TransportError};
pub use image_push::{ImagePush, PushError, PushedPlatforms, names_of_entries};
pub use image_source::{
    DocumentError, FetchError, ImageError, ImageLayer, ImageName, ImageNameError, ImageSource,
    ImageSourceOptions, PullMode, PullProgress, ResolvedImage, WholeImage,
};
pub use index::{
    BlobFacts, BlobSource, Image, Index, IndexError, IndexWarning, LayerFacts, StoredKey,
    StoredRecord,
};
pub use layer::{
    AppliedLayer, ApplyError, ApplyForm, ApplyOptions, ArchiveLimits, Compression,
    CompressionError, Decoder, DiffError, EntryKind, FinishedBlob, LayerBlobReader,
    LayerBlobWriter, OutsideHardlink, OverlayXattrs, PlannedAttributes, PlannedCopy,
    PlannedDirectory, PlannedEntry, TOC_DIGEST, TarEntry, TarReadError, TarWriteError, TarWriter,
    UNCOMPRESSED_SIZE, Xattr, apply, diff, diff_merged, write_tree,
};
pub use layer_of_file::layer_of_file;
pub use layers::{Layers, LayersError, PendingLayer};
pub use lease::{Lease, LeaseError};
pub use lock::{LockError, LockGuard, LockName, Locks};
pub use logs::{BuildLog, KeptBuild, KeptStep, Logs, OutputReader, Printed, PrintedBy};
pub use oci_layout::{LayoutError, LayoutImage, OciLayout};
pub use open_in_root::{open_file_in_root, open_in_root};
pub use overlay::{MAX_LAYERS, Overlay, OverlayError, Upper};
pub use part_error::PartError;
pub use records::{LocalRecords, RecordsError};
pub use registry::{
    BlobStream, Credential, Credentials, CredentialsError, Document, HostFiles, HostFilesError,
    LoggedIn, LoginFile, LoginFileError, LoginPlace, MirrorFault, MirrorStanding, Mount,
    PodmanFiles, RegistryClient, RegistryError, RegistryErrorKind, RegistryOptions, Standing,
    UploadSession,
};
pub use remote_cache::{
    BucketCache, BucketCacheError, CACHE_CONFIG_TYPE, CacheConfig, CacheFormError,
    CacheImportError, CacheName, ConfigChain, ConfigLayer, ConfigRecord, INLINE_CACHE,
    ImportedCache, LayerAnnotations, OtherBlobs, RecordLayer, RecordNotes, S3Cache,
};
pub use remote_mounts::{
    ExportedMounts, MountExportError, MountIndex, MountIndexError, MountStore, PackError,
    WantedMounts, export_mounts,
};
pub use remove_tree::remove_tree;
pub use s3::{
    Buckets, BucketsOptions, ObjectStream, S3Bucket, S3Client, S3Credentials, S3Error, S3ErrorKind,
    S3Limits, S3Object,
};
pub use store::{Store, StoreError};
pub use tree::{
    Entry, InPlace, Meta, Node, Selected, Selection, StatCache, StatCacheError, Tree, TreeError,
    is_kept_xattr, read_xattrs,
};
pub use view::{ActiveLayer, View, ViewError};
