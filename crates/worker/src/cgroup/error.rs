//! Why a limit cannot be kept.

use std::io;
use std::path::PathBuf;

/// Why a step cannot be limited, or put into a control group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The kernel, or what the build sees of it, does not have the controller.
    #[error("there is no control group controller `{controller}` for limits of steps")]
    Missing {
        /// Its name.
        controller: &'static str,
    },
    /// No group can be made.
    #[error("cannot make a control group in `{}` for the controller `{controller}`", path.display())]
    NotWritable {
        /// What it would be for.
        controller: &'static str,
        /// In what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A v2 group whose own processes keep it from having groups inside.
    #[error(
        "the control group `{}` has other processes than rbuild, so the controller `{controller}` cannot be used inside",
        path.display()
    )]
    NotAlone {
        /// What it would be for.
        controller: &'static str,
        /// Which group.
        path: PathBuf,
    },
    /// The kernel does not take a value.
    #[error("cannot write `{text}` to `{}`", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What was written.
        text: String,
        /// Why.
        source: io::Error,
    },
    /// A parent that cannot be.
    #[error("cannot use the control group parent `{parent}`: {reason}")]
    Parent {
        /// As it was given.
        parent: String,
        /// Why not.
        reason: &'static str,
    },
}

impl CgroupError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing { .. } => Some(
                "the kernel may have it switched off (cgroup_enable=memory on its command line), or a container hides it; \
                 --resource best-effort builds without the limits that cannot be kept",
            ),
            Self::NotWritable { .. } | Self::NotAlone { .. } => Some(
                "run rbuild as root, or in a group of its own: systemd-run --user --scope -p Delegate=yes rbuild build ..; \
                 --resource best-effort builds without the limits that cannot be kept",
            ),
            Self::Refused { .. } | Self::Parent { .. } => None,
        }
    }
}
