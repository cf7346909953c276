//! Mirrors that sent something else than what they were asked for: they are left for the next server, and it is told.

use std::fmt;
use std::sync::PoisonError;

use reqwest::Response;

use super::RegistryClient;

/// A mirror sent something that is not what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorFault {
    /// `host[:port]` of the mirror.
    pub mirror: String,
    /// The registry that it is a mirror of.
    pub registry: String,
    /// What was asked for: a blob or a document.
    pub what: String,
    /// What is wrong with what it sent.
    pub reason: String,
}

impl fmt::Display for MirrorFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mirror, registry, what, reason } = self;
        write!(f, "mirror `{mirror}` of `{registry}` is passed over for {what}: {reason}")
    }
}

/// An answer, and who gave it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) mirror: Option<Mirror>,
}

/// A mirror that answered, where somebody else can be asked, too.
#[derive(Clone, Debug)]
pub(super) struct Mirror {
    /// `host[:port]`.
    pub(super) authority: String,
    /// The first of the registry's endpoints after it.
    pub(super) next: usize,
}

impl RegistryClient {
    /// What mirrors have done wrong since this was asked last, by this client and its clones.
    pub fn take_mirror_faults(&self) -> Vec<MirrorFault> {
        std::mem::take(&mut *self.0.mirror_faults.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes what a mirror of `registry` did wrong.
    pub(super) fn note_fault(&self, mirror: &Mirror, registry: &str, what: &str, reason: String) {
        let fault = MirrorFault {
            mirror: mirror.authority.clone(),
            registry: registry.to_owned(),
            what: what.to_owned(),
            reason,
        };
        let mut faults = self.0.mirror_faults.lock().unwrap_or_else(PoisonError::into_inner);
        // What is tried again fails again.
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
}
