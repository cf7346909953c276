//! An engine with Docker's API: `POST /images/load` takes what `docker save` writes.
//!
//! A layer that the engine has need not be in the archive, as it looks for the layer before it opens the file. Which layers it has
//! can be told from its images, each of which lists its diff ids from the bottom. That holds for engines that keep layers by
//! themselves; those that keep them in containerd, and podman, get all.

use std::collections::HashSet;

use rbuild_cache::Content;
use rbuild_oci::{DiffId, Reference};
use serde_json::Value;

use super::EngineError;
use super::http::{Answer, EnginePlace, Sent, get, post};
use crate::archive::{ArchiveForm, write_archive_to};
use crate::image::Image;
use crate::index::NamedDocument;

/// Where the engine says how layers are kept: in containerd.
const CONTAINERD: &str = "io.containerd.snapshotter.v1";

/// What answers at a socket.
#[derive(Clone, Debug)]
pub struct DockerEngine {
    place: EnginePlace,
    is_podman: bool,
}

impl DockerEngine {
    /// Sees whether an engine answers.
    pub fn connect(place: EnginePlace) -> Result<Self, EngineError> {
        let answer = get(&place, "/_ping")?;
        if answer.status != 200 {
            let reason = format!("it answers a ping with {}", answer.status);
            return Err(EngineError::NoEngine { place: place.to_string(), reason });
        }
        let is_podman = answer.header("libpod-api-version").is_some();
        Ok(Self { place, is_podman })
    }

    /// How many of these layers, from the bottom, it has.
    pub(super) fn layers_there(&self, wanted: &[DiffId]) -> Result<usize, EngineError> {
        if self.is_podman || self.has_containerd()? {
            return Ok(0);
        }
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        let mut most = 0;
        for image in self.ask("/images/json?all=1")?.as_array().into_iter().flatten() {
            let is_plain =
                |id: &&str| id.bytes().all(|it| it.is_ascii_alphanumeric() || it == b':');
            let Some(id) = image["Id"].as_str().filter(is_plain) else { continue };
            // One that is removed meanwhile is none.
            let Ok(image) = self.ask(&format!("/images/{id}/json")) else { continue };
            let layers = image["RootFS"]["Layers"].as_array().into_iter().flatten();
            let same = layers.zip(&wanted).take_while(|(there, wanted)| *there == *wanted);
            most = most.max(same.count());
            if most == wanted.len() {
                break;
            }
        }
        Ok(most)
    }

    fn has_containerd(&self) -> Result<bool, EngineError> {
        let about = self.ask("/info")?;
        let mut status = about["DriverStatus"].as_array().into_iter().flatten();
        Ok(status.any(|pair| pair[1] == CONTAINERD))
    }

    pub(super) fn load(
        &self,
        image: &Image,
        names: &[Reference],
        content: &Content,
        there: usize,
    ) -> Result<(), EngineError> {
        let layers = &image.manifest.layers;
        let without: HashSet<_> =
            layers[..there.min(layers.len())].iter().map(|l| l.digest).collect();
        let document = NamedDocument::from(image);
        let path = "/images/load?quiet=1";
        let sent = post::<EngineError>(&self.place, path, "application/x-tar", |out| {
            write_archive_to(out, &document, names, (ArchiveForm::Docker, 0), content, &without)?;
            Ok(())
        })?;
        let Sent { answer, cut_off } = sent;
        let answer = self.accepted(answer)?;
        // One document after the other; one that could not be taken in says so in the last.
        for document in serde_json::Deserializer::from_slice(&answer.body).into_iter::<Value>() {
            let document = document.map_err(|error| self.no_json(path, &error))?;
            if let Some(message) = document["error"].as_str() {
                return Err(self.refused(message));
            }
        }
        match cut_off {
            None => Ok(()),
            Some(source) => {
                let action = "send the whole image, before it answers, to";
                Err(EngineError::Transfer { action, place: self.place.to_string(), source })
            }
        }
    }

    fn ask(&self, path: &str) -> Result<Value, EngineError> {
        let answer = self.accepted(get(&self.place, path)?)?;
        serde_json::from_slice(&answer.body).map_err(|error| self.no_json(path, &error))
    }

    fn no_json(&self, path: &str, error: &serde_json::Error) -> EngineError {
        EngineError::NoEngine {
            place: self.place.to_string(),
            reason: format!("its answer to {path} is not JSON: {}", shortened(&error.to_string())),
        }
    }

    fn accepted(&self, answer: Answer) -> Result<Answer, EngineError> {
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        let document: Option<Value> = serde_json::from_slice(&answer.body).ok();
        let message = document.as_ref().and_then(|document| document["message"].as_str());
        let status = format!("status {}", answer.status);
        Err(self.refused(message.unwrap_or(&status)))
    }

    fn refused(&self, message: &str) -> EngineError {
        EngineError::Refused { place: self.place.to_string(), message: shortened(message) }
    }
}

impl std::fmt::Display for DockerEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", if self.is_podman { "podman" } else { "docker" }, self.place)
    }
}

/// As much of what an engine says as people read.
fn shortened(said: &str) -> String {
    const LONGEST: usize = 2000;
    match said.char_indices().nth(LONGEST) {
        None => said.to_owned(),
        Some((end, _)) => format!("{}...", &said[..end]),
    }
}
