//! File patterns: Go's `filepath.Match`, and lists of them as in `.dockerignore`.
//!
//! Own code because crates for this implement `.gitignore`, whose names match at any depth and whose
//! exceptions do not reach into excluded directories. Paths are bytes: file names need not be UTF-8. They are
//! relative, with `/` between elements and none at either end.

mod candidates;
mod clean;
mod glob;
mod matcher;

pub use clean::clean_path;
pub use glob::{PathPattern, PatternError, has_wildcards, path_match};
pub use matcher::{Decision, PatternMatcher};
