//! The step's process: its program, exit, user, directory, descriptors.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rbuild_worker::{ExitStatus, Rlimit, RlimitResource, SandboxError};

use crate::support::{Root, command, require_root, runtime, sandbox, script};

/// An ELF file of 32 bits whose only code is `exit(42)` by way of `int 0x80`.
#[cfg(target_arch = "x86_64")]
fn i386_program() -> Vec<u8> {
    let code = [0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80];
    let base = 0x0804_8000_u32;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // Executable, Intel 80386, version 1.
    elf.extend([2, 0, 3, 0, 1, 0, 0, 0]);
    // Entry point, program headers, no section headers, no flags.
    for value in [base + 84, 52, 0, 0] {
        elf.extend(value.to_le_bytes());
    }
    elf.extend([52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // One loaded segment: the whole file, readable and executable.
    let size = 84 + u32::try_from(code.len()).unwrap();
    for value in [1, 0, base, base, size, size, 5, 0x1000] {
        elf.extend(value.to_le_bytes());
    }
    elf.extend(code);
    elf
}

/// An ELF file of 64 bits whose only code is an undefined instruction.
#[cfg(target_arch = "x86_64")]
fn crashing_program() -> Vec<u8> {
    let code = [0x0f, 0x0b];
    let base = 0x40_0000_u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for value in [base + 120, 64, 0] {
        elf.extend(value.to_le_bytes());
    }
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    let size = 120 + u64::try_from(code.len()).unwrap();
    for value in [0, base, base, size, size, 0x1000] {
        elf.extend(value.to_le_bytes());
    }
    elf.extend(code);
    elf
}

#[test]
fn privileged_exit_code_is_reported() {
    require_root!();
    let root = Root::new();
    for code in [0, 1, 42, 255] {
        let done = root.run(&script(&format!("exit {code}")));
        assert_eq!(done.exit.status, ExitStatus::Code(code));
    }
    let done = root.run(&script("echo out; echo err >&2; exit 3"));
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("out\n", "err\n"));
    assert!(done.exit.usage.max_resident > 0);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn privileged_signal_is_reported() {
    require_root!();
    let root = Root::new();
    root.write_program("crash", crashing_program());
    let done = root.run(&command(&["/crash"]));
    assert_eq!(done.exit.status, ExitStatus::Signal(4));
    // A shell that is the first process reports its child's.
    assert_eq!(root.run(&script("/crash; exit $?")).exit.status, ExitStatus::Code(132));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn privileged_32_bit_program_runs() {
    require_root!();
    let root = Root::new();
    root.write_program("exit42", i386_program());
    assert_eq!(root.run(&command(&["/exit42"])).exit.status, ExitStatus::Code(42));
}

#[test]
fn privileged_program_is_searched_in_the_roots_path() {
    require_root!();
    let root = Root::new();
    root.write_program("usr/bin/where", "#!/bin/sh\necho usr\n");
    root.write_program("bin/where", "#!/bin/sh\necho bin\n");
    assert_eq!(root.output(&command(&["where"])), "usr\n");
    let mut spec = command(&["where"]);
    spec.env = vec!["PATH=/nonesuch:/bin".to_owned()];
    assert_eq!(root.output(&spec), "bin\n");
}

#[test]
fn privileged_program_that_cannot_run_has_a_shells_code() {
    require_root!();
    let root = Root::new();
    root.write("bin/data", "x");
    root.write_program("bin/lost", "#!/nonesuch\n");
    root.write_program("bin/binary", [0x7f, b'X']);
    for (program, code, message) in [
        ("nonesuch", 127, "exec: \"nonesuch\": executable file not found in $PATH"),
        ("/x/nonesuch", 127, "exec: \"/x/nonesuch\": stat /x/nonesuch: no such file or directory"),
        ("/bin/data", 126, "exec: \"/bin/data\": permission denied"),
        ("data", 126, "exec: \"/bin/data\": permission denied"),
        ("/bin", 126, "exec: \"/bin\": permission denied"),
        (
            "lost",
            127,
            "exec: \"/bin/lost\": no such file or directory (its interpreter or loader is missing)",
        ),
        ("/bin/binary", 126, "exec: \"/bin/binary\": exec format error"),
    ] {
        let error = root.try_run(&command(&[program]), &[]).unwrap_err();
        assert_eq!(
            (error.exit_code(), error.to_string().as_str()),
            (Some(code), message),
            "{program}"
        );
    }
}

#[test]
fn privileged_user_is_looked_up_in_the_root() {
    require_root!();
    let root = Root::new();
    for (user, expected) in [
        ("", "uid=0(root) gid=0(root) groups=0(root)\n/root\n"),
        ("app", "uid=1000(app) gid=1001(app) groups=50(staff),1001(app)\n/home/app\n"),
        ("1000", "uid=1000(app) gid=1001(app) groups=50(staff),1001(app)\n/home/app\n"),
        ("app:staff", "uid=1000(app) gid=50(staff) groups=50(staff)\n/home/app\n"),
        ("4242:7", "uid=4242 gid=7 groups=7\n/\n"),
    ] {
        let mut spec = script("id; echo $HOME");
        spec.user = user.to_owned();
        assert_eq!(root.output(&spec), expected, "{user}");
    }
    let mut spec = script("id");
    spec.user = "nobodyknows".to_owned();
    let error = root.try_run(&spec, &[]).unwrap_err();
    assert!(matches!(error, SandboxError::User(_)));
    assert_eq!(
        error.to_string(),
        "unable to find user nobodyknows: no matching entries in passwd file"
    );
}

#[test]
fn privileged_missing_working_directory_is_made_for_the_user() {
    require_root!();
    let root = Root::new();
    let mut spec = script("pwd; touch x");
    spec.user = "app".to_owned();
    spec.cwd = "/srv/a/b".to_owned();
    assert_eq!(root.output(&spec), "/srv/a/b\n");
    for directory in ["srv", "srv/a", "srv/a/b"] {
        let metadata = root.path.join(directory).metadata().unwrap();
        let facts = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
        assert_eq!(facts, (1000, 1001, 0o755), "{directory}");
    }
    assert_eq!(root.path.join("srv/a/b/x").metadata().unwrap().uid(), 1000);
}

#[test]
fn privileged_program_is_the_only_child_of_the_reaper() {
    require_root!();
    let root = Root::new();
    // `ls` has its directory open as 3.
    assert_eq!(
        root.output(&script("echo $$ $PPID; umask; cat; ls /proc/self/fd")),
        "2 1\n0022\n0\n1\n2\n3\n"
    );
}

#[test]
fn privileged_orphans_are_reaped() {
    require_root!();
    let root = Root::new();
    // The shell is not asked to wait for what it did not start; it goes round until there is not even a zombie.
    let orphan = "orphan=$(sh -c 'true >/dev/null & echo $!')";
    let text = format!("{orphan}; while [ -e /proc/$orphan ]; do :; done; echo reaped");
    assert_eq!(root.output(&script(&text)), "reaped\n");
}

#[test]
fn privileged_signals_have_their_usual_effect() {
    require_root!();
    let root = Root::new();
    let status = |text: &str| root.run(&script(text)).exit.status;
    assert_eq!(status("kill -TERM $$; echo survived"), ExitStatus::Signal(15));
    assert_eq!(status("kill -9 $$"), ExitStatus::Signal(9));
    assert_eq!(status("kill -9 0; exit 3"), ExitStatus::Signal(9));
    assert_eq!(status("kill -9 1; exit 3"), ExitStatus::Code(3));
}

#[test]
fn privileged_reaper_is_confined_and_holds_nothing() {
    require_root!();
    let root = Root::new();
    let same = "for f in CapEff CapBnd Seccomp: Uid NoNewPrivs; do
                  [ \"$(grep ^$f /proc/1/status)\" = \"$(grep ^$f /proc/self/status)\" ] || echo $f differs
                done";
    // Unlike a pipe, a socket cannot be opened once more.
    let own = "for f in /proc/1/fd/*; do case $(readlink $f) in
                 /dev/null|pipe:*) echo fine;;
                 socket:*) (echo x > $f) 2>/dev/null && echo written || echo fine;;
                 *) readlink $f;;
               esac; done";
    let output = root.output(&script(&format!("{same}; {own}; cat /proc/1/comm")));
    assert_eq!(output, "fine\nfine\nfine\nfine\nrbuild-init\n");
    let mut spec = script("id -u; grep ^Uid /proc/1/status");
    spec.user = "app".to_owned();
    assert_eq!(root.output(&spec), "1000\nUid:\t1000\t1000\t1000\t1000\n");
}

#[test]
fn privileged_ignored_signals_are_not_inherited() {
    require_root!();
    let root = Root::new();
    assert_eq!(
        root.output(&command(&["grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"])),
        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
    );
}

#[test]
fn privileged_limits_are_set() {
    require_root!();
    let root = Root::new();
    let mut spec = script("ulimit -n; ulimit -Hn; ulimit -c");
    spec.rlimits = vec![
        Rlimit { resource: RlimitResource::Nofile, soft: Some(100), hard: Some(200) },
        Rlimit { resource: RlimitResource::Core, soft: Some(0), hard: Some(0) },
    ];
    assert_eq!(root.output(&spec), "100\n200\n0\n");
}

#[test]
fn privileged_limits_of_the_sandbox_give_way_to_those_of_a_step() {
    require_root!();
    let root = Root::new();
    let limit = |resource, value| Rlimit { resource, soft: Some(value), hard: Some(value) };
    let mut spec = script("ulimit -n; ulimit -c");
    spec.rlimits = vec![limit(RlimitResource::Nofile, 100)];
    let sandbox = sandbox()
        .with_rlimits(vec![limit(RlimitResource::Nofile, 200), limit(RlimitResource::Core, 0)]);
    let mut output = Vec::new();
    let mount = root.mount();
    let ran = sandbox.run(&spec, mount.as_fd(), &[], |_, bytes| output.extend_from_slice(bytes));
    runtime().block_on(ran).unwrap();
    assert_eq!(String::from_utf8(output).unwrap(), "100\n0\n");
}

#[test]
fn privileged_environment_is_exactly_what_was_asked_for() {
    require_root!();
    let root = Root::new();
    let mut spec = command(&["env"]);
    spec.env.push("GREETING=a b=c\nd".to_owned());
    assert_eq!(root.output(&spec), "PATH=/usr/bin:/bin\nGREETING=a b=c\nd\nHOME=/root\n");
}
