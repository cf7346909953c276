//! `rbuild imagetools`: images for several platforms, at registries.

mod create;
mod entries;
mod inspect;
mod template;
mod update;

pub(crate) use create::create;
pub(crate) use inspect::inspect;
pub(crate) use update::{Addition, add_to_index};
