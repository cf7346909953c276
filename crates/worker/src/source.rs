//! Sources: images, what is fetched, and the user's folders, which are used in place.

use std::sync::Arc;

use rbuild_cache::{ImageName, ImageSource, PullMode, PullProgress, ResolvedImage};
use rbuild_oci::{Digest, Platform};
use rbuild_solver::{Output, Progress, SourceOp, Vertex};

use crate::operation_error::OperationError;
use crate::remote::RemoteSources;

/// The identity of an image that has no layers.
const NO_LAYERS: &[u8] = b"rbuild.source.scratch.v1";

/// Whom sources are asked from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) images: &'a ImageSource,
    pub(crate) remotes: &'a RemoteSources,
    pub(crate) progress: &'a Progress,
}

impl Sources<'_> {
    /// The key of a source: for an image the chain id of its layers, so that the same files under another name are the
    /// same source.
    pub(crate) async fn key(
        self,
        op: &SourceOp,
        vertex: &Vertex,
    ) -> Result<Digest, OperationError> {
        if !is_image(op) {
            return self.remotes.key(op, &self.reporting(vertex)).await;
        }
        let image = resolve(op, vertex, self.images).await?;
        Ok(image.chain_id().map_or_else(|| Digest::of(NO_LAYERS), |chain| chain.0))
    }

    /// What a source yields. Of an image nothing is fetched before somebody reads it.
    pub(crate) async fn run(
        self,
        op: &SourceOp,
        vertex: &Vertex,
    ) -> Result<Output, OperationError> {
        if op.local_name().is_some() {
            return Ok(Output::Local(Arc::new(op.clone())));
        }
        Ok(Output::Snapshot(match is_image(op) {
            true => resolve(op, vertex, self.images).await?.snapshot,
            false => self.remotes.fetch(op, &self.reporting(vertex)).await?,
        }))
    }

    fn reporting(self, vertex: &Vertex) -> PullProgress {
        PullProgress { progress: self.progress.clone(), vertex: vertex.digest }
    }
}

fn is_image(op: &SourceOp) -> bool {
    matches!(op.split().0, "docker-image" | "oci-layout")
}

async fn resolve(
    op: &SourceOp,
    vertex: &Vertex,
    images: &ImageSource,
) -> Result<ResolvedImage, OperationError> {
    let name = ImageName::from_identifier(&op.identifier)?;
    let platform = vertex.platform.clone().unwrap_or_else(Platform::host);
    // A graph names images by digest, of which there is nothing newer.
    Ok(images.resolve(&name, &platform, PullMode::Missing).await?)
}
