//! Layers that are not made yet (design D4).

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rbuild_solver::LayerId;

use crate::PlannedCopy;

/// Layers whose files nobody has needed so far, and which this process can make. Clones are the same layers.
#[derive(Clone, Debug, Default)]
pub struct DeferredLayers(Arc<Mutex<HashMap<LayerId, Arc<DeferredLayer>>>>);

/// A layer that is not made yet.
pub struct DeferredLayer {
    /// What it will have, which is enough to write its archive.
    pub copy: Arc<PlannedCopy>,
    make: Box<dyn Fn() -> Result<(), MakeError> + Send + Sync>,
    /// Held while it is made.
    making: Mutex<()>,
}

/// Why a layer could not be made after all.
type MakeError = Box<dyn Error + Send + Sync>;

impl DeferredLayer {
    /// A layer that will have what `copy` says. `make` makes its directory in the store.
    pub fn new<E: Error + Send + Sync + 'static>(
        copy: Arc<PlannedCopy>,
        make: impl Fn() -> Result<(), E> + Send + Sync + 'static,
    ) -> Self {
        let make = Box::new(move || make().map_err(MakeError::from));
        Self { copy, make, making: Mutex::new(()) }
    }
}

impl fmt::Debug for DeferredLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredLayer").field("copy", &self.copy).finish_non_exhaustive()
    }
}

impl DeferredLayers {
    /// Adds one.
    pub fn add(&self, id: LayerId, layer: DeferredLayer) {
        self.layers().insert(id, Arc::new(layer));
    }

    /// A layer, as long as nobody has made it.
    pub fn get(&self, id: &LayerId) -> Option<Arc<DeferredLayer>> {
        self.layers().get(id).cloned()
    }

    /// Whether some of these are not made.
    pub(crate) fn has_any(&self, ids: &[LayerId]) -> bool {
        let layers = self.layers();
        !layers.is_empty() && ids.iter().any(|id| layers.contains_key(id))
    }

    /// Makes those of these that are not made, one after the other: each uses all processors.
    pub(crate) fn make(&self, ids: &[LayerId]) -> Result<(), MakeError> {
        for id in ids {
            let Some(layer) = self.get(id) else { continue };
            let _making = layer.making.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever was here until now may have made it.
            if self.get(id).is_some() {
                (layer.make)()?;
                self.layers().remove(id);
            }
        }
        Ok(())
    }

    fn layers(&self) -> MutexGuard<'_, HashMap<LayerId, Arc<DeferredLayer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
