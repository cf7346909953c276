//! One pattern with wildcards: parsed into tokens, matched in time linear in the path.

use std::str;

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// An unclosed or empty class, or a backslash at the end.
    #[error("syntax error in pattern `{0}`: it has an unclosed or empty `[...]`, or ends in `\\`")]
    Syntax(String),
    /// A `!` with nothing behind it.
    #[error("illegal exclusion pattern: \"!\"")]
    EmptyException,
}

/// A pattern of Go's `filepath.Match`: `*` and `?` match no slash, `[a-z]` and `[^a-z]` one character of a
/// class, `\` takes the next character as it is. It has to match all of a path.
#[derive(Clone, Debug)]
pub struct PathPattern(Glob);

impl PathPattern {
    /// Parses a pattern.
    pub fn parse(pattern: &str) -> Result<Self, PatternError> {
        Glob::parse(pattern, Stars::OneElement).map(Self)
    }

    /// Whether all of `path` matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.0.matches(path)
    }
}

/// Whether `path` matches `pattern`, as Go's `filepath.Match`.
pub fn path_match(pattern: &str, path: &[u8]) -> Result<bool, PatternError> {
    PathPattern::parse(pattern).map(|pattern| pattern.matches(path))
}

/// Whether `pattern` has an unescaped `*`, `?` or `[`; one that has none names a path.
pub fn has_wildcards(pattern: &str) -> bool {
    let mut bytes = pattern.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// What two stars in a row mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stars {
    /// The same as one: `filepath.Match`.
    OneElement,
    /// Any number of directories: `.dockerignore`.
    AnyDepth,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`: any character but a slash.
    Any,
    /// `[...]`: ranges with both ends included.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `*`: any number of characters but slashes.
    Star,
    /// `**/` or a `**` with something behind it: nothing, or anything up to and with a slash. Always followed
    /// by `InsideDirs`, the state of having eaten something and waiting for the slash.
    Dirs,
    InsideDirs,
    /// A `**` at the end: anything.
    Rest,
}

/// A pattern as tokens.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    tokens: Vec<Token>,
    /// Bytes that every match begins with.
    prefix: Vec<u8>,
    /// Bytes that every match ends with.
    suffix: Vec<u8>,
    /// The longest bytes that every match has somewhere.
    part: Vec<u8>,
}

impl Glob {
    pub(super) fn parse(pattern: &str, stars: Stars) -> Result<Self, PatternError> {
        let tokens =
            tokens(pattern, stars).ok_or_else(|| PatternError::Syntax(pattern.to_owned()))?;
        let literal = |token: &Token| match token {
            Token::Char(c) => Some(*c),
            _ => None,
        };
        let prefix: String = tokens.iter().map_while(literal).collect();
        let mut suffix: Vec<char> = tokens.iter().rev().map_while(literal).collect();
        suffix.reverse();
        let suffix = suffix.into_iter().collect::<String>().into_bytes();
        let parts = tokens.split(|token| literal(token).is_none());
        let parts = parts.map(|part| part.iter().filter_map(literal).collect::<String>());
        let part = parts.max_by_key(String::len).unwrap_or_default().into_bytes();
        Ok(Self { tokens, prefix: prefix.into_bytes(), suffix, part })
    }

    /// The bytes that every match begins and ends with, where there are such.
    pub(super) fn ends(&self) -> (Option<u8>, Option<u8>) {
        (self.prefix.first().copied(), self.suffix.last().copied())
    }

    /// Whether all of `path` matches.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        // Nearly all paths are turned away here, at the price of short comparisons.
        path.starts_with(&self.prefix)
            && path.ends_with(&self.suffix)
            && has_part(path, &self.part)
            && self.after(path).contains(self.tokens.len())
    }

    /// Whether something that begins with `start` could match.
    pub(super) fn matches_something_with(&self, start: &[u8]) -> bool {
        let common = start.len().min(self.prefix.len());
        start[..common] == self.prefix[..common]
            && self.after(start).iter().any(|state| state < self.tokens.len())
    }

    /// The states that the pattern can be in once it has eaten `path`; `tokens.len()` is the final one.
    ///
    /// All states are followed side by side, so there is no backtracking, whatever the pattern.
    fn after(&self, path: &[u8]) -> States {
        let mut current = States::empty(self.tokens.len() + 1);
        let mut next = current.clone();
        self.enter(&mut current, 0);
        let mut rest = path;
        while !rest.is_empty() && !current.is_empty() {
            let (character, width) = first_char(rest);
            rest = &rest[width..];
            next.clear();
            for state in current.iter() {
                self.step(state, character, &mut next);
            }
            std::mem::swap(&mut current, &mut next);
        }
        current
    }

    /// Adds `state` and all that are reached from it without eating anything.
    fn enter(&self, states: &mut States, mut state: usize) {
        loop {
            states.insert(state);
            match self.tokens.get(state) {
                Some(Token::Star | Token::Rest) => state += 1,
                Some(Token::Dirs) => {
                    states.insert(state + 1);
                    state += 2;
                }
                _ => return,
            }
        }
    }

    /// Eats `character` (`None` for a byte that is not UTF-8) in `state`.
    fn step(&self, state: usize, character: Option<char>, next: &mut States) {
        let slash = character == Some('/');
        match self.tokens.get(state) {
            Some(Token::Char(c)) if character == Some(*c) => self.enter(next, state + 1),
            Some(Token::Any) if !slash => self.enter(next, state + 1),
            Some(Token::Class { negated, ranges }) => {
                let inside = character
                    .is_some_and(|c| ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)));
                if inside != *negated {
                    self.enter(next, state + 1);
                }
            }
            Some(Token::Star) if !slash => self.enter(next, state),
            Some(Token::Rest) => self.enter(next, state),
            Some(Token::InsideDirs) => {
                next.insert(state);
                if slash {
                    self.enter(next, state + 1);
                }
            }
            _ => {}
        }
    }
}

fn has_part(path: &[u8], part: &[u8]) -> bool {
    let Some((first, rest)) = part.split_first() else { return true };
    let mut from = path;
    while let Some(at) = from.iter().position(|byte| byte == first) {
        from = &from[at + 1..];
        if from.starts_with(rest) {
            return true;
        }
    }
    false
}

/// The first character of `bytes` and how many bytes it has; `None` for one byte that is not UTF-8.
fn first_char(bytes: &[u8]) -> (Option<char>, usize) {
    if bytes[0].is_ascii() {
        return (Some(bytes[0] as char), 1);
    }
    let window = &bytes[..bytes.len().min(4)];
    let valid = match str::from_utf8(window) {
        Ok(text) => text,
        Err(error) => str::from_utf8(&window[..error.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(character) => (Some(character), character.len_utf8()),
        None => (None, 1),
    }
}

/// The tokens of `pattern`; `None` when it is malformed.
fn tokens(pattern: &str, stars: Stars) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if stars == Stars::AnyDepth && chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_none() {
                    tokens.push(Token::Rest);
                } else {
                    tokens.extend([Token::Dirs, Token::InsideDirs]);
                }
            }
            '*' => {
                if tokens.last() != Some(&Token::Star) {
                    tokens.push(Token::Star);
                }
            }
            '?' => tokens.push(Token::Any),
            '[' => tokens.push(class(&mut chars)?),
            '\\' => tokens.push(Token::Char(chars.next()?)),
            c => tokens.push(Token::Char(c)),
        }
    }
    Some(tokens)
}

/// A class, after its `[`.
fn class(chars: &mut std::iter::Peekable<str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(Token::Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        ranges.push((low, high));
    }
}

/// One end of a range; an unescaped `-` or `]` is none.
fn class_char(chars: &mut std::iter::Peekable<str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        c => Some(c),
    }
}

/// A set of small numbers.
#[derive(Clone, Debug)]
enum States {
    /// Numbers below 64, which is nearly every pattern.
    Word(u64),
    Words(Vec<u64>),
}

impl States {
    fn empty(capacity: usize) -> Self {
        if capacity <= 64 { Self::Word(0) } else { Self::Words(vec![0; capacity.div_ceil(64)]) }
    }

    fn words(&self) -> &[u64] {
        match self {
            Self::Word(word) => std::slice::from_ref(word),
            Self::Words(words) => words,
        }
    }

    fn words_mut(&mut self) -> &mut [u64] {
        match self {
            Self::Word(word) => std::slice::from_mut(word),
            Self::Words(words) => words,
        }
    }

    fn insert(&mut self, state: usize) {
        self.words_mut()[state / 64] |= 1 << (state % 64);
    }

    fn contains(&self, state: usize) -> bool {
        self.words()[state / 64] & 1 << (state % 64) != 0
    }

    fn clear(&mut self) {
        self.words_mut().fill(0);
    }

    fn is_empty(&self) -> bool {
        self.words().iter().all(|word| *word == 0)
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.words().iter().enumerate().flat_map(|(index, word)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros() as usize;
                word &= word.wrapping_sub(1);
                (bit < 64).then_some(index * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_go_does() {
        for (pattern, path, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a**/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("ab[!c]", "ab!", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-x]", "-", true),
            ("[x\\-]", "z", false),
            ("*x", "xxx", true),
            ("[z-a]", "b", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(path_match(pattern, path.as_bytes()), Ok(expected), "{pattern} on {path}");
        }
        assert!(path_match("a?b", b"a\xffb").unwrap());
        assert!(path_match("a[^x]b", b"a\xffb").unwrap());
        assert!(!path_match("a[x-z]b", b"a\xffb").unwrap());
        for bad in
            ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "a\\", "[a\\"]
        {
            assert!(path_match(bad, b"a").is_err(), "{bad}");
        }
    }

    #[test]
    fn long_patterns_work_and_take_linear_time() {
        let pattern = format!("{}b", "a*".repeat(200));
        assert!(!path_match(&pattern, "a".repeat(4000).as_bytes()).unwrap());
        assert!(path_match(&pattern, format!("{}b", "a".repeat(4000)).as_bytes()).unwrap());
    }

    #[test]
    fn wildcards_are_seen_unless_escaped() {
        for (pattern, expected) in [
            ("a/b", false),
            ("a*", true),
            ("a?", true),
            ("[a]", true),
            ("a\\*", false),
            ("a\\", false),
        ] {
            assert_eq!(has_wildcards(pattern), expected, "{pattern}");
        }
    }
}
