//! Lists of patterns as in `.dockerignore`.

use std::sync::Arc;

use super::candidates::Candidates;
use super::clean::clean_path;
use super::glob::{Glob, PatternError, Stars};

/// A list of patterns of which the last that matches decides: what it matches is excluded (or included,
/// where a list says what to take), what one with `!` in front matches is not.
///
/// A pattern that matches a directory matches all below it, if it had a say there: an exception has none where nothing
/// before it matches, and another pattern none where one before it matches already. So below `packages`, the list
/// `**/tmp`, `!packages` excludes `packages/tmp`: the exception changed nothing about `packages`. `*`, `?`, `[a-z]` and `\` are those of
/// [`path_match`](super::path_match); `**` stands for any number of directories, also none. Two habits of
/// Docker's matcher that have files depend on them are kept: a `**` in front of plain text matches any end of
/// a path (`**foo` matches `a/xfoo`), and a `**` at the end anything that goes on (`a**` matches `ab/c`).
/// Unlike there, a class or an escape is what it says in every place, where Docker hands it to a regular
/// expression (`[*]` is a star, `\d` the letter).
///
/// A walk passes the [`Decision`] about a directory down to its entries, so that no path is matched against
/// the same pattern twice:
///
/// ```
/// # use rbuild_solver::{Decision, PatternMatcher};
/// let matcher = PatternMatcher::new(["docs", "!docs/*.md"])?;
/// let docs = matcher.decide(&Decision::default(), b"docs");
/// assert!(docs.excluded() && matcher.may_have_exceptions_below(&docs, b"docs"));
/// assert!(!matcher.decide(&docs, b"docs/a.md").excluded());
/// assert!(matcher.decide(&docs, b"docs/a.txt").excluded());
/// # Ok::<(), rbuild_solver::PatternError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct PatternMatcher {
    patterns: Vec<Pattern>,
    candidates: Candidates,
}

/// What a [`PatternMatcher`] says of a path. The default is that no pattern matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    decided_by: Option<u32>,
    excluded: bool,
    matched: Matched,
}

/// The patterns that match a path or one of its parents, and had a say there. Paths with the same ones share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Matched(Option<Arc<[u64]>>);

impl Matched {
    fn word(&self, word: usize) -> u64 {
        self.0.as_ref().map_or(0, |words| words[word])
    }

    fn has(&self, number: usize) -> bool {
        self.word(number / 64) & (1 << (number % 64)) != 0
    }

    fn insert(&mut self, number: usize, words: usize) {
        let set = self.0.get_or_insert_with(|| vec![0; words].into());
        Arc::make_mut(set)[number / 64] |= 1 << (number % 64);
    }
}

impl Decision {
    /// Whether the path is matched, and not by an exception last.
    pub fn excluded(&self) -> bool {
        self.excluded
    }

    /// Which pattern decided: its position in what [`PatternMatcher::new`] was given.
    pub fn decided_by(&self) -> Option<usize> {
        self.decided_by.map(|position| position as usize)
    }
}

#[derive(Clone, Debug)]
struct Pattern {
    /// Position in the given list, which may have empty entries.
    position: u32,
    exception: bool,
    shape: Shape,
}

/// The kinds of patterns, cheap ones first.
#[derive(Clone, Debug)]
enum Shape {
    Exact(Vec<u8>),
    /// `text**`.
    Prefix(Vec<u8>),
    /// `**text`; a slash in front of the text may also be the beginning of the path.
    Suffix(Vec<u8>),
    Glob(Glob),
}

impl PatternMatcher {
    /// A matcher for patterns as they are written: space around them is cut, paths are cleaned, empty ones are skipped. With a
    /// slash in front one matches nothing, as paths have none; in a `.dockerignore` it does not count, and its reader leaves it
    /// out.
    pub fn new<P: AsRef<str>>(patterns: impl IntoIterator<Item = P>) -> Result<Self, PatternError> {
        let mut parsed = Vec::new();
        for (position, pattern) in (0..).zip(patterns) {
            let pattern = pattern.as_ref().trim();
            let (exception, pattern) = match pattern.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, pattern),
            };
            if pattern.is_empty() {
                if exception {
                    return Err(PatternError::EmptyException);
                }
                continue;
            }
            let shape = Shape::parse(&clean_path(pattern))?;
            parsed.push(Pattern { position, exception, shape });
        }
        let ends: Vec<_> = parsed.iter().map(|pattern: &Pattern| pattern.shape.ends()).collect();
        Ok(Self { patterns: parsed, candidates: Candidates::new(&ends) })
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether `path` is excluded.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.find(path).excluded
    }

    /// The decision about a path without those about its parents at hand.
    pub fn find(&self, path: &[u8]) -> Decision {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let parents = slashes.map(|(at, _)| &path[..at]);
        let parent = parents.fold(Decision::default(), |decision, dir| self.decide(&decision, dir));
        self.decide(&parent, path)
    }

    /// The decision about `path`, given that about the directory which it is in.
    pub fn decide(&self, parent: &Decision, path: &[u8]) -> Decision {
        let mut decision = Decision { matched: parent.matched.clone(), ..Decision::default() };
        for number in self.candidates.of(path, |word| parent.matched.word(word)) {
            let pattern = &self.patterns[number];
            if !parent.matched.has(number) {
                if pattern.exception != decision.excluded || !pattern.shape.matches(path) {
                    continue;
                }
                decision.matched.insert(number, self.candidates.words());
            }
            decision.excluded = !pattern.exception;
            decision.decided_by = Some(pattern.position);
        }
        decision
    }

    /// Whether something below the excluded directory `dir` may yet be excepted, given the decision about it.
    pub fn may_have_exceptions_below(&self, decision: &Decision, dir: &[u8]) -> bool {
        // One that matched already has been overruled, and will be.
        self.patterns.iter().enumerate().any(|(number, pattern)| {
            pattern.exception && !decision.matched.has(number) && pattern.shape.may_match_below(dir)
        })
    }
}

impl Shape {
    fn parse(pattern: &str) -> Result<Self, PatternError> {
        // The general form is parsed in any case, for its syntax check.
        let glob = Glob::parse(pattern, Stars::AnyDepth)?;
        let plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
        let text = |text: &str| text.as_bytes().to_vec();
        Ok(if plain(pattern) {
            Self::Exact(text(pattern))
        } else if let Some(suffix) = pattern.strip_prefix("**").filter(|rest| plain(rest)) {
            Self::Suffix(text(suffix))
        } else if let Some(prefix) = pattern.strip_suffix("**").filter(|rest| plain(rest)) {
            Self::Prefix(text(prefix))
        } else {
            Self::Glob(glob)
        })
    }

    /// Whether `path` itself matches.
    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Prefix(prefix) => path.starts_with(prefix),
            Self::Suffix(suffix) => {
                path.ends_with(suffix) || suffix.strip_prefix(b"/").is_some_and(|rest| path == rest)
            }
            Self::Glob(glob) => glob.matches(path),
        }
    }

    /// The bytes that every match begins and ends with, where there are such.
    fn ends(&self) -> (Option<u8>, Option<u8>) {
        match self {
            Self::Exact(text) => (text.first().copied(), text.last().copied()),
            Self::Prefix(prefix) => (prefix.first().copied(), None),
            Self::Suffix(suffix) => (None, suffix.last().copied()),
            Self::Glob(glob) => glob.ends(),
        }
    }

    /// Whether something below the directory `dir` could match.
    fn may_match_below(&self, dir: &[u8]) -> bool {
        let mut start = dir.to_vec();
        start.push(b'/');
        match self {
            Self::Exact(text) => text.starts_with(&start),
            Self::Prefix(prefix) => prefix.starts_with(&start) || start.starts_with(prefix),
            Self::Suffix(_) => true,
            Self::Glob(glob) => glob.matches_something_with(&start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(patterns: &[&str]) -> PatternMatcher {
        PatternMatcher::new(patterns).unwrap()
    }

    #[test]
    fn single_patterns() {
        for (pattern, path, expected) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir", false),
            ("dir/**", "dirx/file", false),
            ("**/dir", "dir", true),
            ("**/dir", "a/dir/file", true),
            ("**/dir", "a/xdir", false),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir2/file", true),
            ("**file", "dir/xfile", true),
            ("**file*", "dir/xfile", false),
            ("**/*.txt", "a/b/c.txt", true),
            ("**/*.txt", "c.txt", true),
            ("**/*.txt", "c.txt/d", true),
            ("**.txt", "a/.txt", true),
            ("a**", "abc/d", true),
            ("a**/*c", "a/b/c", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/xb", false),
            ("*a**b", "aab", true),
            ("abc", "abc/def", true),
            ("abc", "abcdef", false),
            ("abc.def", "abcXdef", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("*", "a/b", true),
            ("*/b", "a/b/c", true),
            ("*/b", "b", false),
            ("/abc", "abc", false),
            ("./abc/", "abc", true),
            ("a/../abc", "abc", true),
            (" abc ", "abc", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("\\!a", "!a", true),
            ("a(b", "a(b", true),
            (".", "a", false),
            ("..", "a", false),
        ] {
            assert_eq!(
                matcher(&[pattern]).matches(path.as_bytes()),
                expected,
                "{pattern} on {path}"
            );
        }
        assert!(matcher(&["*.o"]).matches(b"\xff.o"));
        assert_eq!(PatternMatcher::new(["!"]).unwrap_err(), PatternError::EmptyException);
        assert!(PatternMatcher::new(["a["]).is_err());
    }

    #[test]
    fn last_match_wins() {
        let excluded = |patterns: &[&str], path: &str| {
            let decision = matcher(patterns).find(path.as_bytes());
            (decision.excluded(), decision.decided_by())
        };
        assert_eq!(excluded(&["docs", "!docs/README.md"], "docs/README.md"), (false, Some(1)));
        assert_eq!(excluded(&["docs", "", "!docs/README.md"], "docs/a"), (true, Some(0)));
        assert_eq!(excluded(&["!docs/README.md", "docs"], "docs/README.md"), (true, Some(1)));
        assert_eq!(excluded(&["*.md", "!README*", "README-x*"], "README-x.md"), (true, Some(2)));
        assert_eq!(excluded(&["*", "!src", "src/*.o"], "src/a/b.c"), (false, Some(1)));
        assert_eq!(excluded(&["! docs"], "docs"), (false, None));
        assert_eq!(excluded(&["a"], "b"), (false, None));
        // What has no say about a directory has none by it below.
        assert_eq!(excluded(&["**/tmp", "!packages"], "packages/a/tmp/f"), (true, Some(0)));
        assert_eq!(excluded(&["**/tmp", "!packages/**"], "packages/a/tmp/f"), (false, Some(1)));
        assert_eq!(excluded(&["**/*.log", "!logs"], "logs/a.log"), (true, Some(0)));
        assert_eq!(excluded(&["ab", "!ab/**", "*"], "ab/c"), (false, Some(1)));
        assert_eq!(excluded(&["*", "!packages", "**/tmp"], "packages/tmp"), (true, Some(2)));
        assert!(matcher(&["", " "]).is_empty());
    }

    #[test]
    fn exceptions_below_a_directory_are_foreseen() {
        let may = |patterns: &[&str], dir: &str| {
            let matcher = matcher(patterns);
            let decision = matcher.find(dir.as_bytes());
            assert!(decision.excluded());
            matcher.may_have_exceptions_below(&decision, dir.as_bytes())
        };
        assert!(may(&["docs", "!docs/README.md"], "docs"));
        assert!(!may(&["docs", "!src/README.md"], "docs"));
        // It is not looked at in which order they are.
        assert!(may(&["!docs/README.md", "docs"], "docs"));
        assert!(may(&["*", "!*/a/*.md"], "docs"));
        assert!(may(&["*", "!*/a/*.md"], "docs/a"));
        assert!(!may(&["*", "!*/a/*.md"], "docs/b"));
        assert!(may(&["*", "!**/a"], "docs/b"));
        assert!(may(&["*", "!**a"], "docs/b"));
        assert!(!may(&["docs", "!docsx/**"], "docs"));
    }
}
