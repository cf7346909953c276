//! The layers of a snapshot as an image names them: known blobs are used again, missing ones are made once and
//! remembered (design D4).

use std::io::BufWriter;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_cache::{
    BlobFacts, BlobWriter, Compression, CompressionError, Content, ContentError, DeferredLayers,
    DiffError, FinishedBlob, Index, IndexError, LayerBlobWriter, LayerFacts, Layers, LayersError,
    Lease, LeaseError, Overlay, PlannedCopy, TOC_DIGEST, TarWriteError, TarWriter, View, ViewError,
    diff,
};
use rbuild_oci::{Descriptor, DiffId, Digest, DigestError, LayerCompression, MediaType};
use rbuild_solver::{LayerId, Snapshot};

use crate::converted::{convert, converted};
use crate::image::ImageLayer;

/// Annotation of a layer's descriptor in the index: the digest of its archive (containerd's name for it).
pub(crate) const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// The parts of a store that an export uses.
#[derive(Clone, Copy, Debug)]
pub struct ExportStore<'a> {
    /// Blobs.
    pub content: &'a Content,
    /// Layer directories.
    pub layers: &'a Layers,
    /// What is known of both, and the local images.
    pub index: &'a Index,
    /// Keeps what the export uses from being collected.
    pub lease: &'a Lease,
    /// How layers are merged.
    pub overlay: &'a Overlay,
    /// Layers without a directory, whose archive can be made all the same.
    pub deferred: &'a DeferredLayers,
}

/// How layers become blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerForm {
    /// Compression of layers that this store made.
    pub compression: Compression,
    /// What becomes of the blobs of base images and caches.
    pub existing: ExistingBlobs,
    /// The latest time in the archive (`SOURCE_DATE_EPOCH`), seconds since 1970.
    pub epoch: Option<i64>,
}

/// What becomes of blobs that came from elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExistingBlobs {
    /// They stay as they came.
    #[default]
    Keep,
    /// Those that are compressed in another format are compressed anew.
    OtherFormats,
    /// All are, but those that were compressed here, in the same way.
    All,
}

impl LayerForm {
    /// What made a blob: equal texts, equal bytes for one layer.
    pub(crate) fn encoder(self) -> String {
        let encoder = self.compression.encoder_id();
        match self.epoch {
            None => encoder,
            Some(epoch) => format!("{encoder}{}{epoch}", BlobFacts::CLAMPED),
        }
    }

    pub(crate) fn media_type(self) -> MediaType {
        MediaType::oci_layer(self.format())
    }

    fn format(self) -> LayerCompression {
        match self.compression {
            Compression::Uncompressed => LayerCompression::None,
            Compression::Gzip { .. } | Compression::Estargz { .. } => LayerCompression::Gzip,
            Compression::Zstd { .. } => LayerCompression::Zstd,
        }
    }

    /// Whether a blob that came from elsewhere does as it is.
    fn takes(self, blob: &BlobFacts) -> bool {
        match self.existing {
            ExistingBlobs::Keep => true,
            ExistingBlobs::OtherFormats => {
                let has_table = blob.descriptor.annotations.contains_key(TOC_DIGEST);
                let is_for_lazy = matches!(self.compression, Compression::Estargz { .. });
                blob.descriptor.media_type.layer_compression() == Some(self.format())
                    && (has_table || !is_for_lazy)
            }
            ExistingBlobs::All => blob.encoder.is_some(),
        }
    }
}

/// Why a layer's blob could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The index.
    #[error("cannot look up layer `{layer}`")]
    Index {
        /// Which layer.
        layer: LayerId,
        /// Why.
        #[source]
        source: IndexError,
    },
    /// A layer directory.
    #[error("cannot open layer `{layer}`")]
    Open {
        /// Which layer.
        layer: LayerId,
        /// Why.
        #[source]
        source: LayersError,
    },
    /// The layers below.
    #[error("cannot merge the layers below layer `{layer}`")]
    Merge {
        /// Which layer.
        layer: LayerId,
        /// Why.
        #[source]
        source: ViewError,
    },
    /// Its files.
    #[error("cannot archive layer `{layer}`")]
    Files {
        /// Which layer.
        layer: LayerId,
        /// Why.
        #[source]
        source: DiffError,
    },
    /// Its archive.
    #[error("cannot write the archive of layer `{layer}`")]
    Archive {
        /// Which layer.
        layer: LayerId,
        /// Why.
        #[source]
        source: TarWriteError,
    },
    /// Its compressed form.
    #[error("cannot compress layer `{layer}`")]
    Compress {
        /// Which layer.
        layer: LayerId,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The blob store.
    #[error("cannot store the blob of layer `{layer}`")]
    Store {
        /// Which layer.
        layer: LayerId,
        /// Why.
        #[source]
        source: ContentError,
    },
    /// The claim on the blob.
    #[error("cannot keep the blob of layer `{layer}` from being collected")]
    Pin {
        /// Which layer.
        layer: LayerId,
        /// Why.
        #[source]
        source: LeaseError,
    },
    /// A blob of a base image that was to be compressed anew.
    #[error("cannot read the blob of layer `{layer}`")]
    Read {
        /// Which layer.
        layer: LayerId,
        /// Why.
        #[source]
        source: CompressionError,
    },
    /// The same: what it holds has changed, or there is none.
    #[error("there is no sound blob of layer `{layer}` to compress anew")]
    NoBlob {
        /// Which layer.
        layer: LayerId,
    },
    /// The index says something that is no digest.
    #[error("the index has an unreadable diff id for layer `{layer}`")]
    DiffId {
        /// Which layer.
        layer: LayerId,
        /// Why.
        #[source]
        source: DigestError,
    },
}

/// What must be fetched before an export, because only its layers' owner has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// Layers of base images of which no blob is here that was found to be the layer. Only an archive holds them.
    pub blobs: Vec<NeededBlob>,
    /// Those of them that images name different blobs for: which is right shows when they are read, and also a
    /// manifest without its blobs must not name another.
    pub disputed: Vec<NeededBlob>,
    /// Layers of which a blob must be here to be compressed anew.
    pub convert: Vec<NeededBlob>,
    /// How many layers, from the bottom, must be unpacked, because a new one is yet to be archived.
    pub unpacked: usize,
}

/// A layer of which a blob must be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeededBlob {
    /// The layer.
    pub layer: LayerId,
    /// Which one the export would name, if that matters.
    pub first: Option<Digest>,
}

/// Finds out what must be fetched before an export.
pub fn needs(
    store: ExportStore<'_>,
    snapshot: &Snapshot,
    form: LayerForm,
) -> Result<Needs, LayerError> {
    let mut needs = Needs::default();
    for (position, layer) in snapshot.layers().iter().enumerate() {
        match known(store, layer, form)? {
            Known::Elsewhere { certainty: Certainty::Here, .. } => {}
            Known::Elsewhere { certainty, layer: named } => {
                let blob = NeededBlob { layer: *layer, first: Some(named.descriptor.digest) };
                needs.blobs.push(blob);
                if certainty == Certainty::Disputed {
                    needs.disputed.push(blob);
                }
            }
            Known::Made(_) => {}
            Known::Unfit(_) => {
                needs.convert.push(NeededBlob { layer: *layer, first: None });
            }
            // Of one that is not made yet nothing must be there but what it lies on.
            Known::Missing if store.deferred.get(layer).is_some() => needs.unpacked = position,
            Known::Missing => needs.unpacked = position + 1,
        }
    }
    Ok(needs)
}

/// The layers of a snapshot, bottom first. Blobs of layers that were made here are in the content store
/// afterwards; those of base images are where they are.
pub(crate) fn image_layers(
    store: ExportStore<'_>,
    snapshot: &Snapshot,
    form: LayerForm,
) -> Result<Vec<ImageLayer>, LayerError> {
    let made = |(position, layer): (usize, &LayerId)| match known(store, layer, form)? {
        Known::Elsewhere { layer, .. } => Ok(layer),
        Known::Made(layer) => Ok(layer),
        Known::Unfit(facts) => convert(store, *layer, form, &facts),
        Known::Missing => make(store, snapshot, position, form),
    };
    snapshot.layers().iter().enumerate().map(made).collect()
}

/// What the index knows of a layer's blob in a form.
pub(crate) enum Known {
    /// It came from a base image or a cache.
    Elsewhere { layer: ImageLayer, certainty: Certainty },
    /// It was made here before, and the blob is there.
    Made(ImageLayer),
    /// It came from elsewhere, and its blobs have another form than is wanted.
    Unfit(LayerFacts),
    /// It was made here, and there is no such blob.
    Missing,
}

/// What speaks for a blob that came from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// It is in the store, and was found to be the layer.
    Here,
    /// Nothing speaks against it.
    Undisputed,
    /// Images and caches name different blobs, none of which was read.
    Disputed,
}

fn known(store: ExportStore<'_>, layer: &LayerId, form: LayerForm) -> Result<Known, LayerError> {
    let layer = *layer;
    let facts = store
        .index
        .layer(&layer)
        .map_err(|source| LayerError::Index { layer, source })?
        .unwrap_or_default();
    let encoder = form.encoder();
    // What we did not compress came from somewhere. So did a layer with a diff id of its own: what a cache has of it is
    // as good as what would be made here, if it would have the same bytes.
    let is_wanted = |blob: &&BlobFacts| blob.encoder.as_ref().is_none_or(|by| *by == encoder);
    let found: Vec<&BlobFacts> = match facts.diff_id {
        Some(_) => facts.blobs.iter().filter(is_wanted).collect(),
        None => Vec::new(),
    };
    let (found, unfit): (Vec<_>, Vec<_>) = found.into_iter().partition(|blob| form.takes(blob));
    if found.is_empty() && !unfit.is_empty() {
        return converted(store, layer, form, facts);
    }
    if let (Some(first), Some(diff_id)) = (found.first(), facts.diff_id) {
        let image_layer = |blob: &BlobFacts| {
            Ok(ImageLayer {
                descriptor: blob.descriptor.clone(),
                diff_id: own_diff_id(layer, blob)?.unwrap_or(diff_id),
                created: facts.made(),
                encoder: blob.encoder.clone(),
            })
        };
        for blob in found.iter().filter(|blob| blob.verified) {
            let Descriptor { digest, size, .. } = blob.descriptor;
            let there = store.content.contains(&digest, size);
            if there.map_err(|source| LayerError::Store { layer, source })? {
                let layer = image_layer(blob)?;
                return Ok(Known::Elsewhere { layer, certainty: Certainty::Here });
            }
        }
        // Verified ones are the first. One alone is believed; another form of it, whose word would count, is one more.
        let certainty = if first.verified || (found.len() == 1 && unfit.is_empty()) {
            Certainty::Undisputed
        } else {
            Certainty::Disputed
        };
        return Ok(Known::Elsewhere { layer: image_layer(first)?, certainty });
    }
    let Some((descriptor, diff_id)) = made_by(store, layer, &facts, &encoder)? else {
        return Ok(Known::Missing);
    };
    let created = Some(milliseconds(&facts));
    Ok(Known::Made(ImageLayer { descriptor, diff_id, created, encoder: Some(encoder) }))
}

/// The blob that `encoder` made of a layer here before, if it is still there.
pub(crate) fn made_by(
    store: ExportStore<'_>,
    layer: LayerId,
    facts: &LayerFacts,
    encoder: &str,
) -> Result<Option<(Descriptor, DiffId)>, LayerError> {
    let Some(blob) = facts.blobs.iter().find(|blob| blob.encoder.as_deref() == Some(encoder))
    else {
        return Ok(None);
    };
    let Descriptor { digest, size, .. } = blob.descriptor;
    // Pinned before it is looked for, so that it cannot be collected in between.
    store.lease.pin_blobs(&[digest]).map_err(|source| LayerError::Pin { layer, source })?;
    let there = store.content.contains(&digest, size);
    if !there.map_err(|source| LayerError::Store { layer, source })? {
        return Ok(None);
    }
    Ok(own_diff_id(layer, blob)?.map(|diff_id| (blob.descriptor.clone(), diff_id)))
}

/// The digest of a blob's archive, where the blob has it noted.
pub(crate) fn own_diff_id(layer: LayerId, blob: &BlobFacts) -> Result<Option<DiffId>, LayerError> {
    let noted = blob.descriptor.annotations.get(UNCOMPRESSED);
    let noted = noted.map(|noted| Digest::parse(noted)).transpose();
    Ok(noted.map_err(|source| LayerError::DiffId { layer, source })?.map(DiffId))
}

/// Makes the blob of a layer that is not made, the last one of `snapshot`, from the copy that it will be.
///
/// # Errors
/// What cannot be read of the source, or is not as it was when the copy was planned; the store's.
pub fn archive_copy(
    store: ExportStore<'_>,
    snapshot: &Snapshot,
    copy: &PlannedCopy,
    form: LayerForm,
) -> Result<(), LayerError> {
    let Some(last) = snapshot.layers().len().checked_sub(1) else { return Ok(()) };
    let layer = snapshot.layers()[last];
    let files = |below: Option<BorrowedFd<'_>>, archive: &mut LayerArchive| {
        copy.write(below, archive).map_err(|source| LayerError::Files { layer, source })
    };
    archive(store, snapshot, last, form, files).map(|_| ())
}

/// Archives, hashes and compresses a layer in one pass.
fn make(
    store: ExportStore<'_>,
    snapshot: &Snapshot,
    position: usize,
    form: LayerForm,
) -> Result<ImageLayer, LayerError> {
    let layer = snapshot.layers()[position];
    let files = |below: Option<BorrowedFd<'_>>, archive: &mut LayerArchive| {
        let written = match store.deferred.get(&layer) {
            Some(deferred) => deferred.copy.write(below, archive),
            None => {
                let directory = store.layers.open(&layer);
                let directory = directory.map_err(|source| LayerError::Open { layer, source })?;
                diff(directory.as_fd(), below, store.overlay.xattrs(), archive)
            }
        };
        written.map_err(|source| LayerError::Files { layer, source })
    };
    let (descriptor, diff_id) = archive(store, snapshot, position, form, files)?;
    // Only now the index knows the layer for sure, and whoever exports it next reads the same time.
    let facts = store.index.layer(&layer).map_err(|source| LayerError::Index { layer, source })?;
    let facts = facts.unwrap_or_default();
    Ok(ImageLayer {
        descriptor,
        diff_id,
        created: Some(facts.made().unwrap_or_else(|| milliseconds(&facts))),
        encoder: Some(form.encoder()),
    })
}

/// Where the changes of a layer are written to.
type LayerArchive = TarWriter<BufWriter<LayerBlobWriter<BlobWriter>>>;

/// Makes the blob of a layer of which `files` writes the changes to the merged layers below, where there are some.
fn archive(
    store: ExportStore<'_>,
    snapshot: &Snapshot,
    position: usize,
    form: LayerForm,
    files: impl FnOnce(Option<BorrowedFd<'_>>, &mut LayerArchive) -> Result<(), LayerError>,
) -> Result<(Descriptor, DiffId), LayerError> {
    const BUFFER: usize = 256 << 10;
    let layer = snapshot.layers()[position];
    let below = match &snapshot.layers()[..position] {
        [] => None,
        below => Some(
            View::open(store.overlay, store.layers, &Snapshot::new(below.to_vec()))
                .map_err(|source| LayerError::Merge { layer, source })?,
        ),
    };
    let blob = store.content.begin().map_err(|source| LayerError::Store { layer, source })?;
    let compress = |source| LayerError::Compress { layer, source };
    let blob = LayerBlobWriter::new(blob, form.compression).map_err(compress)?;
    let mut archive = TarWriter::new(BufWriter::with_capacity(BUFFER, blob), form.epoch);
    files(below.as_ref().map(View::root), &mut archive)?;
    let buffer = archive.finish().map_err(|source| LayerError::Archive { layer, source })?;
    let blob = buffer.into_inner().map_err(|error| compress(error.into_error()))?;
    let blob = blob.finish().map_err(compress)?;

    let diff_id = blob.diff_id;
    Ok((keep(store, layer, blob, form, form.encoder())?, diff_id))
}

/// Puts a blob that is written into the store, and notes that `encoder` made it of the layer.
pub(crate) fn keep(
    store: ExportStore<'_>,
    layer: LayerId,
    blob: FinishedBlob<BlobWriter>,
    form: LayerForm,
    encoder: String,
) -> Result<Descriptor, LayerError> {
    let FinishedBlob { diff_id, annotations, out: blob } = blob;
    store.lease.pin_blobs(&[blob.digest()]).map_err(|source| LayerError::Pin { layer, source })?;
    let (digest, size) = blob.commit(None).map_err(|source| LayerError::Store { layer, source })?;
    let mut descriptor = Descriptor::new(form.media_type(), digest, size);
    descriptor.annotations = annotations;
    descriptor.annotations.insert(UNCOMPRESSED.to_owned(), diff_id.to_string());
    let known =
        BlobFacts { descriptor: descriptor.clone(), encoder: Some(encoder), verified: true };
    store
        .index
        .add_layer_blob(&layer, &known)
        .map_err(|source| LayerError::Index { layer, source })?;
    Ok(descriptor)
}

/// When a layer was made; now for one that the index forgot.
pub(crate) fn milliseconds(facts: &LayerFacts) -> i64 {
    let created = facts.created.unwrap_or_else(SystemTime::now);
    let since = created.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
