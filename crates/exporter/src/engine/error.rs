//! Why an engine did not take an image.

use std::io;

use crate::archive::ArchiveError;

/// An engine cannot be used, or did not take an image.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nothing takes connections there.
    #[error("cannot connect to `{place}`")]
    Connect {
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("cannot {action} the engine at `{place}`")]
    Transfer {
        /// What was tried.
        action: &'static str,
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What answered is no engine.
    #[error("what answers at `{place}` is no Docker engine: {reason}")]
    NoEngine {
        /// Where.
        place: String,
        /// What is odd about it.
        reason: String,
    },
    /// The engine said no.
    #[error("the engine at `{place}` says: {message}")]
    Refused {
        /// Where.
        place: String,
        /// Its words.
        message: String,
    },
    /// The image could not be read.
    #[error("cannot send the image")]
    Archive(#[from] ArchiveError),
    /// A folder to hand the image over in.
    #[error("cannot lay out the image for podman")]
    Folder(#[source] io::Error),
    /// The program cannot be started.
    #[error("cannot start `{program}`")]
    Start {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program failed.
    #[error("`{command}` failed: {message}")]
    Failed {
        /// What was run.
        command: String,
        /// What it printed.
        message: String,
    },
}
