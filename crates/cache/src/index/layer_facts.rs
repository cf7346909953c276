//! What is known of layers: their diff ids, the blobs that unpack to them, and where those can be fetched.

use std::path::PathBuf;
use std::time::SystemTime;

use rbuild_oci::{Descriptor, DiffId, Digest};
use rbuild_solver::LayerId;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::database::{Index, IndexError};
use super::value::{digest, from_millis, json, now, to_json, unreadable};
use crate::S3Bucket;

/// What is known of a layer. Its directory need not exist.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerFacts {
    /// The digest of its archive, once one was read or written.
    pub diff_id: Option<DiffId>,
    /// What its directory takes on the disk, in bytes of whole blocks, once that was measured.
    pub disk_size: Option<u64>,
    /// What made it, for people.
    pub description: String,
    /// Whatever else those who make layers must know of it later.
    pub extra: Option<Value>,
    /// The blobs that unpack to it, verified ones first.
    pub blobs: Vec<BlobFacts>,
    /// When it became known; `None` in facts that are yet to be written.
    pub created: Option<SystemTime>,
}

impl LayerFacts {
    /// Key in [`LayerFacts::extra`]: the layer below, for one that is named after its chain or was deferred.
    pub(crate) const PARENT: &str = "parent";
    /// Key in [`LayerFacts::extra`]: when a layer that came from a cache was made, milliseconds since 1970.
    pub(crate) const MADE: &str = "made-ms";
    /// Key in [`LayerFacts::extra`]: that a layer became known from a cache.
    pub(crate) const FROM_CACHE: &str = "cache";
    /// Key in [`LayerFacts::extra`]: that a layer was not made when its vertex was executed.
    const DEFERRED: &str = "deferred";

    /// The layer below, for one that is named after its chain or was deferred.
    pub fn parent(&self) -> Option<LayerId> {
        LayerId::parse(self.extra.as_ref()?.get(Self::PARENT)?.as_str()?)
    }

    /// When a layer that came from a cache was made, milliseconds since 1970; `None` for layers of base images.
    pub fn made(&self) -> Option<i64> {
        self.extra.as_ref()?.get(Self::MADE)?.as_i64()
    }

    /// Whether it became known from a cache.
    pub fn is_from_cache(&self) -> bool {
        let said = self.extra.as_ref().and_then(|extra| extra.get(Self::FROM_CACHE)?.as_bool());
        said == Some(true)
    }

    /// Of a layer that is not made yet, and of which only the layer below is known.
    pub(crate) fn deferred(below: Option<&LayerId>) -> Self {
        let mut extra = serde_json::Map::new();
        extra.insert(Self::DEFERRED.to_owned(), true.into());
        if let Some(below) = below {
            extra.insert(Self::PARENT.to_owned(), below.to_string().into());
        }
        Self { extra: Some(extra.into()), ..Self::default() }
    }

    /// Whether it was not made when its vertex was executed; its directory may have come later.
    pub(crate) fn is_deferred(&self) -> bool {
        let said = self.extra.as_ref().and_then(|extra| extra.get(Self::DEFERRED)?.as_bool());
        said == Some(true)
    }
}

/// A blob that unpacks to a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct BlobFacts {
    /// Its media type, which tells the compression, its digest and size.
    pub descriptor: Descriptor,
    /// What compressed it, with version and settings, when it was us: another encoder may give other bytes.
    pub encoder: Option<String>,
    /// Whether it was read, and was the layer. Else it is only what some image says: anybody can make an image
    /// whose configuration has a layer's diff id, and whose manifest another blob.
    pub verified: bool,
}

impl BlobFacts {
    /// In [`BlobFacts::encoder`], before the latest time that the archive was allowed to have, seconds since 1970.
    pub const CLAMPED: &str = ";epoch=";

    /// Whether we made it, and left the times in it as they were.
    pub(crate) fn has_own_times(&self) -> bool {
        self.encoder.as_ref().is_some_and(|encoder| !encoder.contains(Self::CLAMPED))
    }
}

/// A place that a blob can be fetched from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum BlobSource {
    /// A repository of a registry.
    Registry {
        /// Host, and port when it is not the usual one.
        registry: String,
        /// Name of the repository.
        repository: String,
    },
    /// An OCI image layout.
    OciLayout {
        /// Its directory.
        path: PathBuf,
    },
    /// A bucket.
    S3 {
        /// Which.
        bucket: S3Bucket,
        /// What comes before the digest in the keys of blobs.
        prefix: String,
    },
}

impl Index {
    /// What is known of a layer.
    pub fn layer(&self, id: &LayerId) -> Result<Option<LayerFacts>, IndexError> {
        self.read_at_once(|connection| layer(connection, id))
    }

    /// What is known of layers, each with the places that a blob of it can be fetched from.
    pub(crate) fn layers_with_places<'a>(
        &self,
        layers: impl Iterator<Item = (&'a LayerId, &'a Digest)>,
    ) -> Result<Vec<PlacedLayer>, IndexError> {
        self.read_at_once(|connection| {
            let placed = |(id, blob)| {
                Ok(PlacedLayer { facts: layer(connection, id)?, places: places(connection, blob)? })
            };
            layers.map(placed).collect()
        })
    }

    /// Adds to what is known of layers, in one transaction: what is absent leaves what is known as it is, blobs
    /// are added.
    pub fn add_layers(&self, layers: &[(LayerId, LayerFacts)]) -> Result<(), IndexError> {
        self.write(|connection| {
            layers.iter().try_for_each(|(id, facts)| add_layer(connection, id, facts))
        })
    }

    /// Adds a blob that unpacks to a layer.
    pub fn add_layer_blob(&self, id: &LayerId, blob: &BlobFacts) -> Result<(), IndexError> {
        self.write(|connection| {
            add_layer(
                connection,
                id,
                &LayerFacts { blobs: vec![blob.clone()], ..LayerFacts::default() },
            )
        })
    }

    /// Forgets a blob that does not unpack to the layer.
    pub fn remove_layer_blob(&self, id: &LayerId, blob: &Digest) -> Result<(), IndexError> {
        self.write(|connection| {
            connection
                .prepare_cached("DELETE FROM layer_blobs WHERE layer = ?1 AND digest = ?2")?
                .execute(params![id.as_bytes(), blob.to_string()])
                .map(|_| ())
        })
    }

    /// The layers that a blob unpacks to.
    pub fn layers_of_blob(&self, blob: &Digest) -> Result<Vec<LayerId>, IndexError> {
        self.read(|connection| {
            connection
                .prepare_cached("SELECT layer FROM layer_blobs WHERE digest = ?1")?
                .query_map([blob.to_string()], |row| layer_id(row, 0))?
                .collect()
        })
    }

    /// Adds a place that blobs can be fetched from.
    pub fn add_blob_source(&self, blobs: &[Digest], source: &BlobSource) -> Result<(), IndexError> {
        self.write(|connection| add_places(connection, blobs, source))
    }

    /// Forgets a place that did not have the blob any more.
    pub fn remove_blob_source(&self, blob: &Digest, source: &BlobSource) -> Result<(), IndexError> {
        self.write(|connection| {
            connection
                .prepare_cached("DELETE FROM blob_sources WHERE digest = ?1 AND source = ?2")?
                .execute(params![blob.to_string(), to_json(source)])
                .map(|_| ())
        })
    }

    /// The places that a blob can be fetched from.
    pub fn blob_sources(&self, blob: &Digest) -> Result<Vec<BlobSource>, IndexError> {
        self.read(|connection| places(connection, blob))
    }

    /// The blobs of all layers, and what the layers take on the disk where that was measured.
    pub(crate) fn all_layers(&self) -> Result<Vec<KnownLayer>, IndexError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT l.id, l.disk_size, l.created, l.description,
                            (SELECT group_concat(digest, ' ') FROM layer_blobs WHERE layer = l.id)
                     FROM layers l",
                )?
                .query_map([], |row| {
                    let blobs: Option<String> = row.get(4)?;
                    Ok(KnownLayer {
                        id: layer_id(row, 0)?,
                        disk_size: row.get::<_, Option<i64>>(1)?.map(i64::unsigned_abs),
                        created: from_millis(row.get(2)?),
                        description: row.get(3)?,
                        blobs: blobs
                            .iter()
                            .flat_map(|blobs| blobs.split(' '))
                            .map(|blob| Digest::parse(blob).map_err(|error| unreadable(4, error)))
                            .collect::<Result<_, _>>()?,
                    })
                })?
                .collect()
        })
    }

    /// Notes what layers take on the disk.
    pub(crate) fn set_disk_sizes(&self, sizes: &[(LayerId, u64)]) -> Result<(), IndexError> {
        let with_size = |size| LayerFacts { disk_size: Some(size), ..LayerFacts::default() };
        self.write(|connection| {
            sizes.iter().try_for_each(|(id, size)| add_layer(connection, id, &with_size(*size)))
        })
    }

    /// Forgets layers, and the sources of blobs that no layer has any more.
    pub(crate) fn delete_layers(&self, ids: &[LayerId]) -> Result<(), IndexError> {
        self.write(|connection| {
            let mut delete = connection.prepare_cached("DELETE FROM layers WHERE id = ?1")?;
            for id in ids {
                delete.execute([id.as_bytes()])?;
            }
            connection.execute(
                "DELETE FROM blob_sources WHERE digest NOT IN (SELECT digest FROM layer_blobs)",
                [],
            )?;
            Ok(())
        })
    }
}

fn layer(connection: &Connection, id: &LayerId) -> rusqlite::Result<Option<LayerFacts>> {
    let facts = connection
        .prepare_cached(
            "SELECT diff_id, disk_size, description, extra, created FROM layers
             WHERE id = ?1",
        )?
        .query_row([id.as_bytes()], |row| {
            let has =
                |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str_or_null()?.is_some());
            Ok(LayerFacts {
                diff_id: if has(0)? { Some(DiffId(digest(row, 0)?)) } else { None },
                disk_size: row.get::<_, Option<i64>>(1)?.map(i64::unsigned_abs),
                description: row.get(2)?,
                extra: if has(3)? { Some(json(row, 3)?) } else { None },
                blobs: Vec::new(),
                created: Some(from_millis(row.get(4)?)),
            })
        })
        .optional()?;
    let Some(mut facts) = facts else { return Ok(None) };
    facts.blobs = connection
        .prepare_cached(
            "SELECT descriptor, encoder, verified FROM layer_blobs WHERE layer = ?1
             ORDER BY verified DESC, digest",
        )?
        .query_map([id.as_bytes()], |row| {
            Ok(BlobFacts { descriptor: json(row, 0)?, encoder: row.get(1)?, verified: row.get(2)? })
        })?
        .collect::<Result<_, _>>()?;
    Ok(Some(facts))
}

fn places(connection: &Connection, blob: &Digest) -> rusqlite::Result<Vec<BlobSource>> {
    connection
        .prepare_cached("SELECT source FROM blob_sources WHERE digest = ?1 ORDER BY source")?
        .query_map([blob.to_string()], |row| json(row, 0))?
        .collect()
}

/// A layer of an image.
#[derive(Debug)]
pub(crate) struct PlacedLayer {
    /// What is known of it.
    pub(crate) facts: Option<LayerFacts>,
    /// Where the image's blob of it can be fetched from.
    pub(crate) places: Vec<BlobSource>,
}

/// What collection needs to know of a layer.
#[derive(Debug)]
pub(crate) struct KnownLayer {
    pub(crate) id: LayerId,
    pub(crate) disk_size: Option<u64>,
    pub(crate) created: SystemTime,
    pub(crate) description: String,
    pub(crate) blobs: Vec<Digest>,
}

pub(super) fn add_layer(
    connection: &Connection,
    id: &LayerId,
    facts: &LayerFacts,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO layers (id, diff_id, disk_size, description, extra, created)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (id) DO UPDATE SET
                 diff_id = coalesce(excluded.diff_id, diff_id),
                 disk_size = coalesce(excluded.disk_size, disk_size),
                 description = coalesce(nullif(excluded.description, ''), description),
                 extra = coalesce(excluded.extra, extra)",
        )?
        .execute(params![
            id.as_bytes(),
            facts.diff_id.map(|diff_id| diff_id.to_string()),
            facts.disk_size.map(|size| i64::try_from(size).unwrap_or(i64::MAX)),
            facts.description,
            facts.extra.as_ref().map(to_json),
            now(),
        ])?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO layer_blobs (layer, digest, descriptor, encoder, verified)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (layer, digest) DO UPDATE SET
             descriptor = excluded.descriptor, encoder = coalesce(excluded.encoder, encoder),
             verified = max(excluded.verified, verified)",
    )?;
    for BlobFacts { descriptor, encoder, verified } in &facts.blobs {
        let digest = descriptor.digest.to_string();
        insert.execute(params![id.as_bytes(), digest, to_json(descriptor), encoder, verified])?;
    }
    Ok(())
}

pub(super) fn add_places(
    connection: &Connection,
    blobs: &[Digest],
    source: &BlobSource,
) -> rusqlite::Result<()> {
    let source = to_json(source);
    let mut insert =
        connection.prepare_cached("INSERT OR IGNORE INTO blob_sources VALUES (?1, ?2)")?;
    blobs.iter().try_for_each(|blob| insert.execute(params![blob.to_string(), source]).map(|_| ()))
}

pub(super) fn layer_id(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<LayerId> {
    row.get(column).map(LayerId::new)
}
