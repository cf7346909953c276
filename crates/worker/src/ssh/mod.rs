//! Private keys that act as an SSH agent: they are listed and sign, and nothing else.
//!
//! The signatures are `ring`'s. What is around them is small and has been the same for a decade, so it is read here instead of
//! with a crate that brings a second set of cryptography: the file format of OpenSSH ([`key`]), and two messages of
//! the agent protocol ([`keys`]).

mod key;
mod keys;
mod remainder;
mod wire;

pub use key::SshKeyError;
pub use keys::SshKeys;
pub(crate) use keys::{REQUEST_IDENTITIES, SIGN_REQUEST};
