//! The public face of `rbuild-solver`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod deferring;
mod events;
mod llb;
mod pattern;
mod random_graphs;
mod scheduling;
mod support;
