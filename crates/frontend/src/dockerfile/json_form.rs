//! The JSON form of arguments: an array of strings.

use serde::de::IgnoredAny;

use super::mapped::Mapped;
use crate::source::Span;

/// What arguments look like.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum JsonForm {
    /// Not a JSON array: to be read in another way, without a word.
    No,
    /// The decoded strings.
    Strings(Vec<Mapped>),
    /// An array with something else in it, and where that begins.
    NotStrings(Span),
}

/// Reads arguments as JSON, all of them or none.
pub(crate) fn parse(text: &Mapped) -> JsonForm {
    let mut reader = Reader { text, at: 0 };
    reader.blanks();
    if !reader.eat('[') {
        return JsonForm::No;
    }
    match reader.strings() {
        Some(strings) => JsonForm::Strings(strings),
        None => match serde_json::from_str::<Vec<IgnoredAny>>(text.text()) {
            // Valid, so that the reader stopped at an element that is no string.
            Ok(_) => JsonForm::NotStrings(text.span_of(reader.at..text.text().len())),
            Err(_) => JsonForm::No,
        },
    }
}

#[derive(Debug)]
struct Reader<'a> {
    text: &'a Mapped,
    at: usize,
}

impl Reader<'_> {
    /// The rest of an array whose `[` was read; `None`, at the offending place, if it is something else.
    fn strings(&mut self) -> Option<Vec<Mapped>> {
        let mut strings = Vec::new();
        self.blanks();
        if !self.eat(']') {
            loop {
                self.blanks();
                strings.push(self.string()?);
                self.blanks();
                if self.eat(']') {
                    break;
                }
                if !self.eat(',') {
                    return None;
                }
            }
        }
        self.blanks();
        (self.at == self.text.text().len()).then_some(strings)
    }

    fn string(&mut self) -> Option<Mapped> {
        if !self.eat('"') {
            return None;
        }
        let text = self.text.text();
        let mut string = self.text.slice(self.at..self.at);
        loop {
            let plain = text[self.at..].find(|c: char| c == '"' || c == '\\' || c < ' ')?;
            string.push_range(self.text, self.at..self.at + plain);
            self.at += plain;
            if self.eat('"') {
                return Some(string);
            }
            let start = self.at;
            let character = self.escaped()?;
            string.push_decoded(character, self.text.span_of(start..self.at));
        }
    }

    fn escaped(&mut self) -> Option<char> {
        if !self.eat('\\') {
            return None;
        }
        let letter = self.text.text()[self.at..].chars().next()?;
        self.at += letter.len_utf8();
        Some(match letter {
            '"' | '\\' | '/' => letter,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.hex()?;
                match char::from_u32(first) {
                    Some(character) => character,
                    None => self.low_surrogate(first).unwrap_or(char::REPLACEMENT_CHARACTER),
                }
            }
            _ => return None,
        })
    }

    /// The character that the surrogate `high` begins, if its other half follows. A lone half is replaced, as Go does.
    fn low_surrogate(&mut self, high: u32) -> Option<char> {
        let before = self.at;
        let low = (high < 0xdc00 && self.eat('\\') && self.eat('u')).then(|| self.hex()).flatten();
        let character = low
            .filter(|low| (0xdc00..0xe000).contains(low))
            .and_then(|low| char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)));
        if character.is_none() {
            self.at = before;
        }
        character
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.text().get(self.at..self.at + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }

    fn blanks(&mut self) {
        let rest = &self.text.text()[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn eat(&mut self, character: char) -> bool {
        let found = self.text.text()[self.at..].starts_with(character);
        if found {
            self.at += character.len_utf8();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    fn mapped(text: &str) -> Mapped {
        let source = Source::new("Dockerfile", text).unwrap();
        Mapped::verbatim(&source, Span::new(0, source.len()))
    }

    fn check(text: &str, expected: &[&str]) {
        match parse(&mapped(text)) {
            JsonForm::Strings(strings) => {
                assert_eq!(
                    strings.iter().map(Mapped::text).collect::<Vec<_>>(),
                    expected,
                    "{text}"
                );
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn arrays_of_strings() {
        check("[]", &[]);
        check(" [ ] ", &[]);
        check(r#"["a"]"#, &["a"]);
        check(r#"[ "a" ,"b c",	"" ] "#, &["a", "b c", ""]);
        check(r#"["é\n\t\"\\\/\b\f\r"]"#, &["é\n\t\"\\/\u{8}\u{c}\r"]);
        check(r#"["\u0041\u00e9"]"#, &["Aé"]);
        check(r#"["\ud83d\ude00"]"#, &["😀"]);
        check(r#"["\ud83dx", "\ud83d\u0041", "\udc00"]"#, &["\u{fffd}x", "\u{fffd}A", "\u{fffd}"]);
    }

    #[test]
    fn what_is_read_in_another_way() {
        for text in [
            "",
            "a",
            "['a']",
            r#"["a""#,
            r#"["a",]"#,
            r#"["a"] trailing"#,
            r#"["a" "b"]"#,
            "[a]",
            r#"["\x"]"#,
            "[\"a\tb\"]",
            r#"["\u12"]"#,
            "[1,",
            r#"{"a":1}"#,
            r#""a""#,
            "[ -d x ]",
            "[[",
            r#"["\u00é"]"#,
        ] {
            assert_eq!(parse(&mapped(text)), JsonForm::No, "{text}");
        }
    }

    #[test]
    fn other_elements_are_errors() {
        assert_eq!(parse(&mapped(r#"["a", 1]"#)), JsonForm::NotStrings(Span::new(6, 8)));
        for text in ["[1]", "[null]", "[true, \"a\"]", "[[\"a\"]]", "[{}]", "[\"a\", [[[]]]]"] {
            assert!(matches!(parse(&mapped(text)), JsonForm::NotStrings(_)), "{text}");
        }
    }

    #[test]
    fn strings_know_where_they_are() {
        let JsonForm::Strings(strings) = parse(&mapped(r#"["a\u0041b"]"#)) else { panic!() };
        assert_eq!(strings[0].span(), Span::new(2, 10));
        assert_eq!(strings[0].span_of(1..2), Span::new(3, 9));
        assert_eq!(strings[0].span_of(2..3), Span::new(9, 10));
    }
}
