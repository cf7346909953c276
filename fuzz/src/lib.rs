//! What has to hold for any input, of everything that reads what others wrote.
//!
//! Each module is a target: its `check` takes bytes and panics when a property is violated. `fuzz_targets/` hands them to
//! libFuzzer; `tests/replay.rs` runs them over the kept corpus, with a stable compiler and no libFuzzer. Targets use what
//! the crates make public. Two pure files that a crate keeps to itself are compiled in by their path, so that no
//! interface is widened for tests.

pub mod challenge;
pub mod document;
pub mod expand;
pub mod git_url;
pub mod ignore;
pub mod image_reference;
#[cfg(feature = "disk")]
pub mod layer;
pub mod llb;
pub mod lower;
pub mod parse;

mod options;
mod spans;

/// A target by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("challenge", challenge::check),
    ("document", document::check),
    ("expand", expand::check),
    ("git_url", git_url::check),
    ("ignore", ignore::check),
    ("image_reference", image_reference::check),
    #[cfg(feature = "disk")]
    ("layer", layer::check),
    ("llb", llb::check),
    ("lower", lower::check),
    ("parse", parse::check),
];
