//! The warnings that need evaluation.

use rbuild_frontend::{
    BuildOptions, Diagnostic, ImageSet, Source, Stages, apply_fixes, evaluate, parse,
};

use super::build::{Images, check_warnings_with, options, with_args};

/// What `rbuild check` would say without looking at any image.
fn found(text: &str) -> (Source, Vec<Diagnostic>) {
    let source = Source::new("Dockerfile", text).unwrap();
    let dockerfile = parse(&source);
    let found = evaluate(&dockerfile, &options(), &ImageSet::new(), Stages::All).diagnostics;
    (source, found)
}

/// Asserts the text after all fixes.
#[track_caller]
fn check_fixed(text: &str, expected: &str) {
    let (source, diagnostics) = found(text);
    assert_eq!(apply_fixes(&source, &diagnostics).text, expected);
    assert_eq!(found(expected).1.iter().filter(|left| !left.fixes.is_empty()).count(), 0);
}

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
fn variables_of_ports_may_be_undefined() {
    check("FROM scratch\nEXPOSE ${PORT:-80} $NONE\n", &[]);
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

#[test]
fn commands() {
    let json = |name: &str, line: u32, marked: &str| {
        format!(
            "JSONArgsRecommended: JSON arguments recommended for {name} to prevent unintended behavior related to OS signals (line {line}) <{marked}>"
        )
    };
    check(
        "FROM base\nCMD b\nENTRYPOINT c",
        &[&json("CMD", 2, "CMD b"), &json("ENTRYPOINT", 3, "ENTRYPOINT c")],
    );
    check("FROM base\nSHELL [\"x\"]\nCMD b", &[]);
    check("FROM base AS b\nSHELL [\"x\"]\nFROM b\nCMD c\n", &[]);
    // A shell that the base image chose is a choice, too.
    let images = Images::new().with("shell", r#"{"config":{"Shell":["bash","-c"]}}"#);
    check_warnings_with("FROM shell\nCMD b\n", &options(), &images, &[]);
    check(
        "FROM base AS other\nCMD [\"a\"]\nFROM base\nCMD [\"a\"]\nCMD [\"b\"]\nHEALTHCHECK NONE\nHEALTHCHECK CMD e",
        &[
            "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 4) <CMD [\"a\"]>",
            "MultipleInstructionsDisallowed: Multiple HEALTHCHECK instructions should not be used in the same stage because only the last one will be used (line 6) <HEALTHCHECK NONE>",
        ],
    );
    check_fixed(
        "FROM base\nENTRYPOINT serve -p 80\n",
        "FROM base\nENTRYPOINT [\"serve\", \"-p\", \"80\"]\n",
    );
    assert!(found("FROM base\nCMD a \\\n# why\n b\n").1[0].fixes.is_empty(), "a comment would go");
}

#[test]
fn old_forms() {
    check(
        "FROM base\nENV a b\nLABEL c d\nENV e=f g=h\n",
        &[
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2) <ENV a b>",
            "LegacyKeyValueFormat: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format (line 3) <LABEL c d>",
        ],
    );
    check_fixed("FROM base\nENV a b\nLABEL c d e\n", "FROM base\nENV a=b\nLABEL c=\"d e\"\n");
    // Not mended: nobody can say what the quotes were meant to be.
    assert!(found("FROM base\nENV a \"b c\" d").1[0].fixes.is_empty());
}

#[test]
fn ports() {
    check(
        "FROM base\nARG p=53/UDP\nEXPOSE 80/TcP 1.2.3.4:80:80 $p 90/tcp 91\n",
        &[
            "ExposeProtoCasing: Defined protocol '80/TcP' in EXPOSE instruction should be lowercase (line 3) <80/TcP>",
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '1.2.3.4:80:80' (line 3) <1.2.3.4:80:80>",
            "ExposeProtoCasing: Defined protocol '53/UDP' in EXPOSE instruction should be lowercase (line 3) <$p>",
        ],
    );
    check_fixed(
        "FROM base\nEXPOSE 80/TcP 1.2.3.4:80:81/UDP\n",
        "FROM base\nEXPOSE 80/tcp 81/udp\n",
    );
}

#[test]
fn stages_that_are_not_built_give_warnings_only_when_all_are_looked_into() {
    let text = "FROM base AS a\nCOPY $x /\nFROM base AS b\nCOPY $y /\n";
    let codes = |stages| {
        let dockerfile = parse(&Source::new("Dockerfile", text).unwrap());
        let images = Images::new().known(&["base"]);
        let found = evaluate(&dockerfile, &options(), &images, stages).diagnostics;
        found.iter().map(|diagnostic| diagnostic.message.to_string()).collect::<Vec<_>>()
    };
    let of = |name: &str| format!("Usage of undefined variable '${name}'");
    assert_eq!(codes(Stages::Target), [of("y")]);
    assert_eq!(codes(Stages::All), [of("x"), of("y")]);
    // What an unknown base could define is left unsaid.
    assert_eq!(found(text).1, []);
}

#[test]
fn redundant_platforms_are_taken_out() {
    check_fixed("FROM --platform=$TARGETPLATFORM base AS a\n", "FROM base AS a\n");
}

#[test]
fn triggers_are_not_mended_where_they_are_used() {
    let images = Images::new().with("onbuild", r#"{"config":{"OnBuild":["ENV a b"]}}"#);
    check_warnings_with(
        "FROM onbuild\n",
        &options(),
        &images,
        &[
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 1) <onbuild>",
        ],
    );
}
