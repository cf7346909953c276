//! The Dockerfile language: text to instructions with places.

pub(crate) mod ast;
pub(crate) mod mapped;
pub(crate) mod parser;

mod flags;
mod heredoc;
mod instruction;
mod json_form;
pub(crate) mod keyword;
mod lexer;
pub(crate) mod mount;
mod sink;
mod units;
mod words;
