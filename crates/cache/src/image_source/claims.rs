//! Which blob is a layer.
//!
//! The index lists for a layer what images say: that this blob has that diff id. Whoever makes an image can say so
//! of any blob, and images of different origins share layers. So what an image says is tried, not believed; once
//! a blob was read and was the layer, it is marked as verified. The same goes for what caches say; those also say how it
//! is compressed, which an image that is made of it repeats.

use std::io::Read;

use rbuild_oci::{Descriptor, DiffId, Digest};
use rbuild_solver::LayerId;

use super::fetch::blocking;
use super::{ImageError, ImageSource, PullProgress};
use crate::{BlobFacts, IndexError, LayerBlobReader, LayerFacts, LockName};

/// Annotation of a layer's descriptor: the digest of its archive (containerd's name for it).
pub(crate) const UNCOMPRESSED: &str = "containerd.io/uncompressed";

impl ImageSource {
    /// Makes sure that one of the blobs of a layer is in the store and verified, `first` if that can be had. Nothing is unpacked.
    pub async fn ensure_layer_blob(
        &self,
        layer: &LayerId,
        first: Option<Digest>,
        progress: &PullProgress,
    ) -> Result<(), ImageError> {
        let facts = self.index.layer(layer)?.ok_or(ImageError::Unavailable(*layer))?;
        self.any_blob(*layer, &facts, first, |blob| self.ensure_is_layer(blob, &facts, progress))
            .await
    }

    /// Gives `read` one of the layer's blobs after the other until it succeeds: `first`, those in the store, then those
    /// that can be fetched. The one that did is verified, those of another diff id are forgotten.
    pub(super) async fn any_blob<T, F: Future<Output = Result<T, ImageError>>>(
        &self,
        layer: LayerId,
        facts: &LayerFacts,
        first: Option<Digest>,
        mut read: impl FnMut(BlobFacts) -> F,
    ) -> Result<T, ImageError> {
        let (mut wanted, mut here, mut elsewhere) = (Vec::new(), Vec::new(), Vec::new());
        // One that was made of it here, for a form that adds to the archive, is not what is looked for.
        let is_layer = |blob: &&BlobFacts| match (facts.diff_id, noted_diff_id(&blob.descriptor)) {
            (Some(layer), Some(noted)) => layer == noted,
            _ => true,
        };
        for blob in facts.blobs.iter().filter(is_layer) {
            let Descriptor { digest, size, .. } = blob.descriptor;
            self.lease.pin_blobs(&[digest])?;
            let is_here = self.content.contains(&digest, size)?;
            if is_here || !self.index.blob_sources(&digest)?.is_empty() {
                match is_here {
                    _ if Some(digest) == first => wanted.push(blob),
                    true => here.push(blob),
                    false => elsewhere.push(blob),
                }
            }
        }
        let mut failed = None;
        for blob in wanted.into_iter().chain(here).chain(elsewhere) {
            match read(blob.clone()).await {
                Ok(value) => {
                    if !blob.verified {
                        let verified = BlobFacts { verified: true, ..blob.clone() };
                        self.index.add_layer_blob(&layer, &verified)?;
                    }
                    return Ok(value);
                }
                Err(error) => {
                    if error.is_another_layer() {
                        self.index.remove_layer_blob(&layer, &blob.descriptor.digest)?;
                    }
                    failed = failed.or(Some(error));
                }
            }
        }
        let failed = failed.unwrap_or(ImageError::Unavailable(layer));
        if facts.is_from_cache() {
            self.broken.note(layer, chain(&failed));
        }
        Err(failed)
    }

    /// Puts a blob into the store, and reads it if it was not yet found to be the layer.
    async fn ensure_is_layer(
        &self,
        blob: BlobFacts,
        facts: &LayerFacts,
        progress: &PullProgress,
    ) -> Result<(), ImageError> {
        let Some(expected) = facts.diff_id.filter(|_| !blob.verified) else {
            return self.ensure_blob(&blob.descriptor, progress).await;
        };
        let must_fit = facts.is_from_cache();
        self.read_as(Promise { descriptor: blob.descriptor, expected, must_fit }, progress).await
    }

    /// Makes sure that a blob is in the store, to be written elsewhere, and is the layer that an image or a cache names it for:
    /// what was never read as that layer is read. What a cache promised and does not keep is noted, see
    /// [`ImageSource::give_up_broken`].
    ///
    /// `diff_id` is what the image's configuration says; without, it is what `descriptor` says, if anything.
    pub async fn ensure_blob_as(
        &self,
        descriptor: &Descriptor,
        diff_id: Option<DiffId>,
        progress: &PullProgress,
    ) -> Result<(), ImageError> {
        self.lease.pin_blobs(&[descriptor.digest])?;
        let claims = self.claims(&descriptor.digest)?;
        let expected = diff_id.or_else(|| noted_diff_id(descriptor));
        let expected = expected.filter(|expected| !is_verified(&claims, descriptor, *expected));
        // Of what was found out to be another layer, nobody says anything any more.
        let must_fit = claims.is_empty() || claims.iter().any(|claim| claim.facts.is_from_cache());
        let done = match expected {
            None => self.ensure_blob(descriptor, progress).await,
            Some(expected) => {
                let promise = Promise { descriptor: descriptor.clone(), expected, must_fit };
                self.read_as(promise, progress).await
            }
        };
        let unproven = |claim: &&Claim| !claim.blob.verified && Some(claim.diff_id) == expected;
        match &done {
            Ok(()) => {
                for Claim { layer, blob, .. } in claims.iter().filter(unproven) {
                    let verified = BlobFacts { verified: true, ..blob.clone() };
                    self.index.add_layer_blob(layer, &verified)?;
                }
            }
            Err(error) if error.is_another_layer() => {
                for Claim { layer, blob, facts, .. } in claims.iter().filter(unproven) {
                    self.index.remove_layer_blob(layer, &blob.descriptor.digest)?;
                    if facts.is_from_cache() {
                        self.broken.note(*layer, chain(error));
                    }
                }
            }
            Err(error) => {
                for Claim { layer, .. } in &claims {
                    if self.is_only_in_a_cache(layer)? {
                        self.broken.note(*layer, chain(error));
                    }
                }
            }
        }
        done
    }

    /// Whether images and caches contradict each other in what a blob is, and it was not read: then it must not be
    /// taken for any of these layers unread.
    pub(crate) fn is_disputed(
        &self,
        descriptor: &Descriptor,
        expected: DiffId,
    ) -> Result<bool, IndexError> {
        let claims = self.claims(&descriptor.digest)?;
        Ok(!is_verified(&claims, descriptor, expected)
            && claims.iter().any(|claim| claim.diff_id != expected))
    }

    /// Which layers a blob is said to be.
    fn claims(&self, blob: &Digest) -> Result<Vec<Claim>, IndexError> {
        let mut claims = Vec::new();
        for layer in self.index.layers_of_blob(blob)? {
            let Some(facts) = self.index.layer(&layer)? else { continue };
            let Some(said) = facts.blobs.iter().find(|said| said.descriptor.digest == *blob) else {
                continue;
            };
            if let Some(diff_id) = noted_diff_id(&said.descriptor).or(facts.diff_id) {
                claims.push(Claim { layer, diff_id, blob: said.clone(), facts });
            }
        }
        Ok(claims)
    }

    /// Puts a blob into the store, and reads it.
    async fn read_as(&self, promise: Promise, progress: &PullProgress) -> Result<(), ImageError> {
        let Descriptor { digest, size, .. } = promise.descriptor;
        let descriptor = promise.descriptor.clone();
        let _lock = self.locks.lock(LockName::Blob(&digest)).await?;
        if self.content.contains(&digest, size)? {
            let _permit = self.transfers.acquire().await.expect("the semaphore is never closed");
            let content = self.content.clone();
            return blocking(move || promise.check(&mut content.open(&digest, Some(size))?)).await;
        }
        self.fetch(&descriptor, progress, move |mut blob| {
            let checked = promise.check(&mut blob);
            blob.finish(checked)
        })
        .await
    }
}

/// That a blob is a layer.
#[derive(Debug)]
struct Claim {
    layer: LayerId,
    diff_id: DiffId,
    blob: BlobFacts,
    facts: LayerFacts,
}

/// The digest of a blob's archive, where its descriptor says it.
fn noted_diff_id(descriptor: &Descriptor) -> Option<DiffId> {
    let noted = descriptor.annotations.get(UNCOMPRESSED)?;
    Digest::parse(noted).ok().map(DiffId)
}

/// Whether a blob was read, and was this layer, compressed as its type says.
fn is_verified(claims: &[Claim], descriptor: &Descriptor, expected: DiffId) -> bool {
    let compression = descriptor.media_type.layer_compression();
    claims.iter().any(|Claim { diff_id, blob, .. }| {
        blob.verified
            && *diff_id == expected
            && blob.descriptor.media_type.layer_compression() == compression
    })
}

/// An error with what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

/// What a blob has to be.
#[derive(Clone, Debug)]
struct Promise {
    descriptor: Descriptor,
    expected: DiffId,
    /// Whether it must be compressed as its type says. Images exist that have this wrong, and work.
    must_fit: bool,
}

impl Promise {
    fn check(&self, blob: &mut dyn Read) -> Result<(), ImageError> {
        let Self { descriptor: Descriptor { digest, media_type, .. }, expected, must_fit } = self;
        let (digest, expected) = (*digest, *expected);
        let unreadable = |source| ImageError::Unreadable { digest, source };
        let mut archive = LayerBlobReader::new(blob)
            .map_err(|source| ImageError::Compression { digest, source })?;
        if *must_fit && !archive.fits(media_type) {
            return Err(ImageError::MediaType { digest, media_type: media_type.clone() });
        }
        std::io::copy(&mut archive, &mut std::io::sink()).map_err(unreadable)?;
        let actual = archive.diff_id();
        if actual == expected {
            Ok(())
        } else {
            Err(ImageError::DiffId { digest, expected, actual })
        }
    }
}

impl ImageError {
    /// Whether a blob is sound, but not the layer that it was said to be.
    fn is_another_layer(&self) -> bool {
        matches!(self, Self::DiffId { .. } | Self::MediaType { .. })
    }
}
