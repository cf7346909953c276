//! Which crate may use which: section 3 of the design, held by a test.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// What each crate may use of the workspace. An arrow that is added here is added to ARCHITECTURE.md too.
const ALLOWED: [(&str, &[&str]); 7] = [
    ("rbuild-oci", &[]),
    ("rbuild-solver", &["rbuild-oci"]),
    ("rbuild-frontend", &["rbuild-oci", "rbuild-solver"]),
    ("rbuild-cache", &["rbuild-oci", "rbuild-solver"]),
    ("rbuild-worker", &["rbuild-oci", "rbuild-solver", "rbuild-cache"]),
    ("rbuild-exporter", &["rbuild-oci", "rbuild-solver", "rbuild-cache"]),
    (
        "rbuild-cli",
        &[
            "rbuild-oci",
            "rbuild-solver",
            "rbuild-frontend",
            "rbuild-cache",
            "rbuild-worker",
            "rbuild-exporter",
        ],
    ),
];

#[test]
fn dependencies_point_where_the_design_says() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        let ours =
            package["dependencies"].as_array().expect("dependencies").iter().filter(|dependency| {
                dependency["kind"].is_null()
                    && dependency["name"].as_str().is_some_and(|name| name.starts_with("rbuild-"))
            });
        for dependency in ours {
            let used = dependency["name"].as_str().expect("a name");
            if name == "rbuild-testdata" {
                panic!("{name} is for tests and stands alone, yet uses {used}");
            }
            assert!(allowed[name].contains(&used), "{name} may not use {used}");
        }
    }
}
