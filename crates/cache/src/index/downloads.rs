//! What is known of files behind HTTP addresses.

use rbuild_oci::Digest;
use rbuild_solver::LayerId;
use rusqlite::{OptionalExtension, params};

use super::LayerFacts;
use super::database::{Index, IndexError};
use super::layer_facts::{add_layer, layer_id};
use super::value::digest;

/// A file that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredDownload {
    /// What the server calls this state of the file.
    pub(crate) etag: Option<String>,
    /// The server's words for when it was changed.
    pub(crate) last_modified: Option<String>,
    /// The digest of its content.
    pub(crate) content: Digest,
    /// When it was changed, in seconds since 1970.
    pub(crate) modified: Option<i64>,
    /// The layer with the file. It need not exist.
    pub(crate) layer: LayerId,
}

impl Index {
    /// What was fetched under this id.
    pub(crate) fn download(&self, id: &Digest) -> Result<Option<StoredDownload>, IndexError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT etag, last_modified, content, modified, layer FROM downloads
                     WHERE id = ?1",
                )?
                .query_row([id.as_bytes()], |row| {
                    Ok(StoredDownload {
                        etag: row.get(0)?,
                        last_modified: row.get(1)?,
                        content: digest(row, 2)?,
                        modified: row.get(3)?,
                        layer: layer_id(row, 4)?,
                    })
                })
                .optional()
        })
    }

    /// Remembers what was fetched; the layer becomes known with it, as made by fetching `name`.
    pub(crate) fn put_download(
        &self,
        id: &Digest,
        name: &str,
        stored: &StoredDownload,
    ) -> Result<(), IndexError> {
        self.write(|connection| {
            let facts = LayerFacts { description: name.to_owned(), ..LayerFacts::default() };
            add_layer(connection, &stored.layer, &facts)?;
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO downloads
                     (id, etag, last_modified, content, modified, layer)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![
                    id.as_bytes(),
                    stored.etag,
                    stored.last_modified,
                    stored.content.to_string(),
                    stored.modified,
                    stored.layer.as_bytes(),
                ])
                .map(|_| ())
        })
    }
}
