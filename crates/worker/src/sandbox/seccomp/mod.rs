//! The seccomp filter of a confined step: Docker's default profile, compiled here.

mod filter;
mod install;
mod profile;

pub(super) use install::Filter;
