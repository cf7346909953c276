//! The behaviours of BuildKit that surprise, one test a number: section 7 of the behaviour reference.
//!
//! Each builds with the real binary and reads back what came out with the oracle of `rbuild-testdata`: the entries of the
//! layers, the configuration, the history. What a rule says of a remote source, of RUN --mount or of a registry is tested
//! where that feature is.

mod cache;
mod config;
mod copy;
mod determinism;
mod files;
mod idioms;
mod language;
mod mixtures;
mod mounts;
mod result;
mod run;
mod world;
