//! `rbuild imagetools`: what names stand for at a registry.

use rbuild_testdata::{Entry, Image, ImageIndex, Layer, Registry, sha256};

use crate::fixture::{Fixture, have};

fn image(architecture: &str, content: &str) -> Image {
    Image::new(&format!("linux/{architecture}")).layer(Layer::new(&[Entry::file("f", content)]))
}

#[test]
fn an_index_is_shown() {
    if !have("an_index_is_shown", "docker-registry") {
        return;
    }
    let registry = Registry::start();
    let (amd64, arm64) = (image("amd64", "a"), image("arm64", "b"));
    registry.push("app", "1", &ImageIndex::new().image(&amd64).image(&arm64).publish());
    let repository = format!("{}/app", registry.address());
    let name = format!("{repository}:1");
    let digest = registry.manifest("app", "1").expect("the tag").digest();
    let fixture = Fixture::new();
    let shown = fixture.run(["imagetools", "inspect", &name]).ok().text();
    for line in [
        format!("Name:      {name}"),
        "MediaType: application/vnd.oci.image.index.v1+json".to_owned(),
        format!("Digest:    {digest}"),
        format!("  Name:        {repository}@{}", amd64.publish().digest()),
        format!("  Name:        {repository}@{}", arm64.publish().digest()),
        "  MediaType:   application/vnd.oci.image.manifest.v1+json".to_owned(),
        "  Platform:    linux/arm64".to_owned(),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    let raw = fixture.run(["imagetools", "inspect", "--raw", &name]).ok().stdout;
    assert_eq!(sha256(&raw), digest);
    let one = format!("{repository}@{}", arm64.publish().digest());
    let shown = fixture.run(["imagetools", "inspect", &one]).ok().text();
    assert!(shown.starts_with(&format!("Name:      {one}\n")), "{shown}");
    assert!(!shown.contains("Manifests:"), "{shown}");
    let error = fixture.run(["imagetools", "inspect", &format!("{repository}:2")]).fails(1);
    assert!(error.contains("`2` not found"), "{error}");
    let error = fixture.run(["imagetools", "inspect", "UPPER:"]).fails(2);
    assert!(error.contains("cannot inspect `UPPER:`"), "{error}");
}
