//! What is remembered of the latest builds: for `logs`, `debug` and `explain`.
//!
//! ```text
//! builds/<project>/             16 hex digits of the context and the Dockerfile: see [`BuildSubject::project`]
//!     <build id>.json           BuildRecord, written when the build has ended, however it did
//!     <hex of the target>.llb   the graph of one or more of the builds, without what may be secret in it
//!     <hex>.files               what a step read of a folder, by the content's digest: [`FileList`]
//!     kept                      the layer that the last build's failed step left
//! ```
//!
//! Nothing here is needed to build, and nothing of it is ever a cached result. A project keeps its latest builds, a
//! store the projects that were built last; `prune --all` removes all of it.

mod file_list;
mod history;
mod record;

pub use file_list::{FileList, ListedFile, ListedKind, PickedFiles};
pub use history::{Builds, BuildsError};
pub use record::{
    BuildId, BuildRecord, BuildState, BuildSubject, InputState, Millis, StepRecord, StepState,
};
