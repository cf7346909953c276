//! What failed steps leave: `rbuild debug` and `--on-failure`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use crate::fixture::{Fixture, have, ran, read, skipped, valid};

const FAILING: &str = "FROM busybox\nARG GREETING=hello\nENV WHERE=here\nWORKDIR /job\nRUN echo first > first\n\
    RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/scratch --mount=type=secret,id=token \
    mkdir reports && echo 3 of 4 > reports/tests && echo kept > /cache/kept && exit 9\nRUN echo never\n";

fn secret(fixture: &Fixture) -> String {
    fs::write(fixture.path("secret"), "hunter2-and-a-half").expect("a secret");
    format!("id=token,src={}", fixture.path("secret").display())
}

#[test]
fn privileged_a_command_runs_in_what_a_failed_step_has_left() {
    let fixture = Fixture::with(FAILING);
    let secret = secret(&fixture);
    let error = fixture.build(&["--secret", &secret]).fails(1);
    assert!(error.contains("hint: rbuild debug opens a shell"), "{error}");
    let debug = |args: &[&str]| fixture.run([&["debug"], args].concat());
    let told = debug(&[
        "--",
        "sh",
        "-c",
        "cat reports/tests first /cache/kept; echo $GREETING $WHERE $PWD; ls -a /scratch | wc -l",
    ]);
    assert!(
        told.stderr.contains(
            "/run/secrets/token is not there: no secret \"token\" (give it with --secret)"
        ),
        "{}",
        told.stderr
    );
    assert_eq!(told.ok().text(), "3 of 4\nfirst\nkept\nhello here /job\n2\n");
    let told = debug(&["--secret", &secret, "--", "cat", "/run/secrets/token"]).ok();
    assert_eq!((told.text().as_str(), told.stderr.as_str()), ("hunter2-and-a-half", ""));
    // The exit code is passed on, and what is written does not stay.
    debug(&["--", "sh", "-c", "echo x > reports/tests; rm first; exit 7"]).fails(7);
    assert_eq!(debug(&["--", "cat", "reports/tests", "first"]).ok().text(), "3 of 4\nfirst\n");
    // By number and by name, after and before, and with a step that succeeded.
    assert_eq!(debug(&["--before", "--", "ls"]).ok().text(), "first\n");
    assert_eq!(debug(&["echo first", "--", "ls"]).ok().text(), "first\n");
    assert_eq!(debug(&["echo first", "--before", "--", "ls"]).ok().text(), "");
    assert_eq!(debug(&["WORKDIR", "--", "pwd"]).ok().text(), "/\n");
    let error = debug(&["--", "no-such-program"]).fails(127);
    assert!(error.contains("executable file not found in $PATH"), "{error}");
    let error = debug(&["echo never", "--", "true"]).fails(1);
    assert!(error.contains("it was not done"), "{error}");
    let error = debug(&["RUN", "--", "true"]).fails(2);
    assert!(error.contains("several steps match") && error.contains("failed   ["), "{error}");
    let error = debug(&["#99", "--", "true"]).fails(2);
    assert!(error.contains("has no step `#99`"), "{error}");
    let error = debug(&[]).fails(2);
    assert!(error.contains("standard input is no terminal"), "{error}");
    // No secret is anywhere in the store.
    let found = Command::new("grep")
        .args(["-rl", "hunter2-and-a-half"])
        .arg(fixture.path("store"))
        .output()
        .expect("grep runs");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[test]
fn privileged_what_is_left_is_no_result_and_goes() {
    let fixture = Fixture::with("FROM busybox\nRUN echo left > /left && false\n");
    fixture.build(&[]).fails(1);
    let usage = fixture.run(["du", "-v"]).ok().text();
    assert!(usage.contains("left by a failed step: [1/2] RUN"), "{usage}");
    // It runs again: nothing of it is cached.
    let again = fixture.build(&[]);
    assert!(again.steps_cached().iter().all(|step| !step.contains("RUN")), "{}", again.stderr);
    again.fails(1);
    let left = || fixture.run(["du", "-v"]).ok().text().matches("left by a failed step").count();
    assert_eq!(left(), 1, "that of the build before has gone");
    fixture.run(["prune"]).ok();
    assert_eq!(left(), 0);
    let error = fixture.run(["debug", "--", "cat", "/left"]).fails(1);
    assert!(error.contains("was pruned"), "{error}");
    // The next build of the same gives it up; another does not.
    fixture.build(&[]).fails(1);
    fs::write(fixture.path("Other"), "FROM busybox\nRUN true\n").expect("a file");
    let other = fixture.path("Other").display().to_string();
    fixture.build(&["-f", &other]).ok();
    assert_eq!(left(), 1);
    fixture.write("Dockerfile", "FROM busybox\nRUN echo fine > /left\n");
    fixture.build(&[]).ok();
    assert_eq!(left(), 0);
    let error = fixture.run(["debug", "--", "true"]).fails(2);
    assert!(error.contains("no step of the last build"), "{error}");
    fixture.run(["prune", "--all"]).ok();
    let error = fixture.run(["debug", "--", "true"]).fails(2);
    assert!(error.contains("no build is remembered"), "{error}");
}

#[test]
fn privileged_a_shell_in_a_terminal_has_job_control() {
    let name = "privileged_a_shell_in_a_terminal_has_job_control";
    if !have(name, "script") {
        return;
    }
    let fixture = Fixture::with("FROM busybox\nUSER 1000\nRUN echo me > /tmp/me; false\n");
    fixture.build(&[]).fails(1);
    let rbuild = fixture.command("store");
    let line = format!("stty rows 33 cols 99; {} debug", rbuild.get_program().display());
    let mut command = Command::new("script");
    command
        .args(["-qec", &line, "/dev/null"])
        .env_clear()
        .envs(rbuild.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("script starts");
    let (mut stdin, mut stdout) =
        (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let mut text = String::new();
    let mut until = |mark: &str| {
        let from = text.len();
        while !text[from..].contains(mark) {
            let mut bytes = [0; 1024];
            let length = stdout.read(&mut bytes).expect("output");
            assert_ne!(length, 0, "it ended before `{mark}`:\n{text}");
            text.push_str(&String::from_utf8_lossy(&bytes[..length]).replace('\r', ""));
        }
    };
    let mut typed = |line: &str| stdin.write_all(line.as_bytes()).expect("it reads");
    // What is typed is echoed, so what is waited for is not what was typed.
    until("$ ");
    typed("tty; stty size; cat /tmp/me; id -u; echo do''ne\n");
    until("done\n");
    typed("sleep 1000 & jobs; echo ne''xt\n");
    until("next\n");
    // Said by what is in the foreground already: before, Ctrl-C would be for the shell.
    typed("sh -c \"echo g''o; exec sleep 1000\"\n");
    until("go\n");
    typed("\u{3}");
    until("^C");
    typed("exit 5\n");
    let code = child.wait().expect("it ends").code();
    for part in ["/dev/pts/0\n", "33 99\n", "me\n", "1000\n", "Running"] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    assert_eq!(code, Some(5), "{text}");
}

#[test]
fn privileged_files_of_a_failed_step_are_exported() {
    let fixture = Fixture::with(FAILING);
    let secret = secret(&fixture);
    let (reports, all, image) =
        (fixture.path("reports"), fixture.path("all.tar"), fixture.path("image.tar"));
    let specs = [
        format!("type=local,dest={},src=/job/reports", reports.display()),
        format!("type=tar,dest={}", all.display()),
        format!("type=oci,dest={}", image.display()),
        format!("type=local,dest={},src=/job/nothing", fixture.path("nothing").display()),
    ];
    let mut args = vec!["--secret", &secret];
    args.extend(specs.iter().flat_map(|spec| ["--on-failure", spec.as_str()]));
    let error = fixture.build(&args).fails(1);
    assert_eq!(read(&reports, "tests"), "3 of 4\n");
    let mut names = Vec::new();
    let tar = fs::read(&all).expect("the tar");
    for entry in tar::Archive::new(&tar[..]).entries().expect("entries") {
        names.push(entry.expect("an entry").path().expect("a path").display().to_string());
    }
    assert!(names.iter().any(|name| name == "job/reports/tests"), "{names:?}");
    let image = valid("oci", &image);
    assert_eq!(image.config["config"]["WorkingDir"], "/job");
    // The step's failure comes first, that of an export second.
    let first =
        error.find("ERROR: failed to build: failed to solve: process").expect("the step's error");
    let second = error.find("ERROR: --on-failure: cannot take \"/job/nothing\"").expect("another");
    assert!(first < second && error.contains("exit code: 9"), "{error}");
    // Nothing of it counts for a build that succeeds, and what was done before is known.
    let again = fixture.build(&["--secret", &secret]);
    assert!(
        again.steps_cached().iter().any(|step| step.contains("echo first")),
        "{}",
        again.stderr
    );
    again.fails(1);
}

#[test]
fn privileged_without_a_step_there_is_nothing_to_export() {
    let fixture = Fixture::with("FROM busybox\nCOPY nothing /\n");
    let out = format!("type=local,dest={}", fixture.path("out").display());
    let error = fixture.build(&["--on-failure", &out]).fails(1);
    assert!(error.contains("so there are no files to export"), "{error}");
    assert!(!fixture.path("out").exists());
    let error = fixture.run(["debug", "--", "true"]).fails(1);
    assert!(error.contains("it has left no files") && error.contains("--before"), "{error}");
    let error = fixture.run(["debug", "--before", "--", "true"]).fails(1);
    assert!(error.contains("what it began with is not in the store"), "{error}");
    for (spec, reason) in
        [("type=oci,dest=x,src=/a", "src is for"), ("type=cacheonly", "writes nothing")]
    {
        let error = fixture.build(&["--on-failure", spec]).fails(2);
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn privileged_an_image_without_a_shell_is_said() {
    let name = "privileged_an_image_without_a_shell_is_said";
    if !have(name, "script") {
        return;
    }
    let fixture = Fixture::with(
        "FROM scratch\nCOPY --from=busybox /bin/busybox /only\nRUN [\"/only\", \"false\"]\n",
    );
    let built = fixture.build(&[]);
    if !built.stderr.contains("exit code: 1") {
        skipped(name, "busybox does not run alone");
        return;
    }
    let rbuild = fixture.command("store");
    let line = format!("{} debug", rbuild.get_program().display());
    let mut command = Command::new("script");
    command
        .args(["-qec", &line, "/dev/null"])
        .env_clear()
        .envs(rbuild.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = ran(command.stdin(Stdio::null()).output().expect("script runs"));
    assert!(ran.text().contains("there is no shell in the image"), "{}", ran.text());
    assert_eq!(ran.code, 1);
}

#[test]
fn privileged_a_command_reads_what_rbuild_reads() {
    let fixture = Fixture::with("FROM busybox\nRUN false\n");
    fixture.build(&[]).fails(1);
    let piped = fixture.run_with_input(&["debug", "--", "sort"], b"b\na\n").ok();
    assert_eq!(piped.text(), "a\nb\n");
    let megabyte = vec![b'x'; 1 << 20];
    let counted = fixture.run_with_input(&["debug", "--", "wc", "-c"], &megabyte).ok();
    assert_eq!(counted.text(), "1048576\n");
    // Of a file there is no more than its contents: it cannot be opened again, to be written.
    let file = fixture.path("file");
    fs::write(&file, "kept\n").unwrap();
    let mut command = fixture.command("store");
    command.args(["debug", "--", "sh", "-c", "cat; echo gone > /proc/self/fd/0"]);
    let from_file = ran(command.stdin(fs::File::open(&file).unwrap()).output().unwrap());
    assert_eq!(from_file.text(), "kept\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept\n");
    // One that reads nothing ends nevertheless.
    let mut command = fixture.command("store");
    command.args(["debug", "--", "echo", "here"]).stdin(fs::File::open("/dev/zero").unwrap());
    assert_eq!(ran(command.output().unwrap()).ok().text(), "here\n");
}

#[test]
fn privileged_what_bounded_the_step_bounds_a_look_at_it() {
    const TEST: &str = "privileged_what_bounded_the_step_bounds_a_look_at_it";
    let fixture = Fixture::with("FROM busybox\nRUN false\n");
    let error = fixture.build(&["--cpuset-cpus=0", "--ulimit=nofile=77"]).fails(1);
    if error.contains("control group") {
        return skipped(TEST, error.trim());
    }
    let debug = || fixture.run(["debug", "--", "sh", "-c", "ulimit -n; nproc"]).ok();
    let told = debug();
    assert_eq!((told.text().as_str(), told.stderr.as_str()), ("77\n1\n", ""));
    fixture.build(&["--ulimit=nofile=77"]).fails(1);
    let own = std::thread::available_parallelism().unwrap();
    assert_eq!(debug().text(), format!("77\n{own}\n"));
}
