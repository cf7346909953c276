//! The documents and names of the OCI image specification, as plain types.
//!
//! Nothing here does I/O. [`Digest`], [`Descriptor`] and [`ImageConfig`] are the types to read first.
//! Documents are our own structs rather than `oci-spec`'s because image digests must be reproducible and
//! nothing that a base image says may be lost: keys keep one order, and unknown keys are carried along
//! (`oci-spec` drops `Healthcheck`, `OnBuild`, `Shell`, and writes maps in random order). `oci-spec` reads
//! back what we write in the tests instead.

mod config;
mod descriptor;
mod digest;
mod layer_id;
mod manifest;
mod media_type;
mod platform;
mod reference;

pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestError, Hasher, VerifyError, VerifyingReader};
pub use layer_id::{ChainId, DiffId};
pub use manifest::{Index, Manifest};
pub use media_type::{LayerCompression, MediaType};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};
