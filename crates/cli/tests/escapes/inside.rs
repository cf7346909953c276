//! What a step may ask of the kernel, asked for real, in builds of root, of an ordinary user with sub-ids and of one with a single id.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::bait::{Bait, SECRET};
use super::ordinary::Builder;
use super::program::{Abi, ZEROES, one_call};
use crate::fixture::{Fixture, have, ran, read, skipped};

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

/// `CLONE_NEWUSER` and `CLONE_NEWNS`.
const NEW_USER: u64 = 0x1000_0000;
const NEW_MOUNTS: u64 = 0x2_0000;
const X32: u32 = 0x4000_0000;

/// Calls that are refused, with the error that they give: those that Docker's profile withholds from a container with the default capabilities.
fn refused_calls() -> Vec<(&'static str, Abi, u32, [u64; 6], i32)> {
    use Abi::{I386, Native};
    let none = [0; 6];
    let first = |argument| [argument, 0, 0, 0, 0, 0];
    let zeroes = [ZEROES; 6];
    vec![
        ("mount", Native, 165, [ZEROES, ZEROES, ZEROES, 0, 0, 0], EPERM),
        ("mount-x32", Native, X32 | 165, zeroes, EPERM),
        ("mount-i386", I386, 21, zeroes, EPERM),
        ("umount2", Native, 166, zeroes, EPERM),
        ("pivot_root", Native, 155, zeroes, EPERM),
        ("setns", Native, 308, first(0), EPERM),
        ("unshare-user", Native, 272, first(NEW_USER), EPERM),
        ("unshare-mounts", Native, 272, first(NEW_MOUNTS), EPERM),
        ("unshare-user-hidden", Native, 272, first(NEW_USER | 1 << 40), EPERM),
        ("unshare-i386", I386, 310, first(NEW_USER), EPERM),
        ("clone-user", Native, 56, first(NEW_USER | 17), EPERM),
        ("clone3", Native, 435, [ZEROES, 88, 0, 0, 0, 0], ENOSYS),
        ("fsopen", Native, 430, zeroes, EPERM),
        ("open_tree", Native, 428, [0, ZEROES, 0, 0, 0, 0], EPERM),
        ("move_mount", Native, 429, none, EPERM),
        ("mount_setattr", Native, 442, none, EPERM),
        ("keyctl", Native, 250, none, EPERM),
        ("keyctl-i386", I386, 288, none, EPERM),
        ("add_key", Native, 248, zeroes, EPERM),
        ("request_key", Native, 249, zeroes, EPERM),
        ("bpf", Native, 321, [0, ZEROES, 128, 0, 0, 0], EPERM),
        ("bpf-i386", I386, 357, none, EPERM),
        ("userfaultfd", Native, 323, none, EPERM),
        ("perf_event_open", Native, 298, [ZEROES, 0, 0, 0, 0, 0], EPERM),
        ("io_uring_setup", Native, 425, [8, ZEROES, 0, 0, 0, 0], EPERM),
        ("io_uring_setup-i386", I386, 425, [8, ZEROES, 0, 0, 0, 0], EPERM),
        ("io_uring_enter", Native, 426, none, EPERM),
        ("io_uring_register", Native, 427, none, EPERM),
        ("init_module", Native, 175, zeroes, EPERM),
        ("finit_module", Native, 313, none, EPERM),
        ("delete_module", Native, 176, zeroes, EPERM),
        ("kexec_load", Native, 246, none, EPERM),
        ("kexec_file_load", Native, 320, none, EPERM),
        ("open_by_handle_at", Native, 304, [0, ZEROES, 0, 0, 0, 0], EPERM),
        ("pidfd_getfd", Native, 438, none, EPERM),
        ("process_madvise", Native, 440, none, EPERM),
        ("kcmp", Native, 312, [1, 1, 0, 0, 0, 0], EPERM),
        ("ioperm", Native, 173, [0, 8, 1, 0, 0, 0], EPERM),
        ("iopl", Native, 172, first(3), EPERM),
        ("swapon", Native, 167, zeroes, EPERM),
        ("reboot", Native, 169, none, EPERM),
        ("acct", Native, 163, zeroes, EPERM),
        ("settimeofday", Native, 164, zeroes, EPERM),
        ("clock_settime", Native, 227, [0, ZEROES, 0, 0, 0, 0], EPERM),
        ("sethostname", Native, 170, [ZEROES, 1, 0, 0, 0, 0], EPERM),
        ("syslog", Native, 103, [3, ZEROES, 64, 0, 0, 0], EPERM),
        ("quotactl", Native, 179, none, EPERM),
        ("fanotify_init", Native, 300, none, EPERM),
        ("lookup_dcookie", Native, 212, none, EPERM),
        ("vhangup", Native, 153, none, EPERM),
        ("move_pages", Native, 279, none, EPERM),
        ("set_mempolicy", Native, 238, none, EPERM),
        ("personality", Native, 135, first(0x4_0000), EPERM),
        // The kernel's cryptography, through which shared files were overwritten (CVE-2026-31431), and the hypervisor.
        ("socket-alg", Native, 41, [38, 5, 0, 0, 0, 0], EPERM),
        ("socket-alg-i386", I386, 359, [38, 5, 0, 0, 0, 0], EPERM),
        ("socket-vsock", Native, 41, [40, 1, 0, 0, 0, 0], EPERM),
        // Whole frames, and what others receive in the same network.
        ("socket-packet", Native, 41, [17, 3, 0x300, 0, 0, 0], EPERM),
        ("socket-packet-i386", I386, 359, [17, 3, 0x300, 0, 0, 0], EPERM),
        ("socket-old-packet", Native, 41, [2, 10, 0x300, 0, 0, 0], EPERM),
        ("socket-xdp", Native, 41, [44, 3, 0, 0, 0, 0], EPERM),
        ("socket-raw-tcp", Native, 41, [2, 3, 6, 0, 0, 0], EPERM),
        // As with Docker these are there, or no program would work.
        ("socket-unix", Native, 41, [1, 1, 0, 0, 0, 0], 0),
        ("getpid", Native, 39, none, 0),
        ("getpid-i386", I386, 20, none, 0),
    ]
}

#[test]
fn privileged_calls_to_the_kernel_are_dockers() {
    const TEST: &str = "privileged_calls_to_the_kernel_are_dockers";
    if std::env::consts::ARCH != "x86_64" {
        return skipped(TEST, "its programs are for x86-64");
    }
    for builder in Builder::all(TEST) {
        let fixture = Fixture::with(
            "FROM busybox\nCOPY probes /probes\nRUN for p in /probes/*; do $p; echo ${p##*/} $?; done > /result 2>/dev/null\n",
        );
        let calls = refused_calls();
        for (name, abi, number, arguments, _) in &calls {
            let path = format!("probes/{name}");
            fixture.write(&path, one_call(*abi, *number, *arguments));
            let executable = fs::Permissions::from_mode(0o755);
            fs::set_permissions(fixture.context().join(path), executable).unwrap();
        }
        let out = format!("type=local,dest={}", fixture.path("out").display());
        builder.build(&fixture, &["-o", &out]).ok();
        let result = read(&fixture.path("out"), "result");
        let results: BTreeMap<&str, i32> = result
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, code)| (name, code.parse().unwrap()))
            .collect();
        // A kernel without the 32-bit calls ends the program.
        let has_i386 = results["getpid-i386"] == 0;
        for (name, abi, _, _, expected) in &calls {
            if *abi == Abi::Native || has_i386 {
                assert_eq!(results.get(name), Some(expected), "{name}, {builder:?}: {result}");
            }
        }
    }
}

#[test]
fn privileged_nothing_of_the_machine_is_in_reach() {
    const TEST: &str = "privileged_nothing_of_the_machine_is_in_reach";
    // A process of the machine's to look for.
    let mut host = Command::new("sleep").arg("1000").spawn().unwrap();
    let host_pid = host.id();
    for builder in Builder::all(TEST) {
        let fixture = Fixture::new();
        let bait = Bait::new(&fixture);
        let path = bait.path();
        fixture.write(
            "Dockerfile",
            format!(
                "FROM busybox\nRUN exec 2>/dev/null\n\
                 RUN exec 2>/dev/null; \
                     for root in /proc/*/root /proc/*/cwd /proc/self/fd/* /proc/1/task/*/root /dev/fd/*; do cat $root{path}/secret $root/../../../..{path}/secret && echo read $root; done; \
                     test -e /proc/{host_pid} && echo sees the process; kill -0 {host_pid} && echo reaches the process; \
                     cat /proc/1/environ | grep -q RBUILD && echo sees the environment; \
                     grep -l . /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug && echo reads; \
                     for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sys/vm/drop_caches /proc/sysrq-trigger /proc/irq/default_smp_affinity; do (echo x > $f) && echo writes $f; done; \
                     (echo 1000 > /proc/1/oom_score_adj; true); (echo -1000 > /proc/self/oom_score_adj) && echo hides from the killer; \
                     mount -t proc none /mnt && echo mounts; mount -o remount,rw /proc/sys && echo remounts; mount --bind / /mnt && echo binds; umount /proc/kcore && echo unmounts; \
                     unshare -r true && echo unshares; unshare -m true && echo unshares; nsenter -t 1 -m true && echo enters; chroot /proc/1/root ls {path} && echo chroots; \
                     mkdir /sys/fs/cgroup/x && echo makes a group; (echo 1 > /sys/fs/cgroup/cgroup.procs) && echo joins; \
                     mknod /disk b 254 0; head -c 1 /disk && echo opens; mknod /mem c 1 1; head -c 1 /mem && echo opens; mknod /dev/shm/mem c 1 1; head -c 1 /dev/shm/mem && echo opens; \
                     cat < /dev/tty && echo has a terminal; test \"$(cut -d' ' -f7 /proc/self/stat)\" = 0 || echo has a terminal; \
                     dmesg && echo reads the log; \
                     echo end\n"
            ),
        );
        let ran = builder.build(&fixture, &["-o", "type=cacheonly"]).ok();
        let said: Vec<&str> = ran
            .stderr
            .lines()
            .filter(|line| {
                line.starts_with('#')
                    && line.split(' ').nth(1).is_some_and(|word| word.parse::<f64>().is_ok())
            })
            .filter_map(|line| line.splitn(3, ' ').nth(2))
            .collect();
        assert_eq!(said, ["end"], "{builder:?}: {}", ran.stderr);
        bait.is_untouched(&ran, &[]);
    }
    assert!(host.try_wait().unwrap().is_none());
    host.kill().unwrap();
    host.wait().unwrap();
}

/// Programs with set-user-id bits that a step makes are of its own users only.
#[test]
fn privileged_set_user_id_is_within_the_users_of_the_build() {
    const TEST: &str = "privileged_set_user_id_is_within_the_users_of_the_build";
    if std::env::consts::ARCH != "x86_64" {
        return skipped(TEST, "its program is for x86-64");
    }
    for builder in Builder::all(TEST) {
        if builder == Builder::SingleId {
            continue;
        }
        let fixture = Fixture::with(
            "FROM busybox\n\
             RUN echo app:x:1000:1000::/:/bin/sh >> /etc/passwd\n\
             COPY --chmod=6755 --chown=0:0 become-root /\n\
             USER app\nRUN /become-root; echo $? > /tmp/who; cat /proc/self/uid_map > /tmp/map; grep CapEff /proc/self/status >> /tmp/map; (cat /proc/1/environ; cat /root/x) 2>/dev/null; true\n",
        );
        let set_user = 105;
        fixture.write("become-root", one_call(Abi::Native, set_user, [0; 6]));
        let out = format!("type=local,dest={}", fixture.path("out").display());
        builder.build(&fixture, &["-o", &out]).ok();
        assert_eq!(read(&fixture.path("out"), "tmp/who"), "0\n", "{builder:?}");
        let map = read(&fixture.path("out"), "tmp/map");
        assert!(map.contains("0000000000000000"), "{map}");
        if builder == Builder::SubIds {
            // Root of the step is the user, and the rest are the sub-ids: nobody of the machine's.
            let ids: Vec<&str> = map.split_whitespace().take(6).collect();
            assert_eq!(ids, ["0", "65534", "1", "1", "300000", "65536"], "{map}");
        }
    }
}

/// Characters pushed into the terminal from which rbuild runs (`TIOCSTI`), and writes to `/dev/stdout` that race with its end.
#[test]
fn privileged_the_terminal_of_the_build_is_out_of_reach() {
    const TEST: &str = "privileged_the_terminal_of_the_build_is_out_of_reach";
    if !have(TEST, "script") {
        return;
    }
    let fixture = Fixture::with(
        "FROM busybox\n\
         RUN for f in 0 1 2; do test -t $f && echo terminal $f; readlink /proc/self/fd/$f; done; cut -d' ' -f7 /proc/self/stat; (: < /dev/tty) 2>/dev/null && echo opened; true\n\
         RUN rm -f /dev/stdout; ln -s /etc/passwd /dev/stdout; echo x > /dev/stdout; true\n\
         RUN (for i in 1 2 3 4 5; do echo late > /dev/stdout; done &) ; echo x > /proc/1/fd/1; test -c /dev/null\n",
    );
    let build = fixture.build_command("store", &["-o", "type=cacheonly"]);
    let words = std::iter::once(build.get_program()).chain(build.get_args());
    let line: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
    let mut command = Command::new("script");
    command
        .args(["-qec", &line.join(" "), "/dev/null"])
        .env_clear()
        .envs(build.get_envs().filter_map(|(key, value)| Some((key, value?))))
        .current_dir(fixture.path(""));
    let ran = ran(command.output().unwrap());
    let text = ran.text();
    assert_eq!(ran.code, 0, "{text}");
    let said: Vec<&str> = text.lines().filter(|line| !line.contains("RUN ")).collect();
    let said = said.join("\n");
    assert!(
        !said.contains("terminal ") && !said.contains("opened") && !said.contains("/dev/pts"),
        "{text}"
    );
}

/// A step of another build that looks for the secret of this one while it runs.
#[test]
fn privileged_siblings_do_not_see_secrets() {
    let fixture = Fixture::with(
        "FROM busybox AS holder\n\
         RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S --mount=type=cache,id=meet,target=/m touch /m/holds; i=0; until test -e /m/looked || test $i -ge 3000; do i=$((i+1)); usleep 10000; done\n\
         FROM busybox AS thief\n\
         RUN --mount=type=cache,id=meet,target=/m exec 2>/dev/null; i=0; until test -e /m/holds || test $i -ge 3000; do i=$((i+1)); usleep 10000; done; \
             cat /proc/*/environ /proc/*/root/run/secrets/s /proc/*/cmdline /run/secrets/s /dev/shm/* < /dev/null | head -c 100000 > /loot; touch /m/looked; true\n\
         FROM scratch\nCOPY --from=thief /loot /\nCOPY --from=holder /etc/passwd /\n",
    );
    fs::write(fixture.path("secret"), SECRET).unwrap();
    let out = fixture.build_files(&["--secret", "id=s,src=secret"]);
    assert!(!String::from_utf8_lossy(&fs::read(out.join("loot")).unwrap()).contains(SECRET));
    assert_eq!(super::bait::holds(&fixture.path("store"), SECRET), None);
}
