//! The documents of a cache.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rbuild_cache::{
    CACHE_CONFIG_TYPE, CacheConfig, ConfigChain, ConfigLayer, ConfigRecord, LayerAnnotations,
    RecordLayer, RecordNotes,
};
use rbuild_oci::{ChainId, Descriptor, DiffId, Digest, Index, Manifest, MediaType};
use rbuild_solver::{KeyParts, LayerId, Snapshot};

use super::finished::{CacheExportError, Finished, FinishedRecords};
use crate::image::{DocumentTypes, ForeignLayers, ImageLayer, in_types, rfc3339};
use crate::layers::{ExportStore, LayerForm, UNCOMPRESSED, image_layers};

/// Annotation of a layer's descriptor: when it was made.
const CREATED: &str = "buildkit/createdat";

/// How a cache is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheForm {
    /// The layers.
    pub layers: LayerForm,
    /// The documents.
    pub types: DocumentTypes,
    /// Whether it is an image manifest, whose configuration is the cache's, or else an index that lists blobs.
    pub image_manifest: bool,
}

/// A finished cache: its documents' bytes, and what they describe.
#[derive(Clone, Debug)]
pub struct CacheDocuments {
    /// Describes the manifest or index.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub manifest_bytes: Vec<u8>,
    /// Describes the configuration.
    pub config: Descriptor,
    /// Its bytes.
    pub config_bytes: Vec<u8>,
    /// The blobs of the layers, and the others, each once.
    pub blobs: Vec<Descriptor>,
    /// How many records there are.
    pub records: usize,
}

/// Makes the cache of records: blobs of layers that were made here and have none, and the documents, all in the content
/// store. Blobs that came from elsewhere are where they are. The manifest also gets `others`, which no record uses.
pub fn make_cache(
    store: ExportStore<'_>,
    records: &FinishedRecords,
    form: CacheForm,
    others: Vec<Descriptor>,
) -> Result<CacheDocuments, CacheExportError> {
    let (config, mut blobs) = cache_config(store, records, form.layers, form.types)?;
    blobs.extend(others.into_iter().map(|blob| (blob.digest, blob)));
    let documents = assemble(&config, blobs, form);
    store.lease.pin_blobs(&[documents.descriptor.digest, documents.config.digest])?;
    store.content.put(&documents.config_bytes)?;
    store.content.put(&documents.manifest_bytes)?;
    Ok(documents)
}

/// The configuration, and the blobs that it names.
pub(crate) fn cache_config(
    store: ExportStore<'_>,
    records: &FinishedRecords,
    form: LayerForm,
    types: DocumentTypes,
) -> Result<(CacheConfig, BTreeMap<Digest, Descriptor>), CacheExportError> {
    let mut states = HashMap::new();
    for snapshot in records.snapshots() {
        if stands_alone(store, &snapshot)? {
            let layers = image_layers(store, &snapshot, form)?;
            states.insert(snapshot, layers);
        }
    }
    // What is not exported has no name in the cache.
    let elsewhere = records.0.iter().flat_map(|record| &record.outputs).map(Snapshot::digest);
    let mut names: HashMap<Digest, Option<Digest>> =
        elsewhere.map(|digest| (digest, None)).collect();
    for (snapshot, layers) in &states {
        names.insert(snapshot.digest(), Some(named_by_chains(layers).digest()));
    }
    let forest = Forest::of(states.values().map(Vec::as_slice), types);
    let mut entries = BTreeMap::new();
    for record in &records.0 {
        let outputs: Option<Vec<&Vec<ImageLayer>>> =
            record.outputs.iter().map(|output| states.get(output)).collect();
        let Some(outputs) = outputs else { continue };
        let slow = record.slow_keys.iter().filter_map(|key| renamed(&key.parts, &names));
        for parts in std::iter::once(record.parts.clone()).chain(slow) {
            let results = outputs.iter().map(|state| forest.result(state)).collect();
            for entry in entries_of(record, &parts, results) {
                entries.entry(entry.digest).or_insert(entry);
            }
        }
    }
    let config = CacheConfig {
        layers: forest.layers,
        records: entries.into_values().collect(),
        others: None,
    };
    Ok((config, forest.blobs))
}

/// Whether each layer lies on the one that it was unpacked for: part of an image's layers is no image.
pub(super) fn stands_alone(
    store: ExportStore<'_>,
    snapshot: &Snapshot,
) -> Result<bool, CacheExportError> {
    let mut below: Option<&LayerId> = None;
    for layer in snapshot.layers() {
        let parent = store.index.layer(layer)?.and_then(|facts| facts.parent());
        if parent.is_some_and(|parent| below != Some(&parent)) {
            return Ok(false);
        }
        below = Some(layer);
    }
    Ok(true)
}

/// The state with the names that it has where the cache is imported.
pub(super) fn named_by_chains(layers: &[ImageLayer]) -> Snapshot {
    Snapshot::new(chains(layers).map(|chain| LayerId::of_diff_id(&DiffId(chain.0))).collect())
}

/// The chain id of each layer.
fn chains(layers: &[ImageLayer]) -> impl Iterator<Item = ChainId> {
    layers.iter().scan(None, |below: &mut Option<ChainId>, layer| {
        let chain = match below {
            None => ChainId(layer.diff_id.0),
            Some(below) => ChainId(Digest::of(format!("{} {}", below.0, layer.diff_id).as_bytes())),
        };
        *below = Some(chain);
        Some(chain)
    })
}

/// The parts of a slow key as they are where the cache is imported; `None` if they name a state that is not exported.
pub(super) fn renamed(
    parts: &KeyParts,
    names: &HashMap<Digest, Option<Digest>>,
) -> Option<KeyParts> {
    let name = |input: &Digest| match names.get(input) {
        Some(name) => *name,
        None => Some(*input),
    };
    let inputs = parts.inputs.iter().map(name).collect::<Option<Vec<_>>>()?;
    Some(KeyParts { inputs, ..parts.clone() })
}

/// The layers of all states, each chain once, lower ones first.
struct Forest {
    layers: Vec<ConfigLayer>,
    positions: HashMap<ChainId, usize>,
    blobs: BTreeMap<Digest, Descriptor>,
}

impl Forest {
    fn of<'a>(states: impl Iterator<Item = &'a [ImageLayer]>, types: DocumentTypes) -> Self {
        let mut sorted: BTreeMap<(usize, ChainId), (Option<ChainId>, &ImageLayer)> =
            BTreeMap::new();
        for state in states {
            let mut below = None;
            for (depth, (chain, layer)) in chains(state).zip(state).enumerate() {
                // Steps that made the same files, as a COPY of what a RUN made, are one layer: the first that was made.
                let known = sorted.entry((depth, chain)).or_insert((below, layer));
                if layer.created < known.1.created {
                    known.1 = layer;
                }
                below = Some(chain);
            }
        }
        let mut forest =
            Self { layers: Vec::new(), positions: HashMap::new(), blobs: BTreeMap::new() };
        for ((_, chain), (below, layer)) in sorted {
            let parent = below.map_or(-1, |below| forest.positions[&below] as i64);
            let created_at = layer.created.map(rfc3339);
            let mut descriptor = in_types(&layer.descriptor, types, ForeignLayers::Refer);
            let diff_id = layer.diff_id;
            forest.positions.insert(chain, forest.layers.len());
            forest.layers.push(ConfigLayer {
                blob: descriptor.digest,
                parent,
                annotations: Some(LayerAnnotations {
                    media_type: descriptor.media_type.clone(),
                    diff_id,
                    size: descriptor.size,
                    created_at: created_at.clone(),
                    notes: BTreeMap::new(),
                    encoder: layer.encoder.clone(),
                }),
            });
            let notes = &mut descriptor.annotations;
            notes.insert(UNCOMPRESSED.to_owned(), diff_id.to_string());
            notes.extend(created_at.map(|created| (CREATED.to_owned(), created)));
            forest.blobs.entry(descriptor.digest).or_insert(descriptor);
        }
        forest
    }

    /// The result of a record.
    fn result(&self, state: &[ImageLayer]) -> (Vec<RecordLayer>, Vec<ConfigChain>) {
        match (chains(state).last(), state.last()) {
            (Some(chain), Some(layer)) => {
                let created_at = layer.created.map(rfc3339);
                (vec![RecordLayer { layer: self.positions[&chain], created_at }], Vec::new())
            }
            _ => (Vec::new(), vec![ConfigChain { layers: Vec::new() }]),
        }
    }
}

/// The records of a key: one an output, with these results.
pub(super) fn entries_of(
    record: &Finished,
    parts: &KeyParts,
    results: Vec<(Vec<RecordLayer>, Vec<ConfigChain>)>,
) -> Vec<ConfigRecord> {
    let key = parts.key().0;
    let outputs = results.len();
    let entry = |(number, (layers, chains))| {
        let notes = RecordNotes {
            op: parts.op,
            inputs: parts.inputs.clone(),
            by_content: parts.by_content,
            name: record.name.clone(),
            outputs,
            millis: i64::try_from(record.duration.as_millis()).unwrap_or(i64::MAX),
        };
        match number {
            0 => ConfigRecord { digest: key, layers, chains, rbuild: Some(notes) },
            _ => ConfigRecord {
                digest: RecordNotes::output_key(&key, number),
                layers,
                chains,
                rbuild: None,
            },
        }
    };
    results.into_iter().enumerate().map(entry).collect()
}

/// Writes the documents. Pure.
fn assemble(
    config: &CacheConfig,
    blobs: BTreeMap<Digest, Descriptor>,
    form: CacheForm,
) -> CacheDocuments {
    let config_bytes = serde_json::to_vec(config).expect("plain documents serialise");
    let size = config_bytes.len() as u64;
    let config_descriptor =
        Descriptor::new(CACHE_CONFIG_TYPE.into(), Digest::of(&config_bytes), size);
    let blobs: Vec<Descriptor> = blobs.into_values().collect();
    let (media_type, manifest_bytes) = if form.image_manifest {
        let manifest = Manifest::new(config_descriptor.clone(), blobs.clone());
        (MediaType::OciManifest, serde_json::to_vec(&manifest))
    } else {
        let media_type = match form.types {
            DocumentTypes::Oci => MediaType::OciIndex,
            DocumentTypes::Docker => MediaType::DockerManifestList,
        };
        let mut index = Index::new([blobs.clone(), vec![config_descriptor.clone()]].concat());
        index.media_type = Some(media_type.clone());
        (media_type, serde_json::to_vec(&index))
    };
    let manifest_bytes = manifest_bytes.expect("plain documents serialise");
    let size = manifest_bytes.len() as u64;
    let used: BTreeSet<Digest> = config.records.iter().map(|record| record.digest).collect();
    CacheDocuments {
        descriptor: Descriptor::new(media_type, Digest::of(&manifest_bytes), size),
        manifest_bytes,
        config: config_descriptor,
        config_bytes,
        blobs,
        records: used.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, created: Option<i64>) -> ImageLayer {
        let digest = Digest::of(name.as_bytes());
        ImageLayer {
            descriptor: Descriptor::new(MediaType::OciLayerGzip, digest, 7),
            diff_id: DiffId(Digest::of(name.to_uppercase().as_bytes())),
            created,
            encoder: created.map(|_| "gzip".to_owned()),
        }
    }

    #[test]
    fn states_share_their_lower_layers() {
        let (base, a, b) = (layer("base", None), layer("a", Some(1)), layer("b", Some(2)));
        let states =
            [vec![base.clone(), a.clone(), b.clone()], vec![base, b.clone()], vec![b], vec![]];
        let forest = Forest::of(states.iter().map(Vec::as_slice), DocumentTypes::Oci);
        let parents: Vec<i64> = forest.layers.iter().map(|layer| layer.parent).collect();
        assert_eq!(parents.len(), 5);
        assert_eq!(forest.blobs.len(), 3);
        for state in &states[..3] {
            let mut position = forest.result(state).0[0].layer as i64;
            let mut depth = 0;
            while position >= 0 {
                let parent = forest.layers[position as usize].parent;
                assert!(parent < position, "lower ones come first");
                position = parent;
                depth += 1;
            }
            assert_eq!(depth, state.len());
        }
        assert_eq!(forest.result(&states[3]), (vec![], vec![ConfigChain { layers: vec![] }]));
    }

    #[test]
    fn slow_keys_take_the_names_of_the_cache() {
        let id = |name: &str| Digest::of(name.as_bytes());
        let names = HashMap::from([(id("here"), Some(id("there"))), (id("not exported"), None)]);
        let parts = |inputs: &[&str]| KeyParts {
            op: id("op"),
            inputs: inputs.iter().map(|name| id(name)).collect(),
            by_content: true,
        };
        let expected = parts(&["there", "content"]);
        assert_eq!(renamed(&parts(&["here", "content"]), &names), Some(expected));
        assert_eq!(renamed(&parts(&["here", "not exported"]), &names), None);
    }
}
