//! The Dockerfile language: text to instructions with places.
//!
//! [`lexer`] puts lines together, [`instruction`] and its neighbours give each its type, [`parser`] does so for a whole
//! file. None of them recurses over input, and each reads a line a fixed number of times.

pub(crate) mod ast;
pub(crate) mod mapped;
pub(crate) mod mount;
pub(crate) mod parser;

mod flags;
mod heredoc;
mod json_form;
mod lexer;
mod words;

mod commands;
mod instruction;
pub(crate) mod keyword;
mod pairs;
mod parts;
mod transfer;

mod csv;
mod mount_options;
mod sink;
mod units;
