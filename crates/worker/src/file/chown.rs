//! Owners as `--chown` takes them: numbers, or names that a state's `/etc/passwd` and `/etc/group` know.

use std::io::Read;
use std::os::fd::BorrowedFd;

use rbuild_solver::{ChownSpec, Owner};

use super::error::FileError;

/// The most bytes of a `passwd` or `group` file that are read.
const LONGEST_FILE: u64 = 10 << 20;

/// A user and a group by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ownership {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Finds the numbers of an owner. `contents` reads a file of the state with the given number; one that is missing
/// is empty.
///
/// As in BuildKit a user's number is the group's too unless a group is given, a user's name brings the group from
/// `/etc/passwd`, and a name that is not found is 0.
pub(super) fn resolve(
    spec: &ChownSpec,
    mut contents: impl FnMut(u32, &str) -> Result<Vec<u8>, FileError>,
) -> Result<Ownership, FileError> {
    let mut lookup = |name: &String, input: &Option<u32>, file| match input {
        Some(input) => Ok(numbers(&contents(*input, file)?, name)),
        None => Err(FileError::NoUsers(name.clone())),
    };
    let mut owner = match &spec.user {
        None => Ownership::default(),
        Some(Owner::Id(id)) => Ownership { uid: *id, gid: *id },
        Some(Owner::Name { name, input }) => {
            let (uid, gid) = lookup(name, input, "etc/passwd")?;
            Ownership { uid, gid }
        }
    };
    match &spec.group {
        None => {}
        Some(Owner::Id(id)) => owner.gid = *id,
        Some(Owner::Name { name, input }) => owner.gid = lookup(name, input, "etc/group")?.0,
    }
    Ok(owner)
}

/// The third and fourth fields of the line that `name` begins.
fn numbers(file: &[u8], name: &str) -> (u32, u32) {
    for line in file.split(|&byte| byte == b'\n') {
        let mut fields = line.split(|&byte| byte == b':');
        if fields.next() != Some(name.as_bytes()) {
            continue;
        }
        let mut numbers = fields.skip(1).map(|field| {
            std::str::from_utf8(field).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
        });
        return (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    }
    (0, 0)
}

/// Reads such a file below a root. A missing one, or one that is no regular file, is empty.
pub(super) fn read_below(root: BorrowedFd<'_>, path: &str) -> Result<Vec<u8>, FileError> {
    let failed = |error| FileError::io("read", path.as_bytes(), error);
    let Ok(Some(file)) = rbuild_cache::open_file_in_root(root, path) else {
        return Ok(Vec::new());
    };
    let mut contents = Vec::new();
    file.take(LONGEST_FILE).read_to_end(&mut contents).map_err(failed)?;
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(user: Option<Owner>, group: Option<Owner>) -> (u32, u32) {
        let contents = |_, file: &str| {
            Ok(match file {
                "etc/passwd" => "root:x:0:0::/:\nweb:x:101:33::/:/bin/sh\nodd:x:y\n",
                _ => "root:x:0:\nstaff:x:50:a,b\n",
            }
            .into())
        };
        let owner = resolve(&ChownSpec { user, group }, contents).unwrap();
        (owner.uid, owner.gid)
    }

    fn name(name: &str) -> Option<Owner> {
        Some(Owner::Name { name: name.to_owned(), input: Some(0) })
    }

    #[test]
    fn finds_owners_as_buildkit_does() {
        assert_eq!(check(Some(Owner::Id(7)), None), (7, 7));
        assert_eq!(check(Some(Owner::Id(7)), Some(Owner::Id(8))), (7, 8));
        assert_eq!(check(Some(Owner::Id(7)), name("staff")), (7, 50));
        assert_eq!(check(name("web"), None), (101, 33));
        assert_eq!(check(name("web"), Some(Owner::Id(1))), (101, 1));
        assert_eq!(check(name("nobody"), None), (0, 0));
        assert_eq!(check(name("odd"), name("nogroup")), (0, 0));
        assert_eq!(check(None, None), (0, 0));
    }

    #[test]
    fn names_need_a_state() {
        let user = Some(Owner::Name { name: "web".to_owned(), input: None });
        let refused = resolve(&ChownSpec { user, group: None }, |_, _| Ok(Vec::new())).unwrap_err();
        assert!(refused.to_string().starts_with("invalid user index: -1"));
    }
}
