//! Records, layers and places of a cache that another machine wrote.

use rbuild_oci::Digest;
use rbuild_solver::{LayerId, NewRecord};
use rusqlite::{Connection, OptionalExtension};

use super::database::{Index, IndexError};
use super::layer_facts::{BlobSource, LayerFacts, add_layer};
use super::records::put_record;
use crate::remote_cache::{CacheContents, ImportedRecord};

impl Index {
    /// Adds what is not known yet, in one transaction, and returns how many records that were. A key that finds
    /// something goes on finding that.
    pub(crate) fn import(
        &self,
        contents: &CacheContents,
        source: &BlobSource,
    ) -> Result<usize, IndexError> {
        let mut layers = Vec::new();
        let mut places: Vec<Digest> = Vec::new();
        for (id, facts) in &contents.layers {
            layers.extend(self.unknown(id, facts)?);
            for blob in &facts.blobs {
                let digest = blob.descriptor.digest;
                if !self.blob_sources(&digest)?.contains(source) {
                    places.push(digest);
                }
            }
        }
        let mut records: Vec<&ImportedRecord> = Vec::new();
        for record in &contents.records {
            if self.find_record(&record.key)?.is_none() {
                records.push(record);
            }
        }
        if layers.is_empty() && places.is_empty() && records.is_empty() {
            return Ok(0);
        }
        self.write(|connection| {
            layers.iter().try_for_each(|(id, facts)| add_layer(connection, id, facts))?;
            super::layer_facts::add_places(connection, &places, source)?;
            let mut added = 0;
            for record in &records {
                if !has_key(connection, record)? {
                    put_record(connection, &new_record(record))?;
                    added += 1;
                }
            }
            Ok(added)
        })
    }

    /// What is not known of a layer. Of one that is known, that is only where else it may be had: what else is
    /// said of it comes from who knows it better.
    fn unknown(
        &self,
        id: &LayerId,
        facts: &LayerFacts,
    ) -> Result<Option<(LayerId, LayerFacts)>, IndexError> {
        let Some(known) = self.layer(id)? else { return Ok(Some((*id, facts.clone()))) };
        let is_known =
            |digest: &Digest| known.blobs.iter().any(|blob| blob.descriptor.digest == *digest);
        let blobs: Vec<_> =
            facts.blobs.iter().filter(|blob| !is_known(&blob.descriptor.digest)).cloned().collect();
        let facts = LayerFacts { blobs, ..LayerFacts::default() };
        Ok((!facts.blobs.is_empty()).then_some((*id, facts)))
    }
}

fn has_key(connection: &Connection, record: &ImportedRecord) -> rusqlite::Result<bool> {
    let found: Option<i64> = connection
        .prepare_cached("SELECT record FROM keys WHERE key = ?1")?
        .query_row([record.key.0.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(found.is_some())
}

fn new_record(record: &ImportedRecord) -> NewRecord<'_> {
    NewRecord {
        key: record.key,
        parts: &record.parts,
        outputs: &record.outputs,
        deferred: false,
        name: &record.name,
        duration: record.duration,
    }
}
