//! The merged, read-only tree of a snapshot.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::overlay::{Overlay, OverlayError};

/// A snapshot's files, as the next step would see them. Read only; gone when dropped.
#[derive(Debug)]
pub struct View {
    root: OwnedFd,
}

impl View {
    /// Merges layer directories, bottom first. No layers: an empty directory, without a mount.
    pub fn of_directories(
        overlay: &Overlay,
        layers: &[BorrowedFd<'_>],
    ) -> Result<Self, OverlayError> {
        let root = if layers.is_empty() {
            rustix::fs::openat(
                overlay.empty(),
                ".",
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|error| OverlayError::Open { source: error.into() })?
        } else {
            overlay.mount(layers, None)?
        };
        Ok(Self { root })
    }

    /// The root directory, to be used with `openat2` and `RESOLVE_IN_ROOT`.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl AsFd for View {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root()
    }
}
