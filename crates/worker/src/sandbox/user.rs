//! The user of a step: `USER` resolved against the `/etc/passwd` and `/etc/group` of the root, by BuildKit's rules.

use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Larger user files are refused.
const MAX_SIZE: u64 = 10 << 20;

/// The kernel's ids are unsigned, but no tool agrees on those beyond this.
const MAX_ID: u32 = i32::MAX as u32;

/// Whom a step runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The primary group id.
    pub gid: u32,
    /// The supplementary groups, the primary one first.
    pub groups: Vec<u32>,
    /// The home directory, `/` for a user that the root does not know.
    pub home: String,
}

/// Why a user is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum UserError {
    /// The name is not in `/etc/passwd`.
    #[error("unable to find user {name}: no matching entries in passwd file")]
    UnknownUser {
        /// The name.
        name: String,
    },
    /// The name is not in `/etc/group`.
    #[error("unable to find group {name}: no matching entries in group file")]
    UnknownGroup {
        /// The name.
        name: String,
    },
    /// The number is too large.
    #[error("user and group ids must be in range 0-{MAX_ID}, not {id}")]
    OutOfRange {
        /// The number as it was written.
        id: String,
    },
    /// A user file cannot be used.
    #[error("cannot read `{path}` in the image: {reason}")]
    File {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The user namespace that the build runs in has no such ids.
    #[error(
        "user {uid}:{gid} does not exist in the build's user namespace; give the user who builds a range in `/etc/subuid` and \
         `/etc/subgid`, install `newuidmap` (Debian package `uidmap`), or build as root"
    )]
    NotMapped {
        /// The user id.
        uid: u32,
        /// The group id.
        gid: u32,
    },
}

impl User {
    /// Resolves `user`, as a Dockerfile's `USER` names it, inside `root`.
    ///
    /// # Errors
    ///
    /// When a name is unknown, a number is out of range, or a user file exists and cannot be read.
    pub fn resolve(root: BorrowedFd<'_>, user: &str) -> Result<Self, UserError> {
        let passwd = read_in_root(root, "etc/passwd")?;
        let group = read_in_root(root, "etc/group")?;
        resolve(user, &passwd, &group)
    }
}

/// Reads a regular file inside the root; a missing one is empty.
fn read_in_root(root: BorrowedFd<'_>, path: &str) -> Result<String, UserError> {
    let error = |reason: String| UserError::File { path: format!("/{path}"), reason };
    let file = match rbuild_cache::open_file_in_root(root, path) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(String::new()),
        Err(Errno::NXIO) => return Err(error("not a regular file".to_owned())),
        Err(errno) => return Err(error(errno.to_string())),
    };
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(|source| error(source.to_string()))?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(error(format!("larger than {MAX_SIZE} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A line of `/etc/passwd`: name, password, uid, gid, comment, home, shell.
struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd_entries(passwd: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim_end().split(':');
        let name = fields.next()?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(PasswdEntry { name, uid, gid, home })
    })
}

/// A line of `/etc/group`: name, password, gid, members.
struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn group_entries(group: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim_end().split(':');
        let name = fields.next()?;
        let gid = id(fields.nth(1)?)?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
    })
}

/// An id in a file. The last one is nobody's.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// A part of `USER`, which is a number or a name.
fn parse_id(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        Ok(id) if id <= MAX_ID => Ok(Some(id)),
        _ => Err(UserError::OutOfRange { id: text.to_owned() }),
    }
}

fn resolve(user: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (user_part, group_part) =
        user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let group_part = group_part.filter(|group| !group.is_empty());
    let wanted = match parse_id(user_part)? {
        None if user_part.is_empty() || user_part == "root" => Some(0),
        wanted => wanted,
    };
    // A name is looked for before a number, also when it looks like one.
    let entry = passwd_entries(passwd)
        .find(|entry| entry.name == user_part)
        .or_else(|| passwd_entries(passwd).find(|entry| Some(entry.uid) == wanted));
    let uid = match (&entry, wanted) {
        // Numbers and root mean themselves whatever the file says.
        (_, Some(uid)) => uid,
        (Some(entry), None) => entry.uid,
        (None, None) => return Err(UserError::UnknownUser { name: user_part.to_owned() }),
    };
    let home = entry
        .as_ref()
        .map(|entry| entry.home)
        .filter(|home| !home.is_empty())
        .unwrap_or("/")
        .to_owned();

    let Some(group_part) = group_part else {
        let gid = entry.as_ref().map_or(0, |entry| entry.gid);
        let mut groups = vec![gid];
        // With no `USER` at all there are no supplementary groups.
        if let Some(entry) = entry.filter(|_| !user.is_empty()) {
            for group in group_entries(group) {
                let member = group.members.split(',').any(|member| member == entry.name);
                if member && !groups.contains(&group.gid) {
                    groups.push(group.gid);
                }
            }
        }
        return Ok(User { uid, gid, groups, home });
    };
    let wanted = parse_id(group_part)?;
    let gid = match wanted {
        Some(gid) => gid,
        None => group_entries(group)
            .find(|entry| entry.name == group_part)
            .map(|entry| entry.gid)
            .or((group_part == "root").then_some(0))
            .ok_or_else(|| UserError::UnknownGroup { name: group_part.to_owned() })?,
    };
    Ok(User { uid, gid, groups: vec![gid], home })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::FileType;

    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        broken line\n\
        www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
        app:x:1000:1001::/home/app:/bin/sh\n";
    const GROUP: &str =
        "root:x:0:\nwww-data:x:33:\nstaff:x:50:app,other\napp:x:1001:app\ndocker:x:999:app\n";

    fn check(user: &str, uid: u32, gid: u32, groups: &[u32], home: &str) {
        let expected = User { uid, gid, groups: groups.to_vec(), home: home.to_owned() };
        assert_eq!(resolve(user, PASSWD, GROUP), Ok(expected), "{user}");
    }

    #[test]
    fn names_and_numbers() {
        check("", 0, 0, &[0], "/root");
        check("root", 0, 0, &[0], "/root");
        check("0", 0, 0, &[0], "/root");
        check("www-data", 33, 33, &[33], "/var/www");
        check("app", 1000, 1001, &[1001, 50, 999], "/home/app");
        check("1000", 1000, 1001, &[1001, 50, 999], "/home/app");
        check("app:staff", 1000, 50, &[50], "/home/app");
        check("app:", 1000, 1001, &[1001, 50, 999], "/home/app");
        check("1000:1000", 1000, 1000, &[1000], "/home/app");
        check("4242", 4242, 0, &[0], "/");
        check("4242:7", 4242, 7, &[7], "/");
        check("root:staff", 0, 50, &[50], "/root");
    }

    #[test]
    fn the_last_id_is_nobodys() {
        let passwd = format!("{PASSWD}last:x:4294967295:4294967295::/:/bin/sh\n");
        let group = format!("{GROUP}last:x:4294967295:app\n");
        let app = resolve("app", &passwd, &group).unwrap();
        assert_eq!(app.groups, [1001, 50, 999]);
        assert!(matches!(resolve("last", &passwd, &group), Err(UserError::UnknownUser { .. })));
    }

    #[test]
    fn unknown_names_are_errors() {
        assert_eq!(
            resolve("x", PASSWD, GROUP).unwrap_err().to_string(),
            "unable to find user x: no matching entries in passwd file"
        );
        assert_eq!(
            resolve("app:x", PASSWD, GROUP).unwrap_err().to_string(),
            "unable to find group x: no matching entries in group file"
        );
        assert!(matches!(resolve("4294967295", PASSWD, GROUP), Err(UserError::OutOfRange { .. })));
        assert!(matches!(
            resolve("1:99999999999", PASSWD, GROUP),
            Err(UserError::OutOfRange { .. })
        ));
    }

    #[test]
    fn root_needs_no_files() {
        assert_eq!(
            resolve("root:root", "", ""),
            Ok(User { uid: 0, gid: 0, groups: vec![0], home: "/".to_owned() })
        );
        assert!(resolve("app", "", "").is_err());
    }

    fn open(path: &Path) -> File {
        File::open(path).unwrap()
    }

    #[test]
    fn links_stay_in_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(directory.path().join("passwd"), "evil:x:7:7::/:/bin/sh\n").unwrap();
        symlink("../../passwd", root.join("etc/passwd")).unwrap();
        // The link stops at the root, where there is no such file.
        assert!(matches!(
            User::resolve(open(&root).as_fd(), "evil"),
            Err(UserError::UnknownUser { .. })
        ));
        std::fs::write(root.join("passwd"), "good:x:8:9::/:/bin/sh\n").unwrap();
        assert_eq!(User::resolve(open(&root).as_fd(), "good").unwrap().uid, 8);
    }

    #[test]
    fn files_that_are_not_regular_or_too_large_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let etc = directory.path().join("etc");
        std::fs::create_dir_all(etc.join("passwd")).unwrap();
        let root = open(directory.path());
        assert!(matches!(User::resolve(root.as_fd(), "x"), Err(UserError::File { .. })));
        std::fs::remove_dir(etc.join("passwd")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            etc.join("passwd"),
            FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        assert!(matches!(User::resolve(root.as_fd(), "x"), Err(UserError::File { .. })));
        std::fs::remove_file(etc.join("passwd")).unwrap();
        File::create(etc.join("passwd")).unwrap().set_len(MAX_SIZE + 1).unwrap();
        assert!(matches!(User::resolve(root.as_fd(), "x"), Err(UserError::File { .. })));
    }
}
