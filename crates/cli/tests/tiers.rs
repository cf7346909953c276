//! What the machine allows, and what rbuild makes of it.

use std::fs;
use std::process::Command;

use crate::fixture::{Fixture, compiled, ran, read, skipped};

#[test]
fn privileged_steps_run_on_copies() {
    let fixture = Fixture::with(
        "FROM busybox AS one\n\
         RUN echo a > /a; echo b > /b; mkdir /d; echo c > /d/c\n\
         RUN rm /b; mv /d /e; chmod 600 /a; test ! -e /dev/.x\n\
         FROM busybox\n\
         COPY --from=one /a /e/ /from/\n\
         RUN --mount=type=bind,from=one,target=/one --mount=type=bind,from=one,target=/rw,rw \
         ! touch /one/a 2> /dev/null && touch /rw/new && cat /one/e/c > /c && ls / > /names\n\
         COPY --chmod=640 Dockerfile /from/file\n",
    );
    let mut results = Vec::new();
    for way in ["overlay", "copy"] {
        let files = fixture.path(&format!("{way}-files"));
        let spec = format!("type=local,dest={}", files.display());
        fixture.build_in(way, &["--snapshotter", way, "-o", &spec]).ok();
        assert_eq!(read(&files, "c"), "c\n");
        assert!(!files.join("one").exists() && !files.join("rw").exists());
        let tree = Command::new("sh")
            .args([
                "-c",
                "cd $0 && find . -printf '%p %y %m %U:%G %s %l\\n' | grep -v '^. ' | sort",
            ])
            .arg(&files)
            .output()
            .expect("find runs");
        results.push(String::from_utf8_lossy(&tree.stdout).into_owned());
    }
    assert_eq!(results[0], results[1]);
    // A store serves both.
    let again = fixture.build_in("overlay", &["--snapshotter", "copy"]).ok();
    assert_eq!(again.steps_run(), Vec::<String>::new());
}

#[test]
fn privileged_a_store_on_an_overlay_is_copied_in() {
    const TEST: &str = "privileged_a_store_on_an_overlay_is_copied_in";
    let fixture = Fixture::with("FROM busybox\nRUN echo done > /done\n");
    fs::create_dir_all(fixture.path("over/upper")).expect("a folder");
    let script = "mkdir over/lower over/work store && \
         mount -t overlay -o lowerdir=over/lower,upperdir=over/upper,workdir=over/work none store && exec \"$@\"";
    let run = |args: &[&str]| {
        let inner = fixture.build_command("store", args);
        let mut outer = Command::new("unshare");
        outer.args(["--mount", "sh", "-c", script, "sh"]).arg(inner.get_program());
        outer.args(inner.get_args()).env_clear().current_dir(fixture.path("."));
        outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let done = ran(outer.output().expect("unshare starts"));
        for folder in ["over/lower", "over/work", "store", "over/upper"] {
            let _ = fs::remove_dir_all(fixture.path(folder));
        }
        fs::create_dir_all(fixture.path("over/upper")).expect("a folder");
        done
    };
    let files = fixture.path("out");
    let spec = format!("type=local,dest={}", files.display());
    let built = run(&["-o", &spec]);
    if built.stderr.starts_with("unshare:") || built.stderr.starts_with("mount:") {
        return skipped(TEST, built.stderr.trim());
    }
    let built = built.ok();
    assert_eq!(read(&files, "done"), "done\n");
    assert!(
        built.stderr.contains("files are copied for each step, which takes time and space"),
        "{}",
        built.stderr
    );
    let text = run(&["--snapshotter=overlay"]).fails(1);
    assert!(text.contains("the kernel refused an overlay mount"), "{text}");
}

#[test]
fn privileged_doctor_tells_the_tier() {
    let fixture = Fixture::new();
    let told = fixture.run(["doctor"]).ok();
    assert!(told.text().starts_with("Isolation: full: "), "{}", told.text());
    assert!(!fixture.path("store").exists(), "a store was made");
    let told = fixture.run(["doctor", "--json"]).ok();
    let document: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!(document["tier"], "overlay");
    assert_eq!(document["exitCode"], 0);
    let own = format!("linux/{}", rbuild_oci::Platform::host().architecture);
    let platforms = document["platforms"].as_array().expect("a list");
    let host = platforms.iter().find(|line| line["platform"] == own.as_str()).expect("the host");
    assert_eq!(host["by"], "native");
    for check in document["checks"].as_array().expect("a list") {
        assert!(["ok", "poor", "fail"].contains(&check["status"].as_str().expect("text")));
    }
    let told = fixture.run(["doctor", "--snapshotter=copy"]);
    assert_eq!(told.code, 3, "{}", told.text());
    assert!(told.text().contains("ok   overlay: none is mounted"), "{}", told.text());
    // Isolation is not what is missing where there can be no store.
    let told = fixture.run(["doctor", "--root=/proc/nowhere"]);
    assert_eq!(told.code, 5, "{}", told.text());
    assert!(told.text().contains("FAIL store: "), "{}", told.text());
    let foreign = fixture.path("foreign");
    fs::create_dir(&foreign).expect("a folder");
    std::os::unix::fs::chown(&foreign, Some(65534), None).expect("another owner");
    let told = fixture.run([&format!("--root={}", foreign.display()), "doctor"]);
    assert_eq!(told.code, 5, "{}", told.text());
    assert!(told.text().contains("belongs to user 65534"), "{}", told.text());
    assert_eq!(fs::read_dir(&foreign).expect("the folder").count(), 0);
}

#[test]
fn privileged_doctor_tells_what_the_store_lacks() {
    let fixture = Fixture::new();
    let folder = fixture.path("mounted");
    fs::create_dir(&folder).expect("a folder");
    let world = format!(
        "unshare --mount sh -c 'mount -t tmpfs -o noexec none {folder} && exec \"$@\" --root={folder}/store' sh \"$@\"",
        folder = folder.display()
    );
    let told = run_as(&fixture, &world, &["doctor"]).ok();
    assert!(
        told.text().contains("is mounted `noexec`: programs in cache mounts"),
        "{}",
        told.text()
    );
    let told = fixture.run(["doctor"]).ok();
    assert!(!told.text().contains("noexec"), "{}", told.text());
}

/// Runs `rbuild ARGS` as the script says, which has it in its arguments.
fn run_as(fixture: &Fixture, script: &str, args: &[&str]) -> crate::fixture::Ran {
    let inner = fixture.command("store");
    let mut outer = Command::new("sh");
    outer.args(["-c", script, "sh"]).arg(inner.get_program()).args(args).env_clear();
    outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    ran(outer.output().expect("sh starts"))
}

#[test]
fn privileged_where_nothing_is_allowed_it_is_said() {
    const TEST: &str = "privileged_where_nothing_is_allowed_it_is_said";
    // Root of a user namespace that lets nobody make another, without any capability: a container without privileges.
    const CONTAINER: &str = "unshare --user --map-root-user --mount sh -c \
         'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set -all --inh-caps -all -- \"$@\"' sh \"$@\"";
    let fixture = Fixture::with("FROM busybox\nRUN true\n");
    let told = run_as(&fixture, CONTAINER, &["doctor", "--json"]);
    if told.stdout.is_empty() && told.stderr.contains("unshare:") {
        return skipped(TEST, told.stderr.trim());
    }
    assert_eq!(told.code, 5, "{}{}", told.text(), told.stderr);
    let document: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!(document["tier"], "none");
    let text =
        run_as(&fixture, CONTAINER, &["build", &fixture.context().display().to_string()]).fails(1);
    assert!(text.contains("cannot become root in a user namespace"), "{text}");
    assert!(text.contains("user.max_user_namespaces"), "{text}");
    assert!(text.contains("rbuild doctor"), "{text}");
}

/// A container of root without the rights to mount and to make namespaces, but with those that Docker gives.
const UNPRIVILEGED: &str = "unshare --user --map-root-user --mount sh -c \
     'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set -sys_admin,-mknod --inh-caps -sys_admin,-mknod -- \"$@\"' sh \"$@\"";

#[test]
fn privileged_chroot_is_used_when_asked_for() {
    const TEST: &str = "privileged_chroot_is_used_when_asked_for";
    let fixture = Fixture::with(
        "FROM busybox\n\
         COPY --chmod=640 names /etc/resolv.conf\n\
         RUN id -u > /facts; cat /etc/hosts > /hosts; grep -q text /etc/resolv.conf && echo kept >> /facts; echo gone > /dev/null; \
         chroot / true 2> /dev/null && echo chroot >> /facts; mount -t tmpfs x /tmp 2> /dev/null && echo mount >> /facts; \
         sleep 1000 & exit 0\n",
    );
    fixture.write("names", "text\n");
    let files = fixture.path("out");
    let spec = format!("type=local,dest={}", files.display());
    let context = format!("busybox=oci-layout://{}:latest", fixture.busybox().display());
    let folder = fixture.context().display().to_string();
    let args = ["build", "--progress=plain", "--build-context", &context, "-o", &spec, &folder];
    let told = run_as(&fixture, UNPRIVILEGED, &["doctor"]);
    if told.stdout.is_empty() && told.stderr.contains("unshare:") {
        return skipped(TEST, told.stderr.trim());
    }
    assert_eq!(told.code, 4, "{}{}", told.text(), told.stderr);
    let text = run_as(&fixture, UNPRIVILEGED, &args).fails(1);
    assert!(text.contains("`rbuild build --isolation=chroot` does without"), "{text}");

    let chroot = [&args[..], &["--isolation=chroot"]].concat();
    let built = run_as(&fixture, UNPRIVILEGED, &chroot).ok();
    assert!(built.stderr.contains("--isolation=chroot: steps share processes"), "{}", built.stderr);
    assert_eq!(read(&files, "facts"), "0\n");
    assert!(read(&files, "hosts").starts_with("127.0.0.1\tlocalhost buildkitsandbox\n"));
    assert_eq!(read(&files, "etc/resolv.conf"), "text\n");
    for trace in ["etc/hosts", "dev/null", "dev/zero", "dev/tty"] {
        assert!(!files.join(trace).exists(), "{trace} stayed");
    }
    // What it left running is gone, or the pipe of its output would still be open.
    fixture.write("Dockerfile", "FROM busybox\nRUN (sleep 1000 &) ; (setsid sleep 1000 &); true\n");
    run_as(&fixture, UNPRIVILEGED, &chroot).ok();

    fixture.write("Dockerfile", "FROM busybox\nRUN sleep 1000 & sleep 2000\n");
    let late = [&chroot[..], &["--timeout=1s"]].concat();
    let text = run_as(&fixture, UNPRIVILEGED, &late).fails(1);
    for process in [" sleep 2000", "   sleep 1000"] {
        assert!(text.lines().any(|line| line.ends_with(process)), "{process}: {text}");
    }

    fixture.write("Dockerfile", "FROM busybox\nENV NAME=value\nRUN echo left > /left; exit 3\n");
    let text = run_as(&fixture, UNPRIVILEGED, &chroot).fails(1);
    assert!(text.contains("hint: rbuild debug --isolation=chroot opens a shell"), "{text}");
    let debug = ["debug", "--isolation=chroot", "--", "sh", "-c", "cat /left; echo $NAME"];
    assert_eq!(run_as(&fixture, UNPRIVILEGED, &debug).ok().text(), "left\nvalue\n");

    for (line, what) in [
        ("RUN --mount=type=secret,id=s true", "the secret mount at `/run/secrets/s`"),
        ("RUN --mount=type=cache,target=/c true", "the cache mount at `/c`"),
        ("RUN --network=none true", "`--network=none`"),
    ] {
        fixture.write("Dockerfile", format!("FROM busybox\n{line}\n"));
        let text = run_as(&fixture, UNPRIVILEGED, &chroot).fails(1);
        let expected =
            format!("{what} takes namespaces, which steps do not have with `--isolation=chroot`");
        assert!(text.contains(&expected), "{text}");
    }
}

/// As the first process of a container: nobody else is left in the namespace that it moves out of.
#[test]
fn privileged_the_only_process_of_a_container_runs_steps() {
    const TEST: &str = "privileged_the_only_process_of_a_container_runs_steps";
    let fixture = Fixture::with("FROM busybox\nRUN id -u > /done\n");
    let folder = fixture.path("volume");
    fs::create_dir(&folder).expect("a folder");
    let container = format!(
        "unshare --mount sh -c 'mount --bind \"${{1%/*}}\" {folder}; program={folder}/\"${{1##*/}}\"; shift; \
         exec setpriv --bounding-set -sys_admin --inh-caps -sys_admin -- \"$program\" \"$@\"' sh \"$@\"",
        folder = folder.display()
    );
    let told = run_as(&fixture, &container, &["doctor"]);
    if !told.text().contains("ok   user namespaces: one could be made") {
        return skipped(TEST, &format!("{}{}", told.text(), told.stderr));
    }
    assert_eq!(told.code, 0, "{}{}", told.text(), told.stderr);
    let files = fixture.path("out");
    let spec = format!("type=local,dest={}", files.display());
    let busybox = format!("busybox=oci-layout://{}:latest", fixture.busybox().display());
    let context = fixture.context().display().to_string();
    run_as(&fixture, &container, &["build", "--build-context", &busybox, "-o", &spec, &context])
        .ok();
    assert_eq!(read(&files, "done"), "0\n");
}

/// Docker's containers and podman's are such, also those without a filter for system calls.
#[test]
fn privileged_a_masked_proc_is_named() {
    const TEST: &str = "privileged_a_masked_proc_is_named";
    const CONTAINER: &str = "unshare --mount sh -c 'mount -t tmpfs -o ro none /proc/irq && \
         exec setpriv --bounding-set -sys_admin --inh-caps -sys_admin -- \"$@\"' sh \"$@\"";
    let fixture = Fixture::with("FROM busybox\nRUN id -u > /done\n");
    let told = run_as(&fixture, CONTAINER, &["doctor"]);
    if !told.text().contains("ok   user namespaces: ") {
        return skipped(TEST, &format!("{}{}", told.text(), told.stderr));
    }
    assert_eq!(told.code, 4, "{}{}", told.text(), told.stderr);
    let text = told.text();
    assert!(text.contains("FAIL steps: one could not be made: cannot mount `/proc` "), "{text}");
    assert!(
        text.ends_with(
            "help most: start the container with --security-opt systempaths=unconfined\n"
        ),
        "{text}"
    );
    let files = fixture.path("out");
    let spec = format!("type=local,dest={}", files.display());
    let busybox = format!("busybox=oci-layout://{}:latest", fixture.busybox().display());
    let context = fixture.context().display().to_string();
    let build = ["build", "--build-context", &busybox, "-o", &spec, &context];
    let text = run_as(&fixture, CONTAINER, &build).fails(1);
    assert!(text.contains("masks parts of its /proc"), "{text}");
    assert!(text.contains("hint: `rbuild build --isolation=chroot` does without"), "{text}");
    run_as(&fixture, CONTAINER, &[&build[..], &["--isolation=chroot"]].concat()).ok();
    assert_eq!(read(&files, "done"), "0\n");
}

#[test]
fn privileged_a_filter_for_system_calls_is_named() {
    const TEST: &str = "privileged_a_filter_for_system_calls_is_named";
    // As whom: with all capabilities, with those that Docker gives, and as an ordinary user.
    const ROOT: &str = "exec \"$@\"";
    const DOCKER: &str = "exec setpriv --bounding-set -sys_admin --inh-caps -sys_admin -- \"$@\"";
    const NOBODY: &str = "exec setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$@\"";
    let fixture = Fixture::with(
        "FROM busybox\nRUN echo done > /done\nUSER 1000\nRUN echo gone > /dev/null\n",
    );
    let forbid = fixture.path("forbid");
    if !compiled(TEST, include_str!("tiers/forbid.c"), &forbid) {
        return;
    }
    let files = fixture.path("out");
    let spec = format!("type=local,dest={}", files.display());
    let busybox = format!("busybox=oci-layout://{}:latest", fixture.busybox().display());
    let context = fixture.context().display().to_string();
    let image = ["build", "--progress=plain", "--build-context", &busybox, &context];
    let build = [&image[..], &["-o", &spec]].concat();
    let run = |whom: &str, args: &[&str]| {
        let script = format!("exec {} sh -c '{whom}' sh \"$@\"", forbid.display());
        run_as(&fixture, &script, args)
    };
    const FIX: &str = "--security-opt seccomp=unconfined";
    for (whom, exit, cannot) in [
        (ROOT, 4, "cannot run steps"),
        (DOCKER, 4, "cannot become root in a user namespace"),
        (NOBODY, 5, ""),
    ] {
        let told = run(whom, &["doctor"]);
        assert_eq!(told.code, exit, "{}{}", told.text(), told.stderr);
        let text = told.text();
        assert!(text.contains("refuses `unshare`"), "{text}");
        assert!(text.contains(&format!("help most: start the container with {FIX}")), "{text}");
        if whom == NOBODY {
            continue;
        }
        let text = run(whom, &build).fails(1);
        assert!(text.contains(cannot) && text.contains(FIX), "{text}");
        assert!(text.contains("`rbuild build --isolation=chroot` does without"), "{text}");
        run(whom, &[&build[..], &["--isolation=chroot"]].concat()).ok();
        assert_eq!(read(&files, "done"), "done\n");
        fs::remove_dir_all(&files).expect("the files");
        // What runs no steps needs no namespaces.
        run(whom, &[&image[..], &["-t", "app", "--isolation=chroot"]].concat()).ok();
        assert!(run(whom, &["images"]).ok().text().contains("app"));
        run(whom, &["save", "app", "-o", "/dev/null"]).ok();
    }
}
