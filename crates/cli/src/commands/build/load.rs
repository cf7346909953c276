//! Giving an image to an engine that runs containers.

use std::sync::Arc;

use rbuild_cache::PullProgress;
use rbuild_exporter::{Engine, EngineError, Image};
use rbuild_oci::Reference;

use super::result::fetch_error;
use crate::error::{CommandError, Kind};
use crate::wiring::Session;

/// An engine, and what the image is called there.
#[derive(Clone, Debug)]
pub(super) struct PlannedLoad {
    pub(super) engine: Engine,
    pub(super) names: Vec<Reference>,
}

impl PlannedLoad {
    /// Loads an image; layers that the engine has are neither fetched nor sent.
    pub(super) async fn run(
        self,
        session: &Arc<Session>,
        image: &Image,
        pull: &PullProgress,
    ) -> Result<(), CommandError> {
        let load = Arc::new((self, image.clone()));
        let there = {
            let load = Arc::clone(&load);
            blocking(move || load.0.engine.layers_there(&load.1)).await?
        };
        match give(session, &load, there, pull).await {
            // It may have lost a layer since.
            Err(_) if there > 0 => give(session, &load, 0, pull).await,
            given => given,
        }
    }
}

/// Sends an image without its lowest `there` layers.
async fn give(
    session: &Arc<Session>,
    load: &Arc<(PlannedLoad, Image)>,
    there: usize,
    pull: &PullProgress,
) -> Result<(), CommandError> {
    let layers = load.1.manifest.layers.iter().zip(load.1.diff_ids());
    for (layer, diff_id) in layers.skip(there) {
        let ensured = session.images.ensure_blob_as(layer, Some(diff_id), pull).await;
        ensured.map_err(fetch_error)?;
    }
    let (session, load) = (Arc::clone(session), Arc::clone(load));
    blocking(move || {
        let (PlannedLoad { engine, names }, image) = &*load;
        let scratch = session.store.root().join("tmp");
        engine.load(image, names, &session.store.content, there, &scratch)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, CommandError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| {
            CommandError::caused(Kind::Environment, "failed to load the image", error)
        }),
        Err(panic) => Err(CommandError::caused(Kind::Environment, "the export stopped", panic)),
    }
}
