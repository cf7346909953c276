//! The warnings that need evaluation.

use rbuild_frontend::BuildOptions;

use super::build::{Images, check_warnings_with, options, with_args};

fn check(text: &str, expected: &[&str]) {
    check_warnings_with(text, &options(), &Images::new(), expected);
}

#[test]
fn undefined_variables() {
    check(
        "FROM base\nARG KNOWN\nENV BAR=1\nCOPY $BAZ /$KNOWN\nWORKDIR /${foo}${foo:-x}\nENV X=${LATER_ON} LATER_ON=1\nRUN $NEVER\n",
        &[
            "UndefinedVar: Usage of undefined variable '$BAZ' (did you mean $BAR?) (line 4) <$BAZ>",
            "UndefinedVar: Usage of undefined variable '$foo' (line 5) <${foo}>",
            "UndefinedVar: Usage of undefined variable '$LATER_ON' (line 6) <${LATER_ON}>",
        ],
    );
    check(
        "FROM scratch\nCOPY <<a <<'b' /\n$X\na\n$Y\nb\n",
        &["UndefinedVar: Usage of undefined variable '$X' (line 3) <$X>"],
    );
}

#[test]
fn arguments_of_from() {
    check(
        "ARG TAGS=1\nFROM base${TAG}\nFROM --platform=${TARGETPLATFORMS:-linux/amd64} scratch AS amd64\n",
        &[
            "UndefinedArgInFrom: FROM argument 'TAG' is not declared (did you mean TAGS?) (line 2) <${TAG}>",
            "UndefinedArgInFrom: FROM argument 'TARGETPLATFORMS' is not declared (did you mean TARGETPLATFORM?) (line 3) <${TARGETPLATFORMS:-linux/amd64}>",
        ],
    );
    check_warnings_with(
        "ARG IMAGE\nARG TAG\nFROM $IMAGE AS a\nFROM base:$TAG AS b\nFROM a\n",
        &with_args(&[("IMAGE", "base"), ("TAG", "1")]),
        &Images::new(),
        &[
            "InvalidDefaultArgInFrom: Default value for ARG $IMAGE results in empty or invalid base image name (line 3) <$IMAGE>",
            "InvalidDefaultArgInFrom: Default value for ARG base:$TAG results in empty or invalid base image name (line 4) <base:$TAG>",
        ],
    );
}

#[test]
fn platforms_of_from() {
    check(
        "FROM --platform=$TARGETPLATFORM scratch\nFROM --platform=linux/amd64 scratch AS x\nFROM --platform=linux/amd64 scratch AS linux-x\nFROM --platform=$BUILDPLATFORM scratch\n",
        &[
            "RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1) <$TARGETPLATFORM>",
            "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\" (line 2) <linux/amd64>",
        ],
    );
    let images = Images::new().with("arm", r#"{"architecture":"arm64"}"#);
    check_warnings_with(
        "FROM arm\n",
        &options(),
        &images,
        &[
            "InvalidBaseImagePlatform: Base image arm was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for current build (line 1) <arm>",
        ],
    );
}

#[test]
fn relative_directories_and_secrets() {
    check(
        "FROM base\nWORKDIR a\nWORKDIR b\n",
        &[
            "WorkdirRelativePath: Relative workdir \"a\" can have unexpected results if the base image changes (line 2) <a>",
        ],
    );
    check("FROM base AS a\nWORKDIR /a\nFROM a\nWORKDIR b\n", &[]);
    check(
        "FROM base\nARG API_KEY=1 OK=1\nENV password=x KEY_FILE=y\n",
        &[
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"API_KEY\") (line 2) <API_KEY>",
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV \"password\") (line 3) <password>",
        ],
    );
}

#[test]
fn ignored_sources() {
    let ignoring = |patterns: &[&str]| BuildOptions {
        context_ignore: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
        ..options()
    };
    let text =
        "FROM base AS a\nFROM base\nCOPY ./tmp/x ok /\nADD tmp /\nCOPY . /\nCOPY --from=a tmp /\n";
    check_warnings_with(
        text,
        &ignoring(&["tmp"]),
        &Images::new(),
        &[
            "CopyIgnoredFile: Attempting to Copy file \"tmp/x\" that is excluded by .dockerignore (line 3) <./tmp/x>",
            "CopyIgnoredFile: Attempting to Add file \"tmp\" that is excluded by .dockerignore (line 4) <tmp>",
        ],
    );
    check_warnings_with(text, &ignoring(&["tmp", "!tmp/y"]), &Images::new(), &[]);
    check_warnings_with(
        "FROM scratch\nCOPY . /\n",
        &ignoring(&["*"]),
        &Images::new(),
        &[
            "CopyIgnoredFile: Attempting to Copy file \".\" that is excluded by .dockerignore (line 2) <.>",
        ],
    );
}
