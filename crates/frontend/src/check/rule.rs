//! The rules' names, what they are about, and where each is explained.

use std::borrow::Cow;

use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// A rule. Those that BuildKit has, too, have its names; ours begin with `Rbuild/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each name is its own description, and each has a page")]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JsonArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
    ArgDeclaredEarly,
    CopyBeforeInstall,
    AptListsLeft,
    SecretCopied,
}

/// What is known of a rule.
struct Facts {
    name: &'static str,
    description: &'static str,
    /// None for ours: they are in the documentation of rbuild.
    url: Option<&'static str>,
}

/// The facts of a rule of BuildKit's.
macro_rules! shared {
    ($name:literal, $page:literal, $description:literal) => {
        Facts {
            name: $name,
            description: $description,
            url: Some(concat!("https://docs.docker.com/go/dockerfile/rule/", $page, "/")),
        }
    };
}

/// The facts of a rule of ours.
macro_rules! own {
    ($name:literal, $description:literal) => {
        Facts { name: concat!("Rbuild/", $name), description: $description, url: None }
    };
}

impl Rule {
    /// Every rule: first BuildKit's, then ours.
    pub const ALL: [Self; 26] = [
        Self::StageNameCasing,
        Self::FromAsCasing,
        Self::NoEmptyContinuation,
        Self::ConsistentInstructionCasing,
        Self::DuplicateStageName,
        Self::ReservedStageName,
        Self::JsonArgsRecommended,
        Self::MaintainerDeprecated,
        Self::UndefinedArgInFrom,
        Self::WorkdirRelativePath,
        Self::UndefinedVar,
        Self::MultipleInstructionsDisallowed,
        Self::LegacyKeyValueFormat,
        Self::InvalidBaseImagePlatform,
        Self::RedundantTargetPlatform,
        Self::SecretsUsedInArgOrEnv,
        Self::InvalidDefaultArgInFrom,
        Self::FromPlatformFlagConstDisallowed,
        Self::CopyIgnoredFile,
        Self::InvalidDefinitionDescription,
        Self::ExposeProtoCasing,
        Self::ExposeInvalidFormat,
        Self::ArgDeclaredEarly,
        Self::CopyBeforeInstall,
        Self::AptListsLeft,
        Self::SecretCopied,
    ];

    /// The rule of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }

    /// The name in messages and in `# check=skip=`.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// What it finds, in a few words.
    pub fn description(self) -> &'static str {
        self.facts().description
    }

    /// The page that explains it; none for ours.
    pub fn url(self) -> Option<&'static str> {
        self.facts().url
    }

    /// Whether it is off unless asked for.
    pub fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }

    /// Whether BuildKit has no such rule.
    pub fn is_own(self) -> bool {
        self.url().is_none()
    }

    fn facts(self) -> Facts {
        match self {
            Self::StageNameCasing => {
                shared!("StageNameCasing", "stage-name-casing", "A stage name has capital letters")
            }
            Self::FromAsCasing => {
                shared!("FromAsCasing", "from-as-casing", "The keywords of one FROM differ in case")
            }
            Self::NoEmptyContinuation => shared!(
                "NoEmptyContinuation",
                "no-empty-continuation",
                "An instruction goes on after an empty line"
            ),
            Self::ConsistentInstructionCasing => shared!(
                "ConsistentInstructionCasing",
                "consistent-instruction-casing",
                "The instructions of one file differ in case"
            ),
            Self::DuplicateStageName => {
                shared!("DuplicateStageName", "duplicate-stage-name", "Two stages have one name")
            }
            Self::ReservedStageName => shared!(
                "ReservedStageName",
                "reserved-stage-name",
                "A stage has a name that means something else"
            ),
            Self::JsonArgsRecommended => shared!(
                "JSONArgsRecommended",
                "json-args-recommended",
                "A shell gets the signals that are meant for the program"
            ),
            Self::MaintainerDeprecated => shared!(
                "MaintainerDeprecated",
                "maintainer-deprecated",
                "MAINTAINER is deprecated, a label says the same"
            ),
            Self::UndefinedArgInFrom => shared!(
                "UndefinedArgInFrom",
                "undefined-arg-in-from",
                "FROM names an argument that is not declared before it"
            ),
            Self::WorkdirRelativePath => shared!(
                "WorkdirRelativePath",
                "workdir-relative-path",
                "The first WORKDIR depends on that of the base image"
            ),
            Self::UndefinedVar => {
                shared!("UndefinedVar", "undefined-var", "A variable is used that is not defined")
            }
            Self::MultipleInstructionsDisallowed => shared!(
                "MultipleInstructionsDisallowed",
                "multiple-instructions-disallowed",
                "Only the last of several instructions counts"
            ),
            Self::LegacyKeyValueFormat => shared!(
                "LegacyKeyValueFormat",
                "legacy-key-value-format",
                "A key and its value are separated by a blank"
            ),
            Self::InvalidBaseImagePlatform => shared!(
                "InvalidBaseImagePlatform",
                "invalid-base-image-platform",
                "The base image is for another platform"
            ),
            Self::RedundantTargetPlatform => shared!(
                "RedundantTargetPlatform",
                "redundant-target-platform",
                "FROM asks for the platform that is the default"
            ),
            Self::SecretsUsedInArgOrEnv => shared!(
                "SecretsUsedInArgOrEnv",
                "secrets-used-in-arg-or-env",
                "Arguments and variables stay in the image, secrets among them"
            ),
            Self::InvalidDefaultArgInFrom => shared!(
                "InvalidDefaultArgInFrom",
                "invalid-default-arg-in-from",
                "Without build arguments the base image has no valid name"
            ),
            Self::FromPlatformFlagConstDisallowed => shared!(
                "FromPlatformFlagConstDisallowed",
                "from-platform-flag-const-disallowed",
                "A stage is built for one platform whatever is asked for"
            ),
            Self::CopyIgnoredFile => shared!(
                "CopyIgnoredFile",
                "copy-ignored-file",
                "A file is copied that .dockerignore hides"
            ),
            Self::InvalidDefinitionDescription => shared!(
                "InvalidDefinitionDescription",
                "invalid-definition-description",
                "A comment above a stage or an argument does not describe it"
            ),
            Self::ExposeProtoCasing => shared!(
                "ExposeProtoCasing",
                "expose-proto-casing",
                "A protocol has capital letters"
            ),
            Self::ExposeInvalidFormat => shared!(
                "ExposeInvalidFormat",
                "expose-invalid-format",
                "EXPOSE names more than a port of the container"
            ),
            Self::ArgDeclaredEarly => {
                own!("ArgDeclaredEarly", "An argument is declared long before its first use")
            }
            Self::CopyBeforeInstall => own!(
                "CopyBeforeInstall",
                "All files are copied before the dependencies are installed"
            ),
            Self::AptListsLeft => own!("AptListsLeft", "Package lists of apt stay in a layer"),
            Self::SecretCopied => {
                own!("SecretCopied", "A file that looks like a secret is copied into the image")
            }
        }
    }
}

/// A warning of a rule.
pub(crate) fn warning(rule: Rule, span: Span, message: impl Into<Cow<'static, str>>) -> Diagnostic {
    let diagnostic = Diagnostic::warning(rule.name(), span, message);
    match rule.url() {
        Some(url) => diagnostic.with_url(url),
        None => diagnostic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_found_again() {
        for rule in Rule::ALL {
            assert_eq!(Rule::parse(rule.name()), Some(rule));
            assert_eq!(rule.is_own(), rule.name().starts_with("Rbuild/"), "{rule:?}");
        }
        assert_eq!(Rule::ALL.iter().filter(|rule| !rule.is_own()).count(), 22);
        assert_eq!(Rule::parse("stagenamecasing"), None);
    }
}
