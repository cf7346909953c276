//! The crate's public face: text in, what it says and what is wrong with it out.

#![expect(clippy::unwrap_used, reason = "test")]

mod lower;
mod parse;
