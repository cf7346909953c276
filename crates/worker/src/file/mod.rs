//! File operations: copy, mkdir, mkfile, rm, symlink.
//!
//! `states` runs the actions of an operation, each on the state that its input names, and makes layers of what has
//! to stay. An action works below one root directory, that of an overlay mount or of a new layer, reached through
//! its descriptor: [`place`] finds where a path of the user's leads, never out of the root, and from there on
//! paths have no links in them.

mod archive;
mod attributes;
mod chmod;
mod chown;
mod copy;
mod copy_tree;
mod defer;
mod error;
mod make;
mod place;
mod plan;
mod remove;
mod states;
mod write;

#[cfg(test)]
#[expect(clippy::print_stderr, reason = "test")]
mod tests;

pub use chmod::ModeError;
pub use defer::CopyArchiver;
pub(crate) use defer::needed_now;
pub use error::{FileError, OwnerError};
pub(crate) use plan::plan_op;
pub(crate) use states::{Input, copy_context, copy_directory, copy_selected, layer_id, run};
