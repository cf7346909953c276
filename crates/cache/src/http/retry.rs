//! What is tried again, and when.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How often a request is tried, and how long is waited between.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// How often in all; 1 is no retry.
    pub attempts: u32,
    /// What is waited after the first failure; it doubles with each further one, and up to a quarter is added at random.
    pub first_delay: Duration,
    /// The longest wait that a server may ask for with `Retry-After`; when it asks for more, the request fails.
    pub longest_delay: Duration,
    /// How long the answer to a small request may take to begin.
    pub answer_limit: Duration,
    /// How long bytes that are sent or received may stand still. The answer to a large body may take five times as long: some
    /// servers copy it first.
    pub idle_limit: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 4,
            first_delay: Duration::from_millis(200),
            longest_delay: Duration::from_secs(60),
            answer_limit: Duration::from_secs(30),
            idle_limit: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// How long to wait after the failure of attempt number `attempt` (from 1), or `None` to give up.
    pub(crate) fn delay(&self, attempt: u32, retry_after: Option<Duration>) -> Option<Duration> {
        if attempt >= self.attempts || retry_after.is_some_and(|asked| asked > self.longest_delay) {
            return None;
        }
        let delay = self.first_delay.saturating_mul(1 << (attempt - 1).min(16));
        // Builds that failed together must not come back together. RandomState is std's only source of chance.
        let chance = RandomState::new().hash_one(attempt) % 256;
        let jitter = delay.saturating_mul(chance as u32) / 1024;
        let delay = delay.saturating_add(jitter);
        Some(retry_after.map_or(delay, |asked| asked.max(delay)).min(self.longest_delay))
    }
}

/// Whether a request that got this answer may succeed later.
pub(crate) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_and_gives_up() {
        let policy = RetryPolicy { attempts: 4, ..RetryPolicy::default() };
        let delay = |attempt| policy.delay(attempt, None).map(|delay| delay.as_millis() / 200);
        assert_eq!((delay(1), delay(2), delay(3), delay(4)), (Some(1), Some(2), Some(4), None));
    }

    #[test]
    fn honours_the_server_within_reason() {
        let policy = RetryPolicy::default();
        let delay = |seconds| policy.delay(1, Some(Duration::from_secs(seconds)));
        assert_eq!(delay(7), Some(Duration::from_secs(7)));
        assert!(delay(0).is_some_and(|delay| delay >= policy.first_delay));
        assert_eq!(delay(3600), None);
    }
}
