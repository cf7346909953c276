//! What the store takes, and getting it back.
//!
//! Images hold their documents and blobs; cache records hold the layers of their outputs, and layers hold their
//! blobs; a living build holds what its lease names and whatever came since it began. What nobody holds is
//! garbage. Beyond that, records can be given up, least recently used first.
//!
//! Taking is done behind the closed gate of the leases (see [`crate::lease`]) and is short: rows are deleted and
//! directories renamed away. Measuring happens before, deleting the files after.

mod disk_size;
mod prune;
mod references;
mod survey;
mod usage;

pub use prune::{PruneKinds, PruneOptions, Pruned, prune};
pub use survey::CollectError;
pub(crate) use survey::directory_size;
pub use usage::{CacheMountUsage, KindUsage, LayerUsage, Usage};
