//! Layer facts and images.

use rbuild_cache::{BlobFacts, BlobSource, LayerFacts};
use rbuild_oci::{Descriptor, DiffId, Digest, MediaType};

use crate::fixture::{Fixture, layer_id};

fn descriptor(name: &str) -> Descriptor {
    Descriptor::new(MediaType::OciManifest, Digest::of(name.as_bytes()), 7)
}

fn names(fixture: &Fixture) -> Vec<(Option<String>, Digest)> {
    let images = fixture.store.index.images().unwrap();
    images.into_iter().map(|image| (image.name, image.descriptor.digest)).collect()
}

#[test]
fn what_is_known_of_a_layer_grows() {
    let index = Fixture::new().store.index;
    let id = layer_id("a");
    assert_eq!(index.layer(&id).unwrap(), None);
    let gzip = BlobFacts {
        descriptor: Descriptor::new(MediaType::OciLayerGzip, Digest::of(b"gzip"), 4),
        encoder: None,
        verified: false,
    };
    let diff_id = DiffId(Digest::of(b"tar"));
    let facts = LayerFacts {
        diff_id: Some(diff_id),
        description: "RUN true".to_owned(),
        extra: Some(serde_json::json!({"parents": 1})),
        ..LayerFacts::default()
    };
    index.add_layers(&[(id, facts), (layer_id("b"), LayerFacts::default())]).unwrap();
    index.add_layer_blob(&id, &gzip).unwrap();
    let zstd = BlobFacts {
        descriptor: Descriptor::new(MediaType::OciLayerZstd, Digest::of(b"zstd"), 5),
        encoder: Some("zstd 1.5 level 3".to_owned()),
        verified: true,
    };
    index.add_layer_blob(&id, &zstd).unwrap();
    index
        .add_layer_blob(&id, &BlobFacts { encoder: None, verified: false, ..zstd.clone() })
        .unwrap();
    let facts = index.layer(&id).unwrap().unwrap();
    assert_eq!(facts.diff_id, Some(diff_id));
    assert_eq!(facts.description, "RUN true");
    assert_eq!(facts.extra.unwrap()["parents"], 1);
    assert!(facts.created.is_some());
    assert_eq!(facts.blobs.len(), 2);
    assert_eq!(facts.blobs, [zstd, gzip], "the verified one first");
    assert_eq!(index.layers_of_blob(&Digest::of(b"gzip")).unwrap(), [id]);
    assert_eq!(index.layer(&layer_id("b")).unwrap().unwrap().diff_id, None);
    index.remove_layer_blob(&id, &Digest::of(b"gzip")).unwrap();
    assert_eq!(index.layer(&id).unwrap().unwrap().blobs.len(), 1);
}

#[test]
fn blobs_have_places() {
    let index = Fixture::new().store.index;
    let blobs = [Digest::of(b"a"), Digest::of(b"b")];
    let registry =
        BlobSource::Registry { registry: "example.com:5000".into(), repository: "app".into() };
    let layout = BlobSource::OciLayout { path: "/layout".into() };
    index.add_blob_source(&blobs, &registry).unwrap();
    index.add_blob_source(&blobs, &registry).unwrap();
    index.add_blob_source(&blobs[..1], &layout).unwrap();
    assert_eq!(index.blob_sources(&blobs[0]).unwrap(), [layout, registry.clone()]);
    index.remove_blob_source(&blobs[1], &registry).unwrap();
    assert_eq!(index.blob_sources(&blobs[1]).unwrap(), []);
}

#[test]
fn names_move_and_leave_images_dangling() {
    let fixture = Fixture::new();
    let index = &fixture.store.index;
    let (a, b) = (descriptor("a"), descriptor("b"));
    index.tag_image("app:1", &a).unwrap();
    index.tag_image("app:latest", &a).unwrap();
    assert_eq!(index.image("app:1").unwrap().unwrap().descriptor, a);
    assert_eq!(index.image("app:2").unwrap(), None);
    // One of two names: nothing dangles.
    index.tag_image("app:latest", &b).unwrap();
    assert_eq!(
        names(&fixture),
        [(Some("app:latest".into()), b.digest), (Some("app:1".into()), a.digest)]
    );
    index.tag_image("app:1", &b).unwrap();
    assert!(names(&fixture).contains(&(None, a.digest)));
    // Named again, it dangles no more.
    index.tag_image("old", &a).unwrap();
    assert!(!names(&fixture).contains(&(None, a.digest)));
    index.tag_image("old", &a).unwrap();
    assert_eq!(names(&fixture).len(), 3);

    index.add_image(&a).unwrap();
    index.add_image(&descriptor("c")).unwrap();
    index.add_image(&descriptor("c")).unwrap();
    assert_eq!(names(&fixture).len(), 4);
    assert_eq!(index.remove_dangling_images().unwrap(), 1);
    assert!(index.remove_image("old").unwrap());
    assert!(!index.remove_image("old").unwrap());
    assert_eq!(index.remove_image_digest(&b.digest).unwrap(), 2);
    assert_eq!(names(&fixture), []);
}

#[test]
fn another_process_sees_what_was_written() {
    let fixture = Fixture::new();
    let other = rbuild_cache::Store::open(&fixture.root()).unwrap();
    fixture.store.index.tag_image("app", &descriptor("a")).unwrap();
    assert!(other.index.image("app").unwrap().is_some());
}
