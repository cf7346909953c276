//! What the kernel and the surroundings allow, found out by trying.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rbuild_cache::{Overlay, OverlayXattrs, Store};
use rbuild_worker::{ControlGroups, Identity, UserNamespaceError};
use rustix::fs::StatVfsMountFlags;

use super::check::{Check, Tier};
use crate::args::Snapshotter;
use crate::error::chain;

/// The oldest kernel that rbuild runs on.
const OLDEST: (u32, u32) = (5, 12);

/// The first with a binfmt_misc for each user namespace, and with layers that are mounted by descriptor.
const GOOD: (u32, u32) = (6, 7);

pub(super) fn kernel() -> Check {
    const NAME: &str = "kernel";
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let Some(version) = version(&release) else {
        return Check::poor(NAME, format!("Linux {release}, whatever that is"), None::<String>);
    };
    if version < OLDEST {
        let found = format!("Linux {release}; rbuild needs 5.12 or later");
        Check::fatal(NAME, found, Some("install a newer kernel"))
    } else if version < GOOD {
        let found = format!(
            "Linux {release}; from 6.7 on layers are mounted faster, and foreign steps need nothing of the machine"
        );
        Check::poor(NAME, found, None::<String>)
    } else {
        Check::good(NAME, format!("Linux {release}"))
    }
}

/// Whether a step can have emulators of its own, that is a binfmt_misc that is not the machine's.
pub(super) fn can_have_emulators() -> bool {
    let uname = rustix::system::uname();
    version(&uname.release().to_string_lossy()).is_some_and(|version| version >= GOOD)
        && fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("binfmt_misc"))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|other: char| !other.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(super) fn user_namespace(entered: &Result<Identity, UserNamespaceError>) -> Check {
    const NAME: &str = "user namespaces";
    match entered {
        Ok(Identity::Root) if rbuild_worker::in_user_namespace() => {
            Check::good(NAME, "running as root of a user namespace already")
        }
        Ok(Identity::Root) => Check::good(NAME, "running as root, which needs none"),
        Ok(Identity::SubIds { .. } | Identity::SingleId { .. }) => {
            Check::good(NAME, "one could be made")
        }
        Err(error @ UserNamespaceError::Steps { .. }) => {
            Check::fatal("namespaces", chain(error), error.fix())
        }
        Err(error) => Check::fatal(NAME, chain(error), error.fix()),
    }
}

pub(super) fn sub_ids(identity: Option<&Identity>) -> Option<Check> {
    const NAME: &str = "user ids";
    match identity? {
        Identity::Root => None,
        Identity::SubIds { users, groups } => {
            Some(Check::good(NAME, format!("{users} users and {groups} groups besides root")))
        }
        Identity::SingleId { reason } => {
            // The reason has a command at its end where there is one.
            let fix = match reason.split_once("as root: `") {
                Some((_, command)) => Some(command.trim_end_matches('`')),
                None => reason.contains("not installed").then_some("apt-get install uidmap"),
            };
            let found = format!("root only, so steps can have no other user: {reason}");
            Some(Check::poor(NAME, found, fix))
        }
    }
}

/// How layers become file systems where the store is; without a tier no step can run with this store.
pub(super) fn layers(root: &Path, snapshotter: Snapshotter) -> (Check, Option<Tier>) {
    const NAME: &str = "overlay";
    let shown = root.display();
    match (probe(root), snapshotter) {
        (Err(Failure::Store(reason)), _) => {
            let fix = format!(
                "give a folder that you may write to: rbuild --root DIR, or RBUILD_ROOT ({shown} is not one)"
            );
            (Check::fatal("store", reason, Some(fix)), None)
        }
        (_, Snapshotter::Copy) => {
            (Check::good(NAME, "none is mounted, as --snapshotter=copy says"), Some(Tier::Copy))
        }
        (Ok(()), _) => {
            (Check::good(NAME, format!("mounted one for the store `{shown}`")), Some(Tier::Overlay))
        }
        (Err(Failure::Refused(reason)), snapshotter) => {
            let fix = "put the store on a volume: RBUILD_ROOT=FOLDER on ext4, xfs, btrfs or tmpfs";
            let refused = format!("refused for the store `{shown}`");
            match snapshotter {
                Snapshotter::Overlay => {
                    let found =
                        format!("{refused}, and --snapshotter=overlay allows no copies: {reason}");
                    (Check::fatal(NAME, found, Some(fix)), None)
                }
                _ => {
                    let found = format!("{refused}, so files are copied: {reason}");
                    (Check::poor(NAME, found, Some(fix)), Some(Tier::Copy))
                }
            }
        }
    }
}

/// What the file system of the store does not allow in the mounts of steps.
pub(super) fn store_options(root: &Path) -> Option<Check> {
    const FIX: &str = "put the store on another file system: RBUILD_ROOT=FOLDER";
    let place = root.ancestors().find(|place| place.is_dir())?;
    let flags = rustix::fs::statvfs(place).ok()?.f_flag;
    flags.contains(StatVfsMountFlags::NOEXEC).then(|| {
        let found = format!(
            "the file system of `{}` is mounted `noexec`: programs in cache mounts and bind mounts cannot be executed",
            place.display()
        );
        Check::poor("store", found, Some(FIX))
    })
}

enum Failure {
    Store(String),
    Refused(String),
}

fn probe(root: &Path) -> Result<(), Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::Store(chain(error));
    let xattrs = match rbuild_worker::in_user_namespace() {
        true => OverlayXattrs::User,
        false => OverlayXattrs::Trusted,
    };
    // A store that is not there is not made, but another one for a moment. In a folder of somebody else's there will be none.
    let user = rustix::process::geteuid().as_raw();
    let is_foreign = fs::metadata(root).is_ok_and(|folder| folder.uid() != user);
    let aside;
    let folder = if is_foreign || root.join("version").exists() {
        root
    } else {
        let place = root.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("/"));
        aside = tempfile::tempdir_in(place).map_err(|error| failed(&error))?;
        aside.path()
    };
    let store = Store::open(folder).map_err(|error| failed(&error))?;
    let overlay = Overlay::new(xattrs, &store.layers);
    overlay.probe().map_err(|error| Failure::Refused(chain(&error)))
}

/// Whether limits can be set on steps: tried as a build with limits does it.
pub(super) fn control_groups() -> Check {
    const NAME: &str = "control groups";
    const DELEGATE: &str = "systemd-run --user --scope -p Delegate=yes rbuild ...";
    let (mut can, mut cannot) = (Vec::new(), Vec::new());
    for (controller, tried) in ControlGroups::tried() {
        match tried {
            Ok(()) => can.push(controller),
            Err(error) => cannot.push(error),
        }
    }
    let Some(first) = cannot.first() else {
        return Check::good(NAME, format!("steps can be limited by {}", can.join(", ")));
    };
    // What hands groups over is there only where systemd is.
    let has_systemd = Path::new("/run/systemd/system").is_dir();
    let fix = (has_systemd && first.needs_delegation()).then_some(DELEGATE);
    let reasons: Vec<String> = cannot.iter().map(|error| chain(error)).collect();
    let but = match can.as_slice() {
        [] => "steps cannot be limited".to_owned(),
        can => format!("steps can be limited by {} only", can.join(", ")),
    };
    Check::poor(NAME, format!("{but}: {}", reasons.join("; ")), fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("6.18.44-fc-v782"), Some((6, 18)));
        assert_eq!(version("5.4.0"), Some((5, 4)));
        assert_eq!(version("6.1+"), Some((6, 1)));
        assert_eq!(version("next"), None);
    }
}
