//! Telling content that deflate would not make smaller, at a small part of the price of trying.

use std::mem;

/// Order-0 coding would save less than about half a percent: how far the bytes' frequencies may be from equal, as the sum
/// of their squares against that of equal ones, in 1/1024.
const UNEVENNESS: u64 = 1024 + 52;
/// One repeated place in so many is too few to pay for itself.
const REPEATS: usize = 256;
/// What is shorter is compressed in any case: it costs nothing, and its frequencies say little.
const SHORTEST: usize = 16 * 1024;
/// Of the bytes, so many in a row of [`COUNTED_OF`] are counted.
const COUNTED: usize = 512;
const COUNTED_OF: usize = 4 * COUNTED;
/// Of the places, so many in a row of [`LOOKED_AT_OF`] are looked at for repeats.
const LOOKED_AT: usize = 8 * 1024;
const LOOKED_AT_OF: usize = 4 * LOOKED_AT;
const SLOTS: u32 = 12;

/// Whether `content` is random, encrypted or compressed already: all bytes about equally often, and hardly four bytes that
/// came before. A quarter of it speaks for the rest. Depends on the content only.
pub(super) fn is_incompressible(content: &[u8]) -> bool {
    content.len() >= SHORTEST && is_even(content) && !repeats(content)
}

fn is_even(content: &[u8]) -> bool {
    // Four, because adding to one place twice in a row waits for memory.
    let mut counts = [[0_u32; 256]; 4];
    let mut length = 0_u64;
    for sample in content.chunks(COUNTED_OF).map(|part| &part[..part.len().min(COUNTED)]) {
        for four in sample.chunks_exact(4) {
            for (counts, byte) in counts.iter_mut().zip(four) {
                counts[usize::from(*byte)] += 1;
            }
        }
        length += (sample.len() / 4 * 4) as u64;
    }
    let squares: u64 = (0..256)
        .map(|byte| counts.iter().map(|counts| u64::from(counts[byte])).sum::<u64>().pow(2))
        .sum();
    // Chance alone makes the frequencies of few bytes uneven: by their number.
    squares.saturating_sub(length) * 256 * 1024 <= length * length * UNEVENNESS
}

fn repeats(content: &[u8]) -> bool {
    let mut seen = [0_u32; 1 << SLOTS];
    let mut looked_at = 0;
    let mut found = 0;
    for sample in content.chunks(LOOKED_AT_OF).map(|part| &part[..part.len().min(LOOKED_AT)]) {
        looked_at += sample.len();
        for four in sample.array_windows() {
            let four = u32::from_le_bytes(*four);
            let slot = four.wrapping_mul(0x9e37_79b1) >> (32 - SLOTS);
            found += usize::from(mem::replace(&mut seen[slot as usize], four) == four);
        }
    }
    found > looked_at / REPEATS
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Bytes without any order, the same each time.
    pub(in crate::layer) fn random(length: usize) -> Vec<u8> {
        let mut state = 7_u64;
        let mut byte = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..length).map(|_| byte()).collect()
    }

    #[test]
    fn random_content_is_incompressible() {
        for length in [SHORTEST, 20_001, 128 * 1024] {
            assert!(is_incompressible(&random(length)), "{length}");
        }
    }

    #[test]
    fn text_short_content_and_few_different_bytes_are_not() {
        assert!(!is_incompressible("some words of a text ".repeat(1000).as_bytes()));
        assert!(!is_incompressible(&random(SHORTEST - 1)));
        let half: Vec<u8> = random(128 * 1024).iter().map(|byte| byte & 0x7f).collect();
        assert!(!is_incompressible(&half));
    }

    /// Each byte as often as the others, so that only the repeats tell.
    #[test]
    fn repeated_random_content_is_not() {
        let once = random(SHORTEST);
        assert!(!is_incompressible(&once.repeat(4)));
        assert!(is_incompressible(&once));
    }
}
