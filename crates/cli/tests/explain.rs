//! `rbuild explain`: why a step ran.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::fixture::Fixture;

const DOCKERFILE: &str = "FROM busybox AS tools\nRUN echo tool > /tool\nFROM busybox\nARG VERSION=1\nCOPY src /src\n\
    RUN echo $VERSION > /version\nCOPY --from=tools /tool /tool\nRUN cat /src/* /tool\n";

#[track_caller]
fn explains(fixture: &Fixture, args: &[&str], parts: &[&str]) {
    let text = fixture.run([&["explain"], args].concat()).ok().text();
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

#[test]
fn privileged_the_first_difference_is_told() {
    let fixture = Fixture::with(DOCKERFILE);
    fixture.write("src/a", "a");
    fixture.write("src/b", "b");
    let nowhere = ["-o", "type=cacheonly"];
    fixture.build(&nowhere).ok();
    explains(
        &fixture,
        &[],
        &["] RUN echo tool > /tool\n    ran: it was never built before", "] COPY src /src\n"],
    );
    fixture.build(&nowhere).ok();
    explains(&fixture, &[], &["Every step of build", "came from the cache."]);
    explains(&fixture, &["COPY src"], &["came from the cache"]);

    // A file of the context: content, mode, one more, one less.
    fixture.write("src/a", "changed");
    fs::set_permissions(fixture.context().join("src/b"), fs::Permissions::from_mode(0o755))
        .expect("a mode");
    fixture.write("src/c", "new");
    fixture.build(&nowhere).ok();
    explains(
        &fixture,
        &[],
        &[
            "] COPY src /src\n    ran: files of the context \"context\" changed",
            "content changed: src/a\n",
            "mode changed: src/b (mode 755, was 644)\n",
            "added: src/c\n",
            "compared with build",
        ],
    );
    explains(
        &fixture,
        &["RUN cat"],
        &["ran: what it builds on changed", "] COPY src /src", "content changed: src/a"],
    );

    // An argument.
    let told =
        fixture.build(&["-o", "type=cacheonly", "--build-arg", "VERSION=2", "--explain"]).ok();
    let part = "ran: the variable VERSION (ARG or ENV) is \"2\", and was \"1\"";
    assert!(told.stderr.contains(part), "{}", told.stderr);
    explains(&fixture, &["> /version"], &[part]);

    // The text of a command.
    let changed = DOCKERFILE.replace("echo tool >", "echo hammer >");
    fixture.write("Dockerfile", &changed);
    fixture.build(&nowhere).ok();
    explains(
        &fixture,
        &[],
        &["ran: the command is \"echo hammer > /tool\", and was \"echo tool > /tool\""],
    );

    // Nothing but the user's word.
    fixture.build(&["-o", "type=cacheonly", "--no-cache"]).ok();
    explains(&fixture, &["echo hammer"], &["ran: --no-cache"]);

    // What is known no more.
    fixture.run(["prune", "--keep-duration", "0s"]).ok();
    fixture.build(&nowhere).ok();
    explains(&fixture, &["echo hammer"], &["its result is gone (pruned)"]);

    // Something new in between, and then what failed.
    fixture.write("Dockerfile", changed.replace("RUN cat", "RUN echo new line\nRUN cat"));
    fixture.build(&nowhere).ok();
    explains(&fixture, &["RUN echo new line"], &["ran: it was never built before"]);
    explains(&fixture, &["RUN cat"], &["what it builds on changed: #9 [stage-1 4/6] RUN echo new"]);
    fixture.write("Dockerfile", changed.replace("RUN cat", "RUN false && cat"));
    fixture.build(&nowhere).fails(1);
    fixture.build(&nowhere).fails(1);
    explains(&fixture, &[], &["ran: it failed in build"]);

    let lines = fixture.run(["explain", "--json", "--all"]).ok().text();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.iter().any(|line| line["cause"]["why"] == "failed-before"), "{lines:?}");
    assert!(lines.iter().any(|line| line["cause"]["why"] == "cached"), "{lines:?}");
    explains(&fixture, &["--timings"], &["STEP", "RUN false && cat", "failed"]);
    let error = fixture.run(["explain", "--build", "nonsense"]).fails(2);
    assert!(
        error.contains("no build `nonsense` is remembered") && error.contains("the latest ones"),
        "{error}"
    );
}

#[test]
fn privileged_another_base_image_and_secret_are_told() {
    let fixture = Fixture::with("FROM busybox\nRUN --mount=type=secret,id=one true\n");
    fixture.build(&["--secret", "id=one,env=HOME"]).ok();
    fixture.write("Dockerfile", "FROM busybox\nRUN --mount=type=secret,id=two true\n");
    fixture.build(&["--secret", "id=two,env=HOME"]).ok();
    explains(&fixture, &["true"], &["the mount at /run/secrets/two is new: \"type=secret,id=two"]);
    let again = fixture.run(["why", "true"]).ok().text();
    assert!(again.contains("is gone: \"type=secret,id=one"), "{again}");
    let error = Fixture::new().run(["explain"]).fails(2);
    assert!(error.contains("there is no store in"), "{error}");
}
