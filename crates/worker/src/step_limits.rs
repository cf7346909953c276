//! What bounds every step of a build, in time and in resources.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cgroup::ControlGroups;

/// What bounds every step of a build.
#[derive(Debug)]
pub struct StepLimits {
    /// What a step may use.
    pub groups: ControlGroups,
    /// How long a step may run.
    pub timeout: Option<Duration>,
    /// How long a step may run without printing anything.
    pub idle_timeout: Option<Duration>,
}

impl StepLimits {
    /// Nothing is bounded.
    #[must_use]
    pub fn none() -> Self {
        Self { groups: ControlGroups::unlimited(), timeout: None, idle_timeout: None }
    }

    /// Waits until a step that began now is overdue; for ever if it never is.
    pub(crate) async fn overdue(&self, activity: &Activity) -> Overdue {
        let total = async {
            match self.timeout {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let idle = async {
            let Some(limit) = self.idle_timeout else { return std::future::pending().await };
            loop {
                let until = activity.last() + limit;
                tokio::time::sleep_until(until).await;
                if activity.last() + limit <= until {
                    return;
                }
            }
        };
        tokio::select! {
            () = total => Overdue::Total(self.timeout.unwrap_or_default()),
            () = idle => Overdue::Idle(self.idle_timeout.unwrap_or_default()),
        }
    }
}

/// How a step is overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// It ran for longer than it may.
    Total(Duration),
    /// It printed nothing for longer than it may.
    Idle(Duration),
}

impl std::fmt::Display for Overdue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Total(limit) => write!(f, "it ran for longer than {limit:?} (--timeout)"),
            Self::Idle(limit) => {
                write!(f, "it printed nothing for {limit:?} (--idle-timeout)")
            }
        }
    }
}

/// When a step last printed something.
#[derive(Debug)]
pub(crate) struct Activity(Mutex<Instant>);

impl Activity {
    pub(crate) fn begin() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    pub(crate) fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
