//! The solver's cache: what every implementation promises, and what the local one adds.

use rbuild_cache::{BlobFacts, BlobSource, LayerFacts, LocalRecords};
use rbuild_oci::{Descriptor, Digest, MediaType};
use rbuild_solver::CacheStore;

use crate::fixture::{Fixture, key, layer_id, make_layer, new_record, parts, snapshot};

/// What holds for every [`CacheStore`]. Its layers `a`, `b` and `c` are available.
async fn conformance(store: impl CacheStore) {
    // Nothing is found before it is stored.
    assert_eq!(store.lookup(&key("fast")).unwrap(), None);

    // What is stored is found, whole and in order, under each of its keys.
    let outputs = [snapshot(&["a", "b"]), snapshot(&[]), snapshot(&["a"])];
    store.store(&[new_record(&parts("fast"), &outputs)]).unwrap();
    store.store(&[new_record(&parts("slow"), &outputs)]).unwrap();
    for name in ["fast", "slow"] {
        assert_eq!(store.lookup(&key(name)).unwrap().unwrap().outputs, outputs);
    }

    // Storing again under a key replaces what it finds, and nothing else.
    let others = [snapshot(&["c"])];
    store.store(&[new_record(&parts("fast"), &others)]).unwrap();
    assert_eq!(store.lookup(&key("fast")).unwrap().unwrap().outputs, others);
    assert_eq!(store.lookup(&key("slow")).unwrap().unwrap().outputs, outputs);

    // A lock keeps its own key's vertex only, until it is dropped.
    let guard = store.lock(&key("fast")).await.unwrap();
    let other = store.lock(&key("other")).await.unwrap();
    let fast = key("fast");
    let mut waiting = Box::pin(store.lock(&fast));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(guard);
    drop(waiting.await.unwrap());
    drop(other);
}

fn records(fixture: &Fixture) -> LocalRecords {
    LocalRecords::new(&fixture.store, fixture.store.lease().unwrap())
}

#[tokio::test]
async fn local_records_conform() {
    let fixture = Fixture::new();
    for name in ["a", "b", "c"] {
        make_layer(&fixture.store, name, 1);
    }
    conformance(records(&fixture)).await;
}

#[test]
fn a_record_without_its_layer_is_not_found_and_goes() {
    let fixture = Fixture::new();
    make_layer(&fixture.store, "a", 1);
    make_layer(&fixture.store, "b", 1);
    let outputs = [snapshot(&["a", "b"])];
    records(&fixture).store(&[new_record(&parts("x"), &outputs)]).unwrap();
    fixture.store.layers.remove(&layer_id("b")).unwrap();
    assert_eq!(records(&fixture).lookup(&key("x")).unwrap(), None);
    assert_eq!(fixture.store.index.records().unwrap(), []);
}

#[test]
fn layers_that_can_be_fetched_or_unpacked_are_available() {
    let fixture = Fixture::new();
    let index = &fixture.store.index;
    let (digest, size) = fixture.store.content.put(b"blob").unwrap();
    let remote = Digest::of(b"remote");
    for (name, digest, size) in [("local", digest, size), ("remote", remote, 9)] {
        let descriptor = Descriptor::new(MediaType::OciLayerGzip, digest, size);
        let blobs = vec![BlobFacts { descriptor, encoder: None, verified: false }];
        let facts = LayerFacts { blobs, ..LayerFacts::default() };
        index.add_layers(&[(layer_id(name), facts)]).unwrap();
    }
    let source = BlobSource::OciLayout { path: "/layout".into() };
    index.add_blob_source(&[remote], &source).unwrap();
    let outputs = [snapshot(&["local", "remote"])];
    records(&fixture).store(&[new_record(&parts("x"), &outputs)]).unwrap();
    assert!(records(&fixture).lookup(&key("x")).unwrap().is_some());
    // A blob that was cut short is no blob.
    std::fs::write(fixture.store.content.path(&digest), "bl").unwrap();
    assert_eq!(records(&fixture).lookup(&key("x")).unwrap(), None);
}

#[test]
fn uses_are_known_to_who_asks_without_a_write_to_the_database_for_each() {
    let fixture = Fixture::new();
    make_layer(&fixture.store, "a", 1);
    let outputs = [snapshot(&["a"])];
    records(&fixture).store(&[new_record(&parts("x"), &outputs)]).unwrap();
    let log = || std::fs::metadata(fixture.root().join("index.db-wal")).unwrap().len();
    let before = log();
    for _ in 0..3 {
        let store = rbuild_cache::Store::open(&fixture.root()).unwrap();
        let records = LocalRecords::new(&store, store.lease().unwrap());
        records.lookup(&key("x")).unwrap().unwrap();
    }
    assert_eq!(log(), before);
    for _ in 0..2 {
        let stored = fixture.store.index.records().unwrap();
        assert_eq!(stored[0].uses, 3);
        assert!(stored[0].used >= stored[0].created);
    }
}

#[test]
fn records_tell_what_they_are() {
    let fixture = Fixture::new();
    make_layer(&fixture.store, "a", 1);
    let records = records(&fixture);
    let outputs = [snapshot(&["a"])];
    records.store(&[new_record(&parts("fast"), &outputs)]).unwrap();
    records.store(&[new_record(&parts("slow"), &outputs)]).unwrap();
    records.lookup(&key("fast")).unwrap().unwrap();
    records.lookup(&key("slow")).unwrap().unwrap();
    let stored = fixture.store.index.records().unwrap();
    let [record] = &stored[..] else { panic!() };
    assert_eq!((&*record.name, record.uses), ("a vertex", 2));
    assert_eq!(record.duration.as_millis(), 5);
    let mut keys = fixture.store.index.keys_of(record).unwrap();
    keys.sort_by_key(|stored| stored.key == key("fast"));
    assert_eq!(keys[0].parts, parts("slow"));
    assert_eq!(keys[1].parts, parts("fast"));
    // Replaced under both keys, it is found by none and goes.
    let others = [snapshot(&["a", "a"])];
    records.store(&[new_record(&parts("fast"), &others)]).unwrap();
    assert_eq!(fixture.store.index.records().unwrap().len(), 2);
    records.store(&[new_record(&parts("slow"), &others)]).unwrap();
    assert_eq!(fixture.store.index.records().unwrap().len(), 1);
}
