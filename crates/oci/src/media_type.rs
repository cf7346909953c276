//! Media types of the documents and layers that rbuild reads and writes.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How a layer blob is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerCompression {
    /// A plain tar archive.
    None,
    /// gzip (RFC 1952), possibly of several members.
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

macro_rules! media_types {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The type of a document or layer, as it stands in a descriptor.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum MediaType {
            $($(#[$doc])* $name,)*
            /// Any other type, kept as it was written.
            Other(String),
        }

        impl MediaType {
            /// The text on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for MediaType {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$name,)*
                    other => Self::Other(other.to_owned()),
                }
            }
        }
    };
}

media_types! {
    /// OCI image manifest.
    OciManifest = "application/vnd.oci.image.manifest.v1+json",
    /// OCI image index.
    OciIndex = "application/vnd.oci.image.index.v1+json",
    /// OCI image configuration.
    OciConfig = "application/vnd.oci.image.config.v1+json",
    /// OCI layer, not compressed.
    OciLayer = "application/vnd.oci.image.layer.v1.tar",
    /// OCI layer, gzip.
    OciLayerGzip = "application/vnd.oci.image.layer.v1.tar+gzip",
    /// OCI layer, zstd.
    OciLayerZstd = "application/vnd.oci.image.layer.v1.tar+zstd",
    /// OCI layer that must not be distributed, not compressed.
    OciLayerNondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar",
    /// OCI layer that must not be distributed, gzip.
    OciLayerNondistributableGzip = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    /// Docker image manifest, version 2, schema 2.
    DockerManifest = "application/vnd.docker.distribution.manifest.v2+json",
    /// Docker manifest list.
    DockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json",
    /// Docker image configuration.
    DockerConfig = "application/vnd.docker.container.image.v1+json",
    /// Docker layer, not compressed.
    DockerLayer = "application/vnd.docker.image.rootfs.diff.tar",
    /// Docker layer, gzip.
    DockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip",
    /// Docker layer, zstd.
    DockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd",
    /// Docker layer that is fetched from elsewhere, gzip.
    DockerForeignLayerGzip = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
}

impl MediaType {
    /// Whether this names a list of manifests (an OCI index or a Docker manifest list).
    pub fn is_index(&self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerManifestList)
    }

    /// Whether this names an image manifest.
    pub fn is_manifest(&self) -> bool {
        matches!(self, Self::OciManifest | Self::DockerManifest)
    }

    /// Whether this names a layer that its owner wants nobody else to distribute.
    pub fn is_foreign(&self) -> bool {
        matches!(
            self,
            Self::OciLayerNondistributable
                | Self::OciLayerNondistributableGzip
                | Self::DockerForeignLayerGzip
        )
    }

    /// How a layer of this type is compressed; `None` when this is no layer type that we know.
    pub fn layer_compression(&self) -> Option<LayerCompression> {
        match self {
            Self::OciLayer | Self::OciLayerNondistributable | Self::DockerLayer => {
                Some(LayerCompression::None)
            }
            Self::OciLayerGzip
            | Self::OciLayerNondistributableGzip
            | Self::DockerLayerGzip
            | Self::DockerForeignLayerGzip => Some(LayerCompression::Gzip),
            Self::OciLayerZstd | Self::DockerLayerZstd => Some(LayerCompression::Zstd),
            _ => None,
        }
    }

    /// The OCI layer type for a compression.
    pub fn oci_layer(compression: LayerCompression) -> Self {
        match compression {
            LayerCompression::None => Self::OciLayer,
            LayerCompression::Gzip => Self::OciLayerGzip,
            LayerCompression::Zstd => Self::OciLayerZstd,
        }
    }

    /// The Docker layer type for a compression.
    pub fn docker_layer(compression: LayerCompression) -> Self {
        match compression {
            LayerCompression::None => Self::DockerLayer,
            LayerCompression::Gzip => Self::DockerLayerGzip,
            LayerCompression::Zstd => Self::DockerLayerZstd,
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for MediaType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(&*std::borrow::Cow::<'de, str>::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_go_both_ways() {
        for kind in
            [MediaType::OciIndex, MediaType::DockerLayerGzip, MediaType::Other("a/b".to_owned())]
        {
            assert_eq!(MediaType::from(kind.as_str()), kind);
        }
        assert_eq!(MediaType::OciLayerZstd.layer_compression(), Some(LayerCompression::Zstd));
        assert_eq!(MediaType::OciConfig.layer_compression(), None);
        assert!(MediaType::DockerForeignLayerGzip.is_foreign());
    }
}
