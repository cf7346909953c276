//! Text that was put together from pieces of the source, and still knows where each piece was.

use std::fmt;
use std::ops::Range;

use crate::source::{Source, Span};

/// Text made from a [`Source`]: joined over continuation lines, or with quotes or escapes taken away.
///
/// Any part of it can be traced back to the bytes that it came from ([`Self::span_of`]). Variables are not expanded
/// here, and unless a field says otherwise quotes and escapes are still in the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Mapped {
    text: String,
    pieces: Pieces,
    /// Where an empty text would be.
    anchor: u32,
}

/// Where one piece of the text came from.
///
/// As long as its source it is a copy of it, byte for byte; else it is a single character that was written
/// differently, such as the `\u0041` of a JSON string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    logical: u32,
    source: u32,
    source_len: u32,
}

/// The pieces of a text, in order of both members. A piece ends where the next begins.
///
/// Nearly all texts are one piece, for which no list is made.
#[derive(Clone, PartialEq, Eq)]
struct Pieces {
    first: Option<Piece>,
    others: Vec<Piece>,
}

impl Pieces {
    const NONE: Self = Self { first: None, others: Vec::new() };

    fn push(&mut self, piece: Piece) {
        match self.first {
            None => self.first = Some(piece),
            Some(_) => self.others.push(piece),
        }
    }

    fn get(&self, index: usize) -> Option<&Piece> {
        match index.checked_sub(1) {
            None => self.first.as_ref(),
            Some(index) => self.others.get(index),
        }
    }

    fn last_mut(&mut self) -> Option<&mut Piece> {
        self.others.last_mut().or(self.first.as_mut())
    }

    /// The piece that has the character at `at`, or the last one.
    fn index_at(&self, at: u32) -> usize {
        self.others.partition_point(|piece| piece.logical <= at)
    }
}

impl Mapped {
    /// An empty text at byte `anchor`.
    pub(crate) fn empty(anchor: u32) -> Self {
        Self { text: String::new(), pieces: Pieces::NONE, anchor }
    }

    /// A span of the source as it is.
    pub(crate) fn verbatim(source: &Source, span: Span) -> Self {
        let mut mapped = Self::empty(span.start);
        mapped.push_str(source.slice(span), span.start);
        mapped
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The smallest part of the source that holds all of it.
    pub fn span(&self) -> Span {
        self.span_of(0..self.text.len())
    }

    /// The smallest part of the source that holds `range` of the text.
    ///
    /// # Panics
    /// If the range is not inside the text.
    pub fn span_of(&self, range: Range<usize>) -> Span {
        assert!(
            range.start <= range.end && range.end <= self.text.len(),
            "{range:?} is not inside the text"
        );
        let start = self.offset_of(range.start);
        let last = range.end.checked_sub(1).filter(|_| !range.is_empty());
        let Some((last, len)) = last.and_then(|last| self.piece(self.pieces.index_at(last as u32)))
        else {
            return Span::at(start);
        };
        let end = match last.source_len == len {
            true => last.source + (range.end as u32 - last.logical),
            false => last.source + last.source_len,
        };
        Span::new(start, end)
    }

    /// A part of the text that keeps its places.
    ///
    /// # Panics
    /// If the range is not inside the text or not on character borders.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let mut part = Self::empty(self.offset_of(range.start));
        part.text.reserve_exact(range.len());
        part.push_range(self, range);
        part
    }

    /// The text without white space at both ends.
    pub(crate) fn trim(&self) -> Self {
        self.slice_trimmed(0..self.text.len())
    }

    /// A part of the text without white space at its ends.
    ///
    /// # Panics
    /// If the range is not inside the text or not on character borders.
    pub(crate) fn slice_trimmed(&self, range: Range<usize>) -> Self {
        self.slice(self.trimmed(range))
    }

    /// Where a part of the text is without white space at its ends.
    pub(crate) fn trimmed(&self, range: Range<usize>) -> Range<usize> {
        let part = &self.text[range.clone()];
        let start = range.end - part.trim_start().len();
        start..start + part.trim().len()
    }

    /// Appends text that is in the source at byte `offset`.
    pub(crate) fn push_str(&mut self, text: &str, offset: u32) {
        if text.is_empty() {
            return;
        }
        let len = text.len() as u32;
        self.push_piece(text, offset, len);
    }

    /// Appends a character that the source writes as `span`.
    pub(crate) fn push_decoded(&mut self, character: char, span: Span) {
        self.push_piece(character.encode_utf8(&mut [0; 4]), span.start, span.end - span.start);
    }

    /// Appends a part of another text.
    pub(crate) fn push_range(&mut self, other: &Self, range: Range<usize>) {
        let (start, end) = (range.start as u32, range.end as u32);
        for index in other.pieces.index_at(start).. {
            let Some((piece, len)) = other.piece(index) else { break };
            let (from, to) = (piece.logical.max(start), (piece.logical + len).min(end));
            if from >= to {
                break;
            }
            let text = &other.text[from as usize..to as usize];
            match piece.source_len == len {
                true => self.push_piece(text, piece.source + (from - piece.logical), to - from),
                false => self.push_piece(text, piece.source, piece.source_len),
            }
        }
    }

    fn push_piece(&mut self, text: &str, source: u32, source_len: u32) {
        let (logical, len) = (self.text.len() as u32, text.len() as u32);
        self.text.push_str(text);
        if let Some(last) = self.pieces.last_mut() {
            let copied = last.source_len == logical - last.logical && source_len == len;
            if copied && last.source + last.source_len == source {
                last.source_len += len;
                return;
            }
        }
        self.pieces.push(Piece { logical, source, source_len });
    }

    /// Where the character at `at` is in the source; at the end, where the last one ends.
    fn offset_of(&self, at: usize) -> u32 {
        let Some((piece, len)) = self.piece(self.pieces.index_at(at as u32)) else {
            return self.anchor;
        };
        if at == self.text.len() {
            return piece.source + piece.source_len;
        }
        match piece.source_len == len {
            true => piece.source + (at as u32 - piece.logical),
            false => piece.source,
        }
    }

    /// A piece, and how long it is in the text.
    fn piece(&self, index: usize) -> Option<(Piece, u32)> {
        let piece = *self.pieces.get(index)?;
        let next = self.pieces.get(index + 1);
        let end = next.map_or(self.text.len() as u32, |next| next.logical);
        Some((piece, end - piece.logical))
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.span();
        write!(f, "{:?}@{}..{}", self.text, span.start, span.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Mapped {
        // The source is `ab\<newline>cdA`, with the last written as `\u0041`.
        let mut mapped = Mapped::empty(0);
        mapped.push_str("ab", 0);
        mapped.push_str("cd", 4);
        mapped.push_decoded('A', Span::new(6, 12));
        mapped
    }

    #[test]
    fn parts_are_traced_to_their_source() {
        let mapped = sample();
        assert_eq!(mapped.text(), "abcdA");
        assert_eq!(mapped.span(), Span::new(0, 12));
        assert_eq!(mapped.span_of(1..2), Span::new(1, 2));
        assert_eq!(mapped.span_of(1..3), Span::new(1, 5));
        assert_eq!(mapped.span_of(2..4), Span::new(4, 6));
        assert_eq!(mapped.span_of(4..5), Span::new(6, 12));
        assert_eq!(mapped.span_of(2..2), Span::at(4));
        assert_eq!(mapped.span_of(5..5), Span::at(12));
    }

    #[test]
    fn slices_keep_their_places() {
        let part = sample().slice(1..5);
        assert_eq!(part.text(), "bcdA");
        assert_eq!(part.span(), Span::new(1, 12));
        assert_eq!(part.span_of(1..2), Span::new(4, 5));
        assert_eq!(part.slice(3..4).span(), Span::new(6, 12));
        assert_eq!(part.slice(1..1).span(), Span::at(4));
    }

    #[test]
    fn neighbours_become_one_piece() {
        let mut mapped = Mapped::empty(7);
        assert_eq!(mapped.span(), Span::at(7));
        mapped.push_str("ab", 7);
        mapped.push_str("cd", 9);
        assert_eq!(mapped.pieces.others, []);
        mapped.push_range(&sample(), 0..5);
        assert_eq!(mapped.text(), "abcdabcdA");
    }
}
