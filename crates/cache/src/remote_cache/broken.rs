//! Layers of caches that could not be had.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_solver::LayerId;

use crate::{ImageSource, IndexError};

/// How often only what is broken is given up, before all that is not here is.
const CAREFUL_ROUNDS: u32 = 3;

/// Layers of caches that could not be had, each with why. Clones are the same notes.
#[derive(Clone, Debug, Default)]
pub(crate) struct BrokenLayers(Arc<Mutex<Broken>>);

#[derive(Debug, Default)]
struct Broken {
    layers: BTreeMap<LayerId, String>,
    rounds: u32,
}

impl BrokenLayers {
    /// Notes a layer.
    pub(crate) fn note(&self, layer: LayerId, why: String) {
        let mut broken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        broken.layers.entry(layer).or_insert(why);
    }

    /// What was noted since the last call, and how often there was something.
    fn take(&self) -> (BTreeMap<LayerId, String>, u32) {
        let mut broken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let layers = std::mem::take(&mut broken.layers);
        broken.rounds += u32::from(!layers.is_empty());
        (layers, broken.rounds)
    }
}

impl ImageSource {
    /// Whether layers from caches could not be had since [`ImageSource::give_up_broken`] was called last.
    pub fn has_broken(&self) -> bool {
        let broken = self.broken.0.lock().unwrap_or_else(PoisonError::into_inner);
        !broken.layers.is_empty()
    }

    /// Deletes the records with layers from caches that could not be had. Returns why that was if there were such
    /// records: then what failed for it is worth another try, which makes anew what they promised.
    pub fn give_up_broken(&self) -> Result<Option<String>, IndexError> {
        let (broken, rounds) = self.broken.take();
        let Some(why) = broken.values().next().cloned() else { return Ok(None) };
        let mut given_up = Vec::new();
        for record in self.index.records()? {
            for layer in record.layers() {
                if broken.contains_key(layer)
                    || rounds > CAREFUL_ROUNDS && self.is_only_in_a_cache(layer)?
                {
                    given_up.push(record.id);
                    break;
                }
            }
        }
        let deleted = self.index.delete_records(&given_up)?;
        Ok((deleted > 0).then_some(why))
    }

    pub(crate) fn is_only_in_a_cache(&self, layer: &LayerId) -> Result<bool, IndexError> {
        if self.layers.contains(layer).unwrap_or(false) {
            return Ok(false);
        }
        Ok(self.index.layer(layer)?.is_some_and(|facts| facts.is_from_cache()))
    }
}
