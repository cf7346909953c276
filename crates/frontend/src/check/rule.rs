//! The rules' names and where each is explained.

use std::borrow::Cow;

use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// A lint rule; the names are BuildKit's.
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
}

impl Rule {
    /// The name in messages and in `# check=skip=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::StageNameCasing => "StageNameCasing",
            Self::FromAsCasing => "FromAsCasing",
            Self::NoEmptyContinuation => "NoEmptyContinuation",
            Self::ConsistentInstructionCasing => "ConsistentInstructionCasing",
            Self::DuplicateStageName => "DuplicateStageName",
            Self::ReservedStageName => "ReservedStageName",
            Self::JsonArgsRecommended => "JSONArgsRecommended",
            Self::MaintainerDeprecated => "MaintainerDeprecated",
            Self::UndefinedArgInFrom => "UndefinedArgInFrom",
            Self::WorkdirRelativePath => "WorkdirRelativePath",
            Self::UndefinedVar => "UndefinedVar",
            Self::MultipleInstructionsDisallowed => "MultipleInstructionsDisallowed",
            Self::LegacyKeyValueFormat => "LegacyKeyValueFormat",
            Self::InvalidBaseImagePlatform => "InvalidBaseImagePlatform",
            Self::RedundantTargetPlatform => "RedundantTargetPlatform",
            Self::SecretsUsedInArgOrEnv => "SecretsUsedInArgOrEnv",
            Self::InvalidDefaultArgInFrom => "InvalidDefaultArgInFrom",
            Self::FromPlatformFlagConstDisallowed => "FromPlatformFlagConstDisallowed",
            Self::CopyIgnoredFile => "CopyIgnoredFile",
            Self::InvalidDefinitionDescription => "InvalidDefinitionDescription",
            Self::ExposeProtoCasing => "ExposeProtoCasing",
            Self::ExposeInvalidFormat => "ExposeInvalidFormat",
        }
    }

    /// The page that explains it.
    pub fn url(self) -> &'static str {
        match self {
            Self::StageNameCasing => {
                "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/"
            }
            Self::FromAsCasing => "https://docs.docker.com/go/dockerfile/rule/from-as-casing/",
            Self::NoEmptyContinuation => {
                "https://docs.docker.com/go/dockerfile/rule/no-empty-continuation/"
            }
            Self::ConsistentInstructionCasing => {
                "https://docs.docker.com/go/dockerfile/rule/consistent-instruction-casing/"
            }
            Self::DuplicateStageName => {
                "https://docs.docker.com/go/dockerfile/rule/duplicate-stage-name/"
            }
            Self::ReservedStageName => {
                "https://docs.docker.com/go/dockerfile/rule/reserved-stage-name/"
            }
            Self::JsonArgsRecommended => {
                "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
            }
            Self::MaintainerDeprecated => {
                "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/"
            }
            Self::UndefinedArgInFrom => {
                "https://docs.docker.com/go/dockerfile/rule/undefined-arg-in-from/"
            }
            Self::WorkdirRelativePath => {
                "https://docs.docker.com/go/dockerfile/rule/workdir-relative-path/"
            }
            Self::UndefinedVar => "https://docs.docker.com/go/dockerfile/rule/undefined-var/",
            Self::MultipleInstructionsDisallowed => {
                "https://docs.docker.com/go/dockerfile/rule/multiple-instructions-disallowed/"
            }
            Self::LegacyKeyValueFormat => {
                "https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/"
            }
            Self::InvalidBaseImagePlatform => {
                "https://docs.docker.com/go/dockerfile/rule/invalid-base-image-platform/"
            }
            Self::RedundantTargetPlatform => {
                "https://docs.docker.com/go/dockerfile/rule/redundant-target-platform/"
            }
            Self::SecretsUsedInArgOrEnv => {
                "https://docs.docker.com/go/dockerfile/rule/secrets-used-in-arg-or-env/"
            }
            Self::InvalidDefaultArgInFrom => {
                "https://docs.docker.com/go/dockerfile/rule/invalid-default-arg-in-from/"
            }
            Self::FromPlatformFlagConstDisallowed => {
                "https://docs.docker.com/go/dockerfile/rule/from-platform-flag-const-disallowed/"
            }
            Self::CopyIgnoredFile => {
                "https://docs.docker.com/go/dockerfile/rule/copy-ignored-file/"
            }
            Self::InvalidDefinitionDescription => {
                "https://docs.docker.com/go/dockerfile/rule/invalid-definition-description/"
            }
            Self::ExposeProtoCasing => {
                "https://docs.docker.com/go/dockerfile/rule/expose-proto-casing/"
            }
            Self::ExposeInvalidFormat => {
                "https://docs.docker.com/go/dockerfile/rule/expose-invalid-format/"
            }
        }
    }
}

/// A warning of a rule.
pub(crate) fn warning(rule: Rule, span: Span, message: impl Into<Cow<'static, str>>) -> Diagnostic {
    Diagnostic::warning(rule.name(), span, message).with_url(rule.url())
}
