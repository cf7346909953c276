//! Lint warnings, and which of them are wanted.

use rbuild_frontend::{CheckOptionError, Checks, Diagnostic, Source, apply_fixes};

use super::read;

fn linted(text: &str) -> (Vec<String>, Vec<Diagnostic>) {
    let (source, dockerfile) = read(text);
    assert!(!dockerfile.has_errors(), "{text}: {:?}", dockerfile.diagnostics);
    let found = Checks::of(&dockerfile, None)
        .unwrap()
        .filter(&dockerfile, rbuild_frontend::check(&dockerfile));
    (found.iter().map(|diagnostic| dockerfile.compat_message(&source, diagnostic)).collect(), found)
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(linted(text).0, expected, "{text}");
}

/// Asserts the text after all fixes.
#[track_caller]
fn check_fixed(text: &str, expected: &str) {
    let source = Source::new("Dockerfile", text).unwrap();
    let fixed = apply_fixes(&source, &linted(text).1);
    assert_eq!((fixed.text.as_str(), fixed.postponed), (expected, 0));
    assert_eq!(linted(expected).0, [""; 0], "{expected}");
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
        &["NoEmptyContinuation: Empty continuation line (line 5)"],
    );
    check_fixed("FROM a\nRUN b \\\n\n  \n  c \\\n\n d", "FROM a\nRUN b \\\n  c \\\n d");
}

#[test]
fn maintainers() {
    check(
        "FROM a\nMAINTAINER b\n",
        &[
            "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)",
        ],
    );
    check_fixed(
        "FROM a\nMAINTAINER b \"c\"\n",
        "FROM a\nLABEL org.opencontainers.image.authors=\"b \\\"c\\\"\"\n",
    );
    check_fixed(
        "# escape=`\nFROM a\nMAINTAINER \"c\" $d\\e`f\n",
        "# escape=`\nFROM a\nLABEL org.opencontainers.image.authors=\"`\"c`\" `$d\\e``f\"\n",
    );
}

#[test]
fn descriptions() {
    let on = "# check=experimental=InvalidDefinitionDescription\n\n";
    let stage = |line: u32| {
        format!(
            "InvalidDefinitionDescription: Comment for FROM should follow the format: `# b <description>` (line {line})"
        )
    };
    let text = "# what it is\nFROM a AS b\n";
    check(text, &[]);
    check(&format!("{on}{text}"), &[&stage(4)]);
    check(&format!("{}{text}", on.replace("InvalidDefinitionDescription", "all")), &[&stage(4)]);
    check_fixed(&format!("{on}{text}"), &format!("{on}# what it is\n\nFROM a AS b\n"));
    for fine in [
        "# b is what it is\nFROM a AS b\n",
        "# what it is\n\nFROM a AS b\n",
        "# what it is\n#\nFROM a AS b\n",
        "# what it is\nFROM a\n",
        "# check=skip=StageNameCasing\nFROM a AS b\n",
        "# y is one of two\nARG x y\nFROM a\n",
    ] {
        check(&format!("{on}{fine}"), &[]);
    }
    check(
        &format!("{on}# one\nARG x\n# x\n# both\nARG x y\nFROM a\n"),
        &[
            "InvalidDefinitionDescription: Comment for ARG should follow the format: `# x <description>` (line 4)",
            "InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>` (line 7)",
        ],
    );
}

#[test]
fn what_the_build_argument_says_replaces_what_the_file_says() {
    let (_, dockerfile) = read("# check=skip=all\nFROM a AS B\nMAINTAINER c\n");
    let codes = |given: Option<&str>| -> Vec<&str> {
        let checks = Checks::of(&dockerfile, given).unwrap();
        let found = checks.filter(&dockerfile, rbuild_frontend::check(&dockerfile));
        found.iter().map(|diagnostic| diagnostic.code).collect()
    };
    assert_eq!(codes(None), [""; 0]);
    assert_eq!(codes(Some("")), ["StageNameCasing", "MaintainerDeprecated"]);
    assert_eq!(
        codes(Some("skip=StageNameCasing;error=true")),
        ["MaintainerDeprecated", "lint-violation"]
    );
    assert!(Checks::of(&dockerfile, Some("x")).is_err());
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
        Err(CheckOptionError::NotBoolean { option: "error=maybe".into(), value: "maybe".into() })
    );
    let (source, dockerfile) = read("# check=foo=1\nFROM a\n");
    let error = Checks::of(&dockerfile, None).unwrap_err();
    assert_eq!(
        dockerfile.compat_message(&source, &error),
        "failed to parse check options: invalid check option \"foo\""
    );
}
