//! Measuring and collecting.

use std::time::Duration;

use rbuild_cache::{
    BlobFacts, ItemFilter, ItemKind, KindUsage, LayerFacts, LocalRecords, PruneOptions,
    SpaceLimits, Usage, prune,
};
use rbuild_oci::{Descriptor, Digest, Index, Manifest, MediaType};
use rbuild_solver::{CacheStore, LayerId};

use crate::fixture::{Fixture, key, layer_id, make_layer, new_record, parts, snapshot};

fn all() -> PruneOptions {
    PruneOptions { all: true, ..PruneOptions::default() }
}

fn limits(limits: SpaceLimits) -> PruneOptions {
    PruneOptions { limits, ..PruneOptions::default() }
}

fn of_kinds(kinds: &[ItemKind]) -> PruneOptions {
    PruneOptions { filter: ItemFilter::of_kinds(kinds), ..PruneOptions::default() }
}

fn store_record(fixture: &Fixture, name: &str, layers: &[&str]) {
    // A lease of its own, which ends here.
    let records = LocalRecords::new(&fixture.store, fixture.store.lease().unwrap());
    records.store(&[new_record(&parts(name), &[snapshot(layers)])]).unwrap();
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
    let (layers, blobs) = (before.of(ItemKind::Layer), before.of(ItemKind::Blob));
    assert_eq!((layers.count, blobs.count, before.records), (3, 1, 1));
    let pruned = prune(&fixture.store, &PruneOptions::default()).unwrap();
    assert_eq!(pruned.layers, [layer_id("garbage")]);
    assert_eq!(pruned.blobs, [blob]);
    assert_eq!(pruned.records, 0);
    let after = Usage::measure(&fixture.store).unwrap();
    assert_eq!(pruned.freed, layers.size + blobs.size - after.of(ItemKind::Layer).size);
    assert!(pruned.freed >= 12_288, "{}", pruned.freed);
    assert_eq!(left(&fixture), ids(&["base", "top"]));
    assert_eq!(std::fs::read_dir(fixture.root().join("tmp")).unwrap().flatten().count(), 1);
    assert!(after.items.iter().all(|item| !item.in_use && item.description == "a vertex"));
    assert_eq!(after.reclaimable(), after.of(ItemKind::Layer).size);
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

    let pruned = prune(&fixture.store, &all()).unwrap();
    assert_eq!(pruned.blobs, [garbage.digest]);
    assert_eq!(pruned.records, 1);
    assert_eq!(left(&fixture), []);
    assert_eq!(std::fs::read_dir(fixture.store.contexts()).unwrap().count(), 0);
    for kept in [&layer, &manifest, &index] {
        assert!(content.contains(&kept.digest, kept.size).unwrap());
    }
    let usage = Usage::measure(&fixture.store).unwrap();
    let blobs = usage.of(ItemKind::Blob);
    assert_eq!((usage.images, blobs.count, blobs.reclaimable), (1, 4, 0));
    assert_eq!(blobs.shared, blobs.size);

    // Without its name it dangles, and goes when that is asked for.
    fixture.store.index.tag_image("app", &manifest).unwrap();
    let usage = Usage::measure(&fixture.store).unwrap();
    assert_eq!((usage.images, usage.dangling_images), (2, 1));
    assert_eq!(prune(&fixture.store, &all()).unwrap().blobs, []);
    let pruned = prune(&fixture.store, &PruneOptions { dangling_images: true, ..all() }).unwrap();
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
    let total = Usage::measure(&fixture.store).unwrap().of(ItemKind::Layer).size;
    let keep = |bytes| limits(SpaceLimits { reserved: Some(bytes), ..SpaceLimits::default() });
    assert_eq!(prune(&fixture.store, &keep(total)).unwrap().records, 0);
    let pruned = prune(&fixture.store, &keep(total - 1)).unwrap();
    assert_eq!(pruned.layers, [layer_id("c")]);
    let pruned = prune(&fixture.store, &keep(total / 2)).unwrap();
    assert_eq!(pruned.layers, [layer_id("a")]);
    assert_eq!(left(&fixture), ids(&["b", "base"]));

    let keep = |duration| PruneOptions { keep_duration: Some(duration), ..all() };
    assert_eq!(prune(&fixture.store, &keep(Duration::MAX)).unwrap().records, 0);
    assert_eq!(prune(&fixture.store, &keep(Duration::from_secs(1))).unwrap().records, 1);
    assert_eq!(left(&fixture), []);
}

/// Says when records were used and found, and how long they took.
fn remember(fixture: &Fixture, name: &str, used: Duration, uses: u64, made_in: Duration) {
    let database = rusqlite::Connection::open(fixture.root().join("index.db")).unwrap();
    let used = std::time::SystemTime::now() - used;
    let used = used.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let changed = database
        .execute(
            "UPDATE records SET used = ?1, uses = ?2, duration_ms = ?3
             WHERE id = (SELECT record FROM keys WHERE key = ?4)",
            rusqlite::params![
                used,
                uses as i64,
                made_in.as_millis() as i64,
                key(name).0.as_bytes()
            ],
        )
        .unwrap();
    assert_eq!(changed, 1);
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn what_lies_on_top_goes_first_and_what_is_below_is_as_young() {
    let fixture = Fixture::new();
    let names = ["base", "middle", "top"];
    names.iter().for_each(|name| make_layer(&fixture.store, name, 100_000));
    for count in 1..=3 {
        store_record(&fixture, names[count - 1], &names[..count]);
    }
    // As after a build that was cached: only the last vertex was looked up.
    remember(&fixture, "base", HOUR * 100, 0, HOUR);
    remember(&fixture, "middle", HOUR * 50, 0, HOUR);
    remember(&fixture, "top", HOUR, 0, HOUR);
    let old = PruneOptions { keep_duration: Some(HOUR * 2), ..PruneOptions::default() };
    assert_eq!(prune(&fixture.store, &old).unwrap().records, 0);
    for name in ["top", "middle", "base"] {
        let size = KindUsage::of(&Usage::measure(&fixture.store).unwrap().items).size;
        let less = SpaceLimits { max_used: Some(size - 1), ..SpaceLimits::default() };
        assert_eq!(prune(&fixture.store, &limits(less)).unwrap().layers, [layer_id(name)]);
    }
}

#[test]
fn the_least_valuable_goes_first() {
    let fixture = Fixture::new();
    for name in ["dear", "cheap", "often", "large"] {
        make_layer(&fixture.store, name, if name == "large" { 8_000_000 } else { 1_000_000 });
        store_record(&fixture, name, &[name]);
    }
    let second = Duration::from_secs(1);
    remember(&fixture, "dear", HOUR * 3, 0, second);
    remember(&fixture, "cheap", HOUR * 2, 0, second / 20);
    remember(&fixture, "often", HOUR * 3, 90, second / 20);
    remember(&fixture, "large", HOUR * 2, 0, second / 20);
    let mut order = Vec::new();
    while let Some(size) = Some(Usage::measure(&fixture.store).unwrap().of(ItemKind::Layer).size)
        .filter(|size| *size > 0)
    {
        let less = SpaceLimits { max_used: Some(size - 1), ..SpaceLimits::default() };
        order.extend(prune(&fixture.store, &limits(less)).unwrap().layers);
    }
    assert_eq!(order, ["large", "cheap", "often", "dear"].map(layer_id));
}

#[test]
fn filters_take_what_they_mean_and_nothing_else() {
    let fixture = Fixture::new();
    make_layer(&fixture.store, "base", 1000);
    make_layer(&fixture.store, "top", 1000);
    make_layer(&fixture.store, "other", 1000);
    make_layer(&fixture.store, "garbage", 1000);
    store_record(&fixture, "base", &["base"]);
    store_record(&fixture, "top", &["base", "top"]);
    store_record(&fixture, "other", &["other"]);
    let (of_layer, size) = fixture.store.content.put(b"blob of a layer").unwrap();
    let descriptor = Descriptor::new(MediaType::OciLayerGzip, of_layer, size);
    let blob = BlobFacts { descriptor, encoder: None, verified: true };
    fixture.store.index.add_layer_blob(&layer_id("top"), &blob).unwrap();
    std::fs::write(fixture.store.contexts().join("stat"), "x").unwrap();
    std::fs::create_dir(fixture.root().join("builds/project")).unwrap();

    // A blob that its layer can be turned into again; the layer, its record and what is garbage stay.
    let pruned = prune(&fixture.store, &of_kinds(&[ItemKind::Blob])).unwrap();
    assert_eq!((pruned.blobs, pruned.records, pruned.layers), (vec![of_layer], 0, vec![]));
    assert!(fixture.store.index.layer(&layer_id("top")).unwrap().is_some());
    let pruned = prune(&fixture.store, &of_kinds(&[ItemKind::Context])).unwrap();
    assert_eq!((pruned.items.len(), pruned.count(ItemKind::Context)), (1, 1));
    // What is about builds goes when it is named.
    let old = PruneOptions { keep_duration: Some(HOUR), ..PruneOptions::default() };
    assert_eq!(prune(&fixture.store, &old).unwrap().layers, [layer_id("garbage")]);
    assert!(fixture.root().join("builds/project").exists());
    let pruned = prune(&fixture.store, &of_kinds(&[ItemKind::Builds])).unwrap();
    assert_eq!(pruned.count(ItemKind::Builds), 1);
    assert!(!fixture.root().join("builds/project").exists());

    // A layer that another one lies on is not to be had alone.
    let by_id = |name: &str| {
        let mut filter = ItemFilter::default();
        filter.add(&format!("id={}", &layer_id(name).to_string()[..12])).unwrap();
        PruneOptions { filter, ..PruneOptions::default() }
    };
    assert_eq!(prune(&fixture.store, &by_id("base")).unwrap().layers, []);
    assert_eq!(prune(&fixture.store, &by_id("top")).unwrap().layers, [layer_id("top")]);
    assert_eq!(left(&fixture), ids(&["base", "other"]));
}

#[test]
fn limits_of_a_kind_count_that_kind() {
    let fixture = Fixture::new();
    make_layer(&fixture.store, "layer", 1_000_000);
    store_record(&fixture, "layer", &["layer"]);
    for name in ["a", "b"] {
        std::fs::write(fixture.store.contexts().join(name), vec![1; 100_000]).unwrap();
    }
    let most = SpaceLimits { max_used: Some(150_000), ..SpaceLimits::default() };
    let options = PruneOptions { limits: most, ..of_kinds(&[ItemKind::Context]) };
    let pruned = prune(&fixture.store, &options).unwrap();
    assert_eq!((pruned.items.len(), pruned.count(ItemKind::Context)), (1, 1));
    assert_eq!(prune(&fixture.store, &options).unwrap().items, []);
}

#[test]
fn garbage_is_the_first_to_go_where_it_is_spared() {
    let fixture = Fixture::new();
    for name in ["garbage", "used"] {
        make_layer(&fixture.store, name, 1_000_000);
    }
    store_record(&fixture, "used", &["used"]);
    remember(&fixture, "used", HOUR * 1000, 0, Duration::ZERO);
    let size = Usage::measure(&fixture.store).unwrap().of(ItemKind::Layer).size;
    let spare = |max_used| PruneOptions {
        spare_garbage: true,
        ..limits(SpaceLimits { max_used: Some(max_used), ..SpaceLimits::default() })
    };
    assert_eq!(prune(&fixture.store, &spare(size)).unwrap().layers, []);
    assert_eq!(prune(&fixture.store, &spare(size - 1)).unwrap().layers, [layer_id("garbage")]);
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

    let pruned = prune(&fixture.store, &all()).unwrap();
    assert_eq!(pruned.layers, [layer_id("other")]);
    assert_eq!(pruned.blobs, [other_blob]);
    assert_eq!(left(&fixture), ids(&["base", "young"]));
    assert!(build.index.layer(&layer_id("not there yet")).unwrap().is_some());
    let usage = Usage::measure(&fixture.store).unwrap();
    let mut layers = usage.items.iter().filter(|item| item.kind == ItemKind::Layer);
    assert!(layers.all(|layer| layer.in_use));

    drop((records, lease));
    let mut expected = vec![pinned_blob, layer_blob, young_blob];
    expected.sort();
    assert_eq!(prune(&fixture.store, &all()).unwrap().blobs, expected);
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
    assert_eq!(prune(&fixture.store, &all()).unwrap(), rbuild_cache::Pruned::default());
    let usage = Usage::measure(&fixture.store).unwrap();
    assert_eq!((KindUsage::of(&usage.items).size, usage.records), (0, 0));
    assert!(usage.total() >= usage.index && usage.index > 0);
}
