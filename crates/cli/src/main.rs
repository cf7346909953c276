//! The command line: arguments, wiring, progress, commands.
//!
//! What was typed is in [`args`]; `commands` does it; `wiring` is the one place that knows every implementation.

mod annotation;
mod args;
mod aws;
mod cache_spec;
mod commands;
mod config;
mod deferred;
mod error;
mod fields;
mod hidden;
mod machine;
mod output;
mod paths;
mod printable;
mod progress;
mod registry_args;
mod s3_spec;
mod wiring;

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A process that rbuild started to run a step in is this program too, and goes no further.
    if let Some(code) = rbuild_worker::init_main_if_requested() {
        return code;
    }
    match args::parse().and_then(commands::run) {
        Ok(code) => code,
        Err(error) => {
            // Nobody is left to tell when standard error is gone.
            let _ = write!(std::io::stderr(), "{error}");
            ExitCode::from(error.exit_code())
        }
    }
}
