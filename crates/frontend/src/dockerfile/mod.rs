//! The Dockerfile language: text to instructions with places.

pub(crate) mod ast;
pub(crate) mod mapped;
pub(crate) mod mount;
