//! Why a limit cannot be kept.

use std::io;
use std::path::{Path, PathBuf};

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
        /// Whether systemd can hand such a group over to a user: those of version 2.
        can_be_delegated: bool,
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
    #[error("cannot write `{text}` to `{}`{}", path.display(), available(path))]
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
    /// A parent below which no groups can be made.
    #[error("steps cannot be in the control group parent `{parent}`")]
    InParent {
        /// As it was given.
        parent: String,
        /// Why.
        source: Box<Self>,
    },
}

/// What a list of processors or memory nodes can be of, for an error about one that was refused.
fn available(file: &Path) -> String {
    let Some(name) =
        file.file_name().filter(|name| *name == "cpuset.cpus" || *name == "cpuset.mems")
    else {
        return String::new();
    };
    // Of the group above: nothing else can be had in this one. In v2 the file of what was asked for is empty where nothing was.
    let above = file.ancestors().nth(2).unwrap_or(file);
    let effective = name.to_string_lossy().into_owned() + ".effective";
    [effective.as_ref(), name]
        .into_iter()
        .filter_map(|name| std::fs::read_to_string(above.join(name)).ok())
        .find(|list| !list.trim().is_empty())
        .map_or(String::new(), |list| format!(", where {} can be had", list.trim()))
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
            Self::NotWritable { can_be_delegated: true, .. } | Self::NotAlone { .. } => Some(
                "run rbuild as root, or in a group of its own: systemd-run --user --scope -p Delegate=yes rbuild build ..; \
                 --resource best-effort builds without the limits that cannot be kept",
            ),
            Self::NotWritable { .. } => Some(
                "run rbuild as root, or in groups that root has given to you with chown (systemd gives none of version 1); \
                 --resource best-effort builds without the limits that cannot be kept",
            ),
            Self::InParent { source, .. } => source.hint(),
            Self::Refused { .. } | Self::Parent { .. } => None,
        }
    }

    /// Whether a group of the build's own, as systemd hands them over to users, would help.
    #[must_use]
    pub fn needs_delegation(&self) -> bool {
        match self {
            Self::NotWritable { can_be_delegated, .. } => *can_be_delegated,
            Self::NotAlone { .. } => true,
            Self::InParent { source, .. } => source.needs_delegation(),
            Self::Missing { .. } | Self::Refused { .. } | Self::Parent { .. } => false,
        }
    }
}
