//! Sources: images, and the user's folders, which are used in place.

use std::sync::Arc;

use rbuild_cache::{ImageName, ImageSource, PullMode, ResolvedImage};
use rbuild_oci::{Digest, Platform};
use rbuild_solver::{Output, SourceOp, Vertex};

use crate::operation_error::OperationError;

/// The identity of an image that has no layers.
const NO_LAYERS: &[u8] = b"rbuild.source.scratch.v1";

/// The key of a source: for an image the chain id of its layers, so that the same files under another name are the
/// same source.
pub(crate) async fn key(
    op: &SourceOp,
    vertex: &Vertex,
    images: &ImageSource,
) -> Result<Digest, OperationError> {
    let image = resolve(op, vertex, images).await?;
    Ok(image.chain_id().map_or_else(|| Digest::of(NO_LAYERS), |chain| chain.0))
}

/// What a source yields. Nothing is fetched before somebody reads it.
pub(crate) async fn run(
    op: &SourceOp,
    vertex: &Vertex,
    images: &ImageSource,
) -> Result<Output, OperationError> {
    if op.local_name().is_some() {
        return Ok(Output::Local(Arc::new(op.clone())));
    }
    Ok(Output::Snapshot(resolve(op, vertex, images).await?.snapshot))
}

async fn resolve(
    op: &SourceOp,
    vertex: &Vertex,
    images: &ImageSource,
) -> Result<ResolvedImage, OperationError> {
    if !matches!(op.split().0, "docker-image" | "oci-layout") {
        return Err(OperationError::UnsupportedSource(op.identifier.clone()));
    }
    let name = ImageName::from_identifier(&op.identifier)?;
    let platform = vertex.platform.clone().unwrap_or_else(Platform::host);
    // A graph names images by digest, of which there is nothing newer.
    Ok(images.resolve(&name, &platform, PullMode::Missing).await?)
}
