//! Patterns against a naive matcher: one that tries everything.

use proptest::prelude::*;
use rbuild_solver::{Decision, PatternMatcher, path_match};

/// Whether all of `path` matches all of `pattern`; `deep` is whether `**` has its own meaning.
fn naive_match(pattern: &[char], path: &[char], deep: bool) -> bool {
    match pattern {
        [] => path.is_empty(),
        ['*', '*', rest @ ..] if deep => {
            let rest = rest.strip_prefix(&['/']).unwrap_or(rest);
            rest.is_empty()
                || naive_match(rest, path, deep)
                || (0..path.len())
                    .any(|at| path[at] == '/' && naive_match(rest, &path[at + 1..], deep))
        }
        ['*', rest @ ..] => (0..=path.len())
            .take_while(|end| !path[..*end].contains(&'/'))
            .any(|end| naive_match(rest, &path[end..], deep)),
        ['?', rest @ ..] => {
            path.first().is_some_and(|c| *c != '/') && naive_match(rest, &path[1..], deep)
        }
        // The only classes that the strategy makes.
        ['[', 'a', '-', 'b', ']', rest @ ..] => {
            path.first().is_some_and(|c| "ab".contains(*c)) && naive_match(rest, &path[1..], deep)
        }
        ['[', '^', 'a', ']', rest @ ..] => {
            path.first().is_some_and(|c| *c != 'a') && naive_match(rest, &path[1..], deep)
        }
        ['\\', c, rest @ ..] | [c, rest @ ..] => {
            path.first() == Some(c) && naive_match(rest, &path[1..], deep)
        }
    }
}

/// The list's rules, parent by parent and pattern by pattern.
fn naive_excluded(patterns: &[String], path: &str) -> bool {
    let mut has_say = vec![false; patterns.len()];
    let paths = path.match_indices('/').map(|(at, _)| &path[..at]).chain([path]);
    paths.fold(false, |_, path| naive_decide(patterns, path, &mut has_say))
}

fn naive_decide(patterns: &[String], path: &str, has_say: &mut [bool]) -> bool {
    let mut excluded = false;
    for (pattern, has_say) in patterns.iter().zip(has_say) {
        let (exception, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, pattern.as_str()),
        };
        let chars: Vec<char> = pattern.chars().collect();
        let plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
        let matches = || {
            // Docker's habits with `**` at an end of otherwise plain text.
            if let Some(suffix) = pattern.strip_prefix("**").filter(|rest| plain(rest)) {
                return path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path);
            }
            naive_match(&chars, &path.chars().collect::<Vec<_>>(), true)
        };
        *has_say = *has_say || exception == excluded && matches();
        if *has_say {
            excluded = !exception;
        }
    }
    excluded
}

fn pattern() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a", "b", "x", "ab", "é", "*", "**", "?", "[a-b]", "[^a]", "\\*", "\\a", ".", "**/", "/**",
    ]);
    let element = prop::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat());
    let path = prop::collection::vec(element, 1..4).prop_map(|elements| elements.join("/"));
    // Cleaning has its own tests: what it would change is not for the naive matcher.
    path.prop_filter("is clean", |path| {
        rbuild_solver::clean_path(path) == *path && !path.starts_with('/')
    })
}

fn path() -> impl Strategy<Value = String> {
    let element = prop::string::string_regex("[abxé.*]{1,3}").unwrap();
    prop::collection::vec(element, 1..5).prop_map(|elements| elements.join("/"))
}

fn list() -> impl Strategy<Value = Vec<String>> {
    let pattern = (prop::bool::weighted(0.3), pattern())
        .prop_map(|(exception, pattern)| if exception { format!("!{pattern}") } else { pattern });
    prop::collection::vec(pattern, 0..5)
}

/// The decision about `path` as a walk finds it, and whether it would have come to it.
fn walk(matcher: &PatternMatcher, path: &str) -> (Decision, bool) {
    let mut decision = Decision::default();
    let mut seen = true;
    for (at, _) in path.match_indices('/') {
        decision = matcher.decide(&decision, &path.as_bytes()[..at]);
        seen &= !decision.excluded()
            || matcher.may_have_exceptions_below(&decision, &path.as_bytes()[..at]);
    }
    (matcher.decide(&decision, path.as_bytes()), seen)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn lists_match_as_the_naive_matcher_does(list in list(), path in path()) {
        let matcher = PatternMatcher::new(&list).unwrap();
        let expected = naive_excluded(&list, &path);
        prop_assert_eq!(matcher.matches(path.as_bytes()), expected);
        let (decision, seen) = walk(&matcher, &path);
        prop_assert_eq!(decision, matcher.find(path.as_bytes()));
        prop_assert!(seen || expected, "the walk leaves out nothing that is not excluded");
    }

    #[test]
    fn paths_match_as_the_naive_matcher_does(pattern in pattern(), path in path()) {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let expected = naive_match(&chars(&pattern), &chars(&path), false);
        prop_assert_eq!(path_match(&pattern, path.as_bytes()), Ok(expected));
    }

    #[test]
    fn arbitrary_patterns_never_panic(
        patterns in prop::collection::vec(any::<String>(), 0..4),
        path in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        if let Ok(matcher) = PatternMatcher::new(&patterns) {
            let decision = matcher.find(&path);
            matcher.may_have_exceptions_below(&decision, &path);
        }
        for pattern in &patterns {
            let _ = path_match(pattern, &path);
        }
    }
}
