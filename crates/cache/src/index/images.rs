//! The local image store: names for manifests and indexes whose blobs are in the store.

use std::path::Path;
use std::time::SystemTime;

use rbuild_oci::{Descriptor, Digest};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use super::database::{Index, IndexError};
use super::value::{from_millis, json, now, to_json};

/// An image of the local image store.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Its full reference. Absent when it was built without one, or when its name went to another image.
    pub name: Option<String>,
    /// Its manifest or index.
    pub descriptor: Descriptor,
    /// When it was put there.
    pub created: SystemTime,
}

const COLUMNS: &str = "name, descriptor, created";

fn image(row: &Row<'_>) -> rusqlite::Result<Image> {
    Ok(Image { name: row.get(0)?, descriptor: json(row, 1)?, created: from_millis(row.get(2)?) })
}

impl Index {
    /// All images, newest first.
    pub fn images(&self) -> Result<Vec<Image>, IndexError> {
        self.read(|connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM images ORDER BY created DESC, id DESC"
                ))?
                .query_map([], image)?
                .collect()
        })
    }

    /// The image with this name.
    pub fn image(&self, name: &str) -> Result<Option<Image>, IndexError> {
        self.read(|connection| {
            connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM images WHERE name = ?1"))?
                .query_row([name], image)
                .optional()
        })
    }

    /// Gives an image a name. The image that had it, if it is another and has no more names, stays without one.
    ///
    /// The caller has put all its blobs into the store, and has called [`crate::Content::sync`].
    pub fn tag_image(&self, name: &str, descriptor: &Descriptor) -> Result<(), IndexError> {
        let digest = descriptor.digest.to_string();
        self.write(|connection| {
            let before: Option<(i64, String)> = connection
                .prepare_cached("SELECT id, digest FROM images WHERE name = ?1")?
                .query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            if let Some((id, of)) = before {
                let others: i64 = connection
                    .prepare_cached("SELECT count(*) FROM images WHERE digest = ?1 AND id <> ?2")?
                    .query_row(params![of, id], |row| row.get(0))?;
                let statement = if of == digest || others > 0 {
                    "DELETE FROM images WHERE id = ?1"
                } else {
                    "UPDATE images SET name = NULL WHERE id = ?1"
                };
                connection.prepare_cached(statement)?.execute([id])?;
            }
            connection
                .prepare_cached("DELETE FROM images WHERE digest = ?1 AND name IS NULL")?
                .execute([&digest])?;
            insert(connection, Some(name), descriptor)
        })
    }

    /// Adds an image without a name, unless it has one already.
    pub fn add_image(&self, descriptor: &Descriptor) -> Result<(), IndexError> {
        self.write(|connection| {
            let known: bool = connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM images WHERE digest = ?1)")?
                .query_row([descriptor.digest.to_string()], |row| row.get(0))?;
            if known { Ok(()) } else { insert(connection, None, descriptor) }
        })
    }

    /// Removes a name. Whether there was one. The image's content goes with the next collection.
    pub fn remove_image(&self, name: &str) -> Result<bool, IndexError> {
        self.delete("DELETE FROM images WHERE name = ?1", name).map(|deleted| deleted > 0)
    }

    /// Removes an image with all its names. Returns how many rows it had.
    pub fn remove_image_digest(&self, digest: &Digest) -> Result<usize, IndexError> {
        self.delete("DELETE FROM images WHERE digest = ?1", &digest.to_string())
    }

    /// Removes the images without a name. Returns how many there were.
    pub fn remove_dangling_images(&self) -> Result<usize, IndexError> {
        self.write(|connection| connection.execute("DELETE FROM images WHERE name IS NULL", []))
    }

    fn delete(&self, statement: &str, value: &str) -> Result<usize, IndexError> {
        self.write(|connection| connection.prepare_cached(statement)?.execute([value]))
    }
}

fn insert(
    connection: &Connection,
    name: Option<&str>,
    descriptor: &Descriptor,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO images (name, digest, descriptor, created) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![name, descriptor.digest.to_string(), to_json(descriptor), now()])
        .map(|_| ())
}

/// Copies what can still be read of the images in a damaged database. They are what a user would miss: everything
/// else in the index is made again. Returns how many there were.
pub(super) fn salvage(damaged: &Path, into: &Connection) -> usize {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let Ok(damaged) = Connection::open_with_flags(damaged, flags) else { return 0 };
    let Ok(mut read) = damaged.prepare(&format!("SELECT {COLUMNS} FROM images NOT INDEXED")) else {
        return 0;
    };
    let Ok(images) = read.query_map([], image) else { return 0 };
    let mut salvaged = 0;
    // After the first row that cannot be reached, none can.
    for image in images.map_while(Result::ok) {
        // A damaged table may name two images the same.
        salvaged += usize::from(insert(into, image.name.as_deref(), &image.descriptor).is_ok());
    }
    salvaged
}
