//! In which order things are given up.
//!
//! What has not been used for longest goes first. Time counts up to four times slower for what took long to make for its size,
//! and up to four times faster for what is large and soon made again; and slower for what was found often. The bounds are there
//! so that age decides in the end.

use std::time::Duration;

/// How far the time that something took to make stretches its life.
const MOST: f64 = 4.0;

/// What space costs: a megabyte is worth as much as this time to make it.
const SECONDS_OF_A_MEGABYTE: f64 = 0.1;

/// What to give up, in ascending order of what is lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stake {
    /// How long ago it was used.
    pub(super) unused: Duration,
    /// Bytes that it takes.
    pub(super) size: u64,
    /// How long it takes to have it again; unknown counts as average.
    pub(super) making: Option<Duration>,
    /// How often it was found.
    pub(super) uses: u64,
}

/// The greater, the sooner it goes.
pub(super) fn urgency(stake: Stake) -> f64 {
    let worth = stake.making.map_or(1.0, |making| {
        let space = (stake.size as f64 / 1e6).max(1e-3) * SECONDS_OF_A_MEGABYTE;
        (making.as_secs_f64() / space).clamp(1.0 / MOST, MOST)
    });
    let fame = (1.0 + stake.uses as f64).ln_1p();
    stake.unused.as_secs_f64() / (worth * fame)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Stake = Stake {
        unused: Duration::from_secs(86_400),
        size: 10_000_000,
        making: Some(Duration::from_secs(1)),
        uses: 0,
    };

    #[test]
    fn the_least_valuable_goes_first() {
        let older = Stake { unused: DAY.unused * 2, ..DAY };
        let larger = Stake { size: DAY.size * 2, ..DAY };
        let dearer = Stake { making: Some(Duration::from_secs(2)), ..DAY };
        let famous = Stake { uses: 5, ..DAY };
        assert!(urgency(older) > urgency(DAY));
        assert!(urgency(larger) > urgency(DAY));
        assert!(urgency(dearer) < urgency(DAY));
        assert!(urgency(famous) < urgency(DAY));
    }

    #[test]
    fn age_decides_in_the_end() {
        let huge = Stake { size: 1 << 40, making: Some(Duration::ZERO), ..DAY };
        let dear_and_old =
            Stake { unused: DAY.unused * 20, making: Some(Duration::from_secs(36_000)), ..DAY };
        assert!(urgency(dear_and_old) > urgency(huge));
    }
}
