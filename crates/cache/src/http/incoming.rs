//! Bytes that arrive in one answer or, where the connection broke, in several.

use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_RANGE, HeaderValue};
use reqwest::{Response, StatusCode};

use super::{TransportError, broken};

/// What has to come of a body while it is waited for as long as it may stand still: less is a server that keeps us busy.
const LEAST: u64 = 16 << 10;

/// A body of known size on its way. It hands out at most as many bytes as it should have.
#[derive(Debug)]
pub(crate) struct Incoming {
    size: u64,
    received: u64,
    /// Bytes of a new answer that were received already: the server ignored the range.
    skip: u64,
    response: Option<Response>,
    pace: Pace,
}

/// How a body moves: what has come, in the time that was waited for it.
#[derive(Debug)]
struct Pace {
    limit: Duration,
    waited: Duration,
    came: u64,
}

impl Pace {
    /// Whether it moves, now that so many bytes came after that time.
    fn goes_on(&mut self, waited: Duration, came: u64) -> bool {
        self.waited += waited;
        self.came += came;
        if self.waited < self.limit {
            return true;
        }
        let enough = self.came >= LEAST;
        (self.waited, self.came) = (Duration::ZERO, 0);
        enough
    }
}

/// What is wrong with a body. It has no connection any more.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The connection broke.
    Broken(TransportError),
    /// It ended after so many bytes.
    Short(u64),
    /// It has, or says that it has, another size.
    Size(u64),
    /// The answer is of another range than was asked for, and cannot be put together with what is there.
    Range,
}

impl Incoming {
    /// A body of this size, of which something has to come within `idle_limit`.
    pub(crate) fn new(size: u64, idle_limit: Duration) -> Self {
        let pace = Pace { limit: idle_limit, waited: Duration::ZERO, came: 0 };
        Self { size, received: 0, skip: 0, response: None, pace }
    }

    /// How many bytes there are.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Whether an answer was accepted, and is not broken.
    pub(crate) fn is_connected(&self) -> bool {
        self.response.is_some()
    }

    /// The range that the next request has to ask for; `None` for all.
    pub(crate) fn range(&self) -> Option<HeaderValue> {
        let range = || HeaderValue::from_str(&format!("bytes={}-", self.received));
        (self.received > 0).then(|| range().expect("digits are fit for a header"))
    }

    /// Goes on with an answer to the request with [`Incoming::range`].
    pub(crate) fn accept(&mut self, response: Response) -> Result<(), Fault> {
        let resumes = response.status() == StatusCode::PARTIAL_CONTENT;
        let start = if resumes { range_start(&response) } else { Some(0) };
        let start = start.filter(|start| *start <= self.received).ok_or(Fault::Range)?;
        if let Some(length) = response.content_length()
            && start.checked_add(length) != Some(self.size)
        {
            return Err(Fault::Size(start.saturating_add(length)));
        }
        self.skip = self.received - start;
        self.response = Some(response);
        Ok(())
    }

    /// The next bytes; `None` when there are no more.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        loop {
            let Some(response) = &mut self.response else {
                return Err(Fault::Short(self.received));
            };
            let url = response.url().clone();
            let asked = Instant::now();
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let is_last = self.received + chunk.len() as u64 >= self.size;
                    if !self.pace.goes_on(asked.elapsed(), chunk.len() as u64) && !is_last {
                        self.response = None;
                        let host = url.host_str().unwrap_or_default().to_owned();
                        return Err(Fault::Broken(TransportError::Silent { host }));
                    }
                    let skipped = self.skip.min(chunk.len() as u64);
                    self.skip -= skipped;
                    let fresh = &chunk[skipped as usize..];
                    self.received += fresh.len() as u64;
                    if self.received > self.size {
                        self.response = None;
                        return Err(Fault::Size(self.received));
                    }
                    if !fresh.is_empty() {
                        return Ok(Some(fresh.to_vec()));
                    }
                }
                Ok(None) if self.received < self.size && self.received > 0 => {
                    self.response = None;
                    return Err(Fault::Short(self.received));
                }
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.response = None;
                    return Err(Fault::Broken(broken(&url, error)));
                }
            }
        }
    }
}

/// The first position of `Content-Range: bytes 5-9/10`.
fn range_start(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_drips_stands_still() {
        let minute = Duration::from_secs(60);
        let pace = || Pace { limit: minute, waited: Duration::ZERO, came: 0 };
        let mut drips = pace();
        assert!((1..6).all(|_| drips.goes_on(minute / 6, 1)));
        assert!(!drips.goes_on(minute / 6, 1));
        // What is slow may take as long as it needs, and what is waited for no time is not slow.
        let mut slow = pace();
        assert!((0..100).all(|_| slow.goes_on(minute, LEAST)));
        assert!((0..100).all(|_| slow.goes_on(Duration::ZERO, 1)));
    }
}
