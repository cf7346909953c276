//! Images as sources: what a reference names, and its layers when somebody needs them (design D4).
//!
//! [`ImageSource::resolve`] finds the manifest and the configuration, keeps both documents in the store and notes where
//! the layers can be fetched. Nothing else is moved. A pinned reference that was resolved once resolves without the network.
//! [`ImageSource::ensure_unpacked`] makes the directories of a snapshot's layers, side by side;
//! [`ImageSource::ensure_layer_blob`] fetches a layer's blob for an exporter, [`ImageSource::ensure_blob_as`] one that
//! an image or a cache names as a layer, to be sent on, [`ImageSource::ensure_blob`] any other.
//!
//! # The identity of an image's layer
//!
//! is its *chain* id, as bytes: for the lowest layer that is its diff id, for the others a hash that includes those below.
//! Design D3 has the diff id, and the chain only for an archive that cannot stand alone (it leaves out parent
//! directories, or links to files below). But whether an archive is of that kind shows when it is unpacked, and a snapshot
//! must be named before anything is pulled (D4): a layer would change its id after it was handed out. So all layers carry
//! their chain. They still unpack side by side, each into a directory of its own; only one that turns out to need its
//! parents waits for them and is applied once more on top. What is lost is that a layer which appears on top of two
//! different parents has two directories; it is still downloaded once, since blobs go by digest.
//!
//! # Blobs are kept
//!
//! While a layer is unpacked, its blob is written into the store as well. It costs a sequential write of what is compressed
//! anyway, and saves a second download whenever the image is exported, saved or pushed elsewhere, a layer is
//! collected and needed again, or has to be applied again on top of its parents.

mod claims;
mod document;
mod error;
mod fetch;
mod progress;
mod reader;
mod resolve;
mod source;
mod unpack;
mod whole;

pub(crate) use claims::UNCOMPRESSED;
pub use document::DocumentError;
pub(crate) use document::ImageDocument;
pub use error::{FetchError, ImageError};
pub use progress::PullProgress;
pub use source::{
    ImageLayer, ImageName, ImageNameError, ImageSource, ImageSourceOptions, PullMode, ResolvedImage,
};
pub use whole::WholeImage;
