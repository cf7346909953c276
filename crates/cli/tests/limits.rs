//! What bounds steps: memory, processors, time, and how many there are; and what becomes of those that are stopped.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::{Fixture, Ran, ran, read, skipped};

/// How long a step's processes may take to be gone, and then some for a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// The control groups that this process of rbuild has made.
fn groups_of(pid: u32) -> Vec<PathBuf> {
    fn visit(directory: &Path, prefix: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(prefix) {
                    found.push(entry.path());
                }
                visit(&entry.path(), prefix, found);
            }
        }
    }
    let mut found = Vec::new();
    visit(Path::new("/sys/fs/cgroup"), &format!("rbuild-{pid}-"), &mut found);
    found
}

/// Whether steps can be limited here by this controller: tried as a build would.
fn can_limit(test: &str, flag: [&str; 2]) -> bool {
    let fixture = Fixture::with("FROM busybox\nRUN true\n");
    let tried = fixture.build(&[&["-o", "type=cacheonly"], &flag[..]].concat());
    if tried.code != 0 {
        assert!(tried.stderr.contains("control group"), "{}", tried.stderr);
        skipped(test, &format!("{} cannot be had here", flag[0]));
    }
    tried.code == 0
}

/// Waits until something holds.
#[track_caller]
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SOON, "{what}");
        std::thread::yield_now();
    }
}

/// Whether a process with this in its command line is there.
fn is_running(mark: &str) -> bool {
    fs::read_dir("/proc").into_iter().flatten().flatten().any(|entry| {
        let own = std::process::id().to_string();
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        entry.file_name().to_string_lossy() != own
            && line.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())
    })
}

/// A build whose first line of output with this word was seen.
fn started(mut command: Command, word: &str) -> Child {
    let mut child = command.stderr(Stdio::piped()).spawn().expect("rbuild starts");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let seen = lines.by_ref().map_while(Result::ok).any(|line| line.ends_with(word));
    assert!(seen, "the build ended before it said {word}");
    // Nobody reads the rest, and nothing may wait for that.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

#[test]
fn privileged_a_step_over_its_memory_is_told_so() {
    let name = "privileged_a_step_over_its_memory_is_told_so";
    if !can_limit(name, ["--memory", "64m"]) {
        return;
    }
    let fixture = Fixture::with(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t dd if=/dev/zero of=/t/big bs=1M count=200\n",
    );
    let error = fixture.build(&["--memory=64m", "--memory-swap=64m"]).fails(1);
    assert!(error.contains("did not complete successfully: exit code: "), "{error}");
    assert!(error.contains("out of memory: the kernel killed"), "{error}");
    assert!(error.contains("64 MiB (--memory)"), "{error}");
    // The limit is no part of the key, and the failure was not stored.
    fixture.build(&["-o", "type=cacheonly", "--resource", "memory=1g"]).ok();
    let again = fixture.build(&["-o", "type=cacheonly", "--memory=64m"]).ok();
    assert_eq!(again.steps_run(), Vec::<String>::new());
}

#[test]
fn privileged_limits_are_set_and_their_groups_go_even_when_the_build_is_killed() {
    let name = "privileged_limits_are_set_and_their_groups_go_even_when_the_build_is_killed";
    if !can_limit(name, ["--cpu-quota", "20000"]) || !can_limit(name, ["--memory", "64m"]) {
        return;
    }
    let fixture = Fixture::with("FROM busybox\nRUN echo ready; sleep 100000\n");
    let limits = [
        "--memory=64m",
        "--cpu-quota=20000",
        "--cpu-period=40000",
        "-c",
        "512",
        "-o",
        "type=cacheonly",
    ];
    let mut build = started(fixture.build_command("store", &limits), "ready");
    let groups = groups_of(build.id());
    let value = |file: &str| {
        let found = groups.iter().find_map(|group| fs::read_to_string(group.join(file)).ok());
        found.map(|text| text.trim().to_owned())
    };
    let memory = value("memory.max").or(value("memory.limit_in_bytes"));
    assert_eq!(memory.as_deref(), Some("67108864"));
    let quota = value("cpu.max").or(value("cpu.cfs_quota_us"));
    assert!(["20000 40000", "20000"].contains(&quota.unwrap().as_str()));
    assert!(value("cgroup.procs").is_some_and(|processes| !processes.is_empty()));
    build.kill().unwrap();
    build.wait().unwrap();
    wait_until("the groups are removed", || groups_of(build.id()).is_empty());
}

#[test]
fn privileged_version_2_is_used_where_it_has_the_controller() {
    let name = "privileged_version_2_is_used_where_it_has_the_controller";
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    let mount = mount.and_then(|line| line.split(' ').nth(4)).unwrap_or("/nowhere");
    let controllers = fs::read_to_string(Path::new(mount).join("cgroup.controllers"));
    if !controllers.unwrap_or_default().split_whitespace().any(|name| name == "memory") {
        return skipped(name, "cgroup v2 does not have the memory controller here");
    }
    if !can_limit(name, ["--memory", "64m"]) {
        return;
    }
    let fixture = Fixture::with("FROM busybox\nRUN echo ready; sleep 100000\n");
    let command = fixture.build_command("store", &["--memory=64m", "-o", "type=cacheonly"]);
    let mut build = started(command, "ready");
    let groups = groups_of(build.id());
    build.kill().unwrap();
    build.wait().unwrap();
    assert!(groups.iter().any(|group| group.starts_with(mount)), "{groups:?}");
}

#[test]
fn privileged_steps_keep_to_their_processors() {
    if !can_limit("privileged_steps_keep_to_their_processors", ["--cpuset-cpus", "0"]) {
        return;
    }
    let fixture =
        Fixture::with("FROM busybox\nRUN grep Cpus_allowed_list /proc/self/status > /cpus\n");
    let out = fixture.build_files(&["--cpuset-cpus=0", "--cpuset-mems=0"]);
    assert_eq!(read(&out, "cpus"), "Cpus_allowed_list:\t0\n");
    let error = fixture.build(&["--no-cache", "--cpuset-cpus=4000"]).fails(1);
    assert!(error.contains("cannot write `4000` to"), "{error}");
    assert!(error.contains(", where 0"), "{error}");
}

#[test]
fn privileged_a_parent_group_is_used() {
    let name = "privileged_a_parent_group_is_used";
    if !can_limit(name, ["--memory", "64m"]) {
        return;
    }
    let parent = format!("rbuild-test-parent-{}", std::process::id());
    let fixture = Fixture::with("FROM busybox\nRUN echo ready; sleep 100000\n");
    let flag = format!("--cgroup-parent=/{parent}");
    let mut build =
        started(fixture.build_command("store", &[&flag, "-o", "type=cacheonly"]), "ready");
    let groups = groups_of(build.id());
    build.kill().unwrap();
    build.wait().unwrap();
    wait_until("the groups are removed", || groups_of(build.id()).is_empty());
    assert!(!groups.is_empty());
    for group in groups {
        let above = group.parent().unwrap();
        assert!(above.ends_with(&parent), "{}", group.display());
        fs::remove_dir(above).unwrap();
    }
    let error = fixture.build(&["--cgroup-parent=/../x"]).fails(2);
    assert!(error.contains("without `..`"), "{error}");
    let read_only = "for group in /sys/fs/cgroup/*; do mount --bind $group $group && mount -o remount,bind,ro $group || exit; done";
    let error = build_after(read_only, &fixture, &[&flag]).fails(1);
    let cannot = format!("steps cannot be in the control group parent `/{parent}`: ");
    assert!(error.contains(&cannot), "{error}");
    assert!(error.contains("--resource best-effort builds without the limits"), "{error}");
    fixture.write("Dockerfile", "FROM busybox\nRUN true\n");
    let kept = build_after(read_only, &fixture, &[&flag, "--resource=best-effort"]).ok();
    assert!(
        kept.stderr.contains(&format!("a limit of steps is not kept: {cannot}")),
        "{}",
        kept.stderr
    );
}

/// In a group that root has given to the user.
#[test]
fn privileged_an_ordinary_user_limits_steps_in_a_group_of_its_own() {
    const TEST: &str = "privileged_an_ordinary_user_limits_steps_in_a_group_of_its_own";
    const HIERARCHY: &str = "/sys/fs/cgroup/memory";
    if !Path::new(HIERARCHY).join("cgroup.procs").exists() {
        return skipped(TEST, "there are no control groups of version 1");
    }
    if !can_limit(TEST, ["--memory", "64m"]) {
        return;
    }
    let fixture = Fixture::with(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t dd if=/dev/zero of=/t/big bs=1M count=200\n",
    );
    let build = fixture.build_command("store", &["--memory=64m", "--memory-swap=64m"]);
    let program = fixture.path("rbuild");
    fs::copy(build.get_program(), &program).expect("a copy of rbuild");
    let group = PathBuf::from(format!("{HIERARCHY}/test-of-rbuild-{}", std::process::id()));
    let script = format!(
        "mkdir {group} && echo $$ > {group}/cgroup.procs && chown -R 65534:65534 {group} {folder} && chmod 755 {folder} && \
         exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"",
        group = group.display(),
        folder = fixture.path("").display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(&program).args(build.get_args()).env_clear();
    command.envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = ran(command.current_dir(fixture.path("")).output().expect("sh starts"));
    wait_until("the group is left", || fs::remove_dir(&group).is_ok());
    let error = ran.fails(1);
    assert!(error.contains("out of memory: the kernel killed"), "{error}");
    assert!(error.contains("64 MiB (--memory)"), "{error}");
}

/// Runs a build after a change of the mounts that it sees.
fn build_after(change: &str, fixture: &Fixture, args: &[&str]) -> Ran {
    let build = fixture.build_command("store", args);
    let hidden = Command::new("unshare")
        .args(["-m", "sh", "-c", &format!("{change} && exec \"$0\" \"$@\"")])
        .arg(build.get_program())
        .args(build.get_args())
        .envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(fixture.path(""))
        .output();
    ran(hidden.expect("unshare starts"))
}

#[test]
fn privileged_a_limit_that_cannot_be_kept_is_refused_unless_that_is_fine() {
    let name = "privileged_a_limit_that_cannot_be_kept_is_refused_unless_that_is_fine";
    if !rustix::process::geteuid().is_root() {
        return skipped(name, "needs root");
    }
    let fixture = Fixture::with("FROM busybox\nRUN true\n");
    let args = ["-o", "type=cacheonly", "--memory=1g"];
    let refused = build_after("umount -R /sys/fs/cgroup", &fixture, &args).fails(1);
    assert!(refused.contains("no control group controller `memory`"), "{refused}");
    assert!(refused.contains("hint:") && refused.contains("best-effort"), "{refused}");
    let built = build_after(
        "umount -R /sys/fs/cgroup",
        &fixture,
        &[&args[..], &["--resource=best-effort"]].concat(),
    )
    .ok();
    let warnings =
        built.stderr.lines().filter(|line| line.contains("a limit of steps is not kept"));
    assert_eq!(warnings.count(), 1, "{}", built.stderr);
}

#[test]
fn privileged_process_limits_and_shared_memory_reach_the_step() {
    let fixture = Fixture::with(
        "FROM busybox\nRUN ulimit -Sn > /soft; ulimit -Hn > /hard; ulimit -c > /core; grep /dev/shm /proc/mounts > /shm\n",
    );
    let flags = ["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--shm-size", "128m"];
    let out = fixture.build_files(&flags);
    assert_eq!((read(&out, "soft"), read(&out, "hard"), read(&out, "core")).0, "100\n");
    assert_eq!(read(&out, "hard"), "200\n");
    assert_eq!(read(&out, "core"), "0\n");
    let shm = read(&out, "shm");
    assert!(shm.lines().last().unwrap().contains("size=131072k"), "{shm}");
    // Few are enough for the program, whatever it takes to come to it.
    let few = ["--ulimit", "nofile=3", "--ulimit", "nproc=1", "-o", "type=cacheonly"];
    Fixture::with("FROM busybox\nRUN [\"true\"]\n").build(&few).ok();
    // These are part of the operation, as with BuildKit.
    let other = fixture.build(&["--ulimit", "nofile=101", "-o", "type=cacheonly"]).ok();
    assert_eq!(other.steps_run().len(), 1);
}

#[test]
fn wrong_limits_are_refused_before_anything_is_done() {
    let fixture = Fixture::with("FROM scratch\n");
    for (flag, reason) in [
        ("--memory=1k", "the least"),
        ("--memory=99999999999999999999g", "no size"),
        ("--memory-swap=1g", "`memory` has to be given"),
        ("--cpu-shares=1", "from 2 to"),
        ("--ulimit=nofile", "no `=`"),
        ("--shm-size=0", "above 0"),
        ("--timeout=5", "no duration"),
        ("--resource=gpus=1", "unknown resource"),
        ("--jobs=0", "0"),
    ] {
        let error = fixture.build(&[flag, "-o", "type=cacheonly"]).fails(2);
        assert!(error.contains(reason), "{flag}: {error}");
    }
}

#[test]
fn privileged_a_limit_of_zero_is_none() {
    let fixture = Fixture::with("FROM busybox\nRUN sleep 0.1\n");
    let bounds = ["--timeout=0", "--idle-timeout=0s"];
    let resources = ["--memory=0", "--memory-swap=0", "--cpu-shares=0", "--cpu-quota=0"];
    let rest = ["--cpu-period=0", "-o", "type=cacheonly"];
    fixture.build(&[&bounds[..], &resources, &rest].concat()).ok();
}

#[test]
fn empty_variables_of_the_environment_are_as_none() {
    let fixture = Fixture::with("FROM scratch\nCOPY Dockerfile /\n");
    let mut command = fixture.command("unused");
    command.args(["build", "-o", "type=cacheonly", "context"]);
    for name in
        ["RBUILD_ROOT", "RBUILD_SNAPSHOTTER", "DOCKER_DEFAULT_PLATFORM", "BUILDKIT_PROGRESS"]
    {
        command.env(name, "");
    }
    command.env("XDG_DATA_HOME", fixture.path("data"));
    ran(command.output().unwrap()).ok();
}

#[test]
fn privileged_a_step_that_takes_too_long_is_listed_and_killed() {
    let mark = format!("{}1", 900_000_000 + std::process::id());
    let other = format!("{}2", 900_000_000 + std::process::id());
    let fixture = Fixture::with(&format!(
        "FROM busybox\nRUN trap '' TERM; (setsid sleep {mark} &); sleep {other}\n"
    ));
    for flags in [["--timeout=500ms", "(--timeout)"], ["--idle-timeout=500ms", "(--idle-timeout)"]]
    {
        let error = fixture.build(&[flags[0], "-o", "type=cacheonly"]).fails(1);
        assert!(error.contains(flags[1]), "{error}");
        assert!(error.contains("COMMAND"), "{error}");
        for process in [&mark, &other] {
            assert!(error.contains(&format!("sleep {process}\n")), "{error}");
            assert!(!is_running(process));
        }
    }
}

#[test]
fn privileged_a_step_that_prints_is_not_idle() {
    let fixture = Fixture::with(
        "FROM busybox\nRUN for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.2; done\n",
    );
    fixture.build(&["--idle-timeout=1500ms", "--timeout=10m", "-o", "type=cacheonly"]).ok();
}

#[test]
fn privileged_no_more_steps_run_than_were_asked_for() {
    let step = "RUN --mount=type=cache,target=/c mkdir /c/running && sleep 0.2 && rmdir /c/running && echo";
    let stages: String = (0..4)
        .map(|stage| format!("FROM busybox AS s{stage}\n{step} {stage} > /f{stage}\n"))
        .collect();
    let copies: String =
        (0..4).map(|stage| format!("COPY --from=s{stage} /f{stage} /\n")).collect();
    let fixture = Fixture::with(&format!("{stages}FROM scratch\n{copies}"));
    fixture.build(&["--jobs=1", "-o", "type=cacheonly"]).ok();
}

/// A step that nothing but SIGKILL ends, with a process that has left its session and its parent.
fn stubborn(mark: &str) -> String {
    format!(
        "trap '' TERM INT HUP; (setsid sh -c \"trap '' TERM INT HUP; (sleep {mark} &)\" &); \
         while ! grep -qs ^sleep /proc/[0-9]*/comm; do :; done; echo ready; while :; do sleep 1; done"
    )
}

#[test]
fn privileged_whatever_ends_a_build_ends_its_steps() {
    let mark = format!("{}3", 900_000_000 + std::process::id());
    let fixture = Fixture::with(&format!("FROM busybox\nRUN {}\n", stubborn(&mark)));
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let command = fixture.build_command("store", &["-o", "type=cacheonly"]);
        let mut build = started(command, "ready");
        wait_until("the step runs", || is_running(&mark));
        let pid = Pid::from_raw(i32::try_from(build.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        let code = build.wait().unwrap().code();
        wait_until("the step is gone", || !is_running(&mark));
        let expected = (signal != Signal::KILL).then_some(130);
        assert_eq!(code, expected);
    }
}

#[test]
fn privileged_a_step_ends_with_its_failed_sibling() {
    let mark = format!("{}4", 900_000_000 + std::process::id());
    let fixture = Fixture::with(&format!(
        "FROM busybox AS one\nRUN --mount=type=cache,target=/c {}\n\
         FROM busybox AS two\nRUN --mount=type=cache,target=/c while [ ! -e /c/go ]; do :; done; exit 7\n\
         FROM scratch\nCOPY --from=one / /\nCOPY --from=two / /\n",
        stubborn(&mark).replace("echo ready", "echo > /c/go")
    ));
    let error = fixture.build(&["-o", "type=cacheonly"]).fails(1);
    assert!(error.contains("exit code: 7"), "{error}");
    wait_until("the sibling is gone", || !is_running(&mark));
}

#[test]
fn privileged_who_is_killed_by_somebody_is_told_so() {
    let fixture = Fixture::with("FROM busybox\nRUN sh -c 'kill -9 $$'; exit $?\n");
    let error = fixture.build(&["-o", "type=cacheonly"]).fails(1);
    assert!(error.contains("exit code: 137") && error.contains("killed by SIGKILL"), "{error}");
}
