//! What goes wrong is said, and does no harm.

use std::fs;
use std::io::Read as _;
use std::process::Stdio;

use crate::fixture::{Fixture, ran, skipped};

#[test]
fn privileged_a_failed_step_is_shown_with_its_output_and_its_line() {
    let fixture = Fixture::with(
        "FROM busybox\nRUN true\nRUN echo before; echo problem >&2; exit 7\nRUN true\n",
    );
    let error = fixture.build(&[]).fails(1);
    for part in [
        "] RUN echo before; echo problem >&2; exit 7:",
        "\nproblem\n",
        "   3 | >>> RUN echo before",
        "did not complete successfully: exit code: 7",
        "ERROR: failed to build: failed to solve: process",
    ] {
        assert!(error.contains(part), "`{part}` is not in:\n{error}");
    }
}

#[test]
fn privileged_a_step_does_not_say_how_it_ended_but_by_ending() {
    let fixture = Fixture::with(
        "FROM busybox\nRUN for fd in $(ls /proc/1/fd); do if [ $fd -gt 2 ]; then \
         echo 01234567 > /proc/1/fd/$fd; fi; done; exit 3\n",
    );
    let error = fixture.build(&[]).fails(1);
    assert!(error.contains("did not complete successfully: exit code: 3"), "{error}");
}

#[test]
fn privileged_what_finished_before_a_failure_stays_known() {
    let fixture = Fixture::with("FROM busybox\nRUN echo first\nRUN false\n");
    fixture.build(&[]).fails(1);
    let again = fixture.build(&[]);
    assert!(
        again.steps_cached().iter().any(|step| step.contains("RUN echo first")),
        "{}",
        again.stderr
    );
    again.fails(1);
}

#[test]
fn privileged_what_cannot_be_run_or_found_is_said_in_words_that_people_know() {
    let fixture = Fixture::new();
    fixture.write("a", "1");
    for (line, expected) in [
        (
            "RUN [\"nosuch\", \"a\"]",
            "process \"nosuch a\" did not complete successfully: exec: \"nosuch\": executable file not found in $PATH\n",
        ),
        (
            "SHELL [\"/bin/bash\", \"-c\"]\nRUN x",
            "process \"/bin/bash -c x\" did not complete successfully: exec: \"/bin/bash\": stat /bin/bash: no such file or directory\n",
        ),
        ("RUN [\"/etc/passwd\"]", "exec: \"/etc/passwd\": permission denied\n"),
        (
            "USER nosuch\nRUN x",
            "process \"/bin/sh -c x\" did not complete successfully: unable to find user nosuch: ",
        ),
        ("WORKDIR /etc/passwd", "mkdir /etc/passwd: not a directory\n"),
        ("RUN nosuch", "did not complete successfully: exit code: 127\n"),
        ("COPY a[ /", "syntax error in pattern `a[`"),
    ] {
        fixture.write("Dockerfile", format!("FROM busybox\n{line}\n"));
        let error = fixture.build(&["-o", "type=cacheonly"]).fails(1);
        assert!(error.contains("ERROR: failed to build: failed to solve: "), "{error}");
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn all_faults_of_a_file_come_at_once() {
    let fixture = Fixture::with("FROM busybox\nCOPPY a b\nRUN --mont=x y\nEXPOSE\n");
    let error = fixture.build(&[]).fails(1);
    for part in [
        "unknown instruction: COPPY",
        "did you mean COPY?",
        "unknown flag: --mont",
        "EXPOSE requires",
    ] {
        assert!(error.contains(part), "`{part}` is not in:\n{error}");
    }
}

#[test]
fn hostile_files_are_refused_in_words() {
    let many: String =
        (0..10_000).map(|stage| format!("FROM s{} AS s{stage}\n", stage + 1)).collect();
    for (name, text) in [
        ("empty", Vec::new()),
        ("binary", (0..=255_u8).cycle().take(100_000).collect()),
        ("one long line", vec![b'a'; 10 << 20]),
        ("a cycle", b"FROM b AS a\nFROM a AS b\nCOPY --from=b x y\n".to_vec()),
        ("stages without end", many.into_bytes()),
    ] {
        let fixture = Fixture::new();
        fixture.write("Dockerfile", text);
        let error = fixture.build(&["--network", "none"]).fails(1);
        assert!(
            error.contains("ERROR: ") && error.len() < 100_000,
            "{name}: {} bytes",
            error.len()
        );
        assert!(!error.contains("panicked"), "{name}: {error}");
    }
}

#[test]
fn what_is_missing_is_named() {
    for (dockerfile, part) in [
        ("FROM busybox\nCOPY nothing /\n", "\"/nothing\": not found"),
        ("FROM busybox\nCOPY --from=nobody /a /b\n", "nobody"),
        ("FROM 127.0.0.1:1/no:registry\n", "127.0.0.1:1"),
        ("FROM busybox AS one\n", "target stage \"two\" could not be found"),
    ] {
        let fixture = Fixture::with(dockerfile);
        let args: &[&str] = if part.contains("target") { &["--target", "two"] } else { &[] };
        let error = fixture.build(args).fails(1);
        assert!(error.contains(part), "`{part}` is not in:\n{error}");
    }
}

#[test]
fn flags_that_are_yet_to_come_are_refused() {
    let fixture = Fixture::with("FROM scratch\n");
    let error = fixture.build(&["--squash"]).fails(2);
    assert!(error.contains("-o type=image,layers=squash"), "{error}");
    let error = fixture.build(&["--builder", "other"]).fails(2);
    assert!(error.contains("not supported yet"), "{error}");
}

#[test]
fn privileged_killed_at_any_moment_the_next_build_works() {
    let fixture = Fixture::with(
        "FROM busybox\nCOPY files /files\nRUN find /files | wc -l > /count\nRUN sleep 0.2; echo done > /done\n",
    );
    for index in 0..300 {
        fixture.write(&format!("files/{index}"), index.to_string());
    }
    // Not a timing: each run is killed after it printed one line more than the one before.
    for lines in [1, 3, 6, 9, 12] {
        let mut child = fixture
            .build_command("store", &["-o", "type=cacheonly"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("rbuild starts");
        let stderr = std::io::BufReader::new(child.stderr.take().expect("a pipe"));
        let _ = std::io::BufRead::lines(stderr).take(lines).count();
        let _ = child.kill();
        child.wait().expect("it ends");
    }
    fixture.build(&["-t", "after", "-o", "type=image"]).ok();
    let out = fixture.build_files(&[]);
    assert_eq!(fs::read_to_string(out.join("count")).expect("a count").trim(), "301");
    let pending = fs::read_dir(fixture.path("store/tmp")).expect("the store").count();
    assert!(pending <= 1, "{pending} things are left of killed builds");
}

#[test]
fn privileged_interrupted_a_build_ends_at_once_and_leaves_nothing_running() {
    let fixture = Fixture::with("FROM busybox\nRUN echo started; sleep 1000\n");
    let mut child = fixture
        .build_command("store", &[])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("rbuild starts");
    let mut stderr = std::io::BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("started\n") || line.contains("RUN") {
        line.clear();
        let read = std::io::BufRead::read_line(&mut stderr, &mut line).expect("output");
        assert_ne!(read, 0, "it ended before the step began");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stderr, &mut rest).expect("output");
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{rest}");
    // It is known of the step what it was and what it began with.
    let explained = fixture.run(["explain"]).ok().text();
    assert!(explained.contains("RUN echo started") && explained.contains("ran: "), "{explained}");
    let before = fixture.run(["debug", "RUN", "--before", "--", "ls", "/bin/busybox"]).ok();
    assert_eq!(before.text(), "/bin/busybox\n");
    // Both records of a build have one name.
    let id = explained_build(&fixture);
    assert!(fixture.run(["logs", "--build", &id, "RUN"]).ok().text().contains("started"));
}

/// The name of the last build, as `rbuild explain` has it.
fn explained_build(fixture: &Fixture) -> String {
    let text = fixture.run(["explain", "--json"]).ok().text();
    let line = text.lines().next().expect("an explained step");
    let explained: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
    explained["build"].as_str().expect("a name").to_owned()
}

#[test]
fn privileged_a_full_disk_is_said_and_the_store_works_afterwards() {
    // A small tmpfs in a mount namespace of its own.
    let fixture = Fixture::with("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=200\n");
    fs::create_dir(fixture.path("small")).expect("a folder");
    let build = fixture.build_command("small/store", &["-o", "type=cacheonly"]);
    let words = std::iter::once(build.get_program()).chain(build.get_args());
    let words: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
    let words = words.join(" ");
    let rbuild = format!("'{}'", build.get_program().to_string_lossy());
    let script = format!(
        "mount -t tmpfs -o size=64m tmpfs small && ! {words} && \
         printf 'FROM busybox\\nRUN echo fits > /fits\\n' > context/Dockerfile && {words} && \
         {{ dd if=/dev/zero of=small/filler bs=64k 2>/dev/null; {rbuild} du && {rbuild} prune --all; }}"
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).current_dir(fixture.path("."));
    for (name, value) in build.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    if !rustix::process::geteuid().is_root() {
        skipped("privileged_a_full_disk_is_said_and_the_store_works_afterwards", "not root");
        return;
    }
    let ran = ran(command.output().expect("unshare runs"));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.to_lowercase().contains("no space left on device"), "{}", ran.stderr);
}

#[test]
fn privileged_a_context_that_has_no_room_is_said_with_what_to_do() {
    let test = "privileged_a_context_that_has_no_room_is_said_with_what_to_do";
    if !rustix::process::geteuid().is_root() {
        skipped(test, "not root");
        return;
    }
    let fixture = Fixture::with("FROM scratch\nCOPY big /\n");
    // What is random does not become smaller.
    let mut random = fs::File::open("/dev/urandom").expect("random bytes").take(24 << 20);
    let mut big = fs::File::create(fixture.context().join("big")).expect("a file");
    std::io::copy(&mut random, &mut big).expect("a file");
    fs::create_dir(fixture.path("small")).expect("a folder");
    for output in [&["-t", "app"][..], &["-o", "out"]] {
        let build = fixture.build_command("small/store", output);
        let words = std::iter::once(build.get_program()).chain(build.get_args());
        let words: Vec<String> =
            words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let script = format!("mount -t tmpfs -o size=16m tmpfs small && {}", words.join(" "));
        let mut command = std::process::Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]).current_dir(fixture.path("."));
        for (name, value) in build.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let said = ran(command.output().expect("unshare runs")).fails(1);
        assert!(said.contains("No space left on device"), "{said}");
        assert!(said.contains("hint: a disk is full"), "{said}");
    }
}
