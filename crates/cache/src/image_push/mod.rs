//! Images of the store, into registries.
//!
//! [`ImagePush::push`] sends what a repository does not have: blobs side by side, then the manifests that name them, the index
//! last, so that a tag never names what is not there. A blob is looked for at the repository, then mounted from another
//! repository of the registry that is known to have it, then sent. A layer that is not in the store and cannot be mounted is
//! fetched from where it came from first, into the store: only there is it verified before anybody else gets it, and
//! can be sent a second time when the connection breaks.
//!
//! Where a blob went is noted as a place that has it, so that the next repository can mount it.

mod beside;
mod contents;
mod error;
mod push;
mod tag;

pub use beside::names_of_entries;
pub use contents::PushedPlatforms;
pub use error::PushError;
pub use push::ImagePush;
