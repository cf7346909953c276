//! Users and groups of steps, and the files that name them.

use super::mounts::{NOTHING, attack, harmless};
use crate::fixture::Fixture;

/// User files that never end, or that are not files (buildah and podman).
#[test]
fn privileged_cve_2024_9676_user_files_are_read_with_a_limit() {
    for (name, setup) in [
        ("endless", "ln -sf /dev/zero /etc/passwd"),
        ("fifo", "rm /etc/passwd && mkfifo /etc/passwd"),
        ("large", "truncate -s 100G /etc/passwd"),
        ("outside", "ln -sf @/secret /etc/passwd"),
        ("descriptor", "ln -sf /proc/self/fd/0 /etc/passwd"),
        ("device", "rm /etc/passwd && mknod /etc/passwd c 1 5"),
    ] {
        let (fixture, bait) = attack(&format!("FROM busybox\nRUN {setup}\nUSER app\nRUN true\n"));
        let ran = harmless(&fixture, &bait, &NOTHING);
        assert_eq!(ran.code, 1, "{name}: {}", ran.stderr);
        fixture.write(
            "Dockerfile",
            format!("FROM busybox\nRUN {setup}\nCOPY --chown=app Dockerfile /x\n")
                .replace('@', &bait.path()),
        );
        harmless(&fixture, &bait, &NOTHING);
    }
}

/// Numbers that are somebody else, root say, once they are cut to 32 bits (containerd).
#[test]
fn privileged_cve_2024_40635_numbers_of_users_do_not_wrap() {
    for user in ["4294967296", "4294967295", "2147483648", "1:4294967296", "18446744073709551616"] {
        let fixture = Fixture::with(&format!("FROM busybox\nUSER {user}\nRUN id\n"));
        let text = fixture.build(&NOTHING).fails(1);
        let number = user.rsplit(':').next().expect("a number");
        let refused = format!("ids must be in range 0-2147483647, not {number}");
        assert!(text.contains(&refused), "{text}");
    }
}

/// A user who is in more groups than there is memory for, or than a process can be in (containerd, BuildKit: GHSA-72x6-4j93-7w86).
#[test]
fn privileged_cve_2026_47262_files_of_groups_are_bounded() {
    let user = "echo u:x:0:0::/:/bin/sh > /etc/passwd";
    for (groups, refused) in [
        (
            "truncate -s 20G /etc/group",
            "cannot read `/etc/group` in the image: larger than 10485760 bytes",
        ),
        (
            "i=1; while [ $i -lt 65600 ]; do echo g:x:$i:u; i=$((i+1)); done > /etc/group",
            "a process can be in 65,536 groups at most",
        ),
    ] {
        let (fixture, bait) =
            attack(&format!("FROM busybox\nRUN {user}; {groups}\nUSER u\nRUN true\n"));
        let ran = harmless(&fixture, &bait, &NOTHING);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert!(ran.stderr.contains(refused), "{}", ran.stderr);
    }
}
