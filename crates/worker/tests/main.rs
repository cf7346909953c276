//! The sandbox from outside: real namespaces, real programs (Debian's static busybox), as root and as an ordinary user.
//!
//! What a sandbox starts again must begin its `main` with `init_main_if_requested`, which a test binary cannot. So the sandboxes here are
//! made with `Sandbox::open_program` from `rbuild-sandbox-fixture` (`fixture.rs`), which is also the build process of the tests that
//! need one of their own: those that kill it, and those without root.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stderr, reason = "tests that cannot run say so")]

mod confinement;
mod files;
mod git;
mod lifetime;
mod process;
mod rootless;
mod support;
mod worker;
