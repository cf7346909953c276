//! What runs again, and what does not.

use std::fs;
use std::process::Stdio;

use crate::fixture::{Fixture, ran, read};

const TWO_STAGES: &str = "FROM busybox AS made\n\
    COPY source /source\n\
    RUN wc -c < /source > /size; cat /proc/sys/kernel/random/uuid > /id\n\
    FROM busybox\n\
    COPY --from=made /size /size\n\
    RUN cp /size /final; cat /proc/sys/kernel/random/uuid > /final-id\n";

#[test]
fn privileged_an_unchanged_build_runs_nothing() {
    let fixture = Fixture::with(TWO_STAGES);
    fixture.write("source", "text");
    let first = fixture.build(&["-o", "type=cacheonly"]).ok();
    let steps =
        first.steps_run().into_iter().filter(|step| step.contains("RUN") || step.contains("COPY"));
    assert_eq!(steps.count(), 4, "{}", first.stderr);
    let second = fixture.build(&["-o", "type=cacheonly"]).ok();
    assert_eq!(second.steps_run(), [""; 0], "{}", second.stderr);
}

#[test]
fn privileged_times_do_not_count_but_contents_do() {
    let fixture = Fixture::with(TWO_STAGES);
    fixture.write("source", "text");
    let out = fixture.build_files(&[]);
    let id = read(&out, "final-id");

    fixture.write("source", "text");
    assert_eq!(read(&fixture.build_files(&[]), "final-id"), id, "a new time is no change");

    // Another text of the same length: the first stage runs, its result is the same, so the last one is known.
    fixture.write("source", "TEXT");
    let ran = fixture.build(&["-o", "type=cacheonly"]).ok();
    assert!(ran.steps_run().iter().any(|step| step.contains("RUN wc")), "{}", ran.stderr);
    assert_eq!(read(&fixture.build_files(&[]), "final-id"), id);

    fixture.write("source", "longer text");
    assert_ne!(read(&fixture.build_files(&[]), "final-id"), id);
}

#[test]
fn privileged_no_cache_runs_again() {
    let fixture = Fixture::with(TWO_STAGES);
    fixture.write("source", "text");
    let id = read(&fixture.build_files(&[]), "final-id");
    assert_ne!(read(&fixture.build_files(&["--no-cache"]), "final-id"), id);
    let id = read(&fixture.build_files(&[]), "final-id");
    assert_eq!(read(&fixture.build_files(&["--no-cache-filter", "made"]), "final-id"), id);
}

#[test]
fn privileged_two_builds_share_one_run() {
    let fixture =
        Fixture::with("FROM busybox\nRUN sleep 1; cat /proc/sys/kernel/random/uuid > /id\n");
    let start = |out: &str| {
        let spec = format!("type=local,dest={}", fixture.path(out).display());
        fixture
            .build_command("store", &["-o", &spec])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("rbuild starts")
    };
    let (one, two) = (start("one"), start("two"));
    for child in [one, two] {
        ran(child.wait_with_output().expect("rbuild ends")).ok();
    }
    assert_eq!(read(&fixture.path("one"), "id"), read(&fixture.path("two"), "id"));
}

#[test]
fn privileged_only_what_is_used_is_looked_at() {
    let fixture = Fixture::with("FROM busybox\nCOPY used /used\n");
    fixture.write("used", "x");
    fixture.write("other/file", "y");
    fixture.build(&["-o", "type=cacheonly"]).ok();
    // A folder that nobody may read does no harm as long as no instruction wants it.
    let other = fixture.context().join("other");
    let mode = |bits| -> fs::Permissions { std::os::unix::fs::PermissionsExt::from_mode(bits) };
    fs::set_permissions(&other, mode(0)).expect("the mode");
    fixture.build(&["-o", "type=cacheonly"]).ok();
    fs::set_permissions(&other, mode(0o755)).expect("the mode");
}

#[test]
fn privileged_unreachable_stages_are_not_looked_at() {
    let fixture = Fixture::with(
        "FROM nowhere.invalid/no/such:image AS unused\nRUN false\nFROM busybox AS wanted\nRUN true\nFROM wanted AS last\nRUN false\n",
    );
    fixture.build(&["--target", "wanted", "-o", "type=cacheonly"]).ok();
}
