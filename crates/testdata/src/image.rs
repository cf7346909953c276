//! Images and indexes made in memory.

use serde_json::{Value, json};

use crate::{Compression, Layer, sha256};

/// Bytes with the type that a descriptor gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The media type.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// `sha256:hex` of the bytes.
    pub fn digest(&self) -> String {
        sha256(&self.bytes)
    }

    /// The descriptor of these bytes.
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len()})
    }
}

/// An image being put together. The documents are plain JSON, so that a test can break them.
#[derive(Clone, Debug)]
pub struct Image {
    /// The layers, bottom first.
    pub layers: Vec<Layer>,
    /// The image configuration; [`Image::new`] fills in what the specification asks for, and each layer adds its
    /// diff id and a history entry.
    pub config: Value,
    docker: bool,
}

impl Image {
    /// An image for `platform` (`os/architecture[/variant]`) without layers.
    pub fn new(platform: &str) -> Self {
        let mut config = json!({
            "architecture": "", "os": "", "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": []}, "history": [],
            "created": "2023-11-14T22:13:20Z",
        });
        for (key, value) in platform_fields(platform) {
            config[key] = value.into();
        }
        Self { layers: Vec::new(), config, docker: false }
    }

    /// The same image with one more layer on top.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        push(&mut self.config["rootfs"]["diff_ids"], layer.diff_id().into());
        let number = self.layers.len();
        push(
            &mut self.config["history"],
            json!({"created": "2023-11-14T22:13:20Z", "created_by": format!("layer {number}")}),
        );
        self.layers.push(layer);
        self
    }

    /// The same image with Docker's media types.
    #[must_use]
    pub fn docker(self) -> Self {
        Self { docker: true, ..self }
    }

    /// The same image after `change` was applied to its configuration.
    #[must_use]
    pub fn configured(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    /// The configuration document.
    pub fn config_blob(&self) -> Blob {
        let media_type = if self.docker {
            "application/vnd.docker.container.image.v1+json"
        } else {
            "application/vnd.oci.image.config.v1+json"
        };
        Blob { media_type: media_type.to_owned(), bytes: to_bytes(&self.config) }
    }

    /// The blobs of the layers, bottom first.
    pub fn layer_blobs(&self) -> Vec<Blob> {
        self.layers
            .iter()
            .map(|layer| Blob {
                media_type: layer_type(self.docker, layer.compression).to_owned(),
                bytes: layer.blob.clone(),
            })
            .collect()
    }

    /// The manifest as JSON, for tests that break it.
    pub fn manifest(&self) -> Value {
        let layers: Vec<Value> = self.layer_blobs().iter().map(Blob::descriptor).collect();
        json!({
            "schemaVersion": 2, "mediaType": manifest_type(self.docker),
            "config": self.config_blob().descriptor(), "layers": layers,
        })
    }

    /// Everything that has to be stored for this image.
    pub fn publish(&self) -> Published {
        self.publish_with(&self.manifest())
    }

    /// As [`Image::publish`], with another manifest.
    pub fn publish_with(&self, manifest: &Value) -> Published {
        let media_type = manifest_type(self.docker).to_owned();
        let mut blobs = self.layer_blobs();
        blobs.push(self.config_blob());
        let top = Blob { media_type, bytes: to_bytes(manifest) };
        Published { blobs, manifests: Vec::new(), top }
    }
}

/// Several images under one name.
#[derive(Clone, Debug, Default)]
pub struct ImageIndex {
    images: Vec<(Value, Published)>,
}

impl ImageIndex {
    /// An index without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same index with one more image, for the platform that the image's configuration names.
    #[must_use]
    pub fn image(mut self, image: &Image) -> Self {
        let published = image.publish();
        let mut descriptor = published.top.descriptor();
        let mut platform = json!({});
        for key in ["os", "architecture", "variant"] {
            if let Some(value) = image.config.get(key) {
                platform[key] = value.clone();
            }
        }
        descriptor["platform"] = platform;
        self.images.push((descriptor, published));
        self
    }

    /// The same index with an index below it.
    #[must_use]
    pub fn nested(mut self, index: &Self) -> Self {
        let published = index.publish();
        self.images.push((published.top.descriptor(), published));
        self
    }

    /// Everything that has to be stored for this index.
    pub fn publish(&self) -> Published {
        let entries: Vec<&Value> = self.images.iter().map(|(descriptor, _)| descriptor).collect();
        let media_type = "application/vnd.oci.image.index.v1+json";
        let document = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries});
        let top = Blob { media_type: media_type.to_owned(), bytes: to_bytes(&document) };
        let (mut blobs, mut manifests) = (Vec::new(), Vec::new());
        for (_, published) in &self.images {
            blobs.extend(published.blobs.iter().cloned());
            manifests.extend(published.manifests.iter().cloned());
            manifests.push(published.top.clone());
        }
        Published { blobs, manifests, top }
    }
}

/// What a registry or a layout must hold to offer an image.
#[derive(Clone, Debug)]
pub struct Published {
    /// Configurations and layers.
    pub blobs: Vec<Blob>,
    /// Manifests and indexes below the top one, in the order in which a registry accepts them.
    pub manifests: Vec<Blob>,
    /// The manifest or index that a tag names.
    pub top: Blob,
}

impl Published {
    /// The digest that the tag resolves to.
    pub fn digest(&self) -> String {
        self.top.digest()
    }
}

fn manifest_type(docker: bool) -> &'static str {
    if docker {
        "application/vnd.docker.distribution.manifest.v2+json"
    } else {
        "application/vnd.oci.image.manifest.v1+json"
    }
}

fn layer_type(docker: bool, compression: Compression) -> &'static str {
    match (docker, compression) {
        (false, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
        (false, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
        (false, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
        (true, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
        (true, Compression::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        (true, Compression::Zstd) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
    }
}

fn platform_fields(platform: &str) -> impl Iterator<Item = (&'static str, &str)> {
    ["os", "architecture", "variant"].into_iter().zip(platform.split('/'))
}

fn push(list: &mut Value, value: Value) {
    list.as_array_mut().expect("diff_ids and history are lists").push(value);
}

fn to_bytes(document: &Value) -> Vec<u8> {
    serde_json::to_vec(document).expect("JSON values serialise")
}
