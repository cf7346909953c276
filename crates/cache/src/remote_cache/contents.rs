//! A cache's document, checked: layers with their ids, records with their keys.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use rbuild_oci::{ChainId, Descriptor, DiffId, Digest, MediaType};
use rbuild_solver::{CacheKey, KeyParts, LayerId, Output, Snapshot};
use serde_json::json;

use super::config::{CacheConfig, ConfigRecord, RecordNotes, milliseconds};
use crate::image_source::UNCOMPRESSED;
use crate::remote_mounts::MOUNT_INDEX_TYPE;
use crate::{BlobFacts, LayerFacts, TOC_DIGEST, UNCOMPRESSED_SIZE};

/// What a document may have; a build of thousands of steps has less.
const MOST_LAYERS: usize = 50_000;
const MOST_RECORDS: usize = 200_000;
/// More than any image has, or the kernel mounts on each other.
const MOST_LAYERS_OF_RECORD: usize = 1000;
/// Layers of all records together: each takes 32 bytes.
const MOST_LAYERS_OF_RECORDS: usize = 2_000_000;
const MOST_OUTPUTS: usize = 1000;
const LONGEST_NAME: usize = 16 << 10;

/// What a document says, ready for the index.
#[derive(Debug, Default)]
pub(crate) struct CacheContents {
    pub(crate) layers: Vec<(LayerId, LayerFacts)>,
    pub(crate) records: Vec<ImportedRecord>,
    /// The index of cache mounts that came with it.
    pub(crate) mounts: Option<Descriptor>,
}

/// A record to be stored.
#[derive(Debug)]
pub(crate) struct ImportedRecord {
    pub(crate) key: CacheKey,
    pub(crate) parts: KeyParts,
    pub(crate) outputs: Vec<Output>,
    pub(crate) name: String,
    pub(crate) duration: Duration,
}

/// A cache's document that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheFormError {
    /// More than any build has.
    #[error("it has more than {most} {what}")]
    TooMany {
        /// How many there may be.
        most: usize,
        /// Of what.
        what: &'static str,
    },
    /// A position of a layer that is not there.
    #[error("it names layer {0}, which it does not have")]
    NoSuchLayer(i64),
    /// Layers below each other.
    #[error("layer {0} is below itself")]
    Cycle(usize),
    /// A layer whose blob the manifest does not list.
    #[error("the blob `{0}` of a layer is not in the manifest")]
    NotInManifest(Digest),
    /// A layer without annotations.
    #[error("of the blob `{0}` it does not say what it is")]
    Undescribed(Digest),
    /// A blob that is no layer.
    #[error("blob `{digest}` has type `{media_type}`, which no layer has")]
    LayerType {
        /// Which.
        digest: Digest,
        /// Its type.
        media_type: MediaType,
    },
    /// The key is not that of the parts.
    #[error("the record `{0}` has another key than what it was made from gives")]
    Key(Digest),
}

/// A layer in its place.
#[derive(Clone, Copy, Debug)]
struct Place {
    chain: ChainId,
    below: Option<LayerId>,
}

impl Place {
    fn on(below: Option<Self>, diff_id: DiffId) -> Self {
        let chain = match below {
            None => ChainId(diff_id.0),
            Some(Self { chain, .. }) => {
                ChainId(Digest::of(format!("{} {diff_id}", chain.0).as_bytes()))
            }
        };
        Self { chain, below: below.map(Self::id) }
    }

    fn id(self) -> LayerId {
        LayerId::of_diff_id(&DiffId(self.chain.0))
    }
}

/// A layer as the document and the manifest describe it.
#[derive(Debug)]
struct Described {
    parent: Option<usize>,
    descriptor: Descriptor,
    diff_id: DiffId,
    created: Option<i64>,
    encoder: Option<String>,
}

impl CacheContents {
    /// Checks a document of its own, whose manifest lists these blobs.
    pub(super) fn of_config(
        config: CacheConfig,
        blobs: &[Descriptor],
    ) -> Result<Self, CacheFormError> {
        let limit = |count: usize, most, what| {
            if count > most { Err(CacheFormError::TooMany { most, what }) } else { Ok(()) }
        };
        limit(config.layers.len(), MOST_LAYERS, "layers")?;
        let by_digest: HashMap<Digest, &Descriptor> =
            blobs.iter().map(|blob| (blob.digest, blob)).collect();
        let mut layers = Vec::with_capacity(config.layers.len());
        let count = config.layers.len();
        for layer in config.layers {
            let said = layer.annotations.ok_or(CacheFormError::Undescribed(layer.blob))?;
            let listed =
                by_digest.get(&layer.blob).ok_or(CacheFormError::NotInManifest(layer.blob))?;
            let parent = match layer.parent {
                -1 => None,
                position => Some(
                    usize::try_from(position)
                        .ok()
                        .filter(|position| *position < count)
                        .ok_or(CacheFormError::NoSuchLayer(position))?,
                ),
            };
            layers.push(Described {
                parent,
                descriptor: Descriptor {
                    annotations: kept(&listed.annotations),
                    ..Descriptor::new(said.media_type, layer.blob, listed.size)
                },
                diff_id: said.diff_id,
                created: said.created_at.as_deref().and_then(milliseconds),
                encoder: said.encoder,
            });
        }
        let contents = Self::checked(&layers, config.records)?;
        Ok(Self { mounts: mount_index(blobs), ..contents })
    }

    /// Checks the records in the configuration of an image with these layers.
    pub(super) fn of_image(
        blobs: Vec<Descriptor>,
        diff_ids: &[DiffId],
        records: Vec<ConfigRecord>,
    ) -> Result<Self, CacheFormError> {
        let mut layers: Vec<Described> = blobs
            .into_iter()
            .zip(diff_ids)
            .enumerate()
            .map(|(position, (blob, diff_id))| Described {
                parent: position.checked_sub(1),
                descriptor: Descriptor {
                    annotations: kept(&blob.annotations),
                    ..Descriptor::new(blob.media_type, blob.digest, blob.size)
                },
                diff_id: *diff_id,
                created: None,
                encoder: None,
            })
            .collect();
        for result in records.iter().flat_map(|record| &record.layers) {
            if let (Some(layer), Some(time)) = (layers.get_mut(result.layer), &result.created_at) {
                layer.created = milliseconds(time);
            }
        }
        Self::checked(&layers, records)
    }

    fn checked(layers: &[Described], records: Vec<ConfigRecord>) -> Result<Self, CacheFormError> {
        if records.len() > MOST_RECORDS {
            return Err(CacheFormError::TooMany { most: MOST_RECORDS, what: "records" });
        }
        for layer in layers {
            let media_type = &layer.descriptor.media_type;
            let is_layer = media_type.layer_compression().is_some()
                && !matches!(
                    media_type,
                    MediaType::OciLayerNondistributable
                        | MediaType::OciLayerNondistributableGzip
                        | MediaType::DockerForeignLayerGzip
                );
            if !is_layer {
                let (digest, media_type) = (layer.descriptor.digest, media_type.clone());
                return Err(CacheFormError::LayerType { digest, media_type });
            }
        }
        let places = places(layers)?;
        let mut reading = Reading {
            layers,
            places: &places,
            facts: BTreeMap::new(),
            left: MOST_LAYERS_OF_RECORDS,
        };
        let by_digest: HashMap<Digest, &ConfigRecord> =
            records.iter().map(|record| (record.digest, record)).collect();
        let mut found = Vec::new();
        for record in &records {
            if let Some(notes) = &record.rbuild {
                found.extend(reading.record(record, notes, &by_digest)?);
            }
        }
        let layers = reading.facts.into_iter().collect();
        Ok(Self { layers, records: found, mounts: None })
    }
}

/// What is said of a layer that its images have to say, too.
fn kept(annotations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let of_table = annotations
        .iter()
        .filter(|(key, _)| [TOC_DIGEST, UNCOMPRESSED_SIZE].contains(&key.as_str()));
    of_table.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The index of cache mounts among the blobs of a cache's manifest.
pub(super) fn mount_index(blobs: &[Descriptor]) -> Option<Descriptor> {
    let is_one = |blob: &&Descriptor| blob.media_type.as_str() == MOUNT_INDEX_TYPE;
    blobs.iter().find(is_one).cloned()
}

/// Puts each layer on those below it, which may come later in the document.
fn places(layers: &[Described]) -> Result<Vec<Place>, CacheFormError> {
    let mut places: Vec<Option<Place>> = vec![None; layers.len()];
    for start in 0..layers.len() {
        let (mut path, mut on_path) = (Vec::new(), HashSet::new());
        let mut next = Some(start);
        while let Some(position) = next.filter(|position| places[*position].is_none()) {
            if !on_path.insert(position) {
                return Err(CacheFormError::Cycle(position));
            }
            path.push(position);
            next = layers[position].parent;
        }
        for position in path.into_iter().rev() {
            let below = layers[position].parent.and_then(|parent| places[parent]);
            places[position] = Some(Place::on(below, layers[position].diff_id));
        }
    }
    Ok(places.into_iter().flatten().collect())
}

/// Reads records, and collects the layers that they use.
struct Reading<'a> {
    layers: &'a [Described],
    places: &'a [Place],
    facts: BTreeMap<LayerId, LayerFacts>,
    /// How many layers of records are still believed.
    left: usize,
}

impl Reading<'_> {
    /// `None` for a record that is not whole, or is of another output than the first; and for one of a source. What an image or
    /// an address has is not a cache's to say: it would be believed of a pinned digest, too, and in builds without that cache.
    fn record(
        &mut self,
        record: &ConfigRecord,
        notes: &RecordNotes,
        all: &HashMap<Digest, &ConfigRecord>,
    ) -> Result<Option<ImportedRecord>, CacheFormError> {
        let parts =
            KeyParts { op: notes.op, inputs: notes.inputs.clone(), by_content: notes.by_content };
        let key = parts.key();
        if key.0 != record.digest {
            return Err(CacheFormError::Key(record.digest));
        }
        if parts.inputs.is_empty() {
            return Ok(None);
        }
        if !(1..=MOST_OUTPUTS).contains(&notes.outputs) {
            return Err(CacheFormError::TooMany {
                most: MOST_OUTPUTS,
                what: "outputs of a record",
            });
        }
        let name: String = notes.name.chars().take(LONGEST_NAME).collect();
        let mut outputs = Vec::new();
        for output in 0..notes.outputs {
            let result = match output {
                0 => Some(record),
                _ => all.get(&RecordNotes::output_key(&record.digest, output)).copied(),
            };
            match result.map(|result| self.state(result, &name)).transpose()?.flatten() {
                Some(state) => outputs.push(Output::Snapshot(state)),
                None => return Ok(None),
            }
        }
        let duration = Duration::from_millis(u64::try_from(notes.millis).unwrap_or(0));
        Ok(Some(ImportedRecord { key, parts, outputs, name, duration }))
    }

    /// The state that a record has; `None` for a record that only keeps others together.
    fn state(
        &mut self,
        record: &ConfigRecord,
        name: &str,
    ) -> Result<Option<Snapshot>, CacheFormError> {
        let there = |position: usize| match self.layers.get(position) {
            Some(_) => Ok(position),
            None => Err(CacheFormError::NoSuchLayer(position as i64)),
        };
        let mut positions = Vec::new();
        if let Some(result) = record.layers.first() {
            let mut next = Some(there(result.layer)?);
            while let Some(position) = next {
                if positions.len() >= MOST_LAYERS_OF_RECORD {
                    return Err(too_high());
                }
                positions.push(position);
                next = self.layers[position].parent;
            }
            positions.reverse();
        } else if let Some(chain) = record.chains.first() {
            if chain.layers.len() > MOST_LAYERS_OF_RECORD {
                return Err(too_high());
            }
            positions =
                chain.layers.iter().map(|position| there(*position)).collect::<Result<_, _>>()?;
        } else {
            return Ok(None);
        }
        self.left = self.left.checked_sub(positions.len()).ok_or_else(too_many_layers)?;
        let own_places = record.layers.is_empty();
        let (mut below, mut ids) = (None, Vec::with_capacity(positions.len()));
        let last = positions.len().saturating_sub(1);
        for (depth, position) in positions.into_iter().enumerate() {
            let layer = &self.layers[position];
            let place = match own_places {
                true => Place::on(below, layer.diff_id),
                false => self.places[position],
            };
            below = Some(place);
            ids.push(place.id());
            let facts = self.facts.entry(place.id()).or_insert_with(|| layer.facts(place));
            if depth == last {
                name.clone_into(&mut facts.description);
            }
        }
        // One layer of the document is another one on each state that a record puts it on.
        if self.facts.len() > MOST_LAYERS {
            return Err(CacheFormError::TooMany { most: MOST_LAYERS, what: "layers" });
        }
        Ok(Some(Snapshot::new(ids)))
    }
}

fn too_high() -> CacheFormError {
    CacheFormError::TooMany { most: MOST_LAYERS_OF_RECORD, what: "layers of a record" }
}

fn too_many_layers() -> CacheFormError {
    CacheFormError::TooMany { most: MOST_LAYERS_OF_RECORDS, what: "layers of records" }
}

impl Described {
    fn facts(&self, place: Place) -> LayerFacts {
        let mut descriptor = self.descriptor.clone();
        if self.encoder.is_some() {
            descriptor.annotations.insert(UNCOMPRESSED.to_owned(), self.diff_id.to_string());
        }
        let mut extra = json!({ LayerFacts::FROM_CACHE: true });
        if let Some(below) = place.below {
            extra[LayerFacts::PARENT] = below.to_string().into();
        }
        if let Some(created) = self.created {
            extra[LayerFacts::MADE] = created.into();
        }
        LayerFacts {
            diff_id: Some(self.diff_id),
            description: "layer of a cache".to_owned(),
            extra: Some(extra),
            blobs: vec![BlobFacts { descriptor, encoder: self.encoder.clone(), verified: false }],
            ..LayerFacts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{ConfigChain, ConfigLayer, LayerAnnotations, RecordLayer};
    use super::*;

    fn layer(name: &str, parent: i64) -> ConfigLayer {
        ConfigLayer {
            blob: Digest::of(name.as_bytes()),
            parent,
            annotations: Some(LayerAnnotations {
                media_type: MediaType::OciLayerGzip,
                diff_id: DiffId(Digest::of(name.to_uppercase().as_bytes())),
                size: 1,
                created_at: None,
                notes: BTreeMap::new(),
                encoder: None,
            }),
        }
    }

    fn record(name: &str, layers: &[usize], chains: &[&[usize]]) -> ConfigRecord {
        let inputs = vec![Digest::of(b"input")];
        let parts = KeyParts { op: Digest::of(name.as_bytes()), inputs, by_content: false };
        ConfigRecord {
            digest: parts.key().0,
            layers: layers
                .iter()
                .map(|layer| RecordLayer { layer: *layer, created_at: None })
                .collect(),
            chains: chains.iter().map(|layers| ConfigChain { layers: layers.to_vec() }).collect(),
            rbuild: Some(RecordNotes {
                op: parts.op,
                inputs: parts.inputs,
                by_content: false,
                name: name.to_owned(),
                outputs: 1,
                millis: 0,
            }),
        }
    }

    fn read(layers: Vec<ConfigLayer>, records: Vec<ConfigRecord>) -> Result<CacheContents, String> {
        let blobs: Vec<Descriptor> = ["a", "b", "c"]
            .map(|name| Descriptor::new(MediaType::OciLayerGzip, Digest::of(name.as_bytes()), 9))
            .to_vec();
        CacheContents::of_config(CacheConfig { layers, records, others: None }, &blobs)
            .map_err(|error| error.to_string())
    }

    fn chain(names: &[&str]) -> LayerId {
        let ids: Vec<DiffId> =
            names.iter().map(|name| DiffId(Digest::of(name.as_bytes()))).collect();
        LayerId::of_diff_id(&DiffId(ChainId::of(&ids).expect("a layer").0))
    }

    #[test]
    fn layers_go_by_their_chain() {
        let layers = vec![layer("b", 2), layer("c", -1), layer("a", -1)];
        let records = vec![
            record("both", &[0], &[]),
            record("alone", &[], &[&[0]]),
            record("nothing", &[], &[&[]]),
            record("kept for others", &[], &[]),
        ];
        let contents = read(layers, records).unwrap();
        let outputs: Vec<_> = contents
            .records
            .iter()
            .flat_map(|record| record.outputs.clone())
            .map(|output| match output {
                Output::Snapshot(snapshot) => snapshot.layers().to_vec(),
                Output::Local(_) => unreachable!("a cache has no folders"),
            })
            .collect();
        let expected = [vec![chain(&["A"]), chain(&["A", "B"])], vec![chain(&["B"])], Vec::new()];
        assert_eq!(outputs, expected);
        // What no record uses is not noted.
        assert_eq!(contents.layers.len(), 3);
        let both = contents.layers.iter().find(|(id, _)| *id == chain(&["A", "B"])).unwrap();
        assert_eq!(both.1.parent(), Some(chain(&["A"])));
        assert_eq!(both.1.blobs[0].descriptor.size, 9, "the manifest's word");
    }

    #[test]
    fn all_records_together_have_a_limit() {
        let layers = [Described {
            parent: None,
            descriptor: Descriptor::new(MediaType::OciLayerGzip, Digest::of(b"a"), 1),
            diff_id: DiffId(Digest::of(b"A")),
            created: None,
            encoder: None,
        }];
        let places = places(&layers).unwrap();
        let mut reading =
            Reading { layers: &layers, places: &places, facts: BTreeMap::new(), left: 5 };
        let three = record("x", &[], &[&[0; 3]]);
        assert!(reading.state(&three, "x").unwrap().is_some());
        let error = reading.state(&three, "x").unwrap_err().to_string();
        assert_eq!(error, "it has more than 2000000 layers of records");
    }

    #[test]
    fn what_a_source_has_is_not_a_caches_to_say() {
        let mut source = record("docker-image://a", &[0], &[]);
        let notes = source.rbuild.as_mut().unwrap();
        notes.inputs.clear();
        let parts = KeyParts { op: notes.op, inputs: Vec::new(), by_content: false };
        source.digest = parts.key().0;
        let contents = read(vec![layer("a", -1)], vec![source]).unwrap();
        assert!(contents.records.is_empty() && contents.layers.is_empty());
    }

    #[test]
    fn an_image_has_the_layers_of_its_records() {
        let blobs = ["a", "b"].map(|name| {
            Descriptor::new(MediaType::DockerLayerGzip, Digest::of(name.as_bytes()), 1)
        });
        let diff_ids = ["A", "B"].map(|name| DiffId(Digest::of(name.as_bytes())));
        let mut made = record("x", &[1], &[]);
        made.layers[0].created_at = Some("1970-01-01T00:00:07.0801234Z".to_owned());
        let contents = CacheContents::of_image(blobs.to_vec(), &diff_ids, vec![made]).unwrap();
        let top = contents.layers.iter().find(|(id, _)| *id == chain(&["A", "B"])).unwrap();
        assert_eq!(top.1.made(), Some(7080));
    }

    #[test]
    fn what_is_wrong_is_refused_as_a_whole() {
        let mut lying = record("x", &[0], &[]);
        lying.digest = Digest::of(b"the key of another step");
        let mut undescribed = layer("a", -1);
        undescribed.annotations = None;
        let mut strange = layer("a", -1);
        strange.annotations.as_mut().unwrap().media_type = MediaType::OciConfig;
        let chains = (0..51_usize).map(|n| {
            let digits = [n / 27 % 3, n / 9 % 3, n / 3 % 3, n % 3];
            [&digits[..], &[0; 996]].concat()
        });
        let chains: Vec<Vec<usize>> = chains.collect();
        let many = chains
            .iter()
            .enumerate()
            .map(|(n, chain)| record(&n.to_string(), &[], &[chain]))
            .collect();
        let high = (0..1001).map(|position| layer("a", position - 1)).collect();
        let mut endless = record("x", &[0], &[]);
        endless.rbuild.as_mut().unwrap().outputs = usize::MAX;
        for (layers, records, reason) in [
            (vec![layer("a", 1), layer("b", 0)], vec![], "is below itself"),
            (vec![layer("a", 0)], vec![], "is below itself"),
            (vec![layer("a", 7)], vec![], "names layer 7"),
            (vec![layer("a", -2)], vec![], "names layer -2"),
            (vec![layer("z", -1)], vec![], "not in the manifest"),
            (vec![undescribed], vec![], "does not say what it is"),
            (vec![strange], vec![], "which no layer has"),
            (vec![layer("a", -1)], vec![record("x", &[1], &[])], "names layer 1"),
            (vec![layer("a", -1)], vec![record("x", &[], &[&[0, 9]])], "names layer 9"),
            (vec![layer("a", -1)], vec![lying], "another key"),
            (vec![layer("a", -1)], vec![endless], "more than 1000 outputs"),
            (
                vec![layer("a", -1)],
                vec![record("x", &[], &[&[0; 1001]])],
                "1000 layers of a record",
            ),
            (vec![layer("a", -1), layer("b", -1), layer("c", -1)], many, "more than 50000 layers"),
            (high, vec![record("x", &[1000], &[])], "1000 layers of a record"),
            (vec![layer("a", -1); 50_001], vec![], "more than 50000 layers"),
        ] {
            let error = read(layers, records).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
