//! What a step cannot see and cannot do.

use rbuild_worker::{
    ExitStatus, ExtraHost, Mount, MountAttributes, MountKind, NetworkMode, SecurityMode,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::{Root, bind, command, require_root, script};

const STATUS: &str = "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status";

#[test]
fn privileged_capabilities_are_dockers() {
    require_root!();
    let root = Root::new();
    assert_eq!(
        root.output(&script(STATUS)),
        "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
         CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n"
    );
    let mut spec = script(STATUS);
    spec.user = "app".to_owned();
    assert_eq!(
        root.output(&spec),
        "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
         CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n"
    );
}

#[test]
fn privileged_insecure_keeps_every_capability() {
    require_root!();
    let root = Root::new();
    let ours = std::fs::read_to_string("/proc/self/status").unwrap();
    let permitted = ours.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap();
    for user in ["", "app"] {
        let mut spec = script(STATUS);
        spec.user = user.to_owned();
        spec.security = SecurityMode::Insecure;
        let output = root.output(&spec);
        for expected in
            ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|set| format!("{set}:{permitted}\n"))
        {
            assert!(output.contains(&expected), "{user}: {output}");
        }
        assert!(output.contains("Seccomp:\t0\n"), "{output}");
    }
    let mut spec = script("mkdir /sys/fs/x 2>&1; unshare -m mount -t tmpfs none /tmp");
    spec.security = SecurityMode::Insecure;
    assert!(!root.output(&spec).contains("Read-only"));
}

#[test]
fn privileged_new_namespaces_and_mounts_are_refused() {
    require_root!();
    let root = Root::new();
    for text in [
        "unshare -U true",
        "unshare -m true",
        "mount -t tmpfs none /tmp",
        "umount /proc",
        "umount /etc/hosts",
        "hostname other",
    ] {
        let done = root.run(&script(text));
        assert_ne!(done.exit.status, ExitStatus::Code(0), "{text}");
        assert!(
            done.stderr.contains("ermitted") || done.stderr.contains("denied"),
            "{text}: {}",
            done.stderr
        );
    }
}

#[test]
fn privileged_proc_and_sys_are_masked() {
    require_root!();
    let root = Root::new();
    let output = root.output(&script(
        "for f in kcore keys timer_list; do test ! -e /proc/$f || cat /proc/$f; done
         for d in /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do test ! -d $d || ls $d; done
         for f in sys/kernel/hostname sysrq-trigger; do (echo x >/proc/$f) 2>/dev/null && echo wrote $f; done
         mkdir /sys/fs/x 2>/dev/null && echo wrote sys
         true",
    ));
    assert_eq!(output, "");
}

#[test]
fn privileged_only_own_processes_are_visible() {
    require_root!();
    let root = Root::new();
    assert_eq!(root.output(&script("echo /proc/[0-9]*")), "/proc/1 /proc/2\n");
}

#[test]
fn privileged_host_and_network_files() {
    require_root!();
    let root = Root::new();
    let mut spec = script(
        "hostname; cat /etc/hosts /etc/resolv.conf; (echo x >/etc/hosts) 2>/dev/null || echo no",
    );
    spec.hostname = "builder".to_owned();
    spec.extra_hosts.push(ExtraHost { host: "db".to_owned(), address: "10.0.0.7".to_owned() });
    spec.resolv_conf = "nameserver 10.9.8.7\n".to_owned();
    assert_eq!(
        root.output(&spec),
        "builder\n127.0.0.1\tlocalhost builder\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.7\tdb\n\
         nameserver 10.9.8.7\nno\n"
    );
    assert_eq!(root.output(&script("hostname")), "buildkitsandbox\n");
}

#[test]
fn privileged_network_none_has_the_loopback_device_only() {
    require_root!();
    let root = Root::new();
    let mut spec =
        script("ls /sys/class/net; cat /sys/class/net/lo/flags; grep -c : /proc/net/dev");
    spec.network = NetworkMode::None;
    // Up and loopback.
    assert_eq!(root.output(&spec), "lo\n0x9\n1\n");
    let namespace = |network| {
        let mut spec = script("readlink /proc/self/ns/net");
        spec.network = network;
        root.output(&spec).trim().to_owned()
    };
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap().to_string_lossy().into_owned();
    assert_eq!(namespace(NetworkMode::Host), ours);
    assert_ne!(namespace(NetworkMode::None), ours);
}

#[test]
fn privileged_devices_are_the_usual_ones() {
    require_root!();
    let root = Root::new();
    let output = root.output(&script(
        "ls /dev; for d in null zero full tty urandom random; do stat -c '%n %t:%T %a' /dev/$d; done
         head -c 3 /dev/zero | wc -c; echo x >/dev/null; (echo x >/dev/full) 2>&1 | grep -c space; echo y >/dev/stderr
         stat -f -c %T /dev/shm; stat -c %a /dev/shm; ls /dev/fd | head -1",
    ));
    assert_eq!(
        output,
        "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n\
         /dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/full 1:7 666\n/dev/tty 5:0 666\n/dev/urandom 1:9 666\n\
         /dev/random 1:8 666\n3\n1\ntmpfs\n1777\n0\n"
    );
}

#[test]
fn privileged_devices_can_be_made_and_not_opened() {
    require_root!();
    for root_read_only in [false, true] {
        let root = Root::new();
        let bound = tempfile::tempdir().unwrap();
        // As an image or a context may bring along.
        let brought = std::fs::create_dir(bound.path().join("sub")).and_then(|()| {
            let place = bound.path().join("sub/zero");
            let null = rustix::fs::makedev(1, 5);
            Ok(mknodat(CWD, place, FileType::CharacterDevice, Mode::from_raw_mode(0o666), null)?)
        });
        let mut spec = script(
            "for d in $PLACES; do
                 mknod -m 666 $d/made c 1 5 && test -c $d/made || echo cannot make $d/made
                 (head -c 1 <$d/made) 2>&1 | grep -c 'ermission denied'
                 rm $d/made
             done
             ! test -e /bound/sub/zero || (head -c 1 </bound/sub/zero) 2>&1 | grep -c 'ermission denied'
             grep -v ' [^ ]*,nodev' /proc/mounts | grep -vE ' /(dev/(null|zero|full|tty|urandom|random|pts)|proc/[a-z_]+) '
             true",
        );
        spec.root_read_only = root_read_only;
        let mut places = vec!["/dev", "/dev/shm", "/bound", "/scratch"];
        if !root_read_only {
            places.extend(["", "/tmp"]);
        }
        spec.env.push(format!("PLACES={}", places.join("/ ") + "/"));
        spec.mounts.push(bind("/bound", false));
        spec.mounts.push(Mount {
            destination: "/scratch".to_owned(),
            kind: MountKind::Tmpfs { size: None, mode: 0o755 },
            attributes: MountAttributes::default(),
        });
        let done = root.try_run(&spec, &[bound.path()]).unwrap();
        let refused = places.len() + usize::from(brought.is_ok());
        assert_eq!(done.stdout, "1\n".repeat(refused), "{}", done.stderr);
    }
}

#[test]
fn privileged_modes_of_the_hosts_devices_are_out_of_reach() {
    require_root!();
    let mode = || rustix::fs::stat("/dev/null").unwrap().st_mode;
    let before = mode();
    let output = Root::new().output(&script(
        "chmod 600 /dev/null; stat -c %a /dev/null; chmod 600 /proc/timer_list 2>&1 | grep -c 'ead-only'; true",
    ));
    assert_eq!(output, "600\n1\n");
    assert_eq!(mode(), before);
}

#[test]
fn privileged_insecure_opens_devices() {
    require_root!();
    let mut spec = script("mknod /made c 1 5 && head -c 3 /made | wc -c");
    spec.security = SecurityMode::Insecure;
    assert_eq!(Root::new().output(&spec), "3\n");
}

#[test]
fn privileged_nothing_of_the_hosts_mounts_is_left() {
    require_root!();
    let root = Root::new();
    let expected = [
        "/",
        "/proc",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/tty",
        "/dev/urandom",
        "/dev/random",
        "/sys",
        "/sys/fs/cgroup",
        "/etc/resolv.conf",
        "/etc/hosts",
    ];
    for root_read_only in [false, true] {
        let mut spec = script("cat /proc/mounts; cd /etc; ls ../../..");
        spec.root_read_only = root_read_only;
        let output = root.output(&spec);
        let (mounts, names): (Vec<&str>, Vec<&str>) =
            output.lines().partition(|line| line.contains(' '));
        let mut roots = 0;
        for place in mounts.iter().map(|line| line.split(' ').nth(1).unwrap()) {
            let masked = place.starts_with("/proc/") || place.starts_with("/sys/");
            assert!(masked || expected.contains(&place), "{place} is mounted: {output}");
            roots += usize::from(place == "/");
        }
        assert_eq!(roots, 1, "{output}");
        // A mount that is left on top of the root is entered by "..".
        assert_eq!(names, ["bin", "dev", "etc", "proc", "run", "sys", "tmp"]);
    }
}

#[test]
fn privileged_program_of_the_sandbox_cannot_be_written() {
    require_root!();
    let root = Root::new();
    // The kernel resolves the interpreter while the process still is the sandbox's program, and executes that inside of the sandbox
    // (CVE-2019-5736).
    root.write_program("overwrite", "#!/proc/self/exe\n");
    // The fixture is linked dynamically.
    for line in std::fs::read_to_string("/proc/self/maps").unwrap().lines() {
        if let Some(library) = line.split_whitespace().nth(5).filter(|path| path.contains(".so")) {
            root.write_program(library.trim_start_matches('/'), std::fs::read(library).unwrap());
        }
    }
    let loader = std::path::Path::new("/lib64/ld-linux-x86-64.so.2");
    if loader.exists() {
        root.write_program("lib64/ld-linux-x86-64.so.2", std::fs::read(loader).unwrap());
    }
    let output = root.output(&command(&["/overwrite"]));
    assert_eq!(
        output,
        "Err(Os { code: 30, kind: ReadOnlyFilesystem, message: \"Read-only file system\" })\n"
    );
}
