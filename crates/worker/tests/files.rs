//! The step's file system: mounts, the stubs under them, hostile roots.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rbuild_worker::{ExitStatus, Mount, MountAttributes, MountKind, SandboxError};

use crate::support::{Root, bind, require_root, script};

/// Everything under a directory, sorted, with modification times.
fn listing(directory: &Path) -> Vec<(String, SystemTime)> {
    fn walk(directory: &Path, base: &Path, found: &mut Vec<(String, SystemTime)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(base).unwrap().display().to_string();
            found.push((name, metadata.modified().unwrap()));
            if metadata.is_dir() {
                walk(&path, base, found);
            }
        }
    }
    let mut found = vec![(".".to_owned(), fs::metadata(directory).unwrap().modified().unwrap())];
    walk(directory, directory, &mut found);
    found.sort();
    found
}

fn tmpfs(destination: &str, size: Option<u64>) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: MountKind::Tmpfs { size, mode: 0o1777 },
        attributes: MountAttributes::default(),
    }
}

#[test]
fn privileged_nothing_of_the_mounts_is_left() {
    require_root!();
    let root = Root::bare();
    fs::create_dir(root.path.join("etc")).unwrap();
    symlink("../run/systemd/resolve/stub-resolv.conf", root.path.join("etc/resolv.conf")).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for directory in ["etc", "."] {
        fs::File::open(root.path.join(directory)).unwrap().set_modified(old).unwrap();
    }
    let before = listing(&root.path);
    let mut spec = script("cat /etc/resolv.conf; test -d /a/b/c && test -c /dev/null");
    spec.resolv_conf = "nameserver 10.1.1.1\n".to_owned();
    spec.mounts.push(tmpfs("/a/b/c", None));
    assert_eq!(root.output(&spec), "nameserver 10.1.1.1\n");
    assert_eq!(listing(&root.path), before);
    // A failure leaves nothing either.
    spec.args = vec!["/nonesuch".to_owned()];
    root.try_run(&spec, &[]).unwrap_err();
    assert_eq!(listing(&root.path), before);
}

#[test]
fn privileged_what_the_step_writes_stays() {
    require_root!();
    let root = Root::bare();
    let spec = script("mkdir /run /etc/new; echo x >/run/pid; echo y >/etc/motd; touch /tmp.txt");
    root.output(&spec);
    let names: Vec<String> = listing(&root.path).into_iter().map(|(name, _)| name).collect();
    let kept: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| !name.starts_with("bin")).collect();
    assert_eq!(kept, [".", "etc", "etc/motd", "etc/new", "run", "run/pid", "tmp.txt"]);
}

#[test]
fn privileged_mounts_are_as_asked() {
    require_root!();
    let root = Root::new();
    let shared = root.directory.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("input"), "hello").unwrap();
    let mut spec = script(
        "cat /ro/input; (echo x >/ro/new) 2>/dev/null || echo refused; echo out >/rw/output
         stat -c '%a %u:%g' /run/secret; cat /run/secret
         dd if=/dev/zero of=/small/x bs=1k count=100 2>/dev/null || echo full
         mkdir /nested/deep/er && ls /nested/deep",
    );
    spec.mounts = vec![
        bind("/ro", true),
        bind("/rw", false),
        Mount {
            destination: "/run/secret".to_owned(),
            kind: MountKind::File {
                contents: b"s3cret\n".to_vec(),
                mode: 0o400,
                uid: 1000,
                gid: 1001,
            },
            attributes: MountAttributes { read_only: true, ..MountAttributes::default() },
        },
        tmpfs("/small", Some(16 * 1024)),
        tmpfs("/nested", None),
        tmpfs("/nested/deep", None),
    ];
    let done = root.try_run(&spec, &[&shared]).unwrap();
    assert_eq!(done.stdout, "hellorefused\n400 1000:1001\ns3cret\nfull\ner\n", "{}", done.stderr);
    assert_eq!(fs::read_to_string(shared.join("output")).unwrap(), "out\n");
    assert!(!root.path.join("nested").exists() && !root.path.join("run/secret").exists());
}

#[test]
fn privileged_read_only_root_refuses_writes() {
    require_root!();
    let root = Root::new();
    let mut spec = script("touch /x 2>/dev/null || echo refused; touch /scratch/x && echo written");
    spec.root_read_only = true;
    spec.mounts.push(tmpfs("/scratch", None));
    assert_eq!(root.output(&spec), "refused\nwritten\n");
    assert!(!root.path.join("scratch").exists());
}

#[test]
fn privileged_no_exec_and_no_suid_hold() {
    require_root!();
    let root = Root::new();
    let shared = root.directory.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("tool"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(shared.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = script("/tools/tool");
    spec.mounts.push(bind("/tools", false));
    assert_eq!(root.try_run(&spec, &[&shared]).unwrap().stdout, "ran\n");
    spec.mounts[0].attributes.no_exec = true;
    assert_eq!(root.try_run(&spec, &[&shared]).unwrap().exit.status, ExitStatus::Code(126));
}

#[test]
fn privileged_system_directories_may_not_be_links() {
    require_root!();
    for name in ["proc", "sys", "dev"] {
        let root = Root::bare();
        symlink("/", root.path.join(name)).unwrap();
        let before = listing(&root.path);
        let error = root.try_run(&script("true"), &[]).unwrap_err();
        assert!(matches!(error, SandboxError::SetUp { .. }));
        assert!(error.to_string().contains("it is a symbolic link in the image"), "{error}");
        // `proc` is mounted first, so its place may have been made before `sys` and `dev` are refused.
        assert_eq!(listing(&root.path), before, "{name}");
    }
}

#[test]
fn privileged_links_out_of_the_root_do_no_harm() {
    require_root!();
    let root = Root::bare();
    let outside = root.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("passwd"), "evil:x:0:0::/:/bin/sh\n").unwrap();
    let before_outside = listing(&outside);
    symlink("../../outside", root.path.join("etc")).unwrap();
    symlink("../../../../../../../../../../../../../..", root.path.join("up")).unwrap();
    let mut spec = script("cat /outside/resolv.conf; test -e /passwd || echo confined");
    spec.resolv_conf = "nameserver 10.1.1.1\n".to_owned();
    spec.mounts.push(tmpfs("/up/outside/x", None));
    let before = listing(&root.path);
    assert_eq!(root.output(&spec), "nameserver 10.1.1.1\nconfined\n");
    assert_eq!(listing(&outside), before_outside);
    assert_eq!(listing(&root.path), before);

    // The link to a host's file leads to a file of that name inside.
    fs::remove_file(root.path.join("etc")).unwrap();
    fs::create_dir(root.path.join("etc")).unwrap();
    symlink(outside.join("passwd"), root.path.join("etc/hosts")).unwrap();
    symlink("resolv.conf", root.path.join("etc/resolv.conf")).unwrap();
    let error = root.try_run(&script("true"), &[]).unwrap_err();
    assert!(error.to_string().starts_with("cannot mount `/etc/resolv.conf`"), "{error}");
    assert_eq!(listing(&outside), before_outside);
}

#[test]
fn privileged_mount_of_a_magic_link_is_refused() {
    require_root!();
    let root = Root::new();
    symlink("/proc/1/root", root.path.join("escape")).unwrap();
    let mut spec = script("true");
    spec.mounts.push(tmpfs("/escape/tmp", None));
    assert!(root.try_run(&spec, &[]).is_err());
}
