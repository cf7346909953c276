//! `.dockerignore`: lines to patterns. What the patterns match is the solver's
//! [`PatternMatcher`](rbuild_solver::PatternMatcher).

use rbuild_solver::clean_path;

/// The patterns of a `.dockerignore`, for [`BuildOptions::context_ignore`](crate::BuildOptions::context_ignore).
///
/// A `#` begins a comment only in the first column; blanks around a pattern, empty lines and a slash in front do not
/// count.
pub fn parse_dockerignore(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().filter(|line| !line.starts_with('#')).filter_map(pattern).collect()
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
    }
}
