//! Where results of earlier solves are found.

use crate::{CacheKey, KeyParts, Output};

/// Remembers outputs by key. Shared by processes; every method may be called from any thread.
///
/// A record is only ever returned whole: all layers that its outputs name are there as [`CacheRecord::presence`] says,
/// and stay so while the caller's lease is held.
pub trait CacheStore: Sync {
    /// Why it failed.
    type Error: std::error::Error + Send + Sync + 'static;
    /// Held while a key's vertex is being executed; released on drop, and by the kernel when the process dies.
    type Guard: Send;

    /// The record under a key. Takes microseconds: an index lookup, no content is read.
    fn lookup(&self, key: &CacheKey) -> Result<Option<CacheRecord>, Self::Error>;

    /// Stores outputs under keys, all or none. Storing under a second key links it to the same outputs.
    fn store(&self, records: &[NewRecord<'_>]) -> Result<(), Self::Error>;

    /// Waits until no other process or task executes the vertex of this key.
    fn lock(&self, key: &CacheKey)
    -> impl Future<Output = Result<Self::Guard, Self::Error>> + Send;
}

/// What a key found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRecord {
    /// The outputs of the vertex, in order.
    pub outputs: Vec<Output>,
    /// What there is of the layer of which there is least.
    pub presence: Presence,
}

/// What there is of a layer, or what somebody needs of it, least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// It is known what it would be: making it was deferred, and nobody has needed it since.
    Known,
    /// Its archive is there.
    Archive,
    /// Making it was deferred, and this process can make its archive as well as its directory.
    Planned,
    /// It can be used as a directory: it is in the store, or it is known where to fetch it.
    #[default]
    Files,
}

/// What is to be remembered.
#[derive(Clone, Debug)]
pub struct NewRecord<'a> {
    /// The key.
    pub key: CacheKey,
    /// What it was made from.
    pub parts: &'a KeyParts,
    /// The outputs.
    pub outputs: &'a [Output],
    /// Whether the last layer of each output was not made.
    pub deferred: bool,
    /// The vertex's name, for people.
    pub name: &'a str,
    /// How long making the outputs took; zero when known outputs are linked to another key.
    pub duration: std::time::Duration,
}
