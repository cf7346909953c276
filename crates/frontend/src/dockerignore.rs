//! `.dockerignore`: lines to patterns. What the patterns match is the solver's
//! [`PatternMatcher`](rbuild_solver::PatternMatcher).

use rbuild_solver::clean_path;

/// The patterns of a `.dockerignore`, for [`BuildOptions::context_ignore`](crate::BuildOptions::context_ignore).
///
/// A `#` begins a comment only in the first column; blanks around a pattern, empty lines and a slash in front do not
/// count.
pub fn parse_dockerignore(text: &str) -> Vec<String> {
    parse_dockerignore_lines(text).into_iter().map(|line| line.pattern).collect()
}

/// A pattern and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoreLine {
    /// The line's number, from one.
    pub number: usize,
    /// The line as written, without blanks around.
    pub written: String,
    /// What it says.
    pub pattern: String,
}

/// The same with the places of the patterns.
pub fn parse_dockerignore_lines(text: &str) -> Vec<IgnoreLine> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    lines
        .filter_map(|(index, line)| {
            let written = line.trim().to_owned();
            Some(IgnoreLine { number: index + 1, written, pattern: pattern(line)? })
        })
        .collect()
}

fn pattern(line: &str) -> Option<String> {
    let line = line.trim();
    let (exception, path) = match line.strip_prefix('!') {
        Some(path) => ("!", path.trim()),
        None => ("", line),
    };
    if path.is_empty() {
        // A lone `!` is kept, because it is an error that somebody should hear of.
        return (!exception.is_empty()).then(|| exception.to_owned());
    }
    let cleaned = clean_path(path);
    let relative = match cleaned.strip_prefix('/') {
        Some("") | None => cleaned.as_str(),
        Some(relative) => relative,
    };
    Some(format!("{exception}{relative}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_21_lines_of_dockerignore() {
        let text = "\u{feff}# comment\n  # no comment\n\n/build/\r\n!/build/keep/../kept\n  **/*.log  \n! spaced \n./a//b\n/\n.\n!\n";
        assert_eq!(
            parse_dockerignore(text),
            ["# no comment", "build", "!build/kept", "**/*.log", "!spaced", "a/b", "/", ".", "!"]
        );
        assert!(parse_dockerignore("").is_empty());
        let lines = parse_dockerignore_lines("# a\n\n !/x/ \ny");
        let places: Vec<_> =
            lines.iter().map(|line| (line.number, &*line.written, &*line.pattern)).collect();
        assert_eq!(places, [(3, "!/x/", "!x"), (4, "y", "y")]);
    }
}
