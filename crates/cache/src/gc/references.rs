//! Who holds what, counted, so that giving up one holder after another shows what each of them frees.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use rbuild_oci::Digest;
use rbuild_solver::LayerId;

use super::survey::Survey;
use crate::StoredRecord;
use crate::lease::Pinned;

/// Counts of holders.
#[derive(Debug)]
pub(super) struct References<'a> {
    survey: &'a Survey,
    layers: HashMap<LayerId, u32>,
    blobs: HashMap<Digest, u32>,
    /// Bytes of everything that is there and held, as far as it counts.
    size: u64,
    counted: Counted,
}

/// Of what the size is asked.
#[derive(Debug, Default)]
pub(super) enum Counted {
    #[default]
    Everything,
    These {
        layers: HashSet<LayerId>,
        blobs: HashSet<Digest>,
    },
}

impl<'a> References<'a> {
    /// Counts images and living builds, but no cache records yet.
    pub(super) fn without_records(survey: &'a Survey, pinned: &Pinned) -> Self {
        Self::counting(survey, pinned, Counted::Everything)
    }

    /// The same, with the size of a part only.
    pub(super) fn counting(survey: &'a Survey, pinned: &Pinned, counted: Counted) -> Self {
        let mut references =
            Self { survey, layers: HashMap::new(), blobs: HashMap::new(), size: 0, counted };
        references.hold_pinned(pinned);
        for (_, held) in &survey.images {
            held.iter().for_each(|digest| references.hold_blob(digest));
        }
        references
    }

    /// Counts what living builds have pinned, and what came since the oldest of them began.
    fn hold_pinned(&mut self, pinned: &Pinned) {
        let survey = self.survey;
        let young = survey.layers.iter().filter(|(_, found)| pinned.protects(found.change_time));
        young.for_each(|(id, _)| self.hold_layer(id));
        let young = survey.blobs.iter().filter(|(_, found)| pinned.protects(found.change_time));
        young.for_each(|(digest, _)| self.hold_blob(digest));
        pinned.layers.iter().for_each(|id| self.hold_layer(id));
        pinned.blobs.iter().for_each(|digest| self.hold_blob(digest));
    }

    /// Counts a cache record.
    pub(super) fn hold_record(&mut self, record: &StoredRecord) {
        record.layers().for_each(|id| self.hold_layer(id));
    }

    /// Takes back [`References::hold_record`].
    pub(super) fn release_record(&mut self, record: &StoredRecord) {
        record.layers().for_each(|id| self.release_layer(id));
    }

    /// Counts somebody who holds a layer.
    pub(super) fn hold_layer(&mut self, id: &LayerId) {
        if raise(&mut self.layers, id) {
            let survey = self.survey;
            self.size += self.size_of_layer(id);
            let blobs = survey.known.get(id).map_or(&[][..], |layer| &layer.blobs);
            blobs.iter().for_each(|digest| self.hold_blob(digest));
        }
    }

    /// Takes back [`References::hold_layer`].
    pub(super) fn release_layer(&mut self, id: &LayerId) {
        if lower(&mut self.layers, id) {
            let survey = self.survey;
            self.size -= self.size_of_layer(id);
            let blobs = survey.known.get(id).map_or(&[][..], |layer| &layer.blobs);
            blobs.iter().for_each(|digest| self.release_blob(digest));
        }
    }

    /// Counts somebody who holds a blob.
    pub(super) fn hold_blob(&mut self, digest: &Digest) {
        if raise(&mut self.blobs, digest) {
            self.size += self.size_of_blob(digest);
        }
    }

    fn release_blob(&mut self, digest: &Digest) {
        if lower(&mut self.blobs, digest) {
            self.size -= self.size_of_blob(digest);
        }
    }

    /// Lets nobody hold a blob any more.
    pub(super) fn drop_blob(&mut self, digest: &Digest) {
        if self.blobs.remove(digest).is_some() {
            self.size -= self.size_of_blob(digest);
        }
    }

    fn size_of_layer(&self, id: &LayerId) -> u64 {
        let found = self.survey.layers.get(id);
        found.filter(|_| self.counted.layer(id)).map_or(0, |found| found.size)
    }

    fn size_of_blob(&self, digest: &Digest) -> u64 {
        let found = self.survey.blobs.get(digest);
        found.filter(|_| self.counted.blob(digest)).map_or(0, |found| found.size)
    }

    /// How many hold a layer.
    pub(super) fn layer(&self, id: &LayerId) -> u32 {
        self.layers.get(id).copied().unwrap_or(0)
    }

    /// How many hold a blob.
    pub(super) fn blob(&self, digest: &Digest) -> u32 {
        self.blobs.get(digest).copied().unwrap_or(0)
    }

    /// Bytes of everything that is there and held, as far as it counts.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

impl Counted {
    fn layer(&self, id: &LayerId) -> bool {
        match self {
            Self::Everything => true,
            Self::These { layers, .. } => layers.contains(id),
        }
    }

    fn blob(&self, digest: &Digest) -> bool {
        match self {
            Self::Everything => true,
            Self::These { blobs, .. } => blobs.contains(digest),
        }
    }
}

/// Whether this is the first holder.
fn raise<K: Copy + Eq + Hash>(counts: &mut HashMap<K, u32>, key: &K) -> bool {
    let count = counts.entry(*key).or_default();
    *count += 1;
    *count == 1
}

/// Whether this was the last holder.
fn lower<K: Eq + Hash>(counts: &mut HashMap<K, u32>, key: &K) -> bool {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => {
            *count -= 1;
            false
        }
        _ => counts.remove(key).is_some(),
    }
}
