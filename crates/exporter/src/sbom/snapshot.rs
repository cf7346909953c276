//! The inventory of a snapshot. What was found in a layer is kept with it, so that only new layers are read.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rbuild_cache::{IndexError, LayersError};
use rbuild_oci::DiffId;
use rbuild_solver::{LayerId, Snapshot};

use super::budget::Budget;
use super::inventory::{Inventory, LayerFiles};
use super::scan::{LayerInventory, scan_layer};
use crate::layers::ExportStore;
use crate::walk::WalkError;

/// Changes whenever the readers find something else than they did.
const READER: &str = "rbuild.2";

/// Why a snapshot's packages could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// A layer directory.
    #[error("cannot open layer `{layer}`")]
    Open {
        /// Which layer.
        layer: LayerId,
        /// Why.
        #[source]
        source: LayersError,
    },
    /// Its files.
    #[error("cannot list the packages of layer `{layer}`")]
    Scan {
        /// Which layer.
        layer: LayerId,
        /// Why.
        #[source]
        source: WalkError,
    },
    /// What is kept of layers.
    #[error("cannot look up the packages of a layer")]
    Index(#[from] IndexError),
    /// All of them on top of one another.
    #[error("cannot tell which files of the layers can be seen")]
    Merge(#[source] io::Error),
}

/// Lists the packages of a snapshot, whose layers must be unpacked. `diff_ids` say what they are in an image.
pub fn snapshot_inventory(
    store: ExportStore<'_>,
    snapshot: &Snapshot,
    diff_ids: &[DiffId],
) -> Result<Inventory, InventoryError> {
    let mut layers = Vec::new();
    let mut budget = Budget::default();
    for layer in snapshot.layers() {
        let directory = store
            .layers
            .open(layer)
            .map_err(|source| InventoryError::Open { layer: *layer, source })?;
        let inventory = layer_inventory(store, layer, &directory)?;
        layers.push((inventory.within(&mut budget), directory));
    }
    let has_ids = diff_ids.len() == layers.len();
    let files: Vec<LayerFiles<'_>> = layers
        .iter()
        .enumerate()
        .map(|(index, (inventory, directory))| LayerFiles {
            directory: directory.as_fd(),
            diff_id: has_ids.then(|| diff_ids[index]),
            inventory,
        })
        .collect();
    Inventory::merge(&files, store.overlay.xattrs()).map_err(InventoryError::Merge)
}

fn layer_inventory(
    store: ExportStore<'_>,
    layer: &LayerId,
    directory: &OwnedFd,
) -> Result<LayerInventory, InventoryError> {
    let kept = store.index.layer_packages(layer, READER)?;
    if let Some(kept) = kept.and_then(|kept| serde_json::from_str(&kept).ok()) {
        return Ok(kept);
    }
    let found = scan_layer(directory.as_fd())
        .map_err(|source| InventoryError::Scan { layer: *layer, source })?;
    let kept = serde_json::to_string(&found).expect("an inventory always serialises");
    store.index.put_layer_packages(layer, READER, &kept)?;
    Ok(found)
}
