//! The image configuration: section "OCI Image Configuration" of the image specification, with Docker's
//! additional keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{Descriptor, DiffId, Digest, MediaType, Platform};

/// An image configuration, written with its keys in the order of the alphabet, as BuildKit writes it.
///
/// Keys that are not named here are kept in `extra` and written again, so that what a base image says is
/// never lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// CPU architecture in Go's spelling.
    #[serde(default)]
    pub architecture: String,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// How a container of the image runs.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ContainerConfig,
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// How the layers came to be, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    /// Operating system in Go's spelling.
    #[serde(default)]
    pub os: String,
    /// Features that the operating system must have.
    #[serde(
        default,
        rename = "os.features",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub os_features: Vec<String>,
    /// Version of the operating system.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// The layers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Keys that are not named here.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl ImageConfig {
    /// The platform that the image says it is for.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: self.variant.clone(),
        }
    }

    /// The bytes of the document, always the same for equal configurations, and their descriptor.
    pub fn to_blob(&self, media_type: MediaType) -> (Descriptor, Vec<u8>) {
        let bytes = serde_json::to_vec(self)
            .expect("maps with text keys and plain values always serialise");
        (Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64), bytes)
    }
}

/// How a container of an image runs; Docker's names for keys that OCI does not define.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `user[:group]`, names or numbers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `port/protocol` to an empty object.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub exposed_ports: BTreeMap<String, Value>,
    /// `NAME=value`, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// The program and its first arguments; `None` and empty are different things to a child image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The arguments after the entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// How the container's health is tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Whether `Cmd` is one escaped command line; only meaningful on Windows, yet always set by builders.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Mount points, to an empty object.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub volumes: BTreeMap<String, Value>,
    /// Where the process starts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Instructions for builds on top of this image.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub on_build: Vec<String>,
    /// Free-form notes.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub labels: BTreeMap<String, String>,
    /// The signal that ends the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Seconds before the container is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// The shell of shell-form instructions.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub shell: Vec<String>,
    /// Keys that are not named here.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// A health check; durations are nanoseconds, and zero means the engine's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", ...]` or `["CMD-SHELL", command]`; empty inherits.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time that one check may take.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time at the start in which failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between two checks during the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make the container unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// Keys that are not named here.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// The layers of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The layers' diff ids, bottom first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// One step of how an image was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what command.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// By whom.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Anything else.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether the step made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Keys that are not named here.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Go writes `null` for an empty list or map.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_everything_that_a_base_image_says() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"User":"x","Healthcheck":{"Test":["CMD","a"],
            "Interval":5},"OnBuild":["RUN a"],"Shell":["/bin/bash"],"ArgsEscaped":true,"StopTimeout":3,"Mystery":{"b":1,"a":2}},
            "rootfs":{"type":"layers","diff_ids":null},"history":null,"moby.buildkit.cache.v0":"x","container":"y"}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        let (_, bytes) = config.to_blob(MediaType::OciConfig);
        let again: Value = serde_json::from_slice(&bytes).unwrap();
        let mut before: Value = serde_json::from_str(text).unwrap();
        before["rootfs"]["diff_ids"] = Value::Array(Vec::new());
        before.as_object_mut().unwrap().remove("history");
        assert_eq!(again, before);
        assert_eq!(
            config.to_blob(MediaType::OciConfig).0,
            again_blob(&bytes).to_blob(MediaType::OciConfig).0
        );
        let _theirs: oci_spec::image::ImageConfiguration = serde_json::from_slice(&bytes).unwrap();
    }

    #[test]
    fn numbers_of_a_base_image_stay_what_they_are() {
        let digits = "9".repeat(81);
        for number in ["1e81", "-0.0", "0.1", "1.7976931348623157e308", "5e-324", &digits] {
            let text = format!(r#"{{"x":{number}}}"#);
            let config: ImageConfig = serde_json::from_str(&text).unwrap();
            let (descriptor, bytes) = config.to_blob(MediaType::OciConfig);
            assert_eq!(again_blob(&bytes).to_blob(MediaType::OciConfig).0, descriptor, "{number}");
        }
    }

    fn again_blob(bytes: &[u8]) -> ImageConfig {
        serde_json::from_slice(bytes).unwrap()
    }
}
