//! Builds of an ordinary user: `nobody`, with a single id and with sub-ids.
//!
//! The machine's `/etc/subuid` is not touched: the build runs in a mount namespace in which another one is mounted over it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use rbuild_worker::{Exit, NetworkMode, SandboxSpec};
use serde::Deserialize;

use crate::support::{FIXTURE, Root, require_root, script};

const NOBODY: u32 = 65534;
const SUB_IDS: &str = "nobody:300000:65536\n";

#[derive(Debug, Deserialize)]
struct Outcome {
    identity: String,
    exit: Result<Exit, String>,
    stdout: String,
    stderr: String,
}

/// A root that belongs to the user, and a copy of the fixture that the user can reach.
fn owned_root() -> Root {
    fn give(path: &Path) {
        std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        if path.symlink_metadata().unwrap().is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                give(&entry.unwrap().path());
            }
        }
    }
    let root = Root::new();
    give(&root.path);
    let fixture = root.directory.path().join("fixture");
    fs::copy(FIXTURE, &fixture).unwrap();
    fs::set_permissions(&fixture, fs::Permissions::from_mode(0o755)).unwrap();
    root
}

/// Runs a step as a build of `nobody` with these sub-ids.
fn build(root: &Root, sub_ids: &str, spec: &SandboxSpec) -> Outcome {
    let file = root.directory.path().join("subids");
    fs::write(&file, sub_ids).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg(
            "touch /etc/subuid /etc/subgid && mount --bind \"$1\" /etc/subuid && mount --bind \"$1\" /etc/subgid && shift && \
             exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"",
        )
        .arg("sh")
        .arg(&file)
        .arg(root.directory.path().join("fixture"))
        .arg(&root.path)
        .arg(serde_json::to_string(spec).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Says why a build of an ordinary user cannot be tried here.
fn obstacle() -> Option<&'static str> {
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    (limit.trim() == "0").then_some("user namespaces are forbidden")
}

macro_rules! require_user_namespaces {
    () => {
        require_root!();
        if let Some(why) = obstacle() {
            eprintln!("SKIPPED {}: {why}", std::thread::current().name().unwrap_or_default());
            return;
        }
    };
}

#[test]
fn privileged_single_id_runs_steps_as_root() {
    require_user_namespaces!();
    let root = owned_root();
    let status = "grep -E '^(CapEff|CapBnd|Seccomp:)' /proc/self/status";
    let mut spec = script(&format!(
        "id -u; {status}; echo $$; hostname; cat /etc/resolv.conf; ls /dev; echo x >/dev/null; head -c 2 /dev/zero | wc -c
         ls /sys/class/net >/dev/null && mkdir /sys/x 2>/dev/null; cat /proc/timer_list; touch /made"
    ));
    spec.resolv_conf = "nameserver 10.1.1.1\n".to_owned();
    let outcome = build(&root, "", &spec);
    assert!(outcome.identity.starts_with("SingleId"), "{}", outcome.identity);
    assert!(
        outcome.identity.contains("/etc/subuid` has no range for `nobody`"),
        "{}",
        outcome.identity
    );
    assert_eq!(
        outcome.stdout,
        "0\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nSeccomp:\t2\n2\nbuildkitsandbox\nnameserver 10.1.1.1\n\
         fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n2\n",
        "{outcome:?}"
    );
    assert_eq!(outcome.stderr, "");
    assert_eq!(root.path.join("made").metadata().unwrap().uid(), NOBODY);
}

#[test]
fn privileged_single_id_refuses_other_users() {
    require_user_namespaces!();
    let root = owned_root();
    let mut spec = script("id -u");
    spec.user = "app".to_owned();
    let error = build(&root, "", &spec).exit.unwrap_err();
    assert!(
        error.starts_with("user 1000:1001 does not exist in the build's user namespace"),
        "{error}"
    );
    assert!(error.contains("/etc/subuid"), "{error}");
    spec.user = "root".to_owned();
    assert_eq!(build(&root, "", &spec).stdout, "0\n");
}

#[test]
fn privileged_single_id_has_an_isolated_network() {
    require_user_namespaces!();
    let root = owned_root();
    let mut spec = script("ls /sys/class/net; cat /sys/class/net/lo/flags");
    spec.network = NetworkMode::None;
    let outcome = build(&root, "", &spec);
    assert_eq!(outcome.stdout, "lo\n0x9\n", "{outcome:?}");
}

#[test]
fn privileged_sub_ids_give_every_user() {
    require_user_namespaces!();
    if !Path::new("/usr/bin/newuidmap").exists() {
        eprintln!(
            "SKIPPED privileged_sub_ids_give_every_user: needs newuidmap (Debian package uidmap)"
        );
        return;
    }
    let root = owned_root();
    let mut spec = script("id; touch x");
    spec.user = "app".to_owned();
    spec.cwd = "/home/app".to_owned();
    let outcome = build(&root, SUB_IDS, &spec);
    assert_eq!(outcome.identity, "SubIds { users: 65536, groups: 65536 }", "{outcome:?}");
    assert_eq!(
        outcome.stdout, "uid=1000(app) gid=1001(app) groups=50(staff),1001(app)\n",
        "{outcome:?}"
    );
    let made = root.path.join("home/app/x").metadata().unwrap();
    assert_eq!((made.uid(), made.gid()), (300_999, 301_000));
    let outcome = build(&root, SUB_IDS, &script("touch /y; chown app:staff /y; stat -c %u:%g /y"));
    assert_eq!(outcome.stdout, "1000:50\n", "{outcome:?}");
}

#[test]
fn privileged_broken_helper_leaves_a_single_id() {
    require_user_namespaces!();
    if !Path::new("/usr/bin/newuidmap").exists() {
        eprintln!(
            "SKIPPED privileged_broken_helper_leaves_a_single_id: needs newuidmap (Debian package uidmap)"
        );
        return;
    }
    let root = owned_root();
    // A range that ends beyond all ids, which the kernel refuses.
    let outcome = build(&root, "nobody:4294967290:65536\n", &script("id -u"));
    assert!(outcome.identity.starts_with("SingleId"), "{}", outcome.identity);
    assert!(outcome.identity.contains("newuidmap"), "{}", outcome.identity);
    assert_eq!(outcome.stdout, "0\n");
}
