//! Contents of cache mounts in caches of other machines.
//!
//! A cache mount is archived as a tar (names in the order of their bytes, the root left out), the tar is cut into chunks where its
//! content says so, and chunks that are not known yet are compressed one by one and put together into packs. An index
//! says which chunk is where. Who changes a file of a large mount so changes a chunk or two, and one pack is new.
//!
//! ```text
//! cache manifest
//!   layers[]  application/vnd.rbuild.cachemounts.v1+json        the index: a MountIndex
//!   layers[]  application/vnd.rbuild.cachemounts.pack.v1+zstd   packs: zstd frames, a frame a chunk, nothing else
//!   ...       layers and configuration of the cache, as without mounts
//! ```
//!
//! Both are blobs of the cache's own manifest, so that a registry keeps and collects them with it, and one name is all of one state.
//! [`export_mounts`] makes index and packs. [`ImageSource::import_cache`] notes that there is an index; it is read, and
//! packs are fetched, when a step has a mount that is not here yet ([`ImageSource::fill_mount`]).
//!
//! Whoever writes a cache decides what its mounts contain. What cannot be understood, or is not what its digest says, is a warning and a
//! mount that begins empty; the archive is unpacked as those of layers are, and reaches nothing outside of the mount.
//!
//! A chunk for each file was not done: a mount of a hundred thousand small files would have as many chunks, and an index larger than
//! most changes.
//!
//! [`ImageSource::import_cache`]: crate::ImageSource::import_cache
//! [`ImageSource::fill_mount`]: crate::ImageSource::fill_mount

mod chunks;
mod export;
mod import;
mod index;
mod pack;

pub use export::{ExportedMounts, MountExportError, MountStore, WantedMounts, export_mounts};
pub(crate) use import::RemoteMounts;
pub(crate) use index::MOUNT_INDEX_TYPE;
pub use index::{MountIndex, MountIndexError};
pub use pack::PackError;
