//! What steps may be given and nobody else may learn.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::ssh::SshKeys;

/// The secrets of a build, by id. They are in no key and no message, and this does not show them.
#[derive(Clone, Default)]
pub struct Secrets {
    values: BTreeMap<String, Arc<[u8]>>,
}

impl Secrets {
    /// The most that one may hold; BuildKit's limit.
    pub const MAX_SIZE: usize = 500 * 1024;

    /// Adds a secret, in place of another one of this id.
    pub fn insert(&mut self, id: String, value: Vec<u8>) {
        self.values.insert(id, value.into());
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    pub(crate) fn get(&self, id: &str) -> Option<&[u8]> {
        self.values.get(id).map(AsRef::as_ref)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// What the user lets steps use.
#[derive(Clone, Debug, Default)]
pub struct Provided {
    /// For secret mounts and secret variables.
    pub secrets: Secrets,
    /// For agent mounts and git over ssh, by id.
    pub agents: BTreeMap<String, SshAgent>,
}

/// Who lists keys and signs.
#[derive(Clone, Debug)]
pub enum SshAgent {
    /// The user's agent, by its socket.
    Socket(PathBuf),
    /// Keys of files.
    Keys(Arc<SshKeys>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_shown() {
        let mut secrets = Secrets::default();
        secrets.insert("token".to_owned(), b"hunter2".to_vec());
        assert_eq!(format!("{secrets:?}"), "{\"token\"}");
        assert_eq!(secrets.get("token"), Some(&b"hunter2"[..]));
        assert_eq!(secrets.get("other"), None);
    }
}
