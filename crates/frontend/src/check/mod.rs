//! Warnings about what works but is probably not meant.
//!
//! [`check`] finds those that need nothing but the text, and [`check_own`] those of ours. Those that need variables, the
//! build context or images are found while lowering: [`instruction`] words some of them, [`warning`] the others.
//! [`Checks`] then keeps what the file and the user want to see; it is the only place that knows of `# check=`.

mod config;
pub(crate) mod instruction;
mod own;
mod rule;
mod syntax;

pub use config::{CheckOptionError, Checks};
pub use own::{ContextFiles, check_own};
pub use rule::Rule;
pub use syntax::check;

pub(crate) use rule::warning;
