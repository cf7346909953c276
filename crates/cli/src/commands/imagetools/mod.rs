//! `rbuild imagetools`: images for several platforms, at registries.

mod inspect;

pub(crate) use inspect::inspect;
