//! The instructions' names.

/// Which instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Keyword {
    From,
    Run,
    Copy,
    Add,
    Env,
    Arg,
    Workdir,
    Cmd,
    Entrypoint,
    User,
    Label,
    Expose,
    Volume,
    Shell,
    Healthcheck,
    Stopsignal,
    Onbuild,
    Maintainer,
}

impl Keyword {
    const ALL: [Self; 18] = [
        Self::From,
        Self::Run,
        Self::Copy,
        Self::Add,
        Self::Env,
        Self::Arg,
        Self::Workdir,
        Self::Cmd,
        Self::Entrypoint,
        Self::User,
        Self::Label,
        Self::Expose,
        Self::Volume,
        Self::Shell,
        Self::Healthcheck,
        Self::Stopsignal,
        Self::Onbuild,
        Self::Maintainer,
    ];

    /// Finds an instruction by its name in any case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|keyword| keyword.name().eq_ignore_ascii_case(text))
    }

    /// The name in upper case.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::From => "FROM",
            Self::Run => "RUN",
            Self::Copy => "COPY",
            Self::Add => "ADD",
            Self::Env => "ENV",
            Self::Arg => "ARG",
            Self::Workdir => "WORKDIR",
            Self::Cmd => "CMD",
            Self::Entrypoint => "ENTRYPOINT",
            Self::User => "USER",
            Self::Label => "LABEL",
            Self::Expose => "EXPOSE",
            Self::Volume => "VOLUME",
            Self::Shell => "SHELL",
            Self::Healthcheck => "HEALTHCHECK",
            Self::Stopsignal => "STOPSIGNAL",
            Self::Onbuild => "ONBUILD",
            Self::Maintainer => "MAINTAINER",
        }
    }

    /// All names, those used most first: the nearest to a mistyped word is looked for in this order.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().map(Self::name)
    }
}
