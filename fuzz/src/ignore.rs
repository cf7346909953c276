//! `.dockerignore` files and glob patterns, against a matcher that tries everything.
//!
//! ```text
//! lines of a .dockerignore NUL path NUL path ..
//! ```

use rbuild_frontend::{parse_dockerignore, parse_dockerignore_lines};
use rbuild_solver::{Decision, PathPattern, PatternMatcher, clean_path, has_wildcards, path_match};

/// More would take the slow matcher too long: it is exponential in stars.
const LONGEST_PATTERN: usize = 24;
const LONGEST_PATH: usize = 32;
const MOST_STARS: usize = 6;

/// Reads a list, and matches paths against it and against each pattern alone.
pub fn check(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0);
    let Some(text) = parts.next().and_then(|list| std::str::from_utf8(list).ok()) else { return };
    let patterns = parse_dockerignore(text);
    let lines = parse_dockerignore_lines(text);
    assert_eq!(lines.len(), patterns.len());
    for (line, pattern) in lines.iter().zip(&patterns) {
        assert_eq!(line.pattern, *pattern);
        assert!(pattern.len() <= line.written.len().max(1), "{line:?}");
        assert!(text.lines().nth(line.number - 1).is_some_and(|it| it.contains(&line.written)));
        let cleaned = clean_path(pattern);
        assert_eq!(clean_path(&cleaned), cleaned);
    }
    let paths: Vec<&[u8]> = parts.take(8).collect();
    let matcher = PatternMatcher::new(&patterns);
    let parsed: Option<Vec<Line>> = patterns
        .iter()
        .filter(|pattern| !pattern.trim().is_empty())
        .map(|pattern| Line::parse(pattern))
        .collect();
    assert_eq!(matcher.is_ok(), parsed.is_some(), "{patterns:?}");
    let (Ok(matcher), Some(parsed)) = (matcher, parsed) else { return };
    for path in &paths {
        check_walk(&matcher, path);
        let Ok(path) = std::str::from_utf8(path) else { continue };
        if path.len() <= LONGEST_PATH && parsed.iter().all(Line::is_small) {
            let expected = excluded(&parsed, path);
            assert_eq!(matcher.matches(path.as_bytes()), expected, "{patterns:?} on {path:?}");
        }
    }
    for pattern in &patterns {
        let tokens = parse(pattern);
        let whole = PathPattern::parse(pattern);
        assert_eq!(whole.is_ok(), tokens.is_some(), "{pattern:?}");
        for path in &paths {
            let found = path_match(pattern, path);
            assert_eq!(
                found.as_ref().ok(),
                whole.as_ref().ok().map(|it| it.matches(path)).as_ref()
            );
            let (Some(tokens), Ok(path)) = (&tokens, std::str::from_utf8(path)) else { continue };
            if is_small(pattern) && path.len() <= LONGEST_PATH {
                let path: Vec<char> = path.chars().collect();
                let expected = matches(tokens, &path, false);
                assert_eq!(found, Ok(expected), "{pattern:?} on {path:?}");
                if !has_wildcards(pattern) && !pattern.contains('\\') {
                    assert_eq!(expected, path == pattern.chars().collect::<Vec<_>>());
                }
            }
        }
    }
}

/// A walk that passes decisions down decides as one that does not, and leaves out nothing that is wanted.
fn check_walk(matcher: &PatternMatcher, path: &[u8]) {
    // No walk comes to a path like that.
    if path.split(|byte| *byte == b'/').any(<[u8]>::is_empty) {
        return;
    }
    let mut decision = Decision::default();
    let mut is_reached = true;
    for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        decision = matcher.decide(&decision, &path[..at]);
        is_reached &=
            !decision.excluded() || matcher.may_have_exceptions_below(&decision, &path[..at]);
    }
    let decision = matcher.decide(&decision, path);
    assert_eq!(decision, matcher.find(path));
    assert!(is_reached || decision.excluded(), "a walk does not come to {path:?}");
}

/// A line of a list.
struct Line {
    is_exception: bool,
    pattern: String,
    tokens: Vec<Token>,
}

/// A part of a pattern.
#[derive(Clone)]
enum Token {
    Char(char),
    Any,
    Class { is_negated: bool, ranges: Vec<(char, char)> },
    Star,
}

impl Line {
    /// `None` for what is no pattern.
    fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        let (is_exception, pattern) = match line.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        if pattern.is_empty() {
            return None;
        }
        let pattern = clean_path(pattern);
        Some(Self { is_exception, tokens: parse(&pattern)?, pattern })
    }

    fn is_small(&self) -> bool {
        is_small(&self.pattern)
    }

    fn matches(&self, path: &str) -> bool {
        let plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
        // Docker's habits with `**` at one end of otherwise plain text.
        if let Some(suffix) = self.pattern.strip_prefix("**").filter(|rest| plain(rest)) {
            return path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path);
        }
        if let Some(prefix) = self.pattern.strip_suffix("**").filter(|rest| plain(rest)) {
            return path.starts_with(prefix);
        }
        matches(&self.tokens, &path.chars().collect::<Vec<_>>(), true)
    }
}

fn is_small(pattern: &str) -> bool {
    pattern.len() <= LONGEST_PATTERN && pattern.matches('*').count() <= MOST_STARS
}

/// Line by line, for the parents and then the path: one counts where it changes what those before it say, and then below, too.
fn excluded(lines: &[Line], path: &str) -> bool {
    let mut counts = vec![false; lines.len()];
    let paths = path.match_indices('/').map(|(at, _)| &path[..at]).chain([path]);
    paths.fold(false, |_, path| {
        let mut excluded = false;
        for (line, counts) in lines.iter().zip(&mut counts) {
            *counts = *counts || line.is_exception == excluded && line.matches(path);
            if *counts {
                excluded = !line.is_exception;
            }
        }
        excluded
    })
}

/// The parts of a pattern by the grammar of Go's `filepath.Match`; `None` for what is malformed.
fn parse(pattern: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let chars: Vec<char> = pattern.chars().collect();
    let mut at = 0;
    while at < chars.len() {
        match chars[at] {
            '*' => tokens.push(Token::Star),
            '?' => tokens.push(Token::Any),
            '\\' => {
                at += 1;
                tokens.push(Token::Char(*chars.get(at)?));
            }
            '[' => {
                at += 1;
                let is_negated = chars.get(at) == Some(&'^');
                at += usize::from(is_negated);
                let mut ranges = Vec::new();
                while ranges.is_empty() || *chars.get(at)? != ']' {
                    let low = class_char(&chars, &mut at)?;
                    let mut high = low;
                    if chars.get(at) == Some(&'-') {
                        at += 1;
                        high = class_char(&chars, &mut at)?;
                    }
                    ranges.push((low, high));
                }
                tokens.push(Token::Class { is_negated, ranges });
            }
            other => tokens.push(Token::Char(other)),
        }
        at += 1;
    }
    Some(tokens)
}

fn class_char(chars: &[char], at: &mut usize) -> Option<char> {
    let found = *chars.get(*at)?;
    *at += 1;
    match found {
        '-' | ']' => None,
        '\\' => {
            let escaped = *chars.get(*at)?;
            *at += 1;
            Some(escaped)
        }
        _ => Some(found),
    }
}

/// Whether all of `path` matches; `is_deep` is whether two stars stand for any number of directories.
fn matches(tokens: &[Token], path: &[char], is_deep: bool) -> bool {
    match tokens {
        [] => path.is_empty(),
        [Token::Star, Token::Star, rest @ ..] if is_deep => {
            let rest = match rest {
                [Token::Char('/'), rest @ ..] => rest,
                rest => rest,
            };
            let after = |at: usize| path[at] == '/' && matches(rest, &path[at + 1..], is_deep);
            rest.is_empty() || matches(rest, path, is_deep) || (0..path.len()).any(after)
        }
        [Token::Star, rest @ ..] => {
            let most = path.iter().position(|c| *c == '/').unwrap_or(path.len());
            (0..=most).any(|length| matches(rest, &path[length..], is_deep))
        }
        [one, rest @ ..] => {
            let Some((first, after)) = path.split_first() else { return false };
            let eats = match one {
                Token::Char(c) => c == first,
                Token::Any => *first != '/',
                Token::Class { is_negated, ranges } => {
                    ranges.iter().any(|(low, high)| low <= first && first <= high) != *is_negated
                }
                Token::Star => false,
            };
            eats && matches(rest, after, is_deep)
        }
    }
}
