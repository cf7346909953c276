//! Software bills of materials: what packages the files of a snapshot are, by what package managers have noted in them.
//!
//! Nothing is run and nobody is asked: [`scan_layer`] reads the databases and lock files that one layer has, which is the same
//! whatever image the layer is in, [`Inventory::merge`] keeps what the layers above leave visible, and [`spdx_document`] writes it
//! down as SPDX 2.3. Archives inside of the files (jars, wheels) are not looked into, and RPM's database is only noticed.
//!
//! The files are a stranger's: `budget` bounds what is read of a layer and held of all, and `input` how. What had no room is said.

mod alpine;
mod budget;
mod debian;
mod file_kind;
mod golang;
mod input;
mod inventory;
mod json;
mod licence;
mod node;
mod os_release;
mod package;
mod php;
mod python;
mod ruby;
mod scan;
mod snapshot;
mod spdx;
mod toml_lock;

pub use inventory::{Found, Inventory, LayerFiles};
pub use os_release::Distribution;
pub use package::{Ecosystem, Package};
pub use scan::{LayerInventory, ScannedFile, scan_layer};
pub use snapshot::{InventoryError, snapshot_inventory};
pub use spdx::{Described, spdx_document};
