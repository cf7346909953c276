//! What the store takes, and getting it back.
//!
//! Images hold their documents and blobs; cache records hold the layers of their outputs, and layers hold their
//! blobs; a living build holds what its lease names and whatever came since it began. What nobody holds is
//! garbage. Beyond that, things can be given up: those that a filter means, those that were not used for long, or the least
//! valuable ones until a limit is kept.
//!
//! Taking is done behind the closed gate of the leases (see [`crate::lease`]) and is short: rows are deleted and
//! directories renamed away. Measuring happens before, deleting the files after. A process that is killed on the way leaves
//! whole things, and what is half deleted below `tmp/`.

mod choice;
mod disk_size;
mod filter;
mod item;
mod keep;
mod limits;
mod lineage;
mod outside;
mod prune;
mod references;
mod stock;
mod survey;
mod urgency;
mod usage;

pub(crate) use disk_size::disk_size;
pub use filter::{FilterError, ItemFilter};
pub use item::{Item, ItemKind};
pub(crate) use keep::note_empty;
pub use keep::{Kept, SpaceKeeper};
pub use limits::{DiskSpace, SpaceLimits};
pub use prune::{PruneOptions, Pruned, prune};
pub use survey::CollectError;
pub(crate) use survey::directory_size;
pub use usage::{KindUsage, Usage};
