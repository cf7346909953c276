//! Variable expansion as BuildKit's `shell.Lex` does it.
//!
//! One pass over the text; nested words are expanded by recursion, which is bounded, as is the length of the result: a
//! file of a few lines could double a variable until no memory is left.

use std::collections::HashSet;
use std::ops::Range;

use super::pattern::{Greed, Pattern, PatternError};
use crate::dockerfile::ast::Escape;
use crate::environment::Environment;

/// How deep `${a:-${b:-...}}` may be nested.
const MAX_DEPTH: usize = 100;
/// How much longer than its text a value may become.
const MAX_GROWTH: usize = 4 << 20;

/// How words are expanded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shell {
    escape: char,
    /// Whether quotes stay in the value.
    raw_quotes: bool,
    /// Whether quotes are characters like all others.
    plain_quotes: bool,
    /// Whether a variable that is not set stays as it is written.
    keep_unset: bool,
    /// Whether the words of the value are wanted.
    split: bool,
}

impl Shell {
    /// For the arguments of instructions.
    pub(crate) fn new(escape: Escape) -> Self {
        Self {
            escape: escape.character(),
            raw_quotes: false,
            plain_quotes: false,
            keep_unset: false,
            split: false,
        }
    }

    /// For the bodies of heredocs: quotes are text, and the escape is a backslash whatever the file says.
    pub(crate) fn for_heredoc() -> Self {
        Self { plain_quotes: true, ..Self::new(Escape::Backslash) }
    }

    /// For showing a command line: only variables that are set are replaced.
    pub(crate) fn for_display(self) -> Self {
        Self { raw_quotes: true, keep_unset: true, ..self }
    }

    /// For a text that may become several words: see [`Expansion::words`].
    pub(crate) fn for_words(self) -> Self {
        Self { split: true, ..self }
    }

    /// Expands a word.
    pub(crate) fn expand<'t>(
        self,
        text: &'t str,
        environment: &Environment,
    ) -> Result<Expansion<'t>, ExpandError> {
        if !self.split && !text.contains(['$', '\'', '"', self.escape]) {
            return Ok(Expansion { value: text.to_owned(), ..Expansion::default() });
        }
        let mut expander = Expander {
            shell: self,
            text,
            at: 0,
            environment,
            variables: Vec::new(),
            seen: HashSet::new(),
            depth: 0,
            limit: text.len() + MAX_GROWTH,
        };
        let (value, words) = expander
            .until(None, false)
            .map_err(|error| ExpandError { text: clip(text), ..error })?;
        Ok(Expansion { value, words, variables: expander.variables })
    }
}

/// What a word becomes.
#[derive(Debug, Default)]
pub(crate) struct Expansion<'t> {
    /// The word.
    pub(crate) value: String,
    /// The same, cut at blanks that are not quoted; only if that was asked for.
    pub(crate) words: Vec<String>,
    /// The variables that it names, each once.
    pub(crate) variables: Vec<Variable<'t>>,
}

impl<'t> Expansion<'t> {
    /// The variables that are not set.
    pub(crate) fn unset(&self) -> impl Iterator<Item = &Variable<'t>> {
        self.variables.iter().filter(|variable| !variable.is_set)
    }
}

/// A variable that a word names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Variable<'t> {
    pub(crate) name: &'t str,
    /// Where the word names it first, with the `$`.
    pub(crate) range: Range<usize>,
    pub(crate) is_set: bool,
}

/// Why a word cannot be expanded.
#[derive(Debug, thiserror::Error)]
#[error("failed to process {text:?}: {kind}")]
pub(crate) struct ExpandError {
    text: String,
    kind: Kind,
    /// Where in the word.
    pub(crate) range: Range<usize>,
}

impl ExpandError {
    /// Whether it is about what a variable holds, and not about the text.
    pub(crate) fn is_about_values(&self) -> bool {
        matches!(self.kind, Kind::Required { .. } | Kind::TooLong)
    }
}

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("unexpected end of statement while looking for matching {0}")]
    Unterminated(&'static str),
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    #[error("{name}: {message}")]
    Required { name: String, message: String },
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    #[error("invalid pattern ({pattern}) in substitution: {source}")]
    Pattern { pattern: String, source: PatternError },
    #[error("substitutions are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("the value becomes too long")]
    TooLong,
}

struct Expander<'t, 'e> {
    shell: Shell,
    text: &'t str,
    at: usize,
    environment: &'e Environment,
    variables: Vec<Variable<'t>>,
    seen: HashSet<&'t str>,
    depth: usize,
    limit: usize,
}

impl<'t, 'e> Expander<'t, 'e> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    fn error(&self, start: usize, kind: Kind) -> ExpandError {
        ExpandError { text: String::new(), kind, range: start..self.at }
    }

    fn check_length(&self, value: &str, start: usize) -> Result<(), ExpandError> {
        match value.len() > self.limit {
            true => Err(self.error(start, Kind::TooLong)),
            false => Ok(()),
        }
    }

    /// Expands up to `stop`, which is taken but not part of the value, or to the end of the text.
    fn until(
        &mut self,
        stop: Option<char>,
        raw_escapes: bool,
    ) -> Result<(String, Vec<String>), ExpandError> {
        let start = self.at;
        let mut value = String::new();
        // Only the words of the whole text are wanted.
        let mut words = (self.shell.split && stop.is_none()).then(Words::default);
        while let Some(character) = self.peek() {
            let begin = self.at;
            if stop == Some(character) {
                self.next();
                return Ok((value, Vec::new()));
            }
            let piece_start = value.len();
            match character {
                '$' => {
                    self.dollar(raw_escapes, &mut value)?;
                    if let Some(words) = &mut words {
                        value[piece_start..].chars().for_each(|character| words.push(character));
                    }
                }
                '\'' | '"' if !self.shell.plain_quotes => {
                    match character {
                        '\'' => self.single_quoted(&mut value)?,
                        _ => self.double_quoted(raw_escapes, &mut value)?,
                    }
                    if let Some(words) = &mut words {
                        words.push_raw(&value[piece_start..]);
                    }
                }
                _ if words.is_none() && character != self.shell.escape => {
                    self.plain(stop, &mut value);
                }
                _ => {
                    self.next();
                    let is_escape = character == self.shell.escape;
                    if is_escape && raw_escapes {
                        value.push(character);
                    }
                    let literal = if is_escape { self.next() } else { Some(character) };
                    // An escape at the very end escapes nothing and is dropped.
                    value.extend(literal);
                    if let Some(words) = &mut words {
                        match is_escape {
                            true => words.push_raw(&value[piece_start..]),
                            false => words.push(character),
                        }
                    }
                }
            }
            self.check_length(&value, begin)?;
        }
        match stop {
            Some('/') => Err(self.error(start, Kind::Unterminated("/"))),
            Some(_) => Err(self.error(start, Kind::Unterminated("}"))),
            None => Ok((value, words.map(Words::finish).unwrap_or_default())),
        }
    }

    /// Takes the characters up to the next one that means something.
    fn plain(&mut self, stop: Option<char>, value: &mut String) {
        let rest = &self.text[self.at..];
        let is_special = |character: char| {
            matches!(character, '$' | '\'' | '"')
                || character == self.shell.escape
                || Some(character) == stop
        };
        // The first one is plain if it is a quote, too: it was looked at.
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let length = rest[first..].find(is_special).map_or(rest.len(), |at| first + at);
        value.push_str(&rest[..length]);
        self.at += length;
    }

    fn single_quoted(&mut self, value: &mut String) -> Result<(), ExpandError> {
        let start = self.at;
        let Some(length) = self.text[start + 1..].find('\'') else {
            self.at = self.text.len();
            return Err(self.error(start, Kind::Unterminated("single-quote")));
        };
        self.at = start + length + 2;
        value.push_str(match self.shell.raw_quotes {
            true => &self.text[start..self.at],
            false => &self.text[start + 1..self.at - 1],
        });
        Ok(())
    }

    fn double_quoted(&mut self, raw_escapes: bool, value: &mut String) -> Result<(), ExpandError> {
        let start = self.at;
        self.next();
        if self.shell.raw_quotes {
            value.push('"');
        }
        while let Some(character) = self.peek() {
            match character {
                '"' => {
                    self.next();
                    if self.shell.raw_quotes {
                        value.push('"');
                    }
                    return Ok(());
                }
                '$' => self.dollar(raw_escapes, value)?,
                character if character == self.shell.escape => {
                    self.next();
                    if raw_escapes {
                        value.push(character);
                    }
                    match self.peek() {
                        Some(special)
                            if matches!(special, '"' | '$') || special == self.shell.escape =>
                        {
                            value.extend(self.next());
                        }
                        // Before any other character it means itself.
                        Some(_) => value.push(character),
                        None => {}
                    }
                }
                _ => value.extend(self.next()),
            }
            self.check_length(value, start)?;
        }
        Err(self.error(start, Kind::Unterminated("double-quote")))
    }

    /// Expands what a `$` begins.
    fn dollar(&mut self, raw_escapes: bool, value: &mut String) -> Result<(), ExpandError> {
        let start = self.at;
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                value.push('$');
                return Ok(());
            }
            return self.push_variable(name, start, value);
        }
        self.next();
        match self.peek() {
            None => return Err(self.error(start, Kind::MissingBrace)),
            Some('{' | '}' | ':') => {
                self.next();
                return Err(self.error(start, Kind::BadSubstitution));
            }
            Some(_) => {}
        }
        if self.depth == MAX_DEPTH {
            return Err(self.error(start, Kind::TooDeep));
        }
        self.depth += 1;
        let done = self.braced(start, raw_escapes, value);
        self.depth -= 1;
        done
    }

    /// Expands `${name...}`, from the name on.
    fn braced(
        &mut self,
        start: usize,
        raw_escapes: bool,
        value: &mut String,
    ) -> Result<(), ExpandError> {
        let name = self.name();
        let modifier_start = self.at;
        match self.next() {
            None => Err(self.error(start, Kind::MissingBrace)),
            Some('}') => self.push_variable(name, start, value),
            Some('/') => self.replaced(name, start, value),
            Some(mut modifier @ (':' | '+' | '-' | '?' | '#' | '%')) => {
                let with_colon = modifier == ':';
                if with_colon {
                    modifier = self.next().ok_or_else(|| self.error(start, Kind::MissingBrace))?;
                }
                let modifier_end = self.at;
                let is_pattern = matches!(modifier, '#' | '%');
                let word = self.word('}', is_pattern || raw_escapes, start, Kind::MissingBrace)?;
                let modifier_text = &self.text[modifier_start..modifier_end];
                let current = self.look_up(name, start);
                if self.shell.keep_unset && current.is_none() {
                    value.extend(["${", name, modifier_text, &word, "}"]);
                    return Ok(());
                }
                let is_missing = current.is_none_or(|current| with_colon && current.is_empty());
                match modifier {
                    '-' if is_missing => value.push_str(&word),
                    '+' if is_missing => {}
                    '+' => value.push_str(&word),
                    '?' if is_missing => {
                        let default = match current {
                            None => "is not allowed to be unset",
                            Some(_) => "is not allowed to be empty",
                        };
                        let message = if word.is_empty() { default.to_owned() } else { word };
                        let name = name.to_owned();
                        return Err(self.error(start, Kind::Required { name, message }));
                    }
                    '-' | '?' => value.push_str(current.unwrap_or_default()),
                    '#' | '%' if !with_colon => {
                        let current = current.unwrap_or_default();
                        let stripped = strip(modifier, &word, current);
                        value.push_str(stripped.map_err(|source| {
                            self.error(start, Kind::Pattern { pattern: clip(&word), source })
                        })?);
                    }
                    _ => {
                        let modifier = modifier_text.to_owned();
                        return Err(self.error(start, Kind::Modifier(modifier)));
                    }
                }
                Ok(())
            }
            Some(other) => Err(self.error(start, Kind::Modifier(other.to_string()))),
        }
    }

    /// Expands `${name/pattern/replacement}`, from the pattern on.
    fn replaced(
        &mut self,
        name: &'t str,
        start: usize,
        value: &mut String,
    ) -> Result<(), ExpandError> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.word('/', true, start, Kind::MissingSlash)?;
        let replacement = self.word('}', true, start, Kind::MissingBrace)?;
        let Some(current) = self.look_up(name, start) else {
            if self.shell.keep_unset {
                value.extend(["${", name, "/", &pattern, "/", &replacement, "}"]);
                return Ok(());
            }
            // Still an error if the pattern is wrong.
            Pattern::parse(&pattern).map_err(|source| {
                self.error(start, Kind::Pattern { pattern: clip(&pattern), source })
            })?;
            return Ok(());
        };
        let replaced = Pattern::parse(&pattern).and_then(|parsed| match all {
            true => parsed.replace_all(current, &replacement, self.limit),
            false => parsed.replace_first(current, &replacement),
        });
        match replaced {
            Ok(replaced) => value.push_str(&replaced),
            Err(PatternError::Result) => return Err(self.error(start, Kind::TooLong)),
            Err(source) => {
                return Err(self.error(start, Kind::Pattern { pattern: clip(&pattern), source }));
            }
        }
        Ok(())
    }

    /// A word inside of `${}`; `missing` if the text ends before `stop`.
    fn word(
        &mut self,
        stop: char,
        raw_escapes: bool,
        start: usize,
        missing: Kind,
    ) -> Result<String, ExpandError> {
        match self.until(Some(stop), raw_escapes) {
            Ok((word, _)) => Ok(word),
            Err(ExpandError { kind: kind @ (Kind::TooDeep | Kind::TooLong), .. }) => {
                Err(self.error(start, kind))
            }
            // Whatever else is not closed, at the end of the text this is what is missing.
            Err(_) if self.at == self.text.len() => Err(self.error(start, missing)),
            Err(error) => Err(error),
        }
    }

    /// A variable's name, or a special parameter.
    fn name(&mut self) -> &'t str {
        let rest = &self.text[self.at..];
        let length = match rest.chars().next() {
            Some(first) if first.is_ascii_digit() => {
                rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()),
        };
        self.at += length;
        &rest[..length]
    }

    fn look_up(&mut self, name: &'t str, start: usize) -> Option<&'e str> {
        let current = self.environment.get(name);
        if self.seen.insert(name) {
            let range = start..self.at;
            self.variables.push(Variable { name, range, is_set: current.is_some() });
        }
        current
    }

    fn push_variable(
        &mut self,
        name: &'t str,
        start: usize,
        value: &mut String,
    ) -> Result<(), ExpandError> {
        let keep_unset = self.shell.keep_unset;
        let written = &self.text[start..self.at];
        let current = match self.look_up(name, start) {
            None if keep_unset => written,
            current => current.unwrap_or_default(),
        };
        // Before it is copied, so that an error costs nothing.
        if value.len() + current.len() > self.limit {
            return Err(self.error(start, Kind::TooLong));
        }
        value.push_str(current);
        Ok(())
    }
}

/// `${name#word}`, `##`, `%` and `%%`; the second character is the first of the word.
fn strip<'v>(modifier: char, word: &str, value: &'v str) -> Result<&'v str, PatternError> {
    let (greed, pattern) = match word.strip_prefix(modifier) {
        Some(pattern) => (Greed::Longest, pattern),
        None => (Greed::Shortest, word),
    };
    let pattern = Pattern::parse(pattern)?;
    match modifier {
        '#' => pattern.strip_prefix(value, greed),
        _ => pattern.strip_suffix(value, greed),
    }
}

/// Cuts a value at blanks while it is made.
#[derive(Debug, Default)]
struct Words {
    words: Vec<String>,
    word: String,
}

impl Words {
    fn push(&mut self, character: char) {
        if !character.is_whitespace() {
            self.word.push(character);
        } else if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    fn push_raw(&mut self, text: &str) {
        self.word.push_str(text);
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

/// What a message shows of a long text.
fn clip(text: &str) -> String {
    const MAX_SHOWN: usize = 80;
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn environment() -> Environment {
        Environment::from_entries(
            &["A=alpha", "E=", "P=/usr/local/bin/tool.tar.gz", "S=a b  c", "N=v1.2.3", "D=<$0>"]
                .map(str::to_owned),
        )
    }

    fn check(text: &str, expected: &str) {
        let environment = environment();
        let shell = Shell::new(Escape::Backslash);
        let found = match shell.expand(text, &environment) {
            Ok(expansion) => expansion.value,
            Err(error) => format!("error: {}", error.kind),
        };
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn plain_forms() {
        for (text, expected) in [
            ("", ""),
            ("hello", "hello"),
            ("$A", "alpha"),
            ("${A}", "alpha"),
            ("x${A}y$A.z", "xalphayalpha.z"),
            ("$X${X}", ""),
            ("a$", "a$"),
            ("$ $", "$ $"),
            ("$.", "$."),
            ("$1$12x", "x"),
            ("$$A", "A"),
            ("${0}", ""),
            ("$é", ""),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn modifiers() {
        for (text, expected) in [
            ("${X:-w}${E:-w}${A:-w}", "wwalpha"),
            ("${X-w}${E-w}${A-w}", "walpha"),
            ("${X:+w}${E:+w}${A:+w}", "w"),
            ("${X+w}${E+w}${A+w}", "ww"),
            ("${A:?no}${A?no}${E?no}", "alphaalpha"),
            ("${X:?no}", "error: X: no"),
            ("${X?}", "error: X: is not allowed to be unset"),
            ("${E:?}", "error: E: is not allowed to be empty"),
            ("${X:-${Y:-${A}}}", "alpha"),
            ("${X:-\"a } b\"}", "a } b"),
            ("${X:-a\\}b}", "a}b"),
            ("${X:-'$A'}", "$A"),
            ("${P##*/}", "tool.tar.gz"),
            ("${P#*/}", "usr/local/bin/tool.tar.gz"),
            ("${P%.*}", "/usr/local/bin/tool.tar"),
            ("${P%%.*}", "/usr/local/bin/tool"),
            ("${N#v}", "1.2.3"),
            ("${N%$X}", "v1.2.3"),
            ("${N/./-}", "v1-2.3"),
            ("${N//./-}", "v1-2-3"),
            ("${N//?.?/x}", "vx.3"),
            // The escape stays in a replacement, as it does in BuildKit.
            ("${P/\\/usr/\\/opt}", "\\/opt/local/bin/tool.tar.gz"),
            ("${P/u*l/$A}", "/alpha.tar.gz"),
            ("${A/[a]/x}", "alpha"),
            ("${A//a/$D}", "<a>lph<a>"),
            ("${A#\\q}", "error: invalid pattern (\\q) in substitution: invalid escape '\\q'"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn quotes_and_escapes() {
        for (text, expected) in [
            (r#""$A""#, "alpha"),
            ("'$A'", "$A"),
            (r"\$A", "$A"),
            (r"\\$A", r"\alpha"),
            (r#""\$A \" \\ \n""#, r#"$A " \ \n"#),
            (r"\n", "n"),
            (r"a\", "a"),
            (r#"a"b"'c'd"#, "abcd"),
            (r#""it's""#, "it's"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn syntax_errors() {
        for (text, expected) in [
            ("${", "error: syntax error: missing '}'"),
            ("${A", "error: syntax error: missing '}'"),
            ("${A:-x", "error: syntax error: missing '}'"),
            ("${A:-'x}", "error: syntax error: missing '}'"),
            ("${A/x}", "error: syntax error: missing '/' in ${}"),
            ("${A/x/y", "error: syntax error: missing '}'"),
            ("${}", "error: syntax error: bad substitution"),
            ("${:x}", "error: syntax error: bad substitution"),
            ("${{A}}", "error: syntax error: bad substitution"),
            ("${A:x}", "error: unsupported modifier (:x) in substitution"),
            ("${A:#x}", "error: unsupported modifier (:#) in substitution"),
            ("${A^}", "error: unsupported modifier (^) in substitution"),
            ("${.}", "error: unsupported modifier (.) in substitution"),
            ("'x", "error: unexpected end of statement while looking for matching single-quote"),
            ("\"x", "error: unexpected end of statement while looking for matching double-quote"),
        ] {
            check(text, expected);
        }
        let environment = environment();
        let error = Shell::new(Escape::Backslash).expand("x${A", &environment).unwrap_err();
        assert_eq!(error.to_string(), "failed to process \"x${A\": syntax error: missing '}'");
        assert_eq!(error.range, 1..4);
    }

    #[test]
    fn other_modes() {
        let environment = environment();
        let expand = |shell: Shell, text| shell.expand(text, &environment).unwrap().value;
        assert_eq!(expand(Shell::new(Escape::Backtick), r"c:\$A`$A"), r"c:\alpha$A");
        let heredoc = Shell::for_heredoc();
        assert_eq!(expand(heredoc, r#"'$A' "${X:-x}" \$A it's"#), r#"'alpha' "x" $A it's"#);
        let display = Shell::new(Escape::Backslash).for_display();
        assert_eq!(
            expand(display, r#"echo "$A" '$A' $X ${X} ${X:-a} ${X/a/b} ${A}"#),
            r#"echo "alpha" '$A' $X ${X} ${X:-a} ${X/a/b} alpha"#
        );
    }

    #[test]
    fn words_are_cut_after_expansion() {
        let environment = environment();
        let words = |text: &'static str| {
            Shell::new(Escape::Backslash).for_words().expand(text, &environment).unwrap().words
        };
        assert_eq!(words("x $S\t\"$S\" y\\ z 'p q'"), ["x", "a", "b", "c", "a b  c", "y z", "p q"]);
        assert!(words("  $E '' ").is_empty());
    }

    #[test]
    fn variables_are_told_with_their_place() {
        let environment = environment();
        let text = "a$A ${X:-$Y} $X";
        let expansion = Shell::new(Escape::Backslash).expand(text, &environment).unwrap();
        let found: Vec<_> = expansion
            .variables
            .iter()
            .map(|variable| (variable.name, &text[variable.range.clone()], variable.is_set))
            .collect();
        assert_eq!(found, [("A", "$A", true), ("Y", "$Y", false), ("X", "${X:-$Y}", false)]);
        assert_eq!(expansion.unset().count(), 2);
    }

    #[test]
    fn hostile_words_are_errors() {
        let environment = Environment::from_entries(&[format!("A={}", "a".repeat(1 << 20))]);
        let shell = Shell::new(Escape::Backslash);
        let kind = |text: &str| shell.expand(text, &environment).unwrap_err().kind.to_string();
        assert_eq!(kind(&"${a:-".repeat(100_000)), "substitutions are nested more than 100 deep");
        assert_eq!(
            kind(&format!("{}x{}", "\"${a:-".repeat(50_000), "}\"".repeat(50_000))),
            "substitutions are nested more than 100 deep"
        );
        assert_eq!(kind(&"$A".repeat(10)), "the value becomes too long");
        assert_eq!(kind("${A//a/$A}"), "the value becomes too long");
        assert_eq!(kind(&format!("${{X:-{}}}", "$A".repeat(10))), "the value becomes too long");
        let many = "$A".repeat(2);
        assert_eq!(shell.expand(&many, &environment).unwrap().value.len(), 2 << 20);
    }

    proptest! {
        #[test]
        fn never_panics(text in r#"[$\{\}:+?#%/*'"\\`Aé \-]{0,40}"#, backtick: bool) {
            let environment = environment();
            let escape = if backtick { Escape::Backtick } else { Escape::Backslash };
            for shell in [Shell::new(escape), Shell::new(escape).for_display(), Shell::for_heredoc()] {
                match shell.expand(&text, &environment) {
                    Ok(expansion) => for variable in expansion.variables {
                        prop_assert!(text.get(variable.range).is_some());
                    },
                    Err(error) => prop_assert!(text.get(error.range).is_some()),
                }
            }
        }
    }
}
