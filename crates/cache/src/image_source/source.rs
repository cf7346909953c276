//! What image sources are made of.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rbuild_oci::{
    ChainId, Descriptor, DiffId, Digest, DigestError, ImageConfig, Platform, Reference,
    ReferenceError,
};
use rbuild_solver::{LayerId, Snapshot};
use tokio::sync::Semaphore;

use crate::remote_cache::BrokenLayers;
use crate::remote_mounts::RemoteMounts;
use crate::{
    ArchiveLimits, Buckets, Content, DeferredLayers, Index, Layers, LayoutImage, Lease, Locks,
    OciLayout, Overlay, RegistryClient, Store,
};

/// How many blobs are fetched and unpacked at a time, unless said otherwise. Registries begin to refuse beyond that.
const PARALLEL: usize = 6;

/// Finds images, and fetches their layers when they are needed. Clones share their limits and connections.
#[derive(Clone, Debug)]
pub struct ImageSource {
    pub(crate) content: Content,
    pub(crate) layers: Layers,
    pub(crate) index: Index,
    pub(super) locks: Locks,
    pub(super) lease: Lease,
    pub(super) overlay: Arc<Overlay>,
    pub(crate) registry: RegistryClient,
    pub(crate) options: ImageSourceOptions,
    pub(super) transfers: Arc<Semaphore>,
    pub(crate) broken: BrokenLayers,
    pub(crate) mounts: RemoteMounts,
    pub(crate) buckets: Buckets,
    pub(super) deferred: DeferredLayers,
    /// What was found where images come from, by the name that has a digest and the platform: a graph asks for it again.
    pub(super) resolved: Arc<Mutex<HashMap<(String, Platform), ResolvedImage>>>,
}

/// How layers are fetched and unpacked.
#[derive(Clone, Debug)]
pub struct ImageSourceOptions {
    /// How many blobs at a time.
    pub parallel: usize,
    /// Leave files to ourselves whose owner does not exist in our user namespace: right where there is only one id.
    pub ignore_chown_errors: bool,
    /// How much of an archive is believed.
    pub limits: ArchiveLimits,
}

impl Default for ImageSourceOptions {
    fn default() -> Self {
        Self { parallel: PARALLEL, ignore_chown_errors: false, limits: ArchiveLimits::default() }
    }
}

/// Where an image is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageName {
    /// In the local image store, then at its registry.
    Reference(Reference),
    /// In an OCI image layout folder.
    Layout(OciLayout, LayoutImage),
}

impl std::fmt::Display for ImageName {
    /// As people write it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reference(reference) => f.write_str(&reference.familiar()),
            Self::Layout(layout, image) => {
                write!(f, "oci-layout://{}", layout.folder().display())?;
                match image {
                    LayoutImage::Only => Ok(()),
                    LayoutImage::Named(name) => write!(f, ":{name}"),
                    LayoutImage::Digest(digest) => write!(f, "@{digest}"),
                }
            }
        }
    }
}

/// An identifier of an image source that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageNameError {
    /// It has another scheme.
    #[error("`{0}` is no image: it begins with neither docker-image:// nor oci-layout://")]
    Scheme(String),
    /// The reference is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// What follows `@` is no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl ImageName {
    const REGISTRY: &str = "docker-image://";
    const LAYOUT: &str = "oci-layout://";

    /// The image that an LLB source identifier names: `docker-image://REFERENCE` or
    /// `oci-layout://FOLDER[:NAME|@DIGEST]`.
    pub fn from_identifier(identifier: &str) -> Result<Self, ImageNameError> {
        if let Some(reference) = identifier.strip_prefix(Self::REGISTRY) {
            return Ok(Self::Reference(Reference::parse(reference)?));
        }
        identifier
            .strip_prefix(Self::LAYOUT)
            .map_or_else(|| Err(ImageNameError::Scheme(identifier.to_owned())), Self::layout)
    }

    /// The image of a layout that is named as `FOLDER[:NAME|@DIGEST]`. A folder that exists under the whole text is
    /// taken as that: folders may have colons.
    pub fn layout(text: &str) -> Result<Self, ImageNameError> {
        let (folder, image) = match text.rsplit_once('@') {
            Some((folder, digest)) if digest.contains(':') => {
                (folder, LayoutImage::Digest(Digest::parse(digest)?))
            }
            _ => match text.rsplit_once(':') {
                Some((folder, name)) if !name.contains('/') && !Path::new(text).is_dir() => {
                    (folder, LayoutImage::Named(name.to_owned()))
                }
                _ => (text, LayoutImage::Only),
            },
        };
        Ok(Self::Layout(OciLayout::new(Path::new(folder)), image))
    }

    /// Whether it names one thing only.
    pub(super) fn is_by_digest(&self) -> bool {
        match self {
            Self::Reference(reference) => reference.digest().is_some(),
            Self::Layout(_, image) => matches!(image, LayoutImage::Digest(_)),
        }
    }

    /// The LLB source identifier of the image.
    pub fn identifier(&self) -> String {
        match self {
            Self::Reference(reference) => format!("{}{reference}", Self::REGISTRY),
            layout @ Self::Layout(..) => layout.to_string(),
        }
    }
}

/// Whether what is there already is good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullMode {
    /// An image of the local image store is taken as it is; for others the registry is asked what a tag names now.
    Missing,
    /// The registry is always asked (`--pull`). A digest names one thing only, so for it this changes nothing.
    Always,
}

/// What an image is. None of its layers need be in the store.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The same image by digest: this name never means another one, and resolves without the network while the store
    /// has the documents.
    pub name: ImageName,
    /// What the name meant: an index, or the manifest itself.
    pub top: Descriptor,
    /// The manifest for the platform.
    pub manifest: Descriptor,
    /// The configuration.
    pub config: ImageConfig,
    /// The configuration's descriptor.
    pub config_descriptor: Descriptor,
    /// The configuration as it was written.
    pub config_bytes: Vec<u8>,
    /// The layers, bottom first.
    pub layers: Vec<ImageLayer>,
    /// The file system that the layers make.
    pub snapshot: Snapshot,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageLayer {
    /// The blob.
    pub descriptor: Descriptor,
    /// The digest of the archive in the blob.
    pub diff_id: DiffId,
    /// The layer's directory in the store, once it is unpacked.
    pub id: LayerId,
}

impl ResolvedImage {
    /// The identity of the file system: equal for images that have the same layers under different names. `None` without layers.
    pub fn chain_id(&self) -> Option<ChainId> {
        ChainId::of(&self.config.rootfs.diff_ids)
    }

    /// The digest that the name stands for.
    pub fn digest(&self) -> Digest {
        self.top.digest
    }
}

impl ImageSource {
    /// Finds images at `registry` and in folders, and keeps them in `store`. What is used is pinned in `lease`.
    pub fn new(
        store: &Store,
        lease: Lease,
        overlay: Arc<Overlay>,
        registry: RegistryClient,
        options: ImageSourceOptions,
    ) -> Self {
        Self {
            content: store.content.clone(),
            layers: store.layers.clone(),
            index: store.index.clone(),
            locks: store.locks.clone(),
            lease,
            overlay,
            registry,
            transfers: Arc::new(Semaphore::new(options.parallel.max(1))),
            broken: BrokenLayers::default(),
            mounts: RemoteMounts::default(),
            buckets: Buckets::default(),
            deferred: DeferredLayers::default(),
            resolved: Arc::default(),
            options,
        }
    }

    /// The same source, which reaches registries so.
    #[must_use]
    pub fn with_registry(self, registry: RegistryClient) -> Self {
        Self { registry, ..self }
    }

    /// The same source, which reaches buckets so.
    #[must_use]
    pub fn with_buckets(self, buckets: Buckets) -> Self {
        Self { buckets, ..self }
    }

    /// The same source, which makes these layers when they are needed.
    #[must_use]
    pub fn with_deferred(self, deferred: DeferredLayers) -> Self {
        Self { deferred, ..self }
    }
}
