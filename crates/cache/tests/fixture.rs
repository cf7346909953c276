//! A store in a directory of its own, and things to put into it.

use std::path::PathBuf;
use std::time::Duration;

use rbuild_cache::Store;
use rbuild_oci::Digest;
use rbuild_solver::{CacheKey, KeyParts, LayerId, NewRecord, Output, Snapshot};

pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) dir: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Self { store, dir }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }
}

pub(crate) fn layer_id(name: &str) -> LayerId {
    LayerId::derived(name, &[])
}

pub(crate) fn parts(name: &str) -> KeyParts {
    KeyParts { op: Digest::of(name.as_bytes()), inputs: Vec::new(), by_content: false }
}

pub(crate) fn key(name: &str) -> CacheKey {
    parts(name).key()
}

pub(crate) fn snapshot(layers: &[&str]) -> Output {
    Output::Snapshot(Snapshot::new(layers.iter().map(|name| layer_id(name)).collect()))
}

pub(crate) fn new_record<'a>(parts: &'a KeyParts, outputs: &'a [Output]) -> NewRecord<'a> {
    NewRecord {
        key: parts.key(),
        parts,
        outputs,
        deferred: false,
        name: "a vertex",
        duration: Duration::from_millis(5),
    }
}

/// Makes a layer with one file of `size` bytes.
pub(crate) fn make_layer(store: &Store, name: &str, size: usize) {
    let layer = store.layers.begin().unwrap();
    std::fs::write(layer.path().join("file"), vec![b'x'; size]).unwrap();
    layer.commit(&layer_id(name)).unwrap();
}
