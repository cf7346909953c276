//! What a shell would make of a word.

mod expand;
mod pattern;

pub(crate) use expand::{Expansion, Shell};
