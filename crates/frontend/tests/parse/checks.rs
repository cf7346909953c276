//! Lint warnings, and which of them are wanted.

use rbuild_frontend::{CheckOptionError, Checks, Diagnostic};

use super::read;

fn linted(text: &str) -> (Vec<String>, Vec<Diagnostic>) {
    let (source, dockerfile) = read(text);
    assert!(!dockerfile.has_errors(), "{text}: {:?}", dockerfile.diagnostics);
    let found =
        Checks::of(&dockerfile).unwrap().filter(&dockerfile, rbuild_frontend::check(&dockerfile));
    (found.iter().map(|diagnostic| dockerfile.compat_message(&source, diagnostic)).collect(), found)
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(linted(text).0, expected, "{text}");
}

/// Asserts the text after all fixes.
#[track_caller]
fn check_fixed(text: &str, expected: &str) {
    let mut edits: Vec<_> =
        linted(text).1.into_iter().flat_map(|diagnostic| diagnostic.fixes).collect();
    edits.sort_by_key(|edit| std::cmp::Reverse(edit.span));
    let mut fixed = text.to_owned();
    for edit in edits {
        fixed.replace_range(edit.span.range(), &edit.replacement);
    }
    assert_eq!(fixed, expected);
    assert_eq!(linted(&fixed).0, [""; 0], "{fixed}");
}

#[test]
fn clean_files() {
    check("FROM a AS b\nRUN c\nCMD [\"d\"]\nFROM b\nENV a=b\nEXPOSE 80/tcp $x/Y\n", &[]);
    check("from a as b\nrun c\n", &[]);
    check("ARG a\nfrom b\nrun c\n", &[]);
}

#[test]
fn stage_names() {
    check("FROM a AS Bc", &["StageNameCasing: Stage name 'Bc' should be lowercase (line 1)"]);
    check("FROM a as b", &["FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"]);
    check(
        "from a AS b\nrun c",
        &["FromAsCasing: 'AS' and 'from' keywords' casing do not match (line 1)"],
    );
    check(
        "FROM a AS b\nFROM c AS B",
        &[
            "StageNameCasing: Stage name 'B' should be lowercase (line 2)",
            "DuplicateStageName: Duplicate stage name \"b\", stage names should be unique (line 2)",
        ],
    );
    check(
        "FROM a AS scratch\nFROM b AS context",
        &[
            "ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\" (line 1)",
            "ReservedStageName: Stage name should not use the same name as reserved stage \"context\" (line 2)",
        ],
    );
    check_fixed("FROM a as Bc\n", "FROM a AS bc\n");
}

#[test]
fn instruction_casing() {
    let message =
        "ConsistentInstructionCasing: Command 'Run' should match the case of the command majority";
    check("FROM a\nRun b", &[&format!("{message} (uppercase) (line 2)")]);
    check("from a\nRun b", &[&format!("{message} (lowercase) (line 2)")]);
    check_fixed(
        "from a\nrun b\nRUN c\nENV a=b\nUSER x\n",
        "FROM a\nRUN b\nRUN c\nENV a=b\nUSER x\n",
    );
}

#[test]
fn continuations() {
    check(
        "FROM a\nRUN b \\\n\n\n  c\n",
        &["NoEmptyContinuation: Empty continuation line (line 2)"],
    );
    check_fixed("FROM a\nRUN b \\\n\n  \n  c \\\n\n d", "FROM a\nRUN b \\\n  c \\\n d");
}

#[test]
fn commands() {
    let json = |name: &str, line: u32| {
        format!(
            "JSONArgsRecommended: JSON arguments recommended for {name} to prevent unintended behavior related to OS signals (line {line})"
        )
    };
    check("FROM a\nCMD b\nENTRYPOINT c", &[&json("CMD", 2), &json("ENTRYPOINT", 3)]);
    check("FROM a\nSHELL [\"x\"]\nCMD b", &[]);
    check("FROM a AS b\nSHELL [\"x\"]\nFROM b\nCMD c\nFROM d\nCMD e", &[&json("CMD", 6)]);
    check(
        "FROM a\nCMD [\"a\"]\nCMD [\"b\"]\nFROM c\nCMD [\"d\"]\nHEALTHCHECK NONE\nHEALTHCHECK CMD e",
        &[
            "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)",
            "MultipleInstructionsDisallowed: Multiple HEALTHCHECK instructions should not be used in the same stage because only the last one will be used (line 6)",
        ],
    );
}

#[test]
fn old_forms() {
    check(
        "FROM a\nMAINTAINER b\nENV a b\nLABEL c d",
        &[
            "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)",
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 3)",
            "LegacyKeyValueFormat: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format (line 4)",
        ],
    );
    check_fixed(
        "FROM a\nMAINTAINER b \"c\"\nENV a b\nLABEL c d e\n",
        "FROM a\nLABEL org.opencontainers.image.authors=\"b \\\"c\\\"\"\nENV a=b\nLABEL c=\"d e\"\n",
    );
    // Not mended: nobody can say what the quotes were meant to be.
    assert!(linted("FROM a\nENV a \"b c\" d").1[0].fixes.is_empty());
}

#[test]
fn ports() {
    check(
        "FROM a\nEXPOSE 80/TcP 1.2.3.4:80:80",
        &[
            "ExposeProtoCasing: Defined protocol '80/TcP' in EXPOSE instruction should be lowercase (line 2)",
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '1.2.3.4:80:80' (line 2)",
        ],
    );
}

#[test]
fn what_is_wanted() {
    let text = "FROM a AS B\nMAINTAINER c\n";
    let both = ["StageNameCasing", "MaintainerDeprecated"];
    let codes =
        |text: &str| linted(text).1.iter().map(|diagnostic| diagnostic.code).collect::<Vec<_>>();
    assert_eq!(codes(text), both);
    assert_eq!(codes(&format!("# check=skip=all\n{text}")), [""; 0]);
    assert_eq!(
        codes(&format!("# check=skip=StageNameCasing, X\n{text}")),
        ["MaintainerDeprecated"]
    );
    assert_eq!(
        codes(&format!("# check=skip=StageNameCasing,MaintainerDeprecated;error=true\n{text}")),
        [""; 0]
    );
    assert_eq!(
        codes("\n# check=skip=StageNameCasing\nFROM a AS B\nMAINTAINER c\n"),
        ["MaintainerDeprecated"]
    );
    assert_eq!(codes("\n# check=skip=all\nFROM a AS B\nMAINTAINER c\n"), ["MaintainerDeprecated"]);

    let (messages, found) = linted(&format!("# check=error=true\n{text}"));
    let error = found.last().unwrap();
    assert!(error.is_error());
    assert_eq!(
        error.message,
        "lint violation found for rules: MaintainerDeprecated, StageNameCasing"
    );
    assert_eq!(messages.len(), 3);
}

#[test]
fn options() {
    assert_eq!(Checks::parse(" "), Ok(Checks::default()));
    assert_eq!(Checks::parse("foo=1"), Err(CheckOptionError::Unknown("foo".into())));
    assert_eq!(Checks::parse("skip"), Err(CheckOptionError::Unknown("skip".into())));
    assert_eq!(
        Checks::parse("error=maybe"),
        Err(CheckOptionError::NotBoolean("error=maybe".into()))
    );
    let (source, dockerfile) = read("# check=foo=1\nFROM a\n");
    let error = Checks::of(&dockerfile).unwrap_err();
    assert_eq!(
        dockerfile.compat_message(&source, &error),
        "dockerfile parse error on line 1: invalid check option \"foo\""
    );
}
