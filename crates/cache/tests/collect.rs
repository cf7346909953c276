//! Measuring and collecting.

use std::time::Duration;

use rbuild_cache::{BlobFacts, LayerFacts, LocalRecords, PruneOptions, Usage, prune};
use rbuild_oci::{Descriptor, Digest, Index, Manifest, MediaType};
use rbuild_solver::{CacheStore, LayerId};

use crate::fixture::{Fixture, key, layer_id, make_layer, new_record, parts, snapshot};

const ALL: PruneOptions = PruneOptions {
    all: true,
    keep_duration: None,
    keep_storage: None,
    dangling_images: false,
    only: None,
};

fn store_record(fixture: &Fixture, name: &str, layers: &[&str]) {
    // A lease of its own, which ends here.
    let records = LocalRecords::new(&fixture.store, fixture.store.lease().unwrap());
    records.store(new_record(&parts(name), &[snapshot(layers)])).unwrap();
}

fn left(fixture: &Fixture) -> Vec<LayerId> {
    let mut left = fixture.store.layers.list().unwrap();
    left.sort();
    left
}

fn ids(names: &[&str]) -> Vec<LayerId> {
    let mut ids: Vec<_> = names.iter().map(|name| layer_id(name)).collect();
    ids.sort();
    ids
}

#[test]
fn garbage_goes_and_the_rest_stays() {
    let fixture = Fixture::new();
    for name in ["base", "top", "garbage"] {
        make_layer(&fixture.store, name, 10_000);
    }
    store_record(&fixture, "step", &["base", "top"]);
    let (blob, _) = fixture.store.content.put(b"garbage").unwrap();
    let before = Usage::measure(&fixture.store).unwrap();
    assert_eq!((before.layers.count, before.blobs.count, before.records), (3, 1, 1));
    let pruned = prune(&fixture.store, &PruneOptions::default()).unwrap();
    assert_eq!(pruned.layers, [layer_id("garbage")]);
    assert_eq!(pruned.blobs, [blob]);
    assert_eq!(pruned.records, 0);
    let after = Usage::measure(&fixture.store).unwrap();
    assert_eq!(pruned.freed, before.layers.size + before.blobs.size - after.layers.size);
    assert!(pruned.freed >= 12_288, "{}", pruned.freed);
    assert_eq!(left(&fixture), ids(&["base", "top"]));
    assert_eq!(std::fs::read_dir(fixture.root().join("tmp")).unwrap().flatten().count(), 1);
    assert_eq!(
        after.each_layer.iter().map(|layer| (layer.records, layer.in_use)).collect::<Vec<_>>(),
        [(1, false), (1, false)]
    );
    assert_eq!(after.reclaimable(), after.layers.size + after.contexts + after.builds);
}

#[test]
fn everything_but_images_goes() {
    let fixture = Fixture::new();
    let content = &fixture.store.content;
    make_layer(&fixture.store, "base", 1);
    store_record(&fixture, "step", &["base"]);
    std::fs::write(fixture.store.contexts().join("stat"), "x").unwrap();
    let put = |media_type, bytes: &[u8]| {
        let (digest, size) = content.put(bytes).unwrap();
        Descriptor::new(media_type, digest, size)
    };
    let layer = put(MediaType::OciLayerGzip, b"layer");
    let manifest = Manifest::new(put(MediaType::OciConfig, b"{}"), vec![layer.clone()]);
    let manifest = put(MediaType::OciManifest, &serde_json::to_vec(&manifest).unwrap());
    let index = Index::new(vec![manifest.clone()]);
    let index = put(MediaType::OciIndex, &serde_json::to_vec(&index).unwrap());
    let garbage = put(MediaType::OciLayer, b"garbage");
    fixture.store.index.tag_image("app", &index).unwrap();

    let pruned = prune(&fixture.store, &ALL).unwrap();
    assert_eq!(pruned.blobs, [garbage.digest]);
    assert_eq!(pruned.records, 1);
    assert_eq!(left(&fixture), []);
    assert_eq!(std::fs::read_dir(fixture.store.contexts()).unwrap().count(), 0);
    for kept in [&layer, &manifest, &index] {
        assert!(content.contains(&kept.digest, kept.size).unwrap());
    }
    let usage = Usage::measure(&fixture.store).unwrap();
    assert_eq!((usage.images, usage.blobs.count, usage.blobs.reclaimable), (1, 4, 0));

    // Without its name it dangles, and goes when that is asked for.
    fixture.store.index.tag_image("app", &manifest).unwrap();
    let usage = Usage::measure(&fixture.store).unwrap();
    assert_eq!((usage.images, usage.dangling_images), (2, 1));
    assert_eq!(prune(&fixture.store, &ALL).unwrap().blobs, []);
    let pruned = prune(&fixture.store, &PruneOptions { dangling_images: true, ..ALL }).unwrap();
    assert_eq!((pruned.images, pruned.blobs), (1, vec![index.digest]));
}

#[test]
fn the_least_recently_used_records_go_first() {
    let fixture = Fixture::new();
    for name in ["base", "a", "b", "c"] {
        make_layer(&fixture.store, name, 1_000_000);
    }
    for name in ["a", "b", "c"] {
        store_record(&fixture, name, &["base", name]);
    }
    let database = rusqlite::Connection::open(fixture.root().join("index.db")).unwrap();
    // In another order than they were made in: `b` was used last, `c` long ago.
    for (name, used) in [("b", 3), ("a", 2), ("c", 1)] {
        let key = key(name).0;
        let changed = database
            .execute(
                "UPDATE records SET used = ?1 WHERE id = (SELECT record FROM keys WHERE key = ?2)",
                rusqlite::params![used, key.as_bytes()],
            )
            .unwrap();
        assert_eq!(changed, 1);
    }
    let total = Usage::measure(&fixture.store).unwrap().layers.size;
    let keep = |bytes| PruneOptions { keep_storage: Some(bytes), ..PruneOptions::default() };
    assert_eq!(prune(&fixture.store, &keep(total)).unwrap().records, 0);
    let pruned = prune(&fixture.store, &keep(total - 1)).unwrap();
    assert_eq!(pruned.layers, [layer_id("c")]);
    let pruned = prune(&fixture.store, &keep(total / 2)).unwrap();
    assert_eq!(pruned.layers, [layer_id("a")]);
    assert_eq!(left(&fixture), ids(&["b", "base"]));

    let keep = |duration| PruneOptions { keep_duration: Some(duration), ..ALL };
    assert_eq!(prune(&fixture.store, &keep(Duration::MAX)).unwrap().records, 0);
    assert_eq!(prune(&fixture.store, &keep(Duration::from_secs(1))).unwrap().records, 1);
    assert_eq!(left(&fixture), []);
}

#[test]
fn what_a_living_build_uses_stays() {
    let fixture = Fixture::new();
    for name in ["base", "other"] {
        make_layer(&fixture.store, name, 1);
    }
    let (pinned_blob, _) = fixture.store.content.put(b"pinned").unwrap();
    let (other_blob, _) = fixture.store.content.put(b"other").unwrap();
    let (layer_blob, size) = fixture.store.content.put(b"blob of base").unwrap();
    let descriptor = Descriptor::new(MediaType::OciLayerGzip, layer_blob, size);
    let blob = BlobFacts { descriptor, encoder: None, verified: false };
    fixture.store.index.add_layer_blob(&layer_id("base"), &blob).unwrap();
    store_record(&fixture, "step", &["base"]);
    age(&fixture);

    // As another process.
    let build = rbuild_cache::Store::open(&fixture.root()).unwrap();
    let lease = build.lease().unwrap();
    let records = LocalRecords::new(&build, lease.clone());
    records.lookup(&key("step")).unwrap().unwrap();
    lease.pin_blobs(&[pinned_blob]).unwrap();
    make_layer(&build, "young", 1);
    let (young_blob, _) = build.content.put(b"young").unwrap();
    let facts = LayerFacts::default();
    build.index.add_layers(&[(layer_id("not there yet"), facts)]).unwrap();

    let pruned = prune(&fixture.store, &ALL).unwrap();
    assert_eq!(pruned.layers, [layer_id("other")]);
    assert_eq!(pruned.blobs, [other_blob]);
    assert_eq!(left(&fixture), ids(&["base", "young"]));
    assert!(build.index.layer(&layer_id("not there yet")).unwrap().is_some());
    let usage = Usage::measure(&fixture.store).unwrap();
    assert!(usage.each_layer.iter().all(|layer| layer.in_use));

    drop((records, lease));
    let mut expected = vec![pinned_blob, layer_blob, young_blob];
    expected.sort();
    assert_eq!(prune(&fixture.store, &ALL).unwrap().blobs, expected);
    assert_eq!(left(&fixture), []);
    assert_eq!(fixture.store.index.layer(&layer_id("base")).unwrap(), None);
}

/// Waits until the file system's clock has passed everything's change time.
fn age(fixture: &Fixture) {
    use std::os::unix::fs::MetadataExt;
    let time = |path: &std::path::Path| {
        let metadata = path.metadata().unwrap();
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let newest = time(&fixture.store.content.path(&Digest::of(b"blob of base")));
    let probe = fixture.dir.path().join("probe");
    loop {
        std::fs::write(&probe, "").unwrap();
        if time(&probe) > newest {
            return;
        }
    }
}

#[test]
fn an_empty_store_is_collected_as_well() {
    let fixture = Fixture::new();
    assert_eq!(prune(&fixture.store, &ALL).unwrap(), rbuild_cache::Pruned::default());
    let usage = Usage::measure(&fixture.store).unwrap();
    assert_eq!((usage.layers.size, usage.blobs.size, usage.records), (0, 0, 0));
    assert!(usage.total() >= usage.index && usage.index > 0);
}
