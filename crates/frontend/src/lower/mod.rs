//! From stages to a graph and a config.

mod lowering;

mod state;
mod step_name;

mod add;
mod arg;
mod copy;
mod expose;
mod from;
mod metadata;
mod ownership;
mod run;
mod signal;
mod workdir;

pub use lowering::lower;
