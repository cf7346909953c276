//! Warnings about what works but is probably not meant.
//!
//! [`check`] finds those that need nothing but the text. Those that need variables, the build context or images are
//! found while lowering and made with [`warning`]. [`Checks`] then keeps what the file and the user want to see; it is
//! the only place that knows of `# check=`.

mod config;
mod rule;
mod syntax;

pub use config::{CheckOptionError, Checks};
pub use rule::Rule;
pub use syntax::check;

pub(crate) use rule::warning;
