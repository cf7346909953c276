//! Checks without a build, and mending what they find.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::fixture::{Fixture, Ran};

const FAULTY: &str = "FROM busybox AS App\nMAINTAINER Jo\nCMD echo hello\n";

fn json(ran: &Ran) -> Value {
    serde_json::from_slice(&ran.stdout).expect("JSON")
}

fn rules(document: &Value) -> Vec<&str> {
    let warnings = document["warnings"].as_array().expect("a list");
    warnings.iter().map(|warning| warning["ruleName"].as_str().expect("a name")).collect()
}

#[test]
fn a_build_can_be_checked_without_running() {
    let fixture = Fixture::with("FROM busybox\nRUN touch /ran; false\n");
    let ran = fixture.build(&["--check"]).ok();
    assert_eq!(ran.text(), "Check complete, no warnings found.\n");
    assert_eq!(ran.steps_run(), [""; 0]);

    fixture.write("Dockerfile", FAULTY);
    let ran = fixture.build(&["--check"]);
    assert_eq!(ran.code, 1);
    let text = ran.text();
    assert!(text.starts_with("Check complete, 3 warnings have been found!\n\nWARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/\nStage name 'App' should be lowercase\nDockerfile:1\n"), "{text}");
    assert!(text.contains("   1 | >>> FROM busybox AS App\n"), "{text}");
    assert!(!ran.stderr.contains("ERROR"), "{}", ran.stderr);
    fixture.build(&["--call=check,ignorestatus"]).ok();

    // A build tells the same at its end.
    let built = fixture.build(&["-o", "type=cacheonly"]).ok();
    assert!(built.stderr.contains(" 3 warnings found (use docker --debug to expand):\n - StageNameCasing: Stage name 'App' should be lowercase (line 1)\n"), "{}", built.stderr);
}

#[test]
fn checks_as_json_have_the_form_of_buildkit() {
    let fixture = Fixture::with(FAULTY);
    let ran = fixture.build(&["--call=check,format=json"]);
    assert_eq!(ran.code, 1);
    let document = json(&ran);
    assert_eq!(
        rules(&document),
        ["StageNameCasing", "MaintainerDeprecated", "JSONArgsRecommended"]
    );
    let first = &document["warnings"][0];
    assert_eq!(first["detail"], "Stage name 'App' should be lowercase");
    assert_eq!(first["url"], "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/");
    assert_eq!(
        first["location"],
        serde_json::json!({"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]})
    );
    assert_eq!(document["sources"][0]["filename"], "Dockerfile");
    assert!(document.get("buildError").is_none());

    fixture.write("Dockerfile", "FROM busybox\nMAINTAINER Jo\nNONSENSE\n");
    let document = json(&fixture.build(&["--call=check,format=json"]));
    assert_eq!(
        document["buildError"]["message"],
        "dockerfile parse error on line 3: unknown instruction: NONSENSE"
    );
    let error = fixture.build(&["--check"]).fails(1);
    assert!(error.contains("ERROR: dockerfile parse error on line 3"), "{error}");
}

#[test]
fn all_stages_are_looked_into_unless_one_is_named() {
    let fixture = Fixture::with("FROM busybox AS a\nCOPY $x /\nFROM busybox AS b\nCOPY $y /\n");
    assert_eq!(rules(&json(&fixture.build(&["--call=check,format=json"]))).len(), 2);
    assert_eq!(rules(&json(&fixture.build(&["--call=check,format=json", "--target=a"]))).len(), 1);
}

#[test]
fn errors_instead_of_warnings() {
    let fixture = Fixture::with("# check=error=true\nFROM busybox AS App\nMAINTAINER Jo\n");
    let error = fixture.build(&["-o", "type=cacheonly"]).fails(1);
    assert!(error.ends_with("ERROR: failed to build: failed to solve: lint violation found for rules: MaintainerDeprecated, StageNameCasing\n"), "{error}");
    assert!(
        error.contains(" - StageNameCasing: Stage name 'App' should be lowercase (line 2)\n"),
        "{error}"
    );
    let given = ["-o", "type=cacheonly", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"];
    let ran = fixture.build(&given).ok();
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
}

#[test]
fn what_can_be_given_and_what_can_be_built() {
    let fixture = Fixture::with(
        "FROM busybox AS lib\n# app is what runs\nFROM lib AS app\n# JOBS how many\nARG JOBS=2\nRUN true\n",
    );
    let outline = fixture.build(&["--call=outline"]).ok().text();
    assert_eq!(
        outline,
        "TARGET:      app\nDESCRIPTION: is what runs\n\nBUILD ARG   VALUE   DESCRIPTION\nJOBS        2       how many\n\n"
    );
    let document = json(&fixture.build(&["--call=outline,format=json", "--build-arg=JOBS=7"]).ok());
    assert_eq!(document["name"], "app");
    assert_eq!(document["args"][0]["value"], "7");
    let targets = fixture.build(&["--call=targets"]).ok().text();
    assert_eq!(targets, "TARGET          DESCRIPTION\nlib\napp (default)   is what runs\n");
    let document = json(&fixture.build(&["--call=targets,format=json"]).ok());
    assert_eq!(document["targets"][1]["base"], "lib");
    assert_eq!(document["targets"][1]["default"], true);
    fixture.build(&["--call=nonsense"]).fails(2);
}

#[test]
fn check_mends_what_it_can_and_only_once() {
    let fixture = Fixture::with(
        "from debian:12 as App\nARG VERSION=1\nRun apt-get update && apt-get install -y curl\nMaintainer Jo\nEXPOSE 80/TCP\nRUN echo $VERSION > /v\nCMD serve --port 80\n",
    );
    let path = fixture.context().join("Dockerfile");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("a mode");
    let context = fixture.context();
    let context = context.to_str().expect("a path");
    let before = fixture.run(["check", context]);
    assert_eq!(before.code, 1);
    assert!(before.text().contains("Rbuild/ArgDeclaredEarly"), "{}", before.text());
    assert!(before.text().contains("`rbuild check --fix` mends "), "{}", before.text());

    let fixed = fixture.run(["check", "--fix", context]).ok();
    assert_eq!(fixed.text(), "Dockerfile: no warnings\n");
    let text = std::fs::read_to_string(&path).expect("the file");
    assert_eq!(
        text,
        "FROM debian:12 AS app\nRUN apt-get update && apt-get install -y curl && rm -rf /var/lib/apt/lists/*\nLABEL org.opencontainers.image.authors=\"Jo\"\nEXPOSE 80/tcp\nARG VERSION=1\nRUN echo $VERSION > /v\nCMD [\"serve\", \"--port\", \"80\"]\n"
    );
    let metadata = std::fs::metadata(&path).expect("the file");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
    fixture.run(["check", "--fix", context]).ok();
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), text);
    let left = std::fs::read_dir(fixture.context()).expect("a folder").count();
    assert_eq!(left, 1, "nothing is left beside it");
}

#[test]
fn own_rules_are_not_those_of_a_build() {
    let fixture = Fixture::with("FROM busybox\nCOPY . /app\n");
    fixture.write(".env", "SECRET=1");
    let context = fixture.context();
    let context = context.to_str().expect("a path");
    let ran = fixture.run(["check", "--format=json", context]);
    assert_eq!((ran.code, rules(&json(&ran))), (1, vec!["Rbuild/SecretCopied"]));
    fixture.build(&["--check"]).ok();
    fixture.write(".dockerignore", ".env\n");
    fixture.run(["check", context]).ok();
    std::fs::remove_file(fixture.context().join(".dockerignore")).expect("it was there");
    fixture.write("Dockerfile", "# check=skip=Rbuild/SecretCopied\nFROM busybox\nCOPY . /app\n");
    fixture.run(["check", context]).ok();
}

#[test]
fn sarif_is_what_code_hosts_read() {
    let fixture = Fixture::with("FROM busybox AS é\nFROM busybox AS App\nMAINTAINER Jo\n");
    fixture.write("Dockerfile", "FROM busybox AS App\nLABEL é=1 X y\nNONSENSE\n");
    let ran = fixture.run(["check", "--format=sarif", "context"]);
    assert_eq!(ran.code, 1);
    validate_sarif(&json(&ran));
    fixture.write("Dockerfile", FAULTY);
    let document = json(&fixture.run(["check", "--format=sarif", "context"]));
    validate_sarif(&document);
    let results = document["runs"][0]["results"].as_array().expect("a list");
    assert_eq!(results.len(), 3);
    let location = &results[0]["locations"][0]["physicalLocation"];
    assert_eq!(location["artifactLocation"]["uri"], "context/Dockerfile");
    assert_eq!(
        location["region"],
        serde_json::json!({"startLine": 1, "startColumn": 17, "endLine": 1, "endColumn": 20})
    );
}

/// What section 3 of SARIF 2.1.0 demands of the parts that we write.
#[track_caller]
fn validate_sarif(document: &Value) {
    assert_eq!(document["version"], "2.1.0");
    assert!(document["$schema"].as_str().is_some_and(|schema| schema.contains("sarif-2.1.0")));
    for run in document["runs"].as_array().expect("runs") {
        let driver = &run["tool"]["driver"];
        assert!(driver["name"].is_string());
        let rules = driver["rules"].as_array().expect("rules");
        let mut ids: Vec<&str> =
            rules.iter().map(|rule| rule["id"].as_str().expect("an id")).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), rules.len(), "ids are distinct");
        for result in run["results"].as_array().expect("results") {
            assert!(
                ["none", "note", "warning", "error"]
                    .contains(&result["level"].as_str().expect("a level"))
            );
            assert!(result["message"]["text"].as_str().is_some_and(|text| !text.is_empty()));
            if let Some(index) = result.get("ruleIndex") {
                let index = usize::try_from(index.as_u64().expect("a number")).expect("small");
                assert_eq!(rules[index]["id"], result["ruleId"]);
            }
            for location in result["locations"].as_array().expect("locations") {
                validate_region(&location["physicalLocation"]["region"]);
            }
            for fix in result.get("fixes").and_then(Value::as_array).into_iter().flatten() {
                for change in fix["artifactChanges"].as_array().expect("changes") {
                    assert!(change["artifactLocation"]["uri"].is_string());
                    let replacements = change["replacements"].as_array().expect("replacements");
                    assert!(!replacements.is_empty());
                    replacements.iter().for_each(|one| validate_region(&one["deletedRegion"]));
                }
            }
        }
    }
}

#[track_caller]
fn validate_region(region: &Value) {
    let number = |key: &str| region[key].as_u64().expect("a number");
    let (start, end) =
        ((number("startLine"), number("startColumn")), (number("endLine"), number("endColumn")));
    assert!(start.0 >= 1 && start.1 >= 1 && start <= end, "{region}");
}
