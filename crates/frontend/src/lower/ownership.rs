//! `--chown` and `--chmod`.

use rbuild_solver::{ChownSpec, Owner};

/// Reads `user[:group]`, names or numbers. Names are looked up in the files of input `names_from`; an empty text changes
/// nothing. As in BuildKit a group that is empty after a colon is 0, and what does not fit 31 bits is a name.
pub(super) fn parse_chown(text: &str, names_from: Option<u32>) -> Option<ChownSpec> {
    if text.is_empty() {
        return None;
    }
    let owner = |name: &str| match name.parse::<u32>() {
        Ok(id) if i32::try_from(id).is_ok() => Some(Owner::Id(id)),
        Ok(_) => Some(Owner::Name { name: name.to_owned(), input: names_from }),
        Err(_) if name == "root" => Some(Owner::Id(0)),
        Err(_) if name.is_empty() => None,
        Err(_) => Some(Owner::Name { name: name.to_owned(), input: names_from }),
    };
    let (user, group) = match text.split_once(':') {
        None => (text, None),
        Some((user, "")) => (user, Some(Owner::Id(0))),
        Some((user, group)) => (user, owner(group)),
    };
    Some(ChownSpec { user: owner(user), group })
}

/// Whether a name has to be looked up for it.
pub(super) fn needs_names(owner: &ChownSpec) -> bool {
    let is_name = |owner: &Option<Owner>| matches!(owner, Some(Owner::Name { .. }));
    is_name(&owner.user) || is_name(&owner.group)
}

/// A new mode: a number, or a symbolic form that depends on the old mode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chmod {
    pub(super) mode: Option<u32>,
    pub(super) symbolic: String,
}

/// Reads `0644` or `u=rwX,go=rX`; empty changes nothing.
pub(super) fn parse_chmod(text: &str) -> Result<Chmod, String> {
    if text.is_empty() {
        return Ok(Chmod::default());
    }
    let is_octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o7777);
        let mode = mode.ok_or_else(|| {
            format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
        })?;
        return Ok(Chmod { mode: Some(mode), symbolic: String::new() });
    }
    match text.split(',').all(is_clause) {
        true => Ok(Chmod { mode: None, symbolic: text.to_owned() }),
        false => {
            Err(format!("invalid chmod parameter: '{text}'. it is neither octal nor symbolic"))
        }
    }
}

/// `[ugoa]*` and then one or more times `[-+=]` with `[rwxXst]*` or one of `[ugo]`.
fn is_clause(clause: &str) -> bool {
    let rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    if !rest.starts_with(['-', '+', '=']) {
        return false;
    }
    rest.split(['-', '+', '=']).skip(1).all(|permissions| {
        matches!(permissions, "u" | "g" | "o")
            || permissions.bytes().all(|byte| b"rwxXst".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners() {
        let name = |name: &str| Some(Owner::Name { name: name.into(), input: Some(0) });
        for (text, user, group) in [
            ("5", Some(Owner::Id(5)), None),
            ("5:6", Some(Owner::Id(5)), Some(Owner::Id(6))),
            ("root", Some(Owner::Id(0)), None),
            ("app:staff", name("app"), name("staff")),
            (":7", None, Some(Owner::Id(7))),
            ("app:", name("app"), Some(Owner::Id(0))),
            ("5:", Some(Owner::Id(5)), Some(Owner::Id(0))),
            ("2147483647", Some(Owner::Id(2_147_483_647)), None),
            ("2147483648", name("2147483648"), None),
            ("-1", name("-1"), None),
        ] {
            assert_eq!(parse_chown(text, Some(0)), Some(ChownSpec { user, group }), "{text}");
        }
        assert_eq!(parse_chown("", Some(0)), None);
    }

    #[test]
    fn modes() {
        for (text, mode) in [("644", 0o644), ("0755", 0o755), ("7777", 0o7777), ("0", 0)] {
            assert_eq!(parse_chmod(text).map(|chmod| chmod.mode), Ok(Some(mode)), "{text}");
        }
        for text in ["u=rwX,go=rX", "a+x", "+x", "u+x-w", "g=u", "o=", "ug+rw,o-rwx", "+t"] {
            assert_eq!(parse_chmod(text).map(|chmod| chmod.symbolic), Ok(text.into()), "{text}");
        }
        for text in ["8", "0799", "77777", "0o644", "u", "x+u", "u+rz", "u+x,", "-", "u=ug"] {
            let is_dash = text == "-";
            assert_eq!(parse_chmod(text).is_err(), !is_dash, "{text}");
        }
    }
}
