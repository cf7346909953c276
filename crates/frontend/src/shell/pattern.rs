//! The patterns of `${name#pattern}`: `*`, `?` and escapes; brackets mean themselves. No wildcard matches a line break.

use std::borrow::Cow;

use regex::Regex;

/// A parsed pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    One,
    Many,
}

/// How much of a value a `*` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greed {
    Shortest,
    Longest,
}

/// Why a pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatternError {
    #[error("invalid escape '\\{0}'")]
    Escape(char),
    #[error("the pattern is too long")]
    TooLong,
    #[error("the result is too long")]
    Result,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(character) = chars.next() {
            tokens.push(match character {
                '*' => Token::Many,
                '?' => Token::One,
                // Inside of `${}` these two need an escape, which is not the pattern's.
                '\\' if matches!(chars.peek(), Some('}' | '/')) => continue,
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '?' | '\\')) => Token::Literal(escaped),
                    other => return Err(PatternError::Escape(other.unwrap_or('\u{fffd}'))),
                },
                other => Token::Literal(other),
            });
        }
        Ok(Self { tokens })
    }

    /// The value without the prefix that matches.
    pub(super) fn strip_prefix<'v>(
        &self,
        value: &'v str,
        greed: Greed,
    ) -> Result<&'v str, PatternError> {
        if let Some(literal) = self.literal() {
            return Ok(value.strip_prefix(literal.as_str()).unwrap_or(value));
        }
        let regex = regex(self.tokens.iter(), greed, true)?;
        Ok(regex.find(value).map_or(value, |found| &value[found.end()..]))
    }

    /// The value without the suffix that matches.
    pub(super) fn strip_suffix<'v>(
        &self,
        value: &'v str,
        greed: Greed,
    ) -> Result<&'v str, PatternError> {
        if let Some(literal) = self.literal() {
            return Ok(value.strip_suffix(literal.as_str()).unwrap_or(value));
        }
        // Backwards, so that "shortest" is the shortest suffix and not the one that begins first.
        let regex = regex(self.tokens.iter().rev(), greed, true)?;
        let reversed: String = value.chars().rev().collect();
        Ok(regex.find(&reversed).map_or(value, |found| &value[..value.len() - found.end()]))
    }

    /// The value with the first match replaced.
    pub(super) fn replace_first(
        &self,
        value: &str,
        replacement: &str,
    ) -> Result<String, PatternError> {
        let regex = regex(self.tokens.iter(), Greed::Longest, false)?;
        Ok(match regex.find(value) {
            Some(found) => [&value[..found.start()], replacement, &value[found.end()..]].concat(),
            None => value.to_owned(),
        })
    }

    /// The value with all matches replaced. A `$0` in the replacement is what matched, `$$` a dollar, and any other
    /// group is empty: BuildKit hands it to Go's `ReplaceAllString`.
    pub(super) fn replace_all(
        &self,
        value: &str,
        replacement: &str,
        limit: usize,
    ) -> Result<String, PatternError> {
        let regex = regex(self.tokens.iter(), Greed::Longest, false)?;
        let mut replaced = String::new();
        let mut end = 0;
        for captures in regex.captures_iter(value) {
            let Some(found) = captures.get(0) else { continue };
            replaced.push_str(&value[end..found.start()]);
            captures.expand(replacement, &mut replaced);
            end = found.end();
            if replaced.len() > limit {
                return Err(PatternError::Result);
            }
        }
        replaced.push_str(&value[end..]);
        Ok(replaced)
    }

    /// The text that the pattern stands for if it has no wildcard.
    fn literal(&self) -> Option<String> {
        let character = |token: &Token| match token {
            Token::Literal(character) => Some(*character),
            Token::One | Token::Many => None,
        };
        self.tokens.iter().map(character).collect()
    }
}

fn regex<'t>(
    tokens: impl Iterator<Item = &'t Token>,
    greed: Greed,
    anchored: bool,
) -> Result<Regex, PatternError> {
    let mut pattern = String::from(if anchored { "^" } else { "" });
    for token in tokens {
        match token {
            Token::Literal(character) => {
                pattern.push_str(&escaped(*character));
            }
            Token::One => pattern.push('.'),
            Token::Many if greed == Greed::Longest => pattern.push_str(".*"),
            Token::Many => pattern.push_str(".*?"),
        }
    }
    Regex::new(&pattern).map_err(|_| PatternError::TooLong)
}

fn escaped(character: char) -> Cow<'static, str> {
    regex::escape(character.encode_utf8(&mut [0; 4])).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_cut_from_the_end() {
        for (pattern, greed, expected) in [
            (".*", Greed::Shortest, "a.b"),
            (".*", Greed::Longest, "a"),
            ("*", Greed::Shortest, "a.b.c"),
            ("*", Greed::Longest, ""),
            (".c", Greed::Shortest, "a.b"),
            ("?", Greed::Longest, "a.b."),
            ("x", Greed::Longest, "a.b.c"),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(parsed.strip_suffix("a.b.c", greed).unwrap(), expected, "{pattern}");
        }
        let wide = Pattern::parse("*é").unwrap();
        assert_eq!(wide.strip_suffix("añé", Greed::Shortest).unwrap(), "añ");
    }

    #[test]
    fn replacing_all_knows_groups() {
        let pattern = Pattern::parse("b").unwrap();
        assert_eq!(pattern.replace_all("abab", "<$0$1$$>", 100).unwrap(), "a<b$>a<b$>");
        assert_eq!(pattern.replace_first("abab", "$0").unwrap(), "a$0ab");
        let everything = "b".repeat(1000);
        assert_eq!(pattern.replace_all(&everything, &everything, 5000), Err(PatternError::Result));
    }

    #[test]
    fn only_three_escapes() {
        assert_eq!(Pattern::parse(r"\a").unwrap_err(), PatternError::Escape('a'));
        assert_eq!(Pattern::parse("\\").unwrap_err(), PatternError::Escape('\u{fffd}'));
        let pattern = Pattern::parse(r"\*\?\\\}\/[a]").unwrap();
        assert_eq!(pattern.strip_prefix(r"*?\}/[a]b", Greed::Shortest).unwrap(), "b");
    }
}
