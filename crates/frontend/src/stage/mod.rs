//! The stages of a file: what each stands on, which are needed, and what they take from one another.
//!
//! Nothing here evaluates a stage; that is lowering. FROM lines are expanded here, because they see only global
//! arguments.

mod dependency;
mod from_line;
mod global_args;
mod origin;
mod plan;

pub(crate) use global_args::evaluate as global_arguments;
pub(crate) use origin::{ImageUse, Origin};
pub(crate) use plan::{Plan, Stage, Step, last_stage_name};
