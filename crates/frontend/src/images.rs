//! The images that a build stands on: asked for by the lowering, resolved by the caller.

use std::collections::HashMap;

use rbuild_oci::{ImageConfig, Platform, Reference};
use rbuild_solver::SourceOp;

use crate::source::Span;

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ImageLocation {
    /// In a registry, or under this name in the local store.
    Registry(Reference),
    /// In an OCI layout that the build was given as a named context.
    OciLayout {
        /// The context's name.
        context: String,
        /// What the context's value says after `oci-layout://`.
        layout: String,
    },
}

/// An image whose config the lowering has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageQuery {
    /// Where it is.
    pub location: ImageLocation,
    /// For which platform.
    pub platform: Platform,
    /// Who names it first.
    pub span: Span,
}

/// What an [`ImageQuery`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedImage {
    /// The source that brings it in. A registry's identifier is pinned to a digest:
    /// `docker-image://docker.io/library/busybox:latest@sha256:...`.
    pub source: SourceOp,
    /// Its config.
    pub config: ImageConfig,
}

/// The images that are known so far.
#[derive(Debug, Clone, Default)]
pub struct ImageSet {
    images: HashMap<(ImageLocation, Platform), ResolvedImage>,
}

impl ImageSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the answer to a query.
    pub fn insert(&mut self, query: &ImageQuery, image: ResolvedImage) {
        self.images.insert((query.location.clone(), query.platform.clone()), image);
    }

    /// The answer to a query, if it is known.
    pub fn get(&self, query: &ImageQuery) -> Option<&ResolvedImage> {
        self.images.get(&(query.location.clone(), query.platform.clone()))
    }
}
