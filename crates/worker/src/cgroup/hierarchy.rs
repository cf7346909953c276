//! Which control group hierarchies there are, and where this process is in them.

use std::fs;
use std::path::{Path, PathBuf};

use super::limits::Controller;
use super::settings::Version;

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    /// The names of the controllers of a v1 hierarchy. Of a v2 one each group says for itself which it has.
    pub(super) controllers: Vec<String>,
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// This process's group.
    pub(super) own: PathBuf,
}

impl Hierarchy {
    /// Whether a group of it can have a controller.
    pub(super) fn has(&self, controller: Controller, group: &Path) -> bool {
        match self.version {
            Version::V1 => self.controllers.iter().any(|name| name == controller.name()),
            Version::V2 => fs::read_to_string(group.join("cgroup.controllers"))
                .is_ok_and(|names| names.split_whitespace().any(|name| name == controller.name())),
        }
    }
}

/// The hierarchies that this process sees, v2 first.
pub(super) fn hierarchies() -> Vec<Hierarchy> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
}

/// Reads `/proc/self/mountinfo` (proc_pid_mountinfo(5)) and `/proc/self/cgroup` (cgroups(7)).
fn parse(mounts: &str, groups: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> =
        mounts.lines().filter_map(|line| hierarchy(line, groups)).collect();
    found.sort_by_key(|hierarchy| hierarchy.version != Version::V2);
    // A hierarchy may be mounted more than once; the first mount is as good as any.
    let mut seen: Vec<Vec<String>> = Vec::new();
    found.retain(|hierarchy| {
        let new = !seen.contains(&hierarchy.controllers);
        seen.push(hierarchy.controllers.clone());
        new
    });
    found
}

fn hierarchy(mount: &str, groups: &str) -> Option<Hierarchy> {
    let (place, filesystem) = mount.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, mount_point) = (unescape(place.next()?), PathBuf::from(unescape(place.next()?)));
    let mut filesystem = filesystem.split(' ');
    let kind = filesystem.next()?;
    let options = filesystem.nth(1).unwrap_or_default();
    // `number:controllers:path`; v2 has the number 0 and no controllers.
    let entries = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let (version, controllers, path) = match kind {
        "cgroup2" => {
            let (_, path) = entries.into_iter().find(|(names, _)| names.is_empty())?;
            (Version::V2, Vec::new(), path)
        }
        "cgroup" => {
            let (names, path) = entries.into_iter().find(|(names, _)| {
                !names.is_empty()
                    && names.split(',').all(|name| options.split(',').any(|option| option == name))
            })?;
            (Version::V1, names.split(',').map(str::to_owned).collect(), path)
        }
        _ => return None,
    };
    // The mount may show only a part of the hierarchy. A process outside of it is nowhere in it.
    let inside = Path::new(path).strip_prefix(&root).ok().filter(|inside| {
        !inside.components().any(|part| matches!(part, std::path::Component::ParentDir))
    });
    let own = inside.map_or_else(|| mount_point.clone(), |inside| mount_point.join(inside));
    Some(Hierarchy { version, controllers, mount: mount_point, own })
}

/// Undoes the escapes of `mountinfo`: `\040` for a space, and such.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mounts: &str, groups: &str, expected: &[(Version, &str, &str)]) {
        let found = parse(mounts, groups);
        let found: Vec<_> = found
            .iter()
            .map(|found| (found.version, found.controllers.join(","), found.own.to_str().unwrap()))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(version, names, own)| (*version, (*names).to_owned(), *own))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn both_versions_side_by_side() {
        check(
            "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 / /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             42 31 0:40 / /proc rw - proc proc rw\n",
            "9:name=systemd:/\n4:memory:/job/a\n2:cpu,cpuacct:/\n0::/x\n",
            &[
                (Version::V2, "", "/sys/fs/cgroup/unified/x"),
                (Version::V1, "cpu,cpuacct", "/sys/fs/cgroup/cpu/"),
                (Version::V1, "memory", "/sys/fs/cgroup/memory/job/a"),
                (Version::V1, "name=systemd", "/sys/fs/cgroup/systemd/"),
            ],
        );
    }

    #[test]
    fn a_mount_may_show_a_part_only() {
        let groups = "4:memory:/docker/abc/sub\n0::/user.slice\n";
        check(
            "35 31 0:32 /docker/abc /cg\\040v1 ro - cgroup cgroup rw,memory\n",
            groups,
            &[(Version::V1, "memory", "/cg v1/sub")],
        );
        // Seen from a namespace that the process is outside of.
        check(
            "35 31 0:32 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "0::/../other\n",
            &[(Version::V2, "", "/sys/fs/cgroup")],
        );
        check("garbage\n", groups, &[]);
    }
}
