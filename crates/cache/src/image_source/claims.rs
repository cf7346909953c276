//! Which blob is a layer.
//!
//! The index lists for a layer what images say: that this blob has that diff id. Whoever makes an image can say so
//! of any blob, and images of different origins share layers. So what an image says is tried, not believed; once
//! a blob was read and was the layer, it is marked as verified.

use std::io::Read;

use rbuild_oci::{Descriptor, Digest};
use rbuild_solver::LayerId;

use super::fetch::blocking;
use super::{ImageError, ImageSource, PullProgress};
use crate::{BlobFacts, LayerBlobReader, LayerFacts, LockName};

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
        for blob in &facts.blobs {
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
                    if matches!(error, ImageError::DiffId { .. }) {
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
        let Descriptor { digest, size, .. } = blob.descriptor;
        let check = move |blob: &mut dyn Read| check_diff_id(digest, expected, blob);
        let _lock = self.locks.lock(LockName::Blob(&digest)).await?;
        if self.content.contains(&digest, size)? {
            let _permit = self.transfers.acquire().await.expect("the semaphore is never closed");
            let content = self.content.clone();
            return blocking(move || check(&mut content.open(&digest, Some(size))?)).await;
        }
        self.fetch(&blob.descriptor, progress, move |mut blob| {
            let checked = check(&mut blob);
            blob.finish(checked)
        })
        .await
    }
}

/// An error with what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

fn check_diff_id(
    digest: Digest,
    expected: rbuild_oci::DiffId,
    blob: &mut dyn Read,
) -> Result<(), ImageError> {
    let unreadable = |source| ImageError::Unreadable { digest, source };
    let mut archive =
        LayerBlobReader::new(blob).map_err(|source| ImageError::Compression { digest, source })?;
    std::io::copy(&mut archive, &mut std::io::sink()).map_err(unreadable)?;
    let actual = archive.diff_id();
    if actual == expected { Ok(()) } else { Err(ImageError::DiffId { digest, expected, actual }) }
}
