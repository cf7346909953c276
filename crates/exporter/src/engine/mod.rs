//! Images into the engines that run containers on this machine: Docker's daemon, and podman.
//!
//! [`DockerEngine`] speaks Docker's API over a socket, which podman's service does, too. [`Podman`] starts the program. An
//! [`Engine`] is one of them.

mod docker;
mod error;
mod http;
mod podman;

pub use docker::DockerEngine;
pub use error::EngineError;
pub use http::EnginePlace;
pub use podman::Podman;

use std::path::Path;

use rbuild_cache::Content;
use rbuild_oci::Reference;

use crate::image::Image;

/// Something that runs containers.
#[derive(Clone, Debug)]
pub enum Engine {
    /// What answers at a socket.
    Docker(DockerEngine),
    /// A program.
    Podman(Podman),
}

impl Engine {
    /// How many of the image's layers, from the bottom, are there already, so that [`Engine::load`] needs none of their blobs.
    pub fn layers_there(&self, image: &Image) -> Result<usize, EngineError> {
        match self {
            Self::Docker(engine) => engine.layers_there(&image.diff_ids()),
            // It takes from the folder what it lacks, and does not say before what that is.
            Self::Podman(_) => Ok(0),
        }
    }

    /// Gives an image to the engine, under these names. The blobs of its layers but for the lowest `there` must be in `content`;
    /// folders can be made in `scratch`.
    pub fn load(
        &self,
        image: &Image,
        names: &[Reference],
        content: &Content,
        there: usize,
        scratch: &Path,
    ) -> Result<(), EngineError> {
        match self {
            Self::Docker(engine) => engine.load(image, names, content, there),
            Self::Podman(podman) => podman.load(image, names, content, scratch),
        }
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Docker(engine) => engine.fmt(f),
            Self::Podman(_) => f.write_str("podman"),
        }
    }
}
