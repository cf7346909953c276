//! Reading trees of files: a user's context folder, or the merged files of a snapshot.
//!
//! A [`Tree`] is reached through the descriptor of its root directory and nothing else: every directory and file
//! below is opened with `openat2` so that no symbolic link, however it got there, leads out. Names are bytes.
//!
//! Selecting, hashing and copying all go by the same [`Node`]s: a directory is listed and an entry inspected once
//! for as long as the tree lives (for a context: one build), whoever asks, so that what a key was made from is
//! what is copied. [`Tree::open`] and [`Tree::verify`] tell when the disk has changed since.

mod content;
mod digest;
mod error;
mod in_place;
mod lookup;
mod meta;
mod node;
mod resolve;
mod select;
mod selected_file;
mod stat_cache;
mod suggest;
mod walk;
mod xattr;

#[cfg(test)]
#[expect(clippy::print_stderr, reason = "test")]
mod tests;

pub use error::TreeError;
pub use in_place::InPlace;
pub use lookup::Tree;
pub use meta::Meta;
pub use node::Node;
pub use select::{Entry, Selected, Selection};
pub use stat_cache::{StatCache, StatCacheError};
pub use xattr::{is_kept_xattr, read_xattrs};
