//! Who holds what, counted, so that giving up one holder after another shows what each of them frees.

use std::collections::HashMap;
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
    /// Bytes of everything that is there and held.
    size: u64,
}

impl<'a> References<'a> {
    /// Counts images and living builds, but no cache records yet.
    pub(super) fn without_records(survey: &'a Survey, pinned: &Pinned) -> Self {
        let mut references =
            Self { survey, layers: HashMap::new(), blobs: HashMap::new(), size: 0 };
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

    fn hold_layer(&mut self, id: &LayerId) {
        if raise(&mut self.layers, id) {
            let survey = self.survey;
            self.size += survey.layers.get(id).map_or(0, |found| found.size);
            let blobs = survey.known.get(id).map_or(&[][..], |layer| &layer.blobs);
            blobs.iter().for_each(|digest| self.hold_blob(digest));
        }
    }

    fn release_layer(&mut self, id: &LayerId) {
        if lower(&mut self.layers, id) {
            let survey = self.survey;
            self.size -= survey.layers.get(id).map_or(0, |found| found.size);
            let blobs = survey.known.get(id).map_or(&[][..], |layer| &layer.blobs);
            blobs.iter().for_each(|digest| self.release_blob(digest));
        }
    }

    fn hold_blob(&mut self, digest: &Digest) {
        if raise(&mut self.blobs, digest) {
            self.size += self.survey.blobs.get(digest).map_or(0, |found| found.size);
        }
    }

    fn release_blob(&mut self, digest: &Digest) {
        if lower(&mut self.blobs, digest) {
            self.size -= self.survey.blobs.get(digest).map_or(0, |found| found.size);
        }
    }

    /// How many hold a layer.
    pub(super) fn layer(&self, id: &LayerId) -> u32 {
        self.layers.get(id).copied().unwrap_or(0)
    }

    /// How many hold a blob.
    pub(super) fn blob(&self, digest: &Digest) -> u32 {
        self.blobs.get(digest).copied().unwrap_or(0)
    }

    /// Bytes of everything that is there and held.
    pub(super) fn size(&self) -> u64 {
        self.size
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
