//! From stages to a graph and a config.

mod entry;
mod evaluate;
mod lowering;

mod place;
mod state;
mod step_name;

mod add;
mod arg;
mod copy;
mod expose;
mod from;
mod metadata;
mod mounts;
mod ownership;
mod remote;
mod run;
mod scans;
mod signal;
mod workdir;

pub use entry::lower;
pub use evaluate::{Evaluation, evaluate};
pub(crate) use remote::{Remote, remote};
