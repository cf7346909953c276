//! A cache inside of an image: records in its configuration, whose layers are the image's own.

use std::collections::{BTreeMap, HashMap};

use rbuild_cache::{CacheConfig, ConfigChain, ConfigRecord, RecordLayer};
use rbuild_oci::Digest;
use rbuild_solver::{LayerId, Snapshot};

use super::documents::{entries_of, named_by_chains, renamed, stands_alone};
use super::finished::{CacheExportError, FinishedRecords};
use crate::image::{ImageLayer, rfc3339};
use crate::layers::ExportStore;

/// What an image's configuration gets under [`rbuild_cache::INLINE_CACHE`]: the records that consist of layers of the image.
///
/// `layers` are the image's, as many as `image` has. Images with an epoch have the same bytes wherever they are built, so
/// how long steps took and when is left out there.
pub(crate) fn inline_cache(
    store: ExportStore<'_>,
    records: &FinishedRecords,
    image: &Snapshot,
    layers: &[ImageLayer],
    epoch: Option<i64>,
) -> Result<String, CacheExportError> {
    let mut records = records.clone();
    records.retain_layers_of(std::slice::from_ref(image));
    let layout = ImageLayout::of(image, layers);
    let mut states: HashMap<Snapshot, Vec<ImageLayer>> = HashMap::new();
    let mut names: HashMap<Digest, Option<Digest>> = HashMap::new();
    for snapshot in records.snapshots() {
        let state = layout.state(&snapshot);
        let is_whole = stands_alone(store, &snapshot)?;
        names.insert(snapshot.digest(), is_whole.then(|| named_by_chains(&state).digest()));
        if is_whole {
            states.insert(snapshot, state);
        }
    }
    let mut entries: BTreeMap<Digest, ConfigRecord> = BTreeMap::new();
    for record in &records.0 {
        let outputs: Option<Vec<_>> = record
            .outputs
            .iter()
            .map(|output| states.contains_key(output).then(|| layout.result(output, epoch)))
            .collect();
        let Some(outputs) = outputs else { continue };
        let slow = record.slow_keys.iter().filter_map(|key| renamed(&key.parts, &names));
        for parts in std::iter::once(record.parts.clone()).chain(slow) {
            for mut entry in entries_of(record, &parts, outputs.clone()) {
                if let (Some(_), Some(notes)) = (epoch, &mut entry.rbuild) {
                    notes.millis = 0;
                }
                entries.entry(entry.digest).or_insert(entry);
            }
        }
    }
    let records = entries.into_values().collect();
    let config = CacheConfig { records, ..CacheConfig::default() };
    Ok(config.to_inline())
}

/// Where an image has its layers.
struct ImageLayout<'a> {
    order: &'a [LayerId],
    positions: HashMap<LayerId, usize>,
    layers: &'a [ImageLayer],
}

impl<'a> ImageLayout<'a> {
    fn of(image: &'a Snapshot, layers: &'a [ImageLayer]) -> Self {
        let order = image.layers();
        let positions = order.iter().enumerate().rev().map(|(position, id)| (*id, position));
        Self { order, positions: positions.collect(), layers }
    }

    fn state(&self, snapshot: &Snapshot) -> Vec<ImageLayer> {
        snapshot.layers().iter().map(|id| self.layers[self.positions[id]].clone()).collect()
    }

    /// The result of a record: the image up to a layer, or a list of its layers.
    fn result(
        &self,
        snapshot: &Snapshot,
        epoch: Option<i64>,
    ) -> (Vec<RecordLayer>, Vec<ConfigChain>) {
        let own = snapshot.layers();
        match own.len().checked_sub(1) {
            Some(last) if self.order.starts_with(own) => {
                let created = self.layers[last].created.filter(|_| epoch.is_none());
                let layer = RecordLayer { layer: last, created_at: created.map(rfc3339) };
                (vec![layer], Vec::new())
            }
            _ => {
                let layers = own.iter().map(|id| self.positions[id]).collect();
                (Vec::new(), vec![ConfigChain { layers }])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rbuild_oci::{Descriptor, DiffId, MediaType};

    use super::*;

    #[test]
    fn a_state_is_the_image_up_to_a_layer_or_a_list() {
        let id = |name: &str| LayerId::derived("test", &[name.as_bytes()]);
        let snapshot = |names: &[&str]| Snapshot::new(names.iter().map(|name| id(name)).collect());
        let image = snapshot(&["a", "b", "c"]);
        let layers = ["a", "b", "c"].map(|name| ImageLayer {
            descriptor: Descriptor::new(MediaType::OciLayerGzip, Digest::of(name.as_bytes()), 1),
            diff_id: DiffId(Digest::of(name.as_bytes())),
            created: Some(100_000),
            encoder: None,
        });
        let layout = ImageLayout::of(&image, &layers);
        let created_at = Some("1970-01-01T00:01:40Z".to_owned());
        let top = RecordLayer { layer: 1, created_at };
        assert_eq!(layout.result(&snapshot(&["a", "b"]), None), (vec![top], vec![]));
        let timeless = RecordLayer { layer: 1, created_at: None };
        assert_eq!(layout.result(&snapshot(&["a", "b"]), Some(5)), (vec![timeless], vec![]));
        for (names, positions) in [(&["c"][..], vec![2]), (&["a", "c"], vec![0, 2]), (&[], vec![])]
        {
            let expected = (vec![], vec![ConfigChain { layers: positions }]);
            assert_eq!(layout.result(&snapshot(names), None), expected);
        }
        assert_eq!(layout.state(&snapshot(&["c"])), layers[2..]);
    }
}
