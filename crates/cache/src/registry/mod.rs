//! Registries, as the distribution specification has them.
//!
//! [`RegistryClient`] fetches a [`Document`] (a manifest or index, whole and bounded) or a [`BlobStream`], and writes: a blob
//! is looked for ([`RegistryClient::has_blob`]), mounted from another repository ([`RegistryClient::mount_blob`]) or sent from
//! anything that can be read twice ([`RegistryClient::put_blob`] with a [`BlobBody`](crate::BlobBody)), then the document that names it
//! ([`RegistryClient::put_manifest`]). It is the caller's part to do that in this order. The client speaks
//! HTTP to registries on the loopback and to those that it was told to, HTTPS to all others, answers the challenges of
//! [`auth`], retries what is worth retrying, follows redirects without carrying credentials along, and verifies documents
//! against the digest that was asked for. It knows nothing of the store; of this crate's siblings it uses only `http`.
//!
//! # Why not on top of `oci-client`
//!
//! It was tried on paper against `oci-client` 0.18 and these could not be closed from outside: it reads a manifest to
//! its end before anybody can bound it, so a hostile registry fills the memory; the headers of a refusal are gone, so
//! `Retry-After` cannot be honoured; a failed token request is swallowed and shows up as an anonymous 401, so a wrong
//! password cannot be told from a missing one; tokens are asked for with GET only, so logins that yielded an identity token do
//! not work; the environment's proxies apply to the loopback too; and a redirect from HTTPS to HTTP is followed. What is
//! left of it after that is a dozen lines of URLs. So this module uses `reqwest`, which `oci-client` is made of, and
//! the tests let `oci-client` talk to the same servers as a second opinion.

mod auth;
mod blobs;
mod challenge;
mod client;
mod credentials;
mod endpoints;
mod error;
mod host;
mod login;
mod login_file;
mod manifests;
mod mirrors;
mod registries_conf;
mod tokens;
mod uploads;

pub use blobs::BlobStream;
pub use client::{RegistryClient, RegistryOptions};
pub use credentials::{Credential, Credentials, CredentialsError};
pub use endpoints::{HostFiles, HostFilesError};
pub use error::{RegistryError, RegistryErrorKind};
pub use login::{LoggedIn, MirrorStanding, Standing};
pub use login_file::{LoginFile, LoginFileError, LoginPlace};
pub use manifests::Document;
pub use mirrors::MirrorFault;
pub use registries_conf::PodmanFiles;
pub use uploads::{Mount, UploadSession};
