//! A Dockerfile's text, and places in it.

use std::sync::Arc;

/// A half-open range of bytes of one [`Source`].
///
/// A span that the parser made lies inside the text and begins and ends on character borders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

impl Span {
    /// The bytes from `start` up to `end`.
    pub fn new(start: u32, end: u32) -> Self {
        debug_assert!(start <= end, "a span ends before it begins: {start}..{end}");
        Self { start, end }
    }

    /// The empty span before byte `offset`.
    pub fn at(offset: u32) -> Self {
        Self { start: offset, end: offset }
    }

    /// The smallest span that holds both.
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// Whether there is no byte in it.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The span as indices of the text.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A value and the text that it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spanned<T> {
    /// What was read.
    pub value: T,
    /// Where.
    pub span: Span,
}

/// A place as people count: both numbers begin at one, and columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line number.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

/// Why bytes cannot become a [`Source`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SourceError {
    /// Spans count bytes in 32 bits.
    #[error("`{name}` is too large for a Dockerfile: {size} bytes")]
    TooLarge {
        /// The file's name.
        name: String,
        /// The size of its text.
        size: usize,
    },
}

/// The name and text of a Dockerfile, with an index of its lines.
///
/// Cloning is cheap: the text and the index are shared.
#[derive(Debug, Clone)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
    line_starts: Arc<[u32]>,
    replaced: Arc<Replaced>,
}

/// What was not UTF-8.
#[derive(Debug, Default)]
struct Replaced {
    /// The places, in order; each is some characters U+FFFD.
    spans: Vec<Span>,
    /// The byte of each of these characters.
    bytes: Vec<u8>,
}

impl Source {
    /// Takes text that is known to be UTF-8.
    pub fn new(name: &str, text: &str) -> Result<Self, SourceError> {
        Self::build(name, text.into(), Replaced::default())
    }

    /// Takes a file's bytes.
    ///
    /// Each byte that is not UTF-8 is replaced by U+FFFD, as Go does, and remembered in [`Self::not_utf8`], so that the
    /// parser can point at it: Latin-1 in a comment harms nobody, in a command it would silently change what is built.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self, SourceError> {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return Self::build(name, text.into(), Replaced::default());
        }
        let mut text = String::with_capacity(bytes.len());
        let mut places: Vec<(usize, usize)> = Vec::new();
        let mut replaced = Vec::new();
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            if chunk.invalid().is_empty() {
                continue;
            }
            let start = text.len();
            chunk.invalid().iter().for_each(|_| text.push(char::REPLACEMENT_CHARACTER));
            replaced.extend(chunk.invalid());
            match places.last_mut() {
                Some(last) if last.1 == start => last.1 = text.len(),
                _ => places.push((start, text.len())),
            }
        }
        let spans = match u32::try_from(text.len()) {
            Ok(_) => places.iter().map(|at| Span::new(at.0 as u32, at.1 as u32)).collect(),
            Err(_) => Vec::new(),
        };
        Self::build(name, text.into(), Replaced { spans, bytes: replaced })
    }

    fn build(name: &str, text: Arc<str>, replaced: Replaced) -> Result<Self, SourceError> {
        // One less than the maximum, so that "the byte after the last" has a number too.
        if text.len() >= u32::MAX as usize {
            return Err(SourceError::TooLarge { name: name.to_owned(), size: text.len() });
        }
        let line_starts: Vec<u32> = std::iter::once(0)
            .chain(
                text.bytes()
                    .enumerate()
                    .filter(|(_, byte)| *byte == b'\n')
                    .map(|(at, _)| at as u32 + 1),
            )
            .collect();
        Ok(Self {
            name: name.into(),
            text,
            line_starts: line_starts.into(),
            replaced: Arc::new(replaced),
        })
    }

    /// The name that messages show.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of a span of this source.
    ///
    /// # Panics
    /// If the span is of another source and does not fit this one.
    pub fn slice(&self, span: Span) -> &str {
        &self.text[span.range()]
    }

    /// The length in bytes.
    pub fn len(&self) -> u32 {
        self.text.len() as u32
    }

    /// Whether there is no text at all.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The replaced places that were not UTF-8, in order.
    pub fn not_utf8(&self) -> &[Span] {
        &self.replaced.spans
    }

    /// The bytes that a span was read from, if some of them were replaced.
    pub(crate) fn replaced_bytes(&self, span: Span) -> Option<Vec<u8>> {
        const LENGTH: u32 = char::REPLACEMENT_CHARACTER.len_utf8() as u32;
        let Replaced { spans, bytes } = &*self.replaced;
        let first = spans.partition_point(|place| place.end <= span.start);
        let count = |spans: &[Span]| {
            spans.iter().map(|place| (place.end - place.start) / LENGTH).sum::<u32>() as usize
        };
        let mut byte = count(&spans[..first]);
        let mut raw = Vec::new();
        let mut at = span.start;
        for place in spans[first..].iter().take_while(|place| place.start < span.end) {
            raw.extend_from_slice(self.slice(Span::new(at, place.start)).as_bytes());
            let length = count(&[*place]);
            raw.extend_from_slice(&bytes[byte..byte + length]);
            byte += length;
            at = place.end;
        }
        if at == span.start {
            return None;
        }
        raw.extend_from_slice(self.slice(Span::new(at, span.end)).as_bytes());
        Some(raw)
    }

    /// The number, from one, of the line that byte `offset` is on.
    pub fn line(&self, offset: u32) -> u32 {
        self.line_starts.partition_point(|start| *start <= offset) as u32
    }

    /// Where byte `offset` is, as people count.
    pub fn position(&self, offset: u32) -> Position {
        let offset = self.floor_char_boundary(offset.min(self.len()));
        let line = self.line(offset);
        let start = self.line_starts[line as usize - 1];
        let column = self.text[start as usize..offset as usize].chars().count() as u32 + 1;
        Position { line, column }
    }

    /// The span of line `number` (from one), without its line break; `None` past the end.
    pub fn line_span(&self, number: u32) -> Option<Span> {
        let index = (number as usize).checked_sub(1)?;
        let start = *self.line_starts.get(index)?;
        let end = self.line_starts.get(index + 1).copied().unwrap_or(self.len());
        let line = self.text[start as usize..end as usize].trim_end_matches(['\n', '\r']);
        Some(Span::new(start, start + line.len() as u32))
    }

    /// How many lines there are: one more than there are line breaks.
    pub fn line_count(&self) -> u32 {
        self.line_starts.len() as u32
    }

    /// The largest character border that is not after `offset`.
    pub fn floor_char_boundary(&self, offset: u32) -> u32 {
        self.text.floor_char_boundary(offset as usize) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns() {
        let source = Source::new("Dockerfile", "FROM a\r\nRUN é!\n").unwrap();
        assert_eq!(source.line_count(), 3);
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.position(8), Position { line: 2, column: 1 });
        assert_eq!(source.position(14), Position { line: 2, column: 6 });
        assert_eq!(
            source.position(13),
            Position { line: 2, column: 5 },
            "inside a character: its first byte"
        );
        assert_eq!(source.position(999), Position { line: 3, column: 1 });
        assert_eq!(source.slice(source.line_span(1).unwrap()), "FROM a");
        assert_eq!(source.slice(source.line_span(2).unwrap()), "RUN é!");
        assert_eq!(source.slice(source.line_span(3).unwrap()), "");
        assert_eq!(source.line_span(4), None);
        assert_eq!(source.line_span(0), None);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_and_remembered() {
        let source = Source::from_bytes("Dockerfile", b"# caf\xe9\nRUN \xff\xfe x").unwrap();
        assert_eq!(source.text(), "# caf\u{fffd}\nRUN \u{fffd}\u{fffd} x");
        let replaced: Vec<_> = source.not_utf8().iter().map(|span| source.slice(*span)).collect();
        assert_eq!(replaced, ["\u{fffd}", "\u{fffd}\u{fffd}"]);
        // A character that is cut short is as many as it has bytes.
        let source = Source::from_bytes("Dockerfile", b"a\xe2\x82b\n\xff\n").unwrap();
        assert_eq!(source.text(), "a\u{fffd}\u{fffd}b\n\u{fffd}\n");
        let bytes = |line| source.replaced_bytes(source.line_span(line).unwrap());
        assert_eq!(bytes(1).unwrap(), b"a\xe2\x82b");
        assert_eq!(bytes(2).unwrap(), b"\xff");
        assert_eq!(bytes(3), None);
        let all = Span::new(0, source.len());
        assert_eq!(source.replaced_bytes(all).unwrap(), b"a\xe2\x82b\n\xff\n");
    }

    #[test]
    fn empty_text_has_one_line() {
        let source = Source::from_bytes("Dockerfile", b"").unwrap();
        assert!(source.is_empty());
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.line_span(1), Some(Span::at(0)));
    }
}
