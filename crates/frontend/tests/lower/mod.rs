//! Lowering: a file and options in; a graph, a config, warnings or errors out.

mod build;
mod dump;

mod args;
mod config;
mod contexts;
mod copy;
mod epoch;
mod errors;
mod graph;
mod hostile;
mod idioms;
mod lints;
mod mounts;
mod onbuild;
mod outline;
mod platforms;
mod remote;
mod stages;
mod wordings;
