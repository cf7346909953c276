//! Which records made which layers, and what was made on what.
//!
//! A record names the whole stack of its output. The topmost layer is what its vertex made; the others were made by the records
//! of the vertices below it, or came with an image. A cached build looks up only the last of its vertices, so whatever lies below
//! something that is used is as much in use, and goes no earlier.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use rbuild_solver::{LayerId, Output};

use crate::StoredRecord;

/// What the records of a store say of its layers.
#[derive(Debug)]
pub(super) struct Lineage<'a> {
    records: &'a [StoredRecord],
    /// How many layers each record names.
    depths: Vec<usize>,
    /// The records that made a layer.
    makers: HashMap<LayerId, Vec<usize>>,
    /// Of layers that no record made, those that name it, the shallowest first.
    carriers: HashMap<LayerId, Vec<usize>>,
    /// When each record, or one on top of it, was last used.
    used: Vec<SystemTime>,
}

impl<'a> Lineage<'a> {
    pub(super) fn of(records: &'a [StoredRecord]) -> Self {
        let mut makers: HashMap<LayerId, Vec<usize>> = HashMap::new();
        for (index, record) in records.iter().enumerate() {
            for top in tops(record) {
                makers.entry(*top).or_default().push(index);
            }
        }
        let depths: Vec<usize> = records.iter().map(|record| record.layers().count()).collect();
        let mut carriers: HashMap<LayerId, Vec<usize>> = HashMap::new();
        for (index, record) in records.iter().enumerate() {
            for id in record.layers().filter(|id| !makers.contains_key(*id)) {
                carriers.entry(*id).or_default().push(index);
            }
        }
        carriers.values_mut().for_each(|all| all.sort_by_key(|index| depths[*index]));
        let mut lineage = Self { records, depths, makers, carriers, used: Vec::new() };
        lineage.used = records.iter().map(|record| record.used).collect();
        let mut used = std::mem::take(&mut lineage.used);
        lineage.inherit(&mut used, SystemTime::max);
        lineage.used = used;
        lineage
    }

    /// The records that made a layer, or else those that came with it.
    pub(super) fn records_of(&self, id: &LayerId) -> &[usize] {
        self.makers.get(id).or_else(|| self.carriers.get(id)).map_or(&[], Vec::as_slice)
    }

    /// The layers that go with a record: what it made, and what nobody made.
    pub(super) fn layers_of(&self, index: usize) -> impl Iterator<Item = &LayerId> {
        let record = &self.records[index];
        let carried = record.layers().filter(|id| self.carriers.contains_key(*id));
        tops(record).chain(carried)
    }

    pub(super) fn record(&self, index: usize) -> &'a StoredRecord {
        &self.records[index]
    }

    pub(super) fn depth(&self, index: usize) -> usize {
        self.depths[index]
    }

    /// When a record, or one on top of it, was last used.
    pub(super) fn used(&self, index: usize) -> SystemTime {
        self.used[index]
    }

    /// Gives each record the best of its own value and those of the records on top of it.
    pub(super) fn inherit<T: Copy>(&self, values: &mut [T], best: impl Fn(T, T) -> T) {
        let own = values.to_vec();
        for (above, value) in own.into_iter().enumerate() {
            for below in self.below(above) {
                values[below] = best(values[below], value);
            }
        }
    }

    /// How many records lie on top of each.
    pub(super) fn counts_above(&self) -> Vec<usize> {
        let mut counts = vec![0; self.records.len()];
        (0..counts.len()).flat_map(|above| self.below(above)).for_each(|below| counts[below] += 1);
        counts
    }

    /// The records that a record lies on.
    pub(super) fn below(&self, above: usize) -> HashSet<usize> {
        let makers = self.records[above].layers().filter_map(|id| self.makers.get(id));
        let is_below = |below: &usize| self.depths[*below] < self.depths[above];
        makers.flatten().copied().filter(is_below).collect()
    }
}

/// The topmost layer of each output.
fn tops(record: &StoredRecord) -> impl Iterator<Item = &LayerId> {
    record.outputs.iter().filter_map(|output| match output {
        Output::Snapshot(snapshot) => snapshot.layers().last(),
        Output::Local(_) => None,
    })
}
