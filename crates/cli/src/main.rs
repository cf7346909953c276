//! rbuild
mod progress;
fn main() {}
