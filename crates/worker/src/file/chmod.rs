//! Modes as `--chmod` takes them: octal, or symbolic as in chmod(1).

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const STICKY: u32 = 0o1000;

/// Which permission bits a copy gives to what it copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ModeChange {
    /// Those of the source.
    Keep,
    /// These.
    Set(u32),
    /// Those of the source, changed.
    Symbolic(Vec<Clause>),
}

/// A text is no symbolic mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid mode `{0}`: expected octal digits, or something like `u=rwX,go=rX`")]
pub struct ModeError(String);

/// One change, such as `go-w`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clause {
    /// Whose bits, as `0o700`, `0o070`, `0o007` and combinations.
    who: u32,
    operator: Operator,
    permissions: Permissions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Permissions {
    Letters {
        /// `r`, `w` and `x` as `0o444`, `0o222` and `0o111`.
        bits: u32,
        /// `X`: execution for directories and for what anybody can execute.
        conditional_execute: bool,
        set_id: bool,
        sticky: bool,
    },
    /// What the owner (`0o700`), group or others have now.
    CopyOf(u32),
}

impl ModeChange {
    /// What LLB says with a mode and a symbolic mode.
    pub(super) fn new(mode: Option<u32>, symbolic: &str) -> Result<Self, ModeError> {
        match mode {
            _ if !symbolic.is_empty() => parse(symbolic).map(Self::Symbolic),
            Some(mode) => Ok(Self::Set(mode & 0o7777)),
            None => Ok(Self::Keep),
        }
    }

    /// The bits of what has `mode` in the source.
    pub(super) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Keep => mode,
            Self::Set(mode) => *mode,
            Self::Symbolic(clauses) => {
                clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_dir))
            }
        }
    }

    /// The mode of directories that are made on the way to a copy's destination.
    pub(super) fn of_parents(&self) -> u32 {
        match self {
            Self::Set(mode) => *mode,
            Self::Keep | Self::Symbolic(_) => 0o755,
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let (bits, special) = match &self.permissions {
            Permissions::Letters { bits, conditional_execute, set_id, sticky } => {
                let executes = *conditional_execute && (is_dir || mode & 0o111 != 0);
                let bits = if executes { bits | 0o111 } else { *bits };
                let mut special = 0;
                if *set_id {
                    special |= self.special() & (SET_UID | SET_GID);
                }
                if *sticky {
                    special |= STICKY;
                }
                (bits, special)
            }
            Permissions::CopyOf(whom) => {
                let three = [0o700, 0o070, 0o007].into_iter().zip([6, 3, 0]);
                let shift =
                    three.filter(|(who, _)| who == whom).map(|(_, shift)| shift).sum::<u32>();
                (((mode >> shift) & 7) * 0o111, 0)
            }
        };
        let bits = bits & self.who | special;
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            Operator::Set => mode & !(self.who | self.special()) | bits,
        }
    }

    /// The set-id bits that belong to `who`.
    fn special(&self) -> u32 {
        let of = |who: u32, bit: u32| if self.who & who != 0 { bit } else { 0 };
        of(0o700, SET_UID) | of(0o070, SET_GID)
    }
}

fn parse(text: &str) -> Result<Vec<Clause>, ModeError> {
    let mut clauses = Vec::new();
    for part in text.split(',') {
        parse_part(part, &mut clauses).ok_or_else(|| ModeError(text.to_owned()))?;
    }
    Ok(clauses)
}

/// Parses whose bits and then one or more changes of them, such as `u+x-w`.
fn parse_part(part: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let operators = part.find(['+', '-', '='])?;
    let (whose, mut rest) = part.split_at(operators);
    let mut who = 0;
    for letter in whose.chars() {
        who |= match letter {
            'u' => 0o700,
            'g' => 0o070,
            'o' => 0o007,
            'a' => 0o777,
            _ => return None,
        };
    }
    if who == 0 {
        who = 0o777;
    }
    while let Some(sign) = rest.chars().next() {
        let operator = match sign {
            '+' => Operator::Add,
            '-' => Operator::Remove,
            _ => Operator::Set,
        };
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |next| next + 1);
        let permissions = parse_permissions(&rest[1..end])?;
        clauses.push(Clause { who, operator, permissions });
        rest = &rest[end..];
    }
    Some(())
}

fn parse_permissions(letters: &str) -> Option<Permissions> {
    match letters {
        "u" => return Some(Permissions::CopyOf(0o700)),
        "g" => return Some(Permissions::CopyOf(0o070)),
        "o" => return Some(Permissions::CopyOf(0o007)),
        _ => {}
    }
    let (mut bits, mut conditional_execute, mut set_id, mut sticky) = (0, false, false, false);
    for letter in letters.chars() {
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' => conditional_execute = true,
            's' => set_id = true,
            't' => sticky = true,
            _ => return None,
        }
    }
    Some(Permissions::Letters { bits, conditional_execute, set_id, sticky })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_modes_as_chmod_does() {
        for (text, mode, is_dir, expected) in [
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("a+x", 0o644, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("go-w", 0o666, false, 0o644),
            ("a=", 0o6755, false, 0),
            ("u=", 0o6755, false, 0o2055),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, false, 0o2755),
            ("o+s", 0o755, false, 0o755),
            ("+t", 0o777, true, 0o1777),
            ("-t", 0o1777, true, 0o777),
            ("g=u", 0o640, false, 0o660),
            ("o=g", 0o640, false, 0o644),
            ("u+x-w", 0o644, false, 0o544),
            ("u+w,g+r", 0o400, false, 0o640),
            ("ug+rw", 0o000, false, 0o660),
            ("a+X", 0o644, false, 0o644),
            ("a+X", 0o654, false, 0o755),
        ] {
            let change = ModeChange::new(None, text).unwrap();
            assert_eq!(change.apply(mode, is_dir), expected, "{text} on {mode:o}");
        }
    }

    #[test]
    fn refuses_what_is_no_mode() {
        for text in ["u", "u=q", "z+x", "u+x,", ",", "755", "+ug", "u+x g+x"] {
            let refused = ModeChange::new(None, text).unwrap_err();
            assert!(refused.to_string().contains(text), "{text}");
        }
    }

    #[test]
    fn octal_modes_are_set() {
        assert_eq!(ModeChange::new(Some(0o100_644), "").unwrap().apply(0o777, true), 0o644);
        assert_eq!(ModeChange::new(Some(0o644), "").unwrap().of_parents(), 0o644);
        assert_eq!(ModeChange::new(None, "").unwrap(), ModeChange::Keep);
        assert_eq!(ModeChange::new(None, "a+x").unwrap().of_parents(), 0o755);
    }
}
