//! Becoming root in a world of one's own (design D6).
//!
//! A process that is not root moves into a user namespace in which it is, before it has any thread, and goes on: nothing is executed
//! again, since the kernel gives the new namespace to the running process. The id maps of sub-ids can only be written with the help of
//! the setuid programs `newuidmap` and `newgidmap`, and those only from outside of the namespace, so a child is forked first that
//! waits for the move and then runs them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{getegid, geteuid, getpid};
use rustix::thread::{CapabilitySet, SecureComputingMode};

use crate::sys::{self, Fork};

/// Who the process is after [`enter_user_namespace`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// It was root already, and nothing changed.
    Root,
    /// Root in a user namespace that has the user's sub-ids.
    SubIds {
        /// How many user ids there are besides root's.
        users: u64,
        /// How many group ids there are besides root's.
        groups: u64,
    },
    /// Root in a user namespace in which there is no other user: files of others cannot be made, and `USER` must be root.
    SingleId {
        /// Why there are no sub-ids, and what would give some.
        reason: String,
    },
}

/// Why a user namespace could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum UserNamespaceError {
    /// The kernel refused to make one.
    #[error("cannot create a user namespace{}", hint.map(|hint| format!(" ({hint})")).unwrap_or_default())]
    Create {
        /// What to change so that it may.
        hint: Option<&'static str>,
        /// The cause.
        source: io::Error,
    },
    /// An id map could not be written.
    #[error("cannot write `{path}`{}", hint.map(|hint| format!(" ({hint})")).unwrap_or_default())]
    Map {
        /// The map.
        path: &'static str,
        /// What to change so that it may.
        hint: Option<&'static str>,
        /// The cause.
        source: io::Error,
    },
    /// The process is root and may mount, but what is around it refuses the namespaces that steps have.
    #[error("cannot create the namespaces of steps{}", hint.map(|hint| format!(" ({hint})")).unwrap_or_default())]
    Steps {
        /// What to change so that it may.
        hint: Option<&'static str>,
        /// The cause.
        source: io::Error,
    },
    /// The helper that runs `newuidmap` could not be started.
    #[error("cannot start the helper that maps the sub-ids")]
    Helper {
        /// The cause.
        source: io::Error,
    },
    /// It has threads, which a user namespace does not allow.
    #[error("cannot create a user namespace in a process with threads")]
    Threads,
}

impl UserNamespaceError {
    /// What would help, for people: a command where there is one.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        let (Self::Create { hint, .. } | Self::Map { hint, .. } | Self::Steps { hint, .. }) = self
        else {
            return None;
        };
        let hint = (*hint)?;
        if hint == FILTERED {
            return Some(UNFILTERED.to_owned());
        }
        // Most hints have a command in them.
        Some(match hint.split_once("as root: `").and_then(|(_, rest)| rest.split_once('`')) {
            Some((command, _)) => command.to_owned(),
            None => "run the container with user namespaces allowed, or rbuild as root with CAP_SYS_ADMIN".to_owned(),
        })
    }
}

/// Makes the process root, in a user and a mount namespace of its own unless it is root already. Root that may not mount, as in a
/// container without privileges, moves as everybody else.
///
/// To be called at the very start of `main`: a process with threads cannot enter a user namespace.
///
/// # Errors
///
/// When the kernel does not allow user namespaces; missing sub-ids are not an error but [`Identity::SingleId`].
pub fn enter_user_namespace() -> Result<Identity, UserNamespaceError> {
    let is_root = geteuid().is_root();
    if is_root && may_mount() {
        // A filter refuses what the capabilities allow; without one there is nothing to try.
        if is_filtered() {
            try_namespaces().map_err(|errno| UserNamespaceError::Steps {
                hint: hint(errno == Errno::PERM),
                source: errno.into(),
            })?;
        }
        return Ok(Identity::Root);
    }
    if !sys::is_single_threaded() {
        return Err(UserNamespaceError::Threads);
    }
    let outer = Outer::current();
    if is_root {
        return outer.enter_with_own_ids();
    }
    match SubIds::of_user(outer.user) {
        Ok(sub_ids) => outer.enter_with_sub_ids(&sub_ids),
        Err(reason) => outer.enter_with_single_id(reason),
    }
}

/// Whether the process has the right to mount, where it is now.
#[must_use]
pub fn may_mount() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Whether the process can run steps without namespaces: it is root, may change the root directory, and can give up what leads out.
#[must_use]
pub fn can_chroot() -> bool {
    let needed = CapabilitySet::SYS_CHROOT | CapabilitySet::SETPCAP;
    geteuid().is_root()
        && rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// The map of a namespace below one with this map, in which each id keeps its number: `INSIDE OUTSIDE COUNT` becomes
/// `INSIDE INSIDE COUNT`.
pub(crate) fn same_ids(map: &str) -> String {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (inside, count) = (words.next()?, words.nth(1)?);
        Some(format!("{inside} {inside} {count}\n"))
    };
    map.lines().filter_map(line).collect()
}

/// How many ids a map has besides root's.
fn ids_besides_root(map: &str) -> u64 {
    let count = |line: &str| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok();
    map.lines().filter_map(count).sum::<u64>().saturating_sub(1)
}

/// Whether the process is in a user namespace, that is whether its root is not the machine's.
#[must_use]
pub fn in_user_namespace() -> bool {
    // The first one of a machine has had this number since there are others (`PROC_USER_INIT_INO`). Its map would not do: that of
    // another may have all ids as well.
    const FIRST: &str = "user:[4026531837]";
    // Without /proc nothing else works either; the cautious answer is that this is not the machine's root.
    fs::read_link("/proc/self/ns/user").map_or(true, |own| own.as_os_str() != FIRST)
}

/// Moves the process; `hint` is worth the look only once it failed.
fn create() -> Result<(), UserNamespaceError> {
    sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).map_err(|errno| {
        UserNamespaceError::Create { hint: hint(errno == Errno::PERM), source: errno.into() }
    })
}

/// Makes the namespaces that a step has, in a process that is gone afterwards.
fn try_namespaces() -> Result<(), Errno> {
    match sys::fork()? {
        Fork::Child => {
            let made = sys::unshare(
                libc::CLONE_NEWPID
                    | libc::CLONE_NEWNS
                    | libc::CLONE_NEWIPC
                    | libc::CLONE_NEWUTS
                    | libc::CLONE_NEWNET,
            );
            sys::exit_now(made.err().map_or(0, Errno::raw_os_error))
        }
        Fork::Parent(child) => match libc::WEXITSTATUS(sys::wait(child)?.status) {
            0 => Ok(()),
            errno => Err(Errno::from_raw_os_error(errno)),
        },
    }
}

/// What a filter around the process does, as most containers have one.
pub(crate) const FILTERED: &str = "the seccomp filter of a surrounding container refuses `unshare`; start the container with \
     `--security-opt seccomp=unconfined` (Kubernetes: `seccompProfile: {type: Unconfined}`), or with a profile that allows \
     `unshare`, `clone` with namespaces, `setns`, `mount` and its kin";

/// What helps against that.
pub(crate) const UNFILTERED: &str = "start the container with --security-opt seccomp=unconfined";

/// Whether the process's system calls are filtered by somebody.
pub(crate) fn is_filtered() -> bool {
    // Who may not even ask is.
    rustix::thread::secure_computing_mode().map_or(true, |mode| mode == SecureComputingMode::Filter)
}

/// What on this machine forbids namespaces; `by_call` is whether the call that makes them was refused, as a filter does it.
fn hint(by_call: bool) -> Option<&'static str> {
    let sysctl = |path: &str| {
        fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    if sysctl("/proc/sys/user/max_user_namespaces") == "0" {
        Some("`user.max_user_namespaces` is 0; as root: `sysctl -w user.max_user_namespaces=15000`")
    } else if sysctl("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        Some("as root: `sysctl -w kernel.unprivileged_userns_clone=1`")
    } else if by_call && is_filtered() {
        Some(FILTERED)
    } else if sysctl("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        Some(
            "AppArmor restricts them; as root: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or a profile with `userns`",
        )
    } else {
        Some("a surrounding container or a security module forbids it")
    }
}

/// The ids that the process had before it entered the namespace; inside they are not to be seen any more.
#[derive(Clone, Copy, Debug)]
struct Outer {
    user: u32,
    group: u32,
}

impl Outer {
    fn current() -> Self {
        Self { user: geteuid().as_raw(), group: getegid().as_raw() }
    }

    fn enter_with_single_id(self, reason: String) -> Result<Identity, UserNamespaceError> {
        create()?;
        self.map_single_user()?;
        self.map_single_group()?;
        Ok(Identity::SingleId { reason })
    }

    fn map_single_user(self) -> Result<(), UserNamespaceError> {
        write_map("/proc/self/uid_map", &format!("0 {} 1", self.user))
    }

    fn map_single_group(self) -> Result<(), UserNamespaceError> {
        // Without privilege over the parent namespace a group map is only accepted once setgroups is given up.
        write_map("/proc/self/setgroups", "deny")?;
        write_map("/proc/self/gid_map", &format!("0 {} 1", self.group))
    }

    fn enter_with_sub_ids(self, sub_ids: &SubIds) -> Result<Identity, UserNamespaceError> {
        let target = getpid().as_raw_pid().to_string();
        let users = helper_arguments(&target, self.user, &sub_ids.users);
        let groups = helper_arguments(&target, self.group, &sub_ids.groups);
        let count = |ranges: &[SubIdRange]| ranges.iter().map(|range| u64::from(range.count)).sum();
        let mapped =
            Identity::SubIds { users: count(&sub_ids.users), groups: count(&sub_ids.groups) };
        self.enter_with(
            &[&|| run_helper("newuidmap", &users), &|| run_helper("newgidmap", &groups)],
            mapped,
        )
    }

    /// As root, who needs nobody's help to keep all ids.
    fn enter_with_own_ids(self) -> Result<Identity, UserNamespaceError> {
        let process = getpid().as_raw_pid();
        let map = |name: &'static str| fs::read_to_string(format!("/proc/self/{name}"));
        let (users, groups) =
            (map("uid_map").unwrap_or_default(), map("gid_map").unwrap_or_default());
        let mapped =
            Identity::SubIds { users: ids_besides_root(&users), groups: ids_besides_root(&groups) };
        let write = |name: &str, map: &str| {
            fs::write(format!("/proc/{process}/{name}"), same_ids(map))
                .map_err(|error| format!("root here may not map ids (`{name}`: {error})"))
        };
        self.enter_with(&[&|| write("uid_map", &users), &|| write("gid_map", &groups)], mapped)
    }

    /// Moves the process, while a child that stays outside writes the maps.
    fn enter_with(
        self,
        maps: &[&dyn Fn() -> Result<(), String>; 2],
        mapped: Identity,
    ) -> Result<Identity, UserNamespaceError> {
        let helper = |errno: Errno| UserNamespaceError::Helper { source: errno.into() };
        let (entered_read, entered_write) = pipe_with(PipeFlags::CLOEXEC).map_err(helper)?;
        let (result_read, result_write) = pipe_with(PipeFlags::CLOEXEC).map_err(helper)?;
        match sys::fork().map_err(helper)? {
            Fork::Child => {
                drop((entered_write, result_read));
                write_maps(File::from(entered_read), File::from(result_write), maps)
            }
            Fork::Parent(child) => {
                drop((entered_read, result_write));
                let created = create();
                let mut entered = File::from(entered_write);
                if created.is_ok() {
                    entered
                        .write_all(&[GO])
                        .map_err(|source| UserNamespaceError::Helper { source })?;
                }
                drop(entered);
                let mut result = String::new();
                let read = File::from(result_read).read_to_string(&mut result);
                sys::wait(child).map_err(helper)?;
                created?;
                read.map_err(|source| UserNamespaceError::Helper { source })?;
                self.finish(mapped, &result)
            }
        }
    }

    /// Completes the maps after the helpers ran. `result` has a line for each helper that succeeded, or the reason of the first that
    /// did not, in which case its map and the ones after it are still to be written.
    fn finish(self, mapped: Identity, result: &str) -> Result<Identity, UserNamespaceError> {
        let mut lines = result.lines();
        let (users, groups) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        if users != DONE {
            self.map_single_user()?;
            self.map_single_group()?;
            return Ok(Identity::SingleId { reason: users.to_owned() });
        }
        if groups != DONE {
            self.map_single_group()?;
            return Ok(Identity::SingleId { reason: groups.to_owned() });
        }
        Ok(mapped)
    }
}

fn write_map(path: &'static str, map: &str) -> Result<(), UserNamespaceError> {
    fs::write(path, map).map_err(|source| UserNamespaceError::Map {
        path,
        hint: hint(false),
        source,
    })
}

/// What the parent sends once it is in the new namespace.
const GO: u8 = b'1';

/// What the child answers for a map that is written.
const DONE: &str = "done";

/// The life of the forked child: waits until its parent is in the namespace, writes the maps, answers with a line for each.
fn write_maps(
    mut entered: File,
    mut result: File,
    maps: &[&dyn Fn() -> Result<(), String>; 2],
) -> ! {
    let mut go = [0];
    if entered.read_exact(&mut go).is_ok() {
        for write in maps {
            let answer = match write() {
                Ok(()) => DONE.to_owned(),
                Err(reason) => reason,
            };
            // When the parent is gone there is nobody to tell.
            if writeln!(result, "{answer}").is_err() || answer != DONE {
                break;
            }
        }
    }
    sys::exit_now(0)
}

fn run_helper(program: &str, arguments: &[String]) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(|error| {
            match error.kind() {
                io::ErrorKind::NotFound => {
                    format!("`{program}` is not installed (Debian package `uidmap`)")
                }
                _ => format!("`{program}` cannot be run: {error}"),
            }
        })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{program}` failed ({}): {}", output.status, message.trim().replace('\n', "; ")))
}

/// `PID 0 OUTER 1 1 START COUNT ...`: root is the user, then the sub-ids from 1 on.
fn helper_arguments(target: &str, outer: u32, ranges: &[SubIdRange]) -> Vec<String> {
    let mut arguments = vec![target.to_owned(), "0".to_owned(), outer.to_string(), "1".to_owned()];
    let mut inside: u64 = 1;
    for range in ranges {
        arguments.extend([inside.to_string(), range.start.to_string(), range.count.to_string()]);
        inside += u64::from(range.count);
    }
    arguments
}

/// How many ids a user is given, by Debian's `adduser`.
const RANGE: u32 = 65_536;
/// Where the first range begins, by the same.
const FIRST_RANGE: u32 = 100_000;

/// One line of `/etc/subuid` or `/etc/subgid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SubIdRange {
    start: u32,
    count: u32,
}

/// The ranges that the current user may map.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SubIds {
    users: Vec<SubIdRange>,
    groups: Vec<SubIdRange>,
}

impl SubIds {
    /// Looks the user up. The error says what is missing.
    fn of_user(user: u32) -> Result<Self, String> {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = user_name(&passwd, user);
        let [users, groups] = ["/etc/subuid", "/etc/subgid"]
            .map(|path| (path, fs::read_to_string(path).unwrap_or_default()));
        let ranges = |(path, text): &(&str, String)| {
            let found = parse_ranges(text, name, user);
            if !found.is_empty() {
                return Ok(found);
            }
            let who = name.map_or_else(|| user.to_string(), str::to_owned);
            let first = first_free(&users.1).max(first_free(&groups.1));
            let free = format!("{first}-{}", first.saturating_add(RANGE - 1));
            Err(format!(
                "`{path}` has no range for `{who}`; as root: `usermod --add-subuids {free} --add-subgids {free} {who}`"
            ))
        };
        Ok(Self { users: ranges(&users)?, groups: ranges(&groups)? })
    }
}

/// The first id after all ranges of a file, and not before those of ordinary users end.
fn first_free(ranges: &str) -> u32 {
    let end = |line: &str| {
        let (before, count) = line.rsplit_once(':')?;
        let (_, start) = before.rsplit_once(':')?;
        start.parse::<u32>().ok()?.checked_add(count.trim().parse().ok()?)
    };
    ranges.lines().filter_map(end).max().unwrap_or(0).max(FIRST_RANGE)
}

fn user_name(passwd: &str, user: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next()?, fields.nth(1)?);
        (uid.parse() == Ok(user)).then_some(name)
    })
}

fn parse_ranges(text: &str, name: Option<&str>, user: u32) -> Vec<SubIdRange> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            if Some(owner) != name && owner.parse() != Ok(user) {
                return None;
            }
            let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (count > 0).then_some(SubIdRange { start, count })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_are_proposed_are_free() {
        assert_eq!(first_free(""), 100_000);
        assert_eq!(
            first_free("a:100000:65536\nb:231072:65536\nc:1:5\nbroken\nd:4294967295:2\n"),
            296_608
        );
    }

    #[test]
    fn ids_stay_as_they_are() {
        assert_eq!(same_ids("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(same_ids("0 1000 1\n 1 100000 65536\n"), "0 0 1\n1 1 65536\n");
        assert_eq!(ids_besides_root("0 1000 1\n 1 100000 65536\n"), 65536);
    }

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "alice:100000:65536\n# x\nbob:1:1\n1000:300000:10\nalice:7:0\nbroken\n";
        assert_eq!(
            parse_ranges(text, Some("alice"), 1000),
            [
                SubIdRange { start: 100_000, count: 65_536 },
                SubIdRange { start: 300_000, count: 10 }
            ]
        );
        assert_eq!(parse_ranges(text, None, 5), []);
    }

    #[test]
    fn name_comes_from_passwd() {
        let passwd = "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000), Some("alice"));
        assert_eq!(user_name(passwd, 1001), None);
    }

    #[test]
    fn sub_ids_follow_root_without_gaps() {
        let ranges = [
            SubIdRange { start: 100_000, count: 65_536 },
            SubIdRange { start: 300_000, count: 10 },
        ];
        assert_eq!(
            helper_arguments("42", 1000, &ranges),
            ["42", "0", "1000", "1", "1", "100000", "65536", "65537", "300000", "10"]
        );
    }
}
