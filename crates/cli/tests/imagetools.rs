//! Indexes at registries: made of what is there, shown, and added to by several at once.

use std::process::Command;

use rbuild_testdata::{
    Entry, Image, ImageIndex, Layer, Registry, Reply, Scripted, sha256, validate,
};
use serde_json::{Value, json};

use crate::fixture::{Fixture, have, ran};

fn image(architecture: &str, content: &str) -> Image {
    Image::new(&format!("linux/{architecture}")).layer(Layer::new(&[Entry::file("f", content)]))
}

fn index(registry: &Registry, repository: &str, tag: &str) -> Value {
    let there = registry.manifest(repository, tag).expect("the tag is there");
    serde_json::from_slice(&there.bytes).expect("JSON")
}

/// `architecture digest` of each entry.
fn entries(index: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = index["manifests"].as_array().expect("an index").iter();
    entries
        .map(|entry| (text(&entry["platform"]["architecture"]), text(&entry["digest"])))
        .collect()
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
    let formatted = |template: &str| {
        let args = ["imagetools", "inspect", "--format", template, &name];
        fixture.run(args).ok().text()
    };
    assert_eq!(formatted("{{.Manifest.Digest}}"), format!("{digest}\n"));
    let manifest: Value = serde_json::from_str(&formatted("{{json .Manifest}}")).expect("JSON");
    assert_eq!(manifest["manifests"].as_array().map(Vec::len), Some(2), "{manifest}");
    let args = ["imagetools", "inspect", "--format", "{{range .}}", &name];
    assert!(fixture.run(args).fails(2).contains("--raw prints the document"));
    let one = format!("{repository}@{}", arm64.publish().digest());
    let shown = fixture.run(["imagetools", "inspect", &one]).ok().text();
    assert!(shown.starts_with(&format!("Name:      {one}\n")), "{shown}");
    assert!(!shown.contains("Manifests:"), "{shown}");
    let error = fixture.run(["imagetools", "inspect", &format!("{repository}:2")]).fails(1);
    assert!(error.contains("`2` not found"), "{error}");
    let error = fixture.run(["imagetools", "inspect", "UPPER:"]).fails(2);
    assert!(error.contains("cannot inspect `UPPER:`"), "{error}");
}

#[test]
fn an_index_is_made_of_images_of_several_registries() {
    const TEST: &str = "an_index_is_made_of_images_of_several_registries";
    if !have(TEST, "docker-registry") {
        return;
    }
    let (here, there) = (Registry::start(), Registry::start());
    let (amd64, arm64) = (image("amd64", "a").publish(), image("arm64", "b").publish());
    let other = image("arm64", "c").publish();
    here.push("one", "amd64", &amd64);
    here.push("app", "old", &other);
    there.push("two", "arm64", &arm64);
    let fixture = Fixture::new();
    let at = |registry: &Registry, rest: &str| format!("{}/{rest}", registry.address());
    let (first, second) = (at(&here, "one:amd64"), at(&there, "two:arm64"));
    let name = at(&here, "app:1");
    let create = ["imagetools", "create", "-t", &name];
    let annotation = "manifest-descriptor[linux/arm64]:of=arm64";
    let args =
        ["--annotation", "note=1", "--annotation", annotation, &other.digest(), &first, &second];
    let dry = fixture.run([&create[..], &args, &["--dry-run"]].concat()).ok();
    assert!(here.manifest("app", "1").is_none());
    let made = fixture.run([&create[..], &args].concat()).ok();
    let index_there = index(&here, "app", "1");
    let dry: Value = serde_json::from_slice(&dry.stdout).expect("JSON");
    assert_eq!(dry, index_there);
    // Of two for one platform the last counts.
    let expected = [("arm64".to_owned(), arm64.digest()), ("amd64".to_owned(), amd64.digest())];
    assert_eq!(entries(&index_there), expected);
    assert_eq!(index_there["annotations"]["note"], "1");
    assert_eq!(index_there["manifests"][0]["annotations"]["of"], "arm64");
    let digest = here.manifest("app", "1").expect("the tag").digest();
    assert_eq!(made.text(), format!("{name}@{digest}\n"));
    let shown = fixture.run(["imagetools", "inspect", &name]).ok().text();
    for line in [
        format!("Name:      {name}"),
        format!("Digest:    {digest}"),
        format!("  Name:        {}@{}", at(&here, "app"), amd64.digest()),
        "  Platform:    linux/arm64".to_owned(),
        "    of: arm64".to_owned(),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    let raw = fixture.run(["imagetools", "inspect", "--raw", &name]).ok().stdout;
    assert_eq!(sha256(&raw), digest);
    // A copy of an index is the same index.
    let copy = at(&there, "copy:2");
    fixture.run(["imagetools", "create", "-t", &copy, &name]).ok();
    assert_eq!(there.manifest("copy", "2").expect("the tag").digest(), digest);
    if have(TEST, "skopeo") {
        let layout = fixture.path("layout");
        let copied = Command::new("skopeo")
            .args(["copy", "--insecure-policy", "--src-tls-verify=false", "--all"])
            .args([format!("docker://{copy}"), format!("oci:{}:1", layout.display())])
            .output();
        ran(copied.expect("skopeo runs")).ok();
        let images = validate::oci_layout(&layout).expect("a whole layout");
        assert_eq!(images[1].layers[0].entry("f").expect("the file").content, b"a");
    }
}

#[test]
fn what_is_appended_replaces_its_platform_only() {
    if !have("what_is_appended_replaces_its_platform_only", "docker-registry") {
        return;
    }
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.address());
    let (amd64, arm64) = (image("amd64", "a"), image("arm64", "b"));
    registry.push("app", "1", &ImageIndex::new().image(&amd64).image(&arm64).publish());
    let (newer, s390x) = (image("amd64", "new").publish(), image("s390x", "s").publish());
    registry.push("app", "newer", &newer);
    registry.push("app", "s390x", &s390x);
    let fixture = Fixture::new();
    let create = ["imagetools", "create", "--append", "-t", &name];
    fixture.run([&create[..], &[&newer.digest(), &s390x.digest()]].concat()).ok();
    let expected = [
        ("amd64".to_owned(), newer.digest()),
        ("arm64".to_owned(), arm64.publish().digest()),
        ("s390x".to_owned(), s390x.digest()),
    ];
    assert_eq!(entries(&index(&registry, "app", "1")), expected);
}

#[test]
fn privileged_several_machines_push_to_one_tag() {
    const TEST: &str = "privileged_several_machines_push_to_one_tag";
    if !have(TEST, "docker-registry") {
        return;
    }
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.address());
    let fixture = Fixture::with("FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /of-$TARGETARCH\n");
    // Two of them for one platform: one replaces the other, and neither goes on for ever.
    let machines = ["amd64", "amd64", "arm64", "s390x"];
    let stores = ["one", "two", "three", "four"];
    for (store, architecture) in stores.iter().zip(machines) {
        let platform = format!("linux/{architecture}");
        fixture.build_in(store, &["--platform", &platform, "-t", &name]).ok();
    }
    let pushes: Vec<_> = stores
        .iter()
        .map(|store| {
            let mut command = fixture.command(store);
            command.args(["push", "--partial", &name]).stdout(std::process::Stdio::piped());
            command.stderr(std::process::Stdio::piped()).spawn().expect("rbuild starts")
        })
        .collect();
    for push in pushes {
        ran(push.wait_with_output().expect("rbuild ends")).ok();
    }
    let mut there: Vec<String> = entries(&index(&registry, "app", "1"))
        .into_iter()
        .map(|(architecture, _)| architecture)
        .collect();
    there.sort_unstable();
    assert_eq!(there, ["amd64", "arm64", "s390x"]);
}

#[test]
fn privileged_a_cache_is_no_image() {
    if !have("privileged_a_cache_is_no_image", "docker-registry") {
        return;
    }
    let registry = Registry::start();
    let fixture = Fixture::with("FROM scratch\nCOPY Dockerfile /\n");
    let (cache, tag) =
        (format!("{}/c:1", registry.address()), format!("{}/a:1", registry.address()));
    let to = format!("type=registry,ref={cache}");
    fixture.build(&["-o", "type=cacheonly", "--cache-to", &to]).ok();
    let error = fixture.run(["imagetools", "create", "-t", &tag, &cache]).fails(2);
    assert!(error.contains("is a build cache, and no image"), "{error}");
}

#[test]
fn what_cannot_be_made_is_refused() {
    let fixture = Fixture::new();
    for (args, part) in [
        (&["x"][..], "please set --tag or --dry-run"),
        (&["--dry-run", "--append", "x"], "--append adds to what --tag names"),
        (&["-t", "localhost:1/x"], "name at least one image"),
        (&["-t", "localhost:1/x", "--annotation", "manifest:a=b", "y"], "a manifest gets none"),
        (&["-t", "localhost:1/x", "-f", "nowhere"], "cannot read a descriptor from `nowhere`"),
        (&["--dry-run", &format!("sha256:{}", "0".repeat(64))], "--tag, which is missing"),
    ] {
        let error = fixture.run([&["imagetools", "create"][..], args].concat()).fails(2);
        assert!(error.contains(part), "{error}");
    }
    let error = fixture.run(["imagetools", "inspect", "localhost:1/x"]).fails(1);
    assert!(error.contains("cannot inspect `localhost:1/x`"), "{error}");
}

#[test]
fn hostile_indexes_come_to_an_end() {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let config =
        r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": sha256(config.as_bytes()),
            "size": config.len(),
        },
        "layers": [],
    });
    let entry = |document: &Value| {
        let bytes = document.to_string();
        let media_type = &document["mediaType"];
        json!({ "mediaType": media_type, "digest": sha256(bytes.as_bytes()), "size": bytes.len() })
    };
    let index = |manifests: Vec<Value>| json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    let lower = index(vec![entry(&manifest); 300]);
    let upper = index(vec![entry(&lower); 300]);
    let for_architecture = |number: u32| {
        let mut entry = entry(&manifest);
        entry["platform"] = json!({ "os": "linux", "architecture": format!("a{number}") });
        entry
    };
    let wide = index((0..1001).map(for_architecture).collect());
    let mut small = entry(&manifest);
    small["size"] = json!(1);
    let wrong = index(vec![small]);
    let documents =
        [("many", upper), ("wide", wide), ("wrong", wrong), ("", lower), ("", manifest)];
    let registry = Scripted::start(move |request, _| {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        let found = documents.iter().find(|(tag, document)| {
            name == *tag || name == sha256(document.to_string().as_bytes())
        });
        match found {
            _ if name.is_empty() => Reply::new(200, "{}"),
            Some((_, document)) => Reply::new(200, document.to_string())
                .header("Content-Type", document["mediaType"].as_str().unwrap_or_default()),
            None if name == sha256(config.as_bytes()) => Reply::new(200, config),
            None => Reply::new(404, ""),
        }
    });
    let fixture = Fixture::new();
    let create = |tag: &str| {
        let [new, old] = ["new", tag].map(|tag| format!("{}/app:{tag}", registry.address()));
        fixture.run(["imagetools", "create", "--dry-run", "-t", &new, &old])
    };
    create("many").ok();
    let asked = registry.requests().len();
    assert!(asked < 20, "{asked} requests");
    for (tag, message) in [
        ("wide", "its indexes have more than 1000 entries"),
        ("wrong", "bytes, its descriptor says 1"),
    ] {
        let error = create(tag).fails(1);
        assert!(error.contains(message), "{tag}: {error}");
    }
}
