//! A store in memory, an executor that computes instead of running, and short ways to build graphs.

mod executor;
mod graphs;
mod store;

pub(crate) use executor::{Behaviour, Files, Lab, LabError};
pub(crate) use graphs::{Build, edge};
pub(crate) use store::{MemoryStore, StoreError};
