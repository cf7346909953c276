//! Which patterns of a list are worth trying on a path.

/// Sets of patterns by the first and the last byte of paths that they can match: nearly every pattern is ruled
/// out by two bytes, so a long list costs a path a few words of bits.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    /// Words of a set.
    words: usize,
    /// For each byte, and at the end for the empty path, the set of patterns that allow it.
    first: Vec<u64>,
    last: Vec<u64>,
}

const SETS: usize = 257;

impl Candidates {
    /// For patterns in order, the bytes that a path has to begin and to end with, where they say so.
    pub(super) fn new(ends: &[(Option<u8>, Option<u8>)]) -> Self {
        let words = ends.len().div_ceil(64);
        let (mut first, mut last) = (vec![0; SETS * words], vec![0; SETS * words]);
        for (number, ends) in ends.iter().enumerate() {
            for (sets, end) in [(&mut first, ends.0), (&mut last, ends.1)] {
                let allowed = end.map_or(0..SETS, |byte| usize::from(byte)..usize::from(byte) + 1);
                for set in allowed {
                    sets[set * words + number / 64] |= 1 << (number % 64);
                }
            }
        }
        Self { words, first, last }
    }

    /// Words of a set.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    /// Patterns that may match `path`, and those that `others` gives by words, in order.
    pub(super) fn of(
        &self,
        path: &[u8],
        others: impl Fn(usize) -> u64,
    ) -> impl Iterator<Item = usize> {
        let start = |end: Option<&u8>| end.map_or(SETS - 1, |byte| usize::from(*byte)) * self.words;
        let first = &self.first[start(path.first())..];
        let last = &self.last[start(path.last())..];
        (0..self.words).flat_map(move |word| {
            let mut bits = first[word] & last[word] | others(word);
            std::iter::from_fn(move || {
                let bit = bits.checked_ilog2().map(|_| bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(word * 64 + bit as usize)
            })
        })
    }
}
