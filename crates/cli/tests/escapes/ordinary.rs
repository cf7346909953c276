//! Builds of an ordinary user: `nobody`, with sub-ids and with a single id.
//!
//! The machine's `/etc/subuid` is not touched: the build runs in a mount namespace in which another one is mounted over it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::fixture::{Fixture, Ran, ran, skipped};

const NOBODY: u32 = 65534;

/// Whose build it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Builder {
    Root,
    SubIds,
    SingleId,
}

impl Builder {
    /// All that can build here; says which cannot.
    pub(crate) fn all(test: &str) -> Vec<Self> {
        let mut all = vec![Self::Root];
        let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
        if limit.trim() == "0" {
            skipped(test, "user namespaces are forbidden: tried as root only");
            return all;
        }
        if Path::new("/usr/bin/newuidmap").exists() {
            all.push(Self::SubIds);
        } else {
            skipped(test, "needs newuidmap (Debian package uidmap): not tried with sub-ids");
        }
        all.push(Self::SingleId);
        all
    }

    /// As [`Fixture::build`], by this one. To be asked once for each fixture, whose files then belong to the user.
    pub(crate) fn build(self, fixture: &Fixture, args: &[&str]) -> Ran {
        if self == Self::Root {
            return fixture.build(args);
        }
        let build = fixture.build_command("store", args);
        let folder = fixture.path("");
        // Where the user can reach it.
        let program = fixture.path("rbuild");
        fs::copy(env!("CARGO_BIN_EXE_rbuild"), &program).expect("a copy of rbuild");
        let sub_ids = fixture.path("subids");
        let range = if self == Self::SubIds { "nobody:300000:65536\n" } else { "" };
        fs::write(&sub_ids, range).expect("the file of sub-ids");
        give(&folder);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("its mode");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c"])
            .arg(
                "touch /etc/subuid /etc/subgid && mount --bind \"$1\" /etc/subuid && mount --bind \"$1\" /etc/subgid && shift && \
                 exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"",
            )
            .arg("sh")
            .arg(&sub_ids)
            .arg(&program)
            .args(build.get_args())
            .env_clear()
            .envs(build.get_envs().filter_map(|(key, value)| Some((key, value?))))
            .current_dir(&folder);
        ran(command.output().expect("unshare starts"))
    }
}

fn give(path: &Path) {
    std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).expect("a new owner");
    if path.symlink_metadata().expect("its status").is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            give(&entry.expect("an entry").path());
        }
    }
}
