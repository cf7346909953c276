//! What was looked at, and what came of it.

/// How steps can be run on the machine, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    /// Namespaces, and layers are mounted.
    Overlay,
    /// Namespaces, and files are copied for each step.
    Copy,
    /// Nothing but another root directory, for who asks for it.
    Chroot,
    /// Not at all.
    None,
}

impl Tier {
    /// The exit code of `rbuild doctor`. 1 and 2 are failures of the command itself.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::Overlay => 0,
            Self::Copy => 3,
            Self::Chroot => 4,
            Self::None => 5,
        }
    }

    /// The name in the JSON form.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Copy => "copy",
            Self::Chroot => "chroot",
            Self::None => "none",
        }
    }

    pub(super) fn described(self) -> &'static str {
        match self {
            Self::Overlay => "full: steps run in namespaces of their own, and layers are mounted",
            Self::Copy => {
                "full isolation, slowly: steps run in namespaces of their own, on copies of all their files"
            }
            Self::Chroot => {
                "weak: steps can be run with `rbuild build --isolation=chroot` only, which hardly protects the machine from them"
            }
            Self::None => "none: no step can be run here",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) name: &'static str,
    /// Whether it is as it should be.
    pub(super) is_good: bool,
    /// Whether no step can run without it.
    pub(super) is_fatal: bool,
    /// What was found.
    pub(super) found: String,
    /// A command, or what else would help.
    pub(super) fix: Option<String>,
}

impl Check {
    pub(super) fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, is_good: true, is_fatal: false, found: found.into(), fix: None }
    }

    /// It would be better otherwise.
    pub(super) fn poor(
        name: &'static str,
        found: impl Into<String>,
        fix: Option<impl Into<String>>,
    ) -> Self {
        let fix = fix.map(Into::into);
        Self { name, is_good: false, is_fatal: false, found: found.into(), fix }
    }

    pub(super) fn fatal(
        name: &'static str,
        found: impl Into<String>,
        fix: Option<impl Into<String>>,
    ) -> Self {
        Self { is_fatal: true, ..Self::poor(name, found, fix) }
    }
}
