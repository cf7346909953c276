//! Cache records: what vertices yielded, by key.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use rbuild_oci::Digest;
use rbuild_solver::{CacheKey, KeyParts, LayerId, NewRecord, Output, Snapshot};
use rusqlite::{Connection, OptionalExtension, params};

use super::database::{Index, IndexError};
use super::layer_facts::{LayerFacts, add_layer};
use super::value::{from_millis, json, now, to_json, unreadable};

/// A record as it stands in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its row.
    pub(crate) id: i64,
    /// The outputs of the vertex, in order.
    pub outputs: Vec<Output>,
    /// The vertex's name when the record was made.
    pub name: String,
    /// How long making the outputs took.
    pub duration: Duration,
    /// When it was made.
    pub created: SystemTime,
    /// When it was last found.
    pub used: SystemTime,
    /// How often it was found.
    pub uses: u64,
}

impl StoredRecord {
    /// The layers of all its outputs.
    pub fn layers(&self) -> impl Iterator<Item = &LayerId> {
        layers_of(&self.outputs)
    }
}

/// The layers that outputs name.
pub(crate) fn layers_of(outputs: &[Output]) -> impl Iterator<Item = &LayerId> {
    outputs.iter().flat_map(|output| match output {
        Output::Snapshot(snapshot) => snapshot.layers(),
        Output::Local(_) => &[],
    })
}

/// A key of a record, with what it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// The key.
    pub key: CacheKey,
    /// What it was made from.
    pub parts: KeyParts,
}

impl Index {
    /// The row and the outputs of the record under a key. Does not look whether its layers are there: that is
    /// [`crate::LocalRecords`]' business.
    pub(crate) fn find_record(
        &self,
        key: &CacheKey,
    ) -> Result<Option<(i64, Vec<Output>)>, IndexError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT r.id, r.outputs FROM keys k JOIN records r ON r.id = k.record
                     WHERE k.key = ?1",
                )?
                .query_row([key.0.as_bytes()], |row| Ok((row.get(0)?, outputs(row, 1)?)))
                .optional()
        })
    }

    /// Remembers that a record was used. Written by [`Index::flush`].
    pub(crate) fn count_use(&self, record: i64) {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner).entry(record).or_default() += 1;
    }

    /// Stores records, or links their keys to those with the same outputs.
    pub(crate) fn put_records(&self, records: &[NewRecord<'_>]) -> Result<(), IndexError> {
        self.write(|connection| {
            records.iter().try_for_each(|record| put_record(connection, record))
        })
    }

    /// The record under a key, whether its layers are there or not. How it was used is as [`Self::records`] has found last.
    pub fn record(&self, key: &CacheKey) -> Result<Option<StoredRecord>, IndexError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT r.id, r.outputs, r.name, r.duration_ms, r.created, r.used, r.uses
                     FROM keys k JOIN records r ON r.id = k.record WHERE k.key = ?1",
                )?
                .query_row([key.0.as_bytes()], stored_record)
                .optional()
        })
    }

    /// Deletes records and the keys that find them. Returns how many there were.
    pub(crate) fn delete_records(&self, ids: &[i64]) -> Result<usize, IndexError> {
        if ids.is_empty() {
            return Ok(0);
        }
        self.write(|connection| {
            let mut delete = connection.prepare_cached("DELETE FROM records WHERE id = ?1")?;
            ids.iter().map(|id| delete.execute([id])).sum()
        })
    }

    /// All records, least recently used first. Among those used at one moment, the ones with more layers come
    /// first: they are built on the others.
    pub fn records(&self) -> Result<Vec<StoredRecord>, IndexError> {
        self.settle_uses()?;
        let mut records: Vec<StoredRecord> = self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT id, outputs, name, duration_ms, created, used, uses FROM records
                     ORDER BY used, id DESC",
                )?
                .query_map([], stored_record)?
                .collect()
        })?;
        records
            .sort_by_cached_key(|record| (record.used, std::cmp::Reverse(record.layers().count())));
        Ok(records)
    }

    /// The keys that find a record.
    pub fn keys_of(&self, record: &StoredRecord) -> Result<Vec<StoredKey>, IndexError> {
        self.read(|connection| {
            connection
                .prepare_cached("SELECT key, parts FROM keys WHERE record = ?1 ORDER BY key")?
                .query_map([record.id], |row| {
                    let bytes = row.get_ref(0)?.as_blob()?;
                    let digest = match bytes.len() {
                        32 => bytes.try_into().ok().map(Digest::Sha256),
                        _ => bytes.try_into().ok().map(Digest::Sha512),
                    };
                    let digest = digest.ok_or_else(|| unreadable(0, Unreadable))?;
                    Ok(StoredKey { key: CacheKey(digest), parts: json(row, 1)? })
                })?
                .collect()
        })
    }
}

fn stored_record(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredRecord> {
    Ok(StoredRecord {
        id: row.get(0)?,
        outputs: outputs(row, 1)?,
        name: row.get(2)?,
        duration: Duration::from_millis(row.get::<_, i64>(3)?.unsigned_abs()),
        created: from_millis(row.get(4)?),
        used: from_millis(row.get(5)?),
        uses: row.get::<_, i64>(6)?.unsigned_abs(),
    })
}

/// See [`Index::put_records`].
pub(super) fn put_record(connection: &Connection, record: &NewRecord<'_>) -> rusqlite::Result<()> {
    let outputs = encode_outputs(record.outputs);
    let hash = Digest::of(&outputs);
    let parts = to_json(record.parts);
    let duration = i64::try_from(record.duration.as_millis()).unwrap_or(i64::MAX);
    let id: i64 = connection
        .prepare_cached(
            "INSERT INTO records (outputs_hash, outputs, name, duration_ms, created, used)
             VALUES (?1, ?2, ?3, ?4, ?5, ?5)
             ON CONFLICT (outputs_hash) DO UPDATE SET used = excluded.used
             RETURNING id",
        )?
        .query_row(params![hash.as_bytes(), outputs, record.name, duration, now()], |row| {
            row.get(0)
        })?;
    let replaced: Option<i64> = connection
        .prepare_cached("SELECT record FROM keys WHERE key = ?1 AND record <> ?2")?
        .query_row(params![record.key.0.as_bytes(), id], |row| row.get(0))
        .optional()?;
    connection
        .prepare_cached(
            "INSERT INTO keys (key, record, parts) VALUES (?1, ?2, ?3)
             ON CONFLICT (key) DO UPDATE SET record = excluded.record, parts = excluded.parts",
        )?
        .execute(params![record.key.0.as_bytes(), id, parts])?;
    if record.deferred {
        for output in record.outputs {
            if let Output::Snapshot(snapshot) = output
                && let Some((id, below)) = snapshot.layers().split_last()
            {
                add_layer(connection, id, &LayerFacts::deferred(below.last()))?;
            }
        }
    }
    if let Some(replaced) = replaced {
        // A record that no key finds any more (`--no-cache` made another) would never be used again.
        connection
            .prepare_cached(
                "DELETE FROM records WHERE id = ?1
                 AND NOT EXISTS (SELECT 1 FROM keys WHERE record = ?1)",
            )?
            .execute([replaced])?;
    }
    Ok(())
}

/// Outputs that are not as [`encode_outputs`] writes them.
#[derive(Debug, thiserror::Error)]
#[error("the value is not in a form that this version writes")]
struct Unreadable;

fn outputs(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Vec<Output>> {
    decode_outputs(row.get_ref(column)?.as_blob()?).ok_or_else(|| unreadable(column, Unreadable))
}

const SNAPSHOT: u8 = 0;
const LOCAL: u8 = 1;

/// ```text
/// output*      output = 0, number of layers: u32, layer id: 32 bytes each
///                     | 1, length: u32, source as JSON
/// ```
///
/// Numbers are little endian. A snapshot may have hundreds of layers, and each step of a long file has one.
fn encode_outputs(outputs: &[Output]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for output in outputs {
        match output {
            Output::Snapshot(snapshot) => {
                bytes.push(SNAPSHOT);
                bytes.extend((snapshot.layers().len() as u32).to_le_bytes());
                bytes.extend(snapshot.layers().iter().flat_map(LayerId::as_bytes));
            }
            Output::Local(source) => {
                let source = serde_json::to_vec(&**source).expect("strings can be written as JSON");
                bytes.push(LOCAL);
                bytes.extend((source.len() as u32).to_le_bytes());
                bytes.extend(source);
            }
        }
    }
    bytes
}

fn decode_outputs(mut bytes: &[u8]) -> Option<Vec<Output>> {
    let mut outputs = Vec::new();
    while let Some((kind, rest)) = bytes.split_first() {
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let (output, rest) = match *kind {
            SNAPSHOT => {
                let (ids, rest) = rest.split_at_checked(length.checked_mul(32)?)?;
                let (ids, _) = ids.as_chunks::<32>();
                let ids = ids.iter().map(|id| LayerId::new(*id)).collect();
                (Output::Snapshot(Snapshot::new(ids)), rest)
            }
            LOCAL => {
                let (source, rest) = rest.split_at_checked(length)?;
                (Output::Local(serde_json::from_slice(source).ok().map(Arc::new)?), rest)
            }
            _ => return None,
        };
        outputs.push(output);
        bytes = rest;
    }
    Some(outputs)
}

#[cfg(test)]
mod tests {
    use rbuild_solver::SourceOp;

    use super::*;

    #[test]
    fn outputs_go_both_ways() {
        let ids = [LayerId::derived("a", &[]), LayerId::derived("b", &[])];
        for outputs in [
            vec![],
            vec![Output::Snapshot(Snapshot::default())],
            vec![
                Output::Snapshot(Snapshot::new(ids.to_vec())),
                Output::Local(Arc::new(SourceOp::new("local://context"))),
                Output::Snapshot(Snapshot::new(ids[..1].to_vec())),
            ],
        ] {
            let bytes = encode_outputs(&outputs);
            assert_eq!(decode_outputs(&bytes).unwrap(), outputs);
            for cut in 1..bytes.len() {
                // Shorter ones are other outputs, or none.
                assert_ne!(decode_outputs(&bytes[..cut]), Some(outputs.clone()));
            }
        }
        assert_eq!(decode_outputs(&[7, 0, 0, 0, 0]), None);
        assert_eq!(decode_outputs(&[0, 255, 255, 255, 255]), None);
    }
}
