//! Caches that name, for a layer, what is not that layer: nothing that is made of them leaves the machine broken.

use std::fs;
use std::path::{Path, PathBuf};

use rbuild_testdata::{Entry, Layer, Registry, sha256, validate};
use serde_json::{Value, json};

use crate::fixture::{Fixture, Ran, ran, valid};

const STEPS: &str = "FROM busybox\nRUN echo one > /one\nRUN echo two > /two\n";

/// The documents of a cache in a layout folder.
struct Documents {
    folder: PathBuf,
    config: Value,
    manifest: Value,
}

impl Documents {
    fn read(folder: &Path) -> Self {
        let document = |path: PathBuf| -> Value {
            serde_json::from_slice(&fs::read(path).expect("a document")).expect("JSON")
        };
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().expect("a digest");
            document(folder.join("blobs/sha256").join(digest.trim_start_matches("sha256:")))
        };
        let manifest = blob(&document(folder.join("index.json"))["manifests"][0]);
        Self { folder: folder.to_owned(), config: blob(&manifest["config"]), manifest }
    }

    fn blob(&self, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let blobs = self.folder.join("blobs/sha256");
        fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).expect("a blob");
        digest
    }

    /// The layers that steps made, bottom first.
    fn made(&mut self) -> Vec<&mut Value> {
        let layers = self.config["layers"].as_array_mut().expect("layers");
        layers.iter_mut().filter(|layer| layer["annotations"]["createdAt"].is_string()).collect()
    }

    /// Puts another blob where one of the layers was.
    fn replace(&mut self, position: usize, blob: &[u8]) {
        let digest = self.blob(blob);
        let layer = &mut self.made()[position];
        let old = std::mem::replace(&mut layer["blob"], digest.clone().into());
        layer["annotations"]["size"] = blob.len().into();
        for listed in self.manifest["layers"].as_array_mut().expect("blobs") {
            if listed["digest"] == old {
                listed["digest"] = digest.clone().into();
                listed["size"] = blob.len().into();
            }
        }
    }

    fn write(&mut self) {
        let config = self.config.to_string();
        self.manifest["config"]["digest"] = self.blob(config.as_bytes()).into();
        self.manifest["config"]["size"] = config.len().into();
        let manifest = self.manifest.to_string();
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": self.blob(manifest.as_bytes()),
            "size": manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": "latest"},
        }]});
        fs::write(self.folder.join("index.json"), index.to_string()).expect("the index");
    }
}

struct World {
    fixture: Fixture,
    registry: Registry,
}

impl World {
    /// A cache of the steps.
    fn new() -> (Self, Documents) {
        let world = Self { fixture: Fixture::with(STEPS), registry: Registry::start() };
        let folder = world.fixture.path("cache");
        let to = format!("type=local,mode=max,dest={}", folder.display());
        world.fixture.build(&["-o", "type=cacheonly", "--cache-to", &to]).ok();
        let documents = Documents::read(&folder);
        (world, documents)
    }

    fn build(&self, store: &str, args: &[&str]) -> Ran {
        let from = format!("type=local,src={}", self.fixture.path("cache").display());
        self.fixture.build_in(store, &[&["--cache-from", &from][..], args].concat())
    }

    fn push(&self, store: &str) -> Ran {
        let name = format!("{}/{store}:1", self.registry.address());
        self.build(store, &["-t", &name, "--push"]).ok()
    }

    /// What is in the registry, all of which is right.
    fn pushed(&self, repository: &str) -> validate::ValidImage {
        let manifest = self.registry.manifest(repository, "1").expect("an image");
        let folder = self.fixture.path(&format!("{repository}-pushed"));
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("a folder");
        let put = |digest: &str, bytes: &[u8]| {
            fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).expect("a blob");
        };
        put(&manifest.digest(), &manifest.bytes);
        let parsed: Value = serde_json::from_slice(&manifest.bytes).expect("JSON");
        let layers = parsed["layers"].as_array().expect("layers");
        for blob in layers.iter().chain([&parsed["config"]]) {
            let digest = blob["digest"].as_str().expect("a digest");
            put(digest, &fs::read(self.registry.blob_path(digest)).expect("the blob"));
        }
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
        let index = json!({"schemaVersion": 2, "manifests": [manifest.descriptor()]});
        fs::write(folder.join("index.json"), index.to_string()).expect("the index");
        let images = validate::oci_layout(&folder);
        images.unwrap_or_else(|error| panic!("{error}")).into_iter().next().expect("an image")
    }
}

const PROMISED: &str = "that a cache promised cannot be had";

#[test]
fn privileged_another_blob_for_a_layer_is_not_pushed() {
    let (world, mut documents) = World::new();
    let other = Layer::new(&[Entry::file("evil", "evil")]);
    documents.replace(0, &other.blob);
    documents.write();
    let built = world.push("other");
    assert!(built.stderr.contains(PROMISED), "{}", built.stderr);
    assert!(built.stderr.contains("has diff id"), "{}", built.stderr);
    world.pushed("other");

    // It was kept without its layers, and is pushed or saved later.
    let name = format!("{}/late:1", world.registry.address());
    let lazy = format!("type=image,name={name},store-allow-incomplete=true");
    world.build("late", &["-o", &lazy]).ok();
    let archive = world.fixture.path("late.tar").display().to_string();
    for args in [&["push", &name][..], &["save", &name, "-o", &archive]] {
        let saved = world.fixture.command("late").args(args).output();
        let error = ran(saved.expect("rbuild starts")).fails(1);
        assert!(error.contains("has diff id"), "{error}");
    }
    assert_eq!(world.registry.manifest("late", "1"), None);
    world.fixture.build_in("late", &["-t", &name, "--push"]).ok();
    world.pushed("late");
}

#[test]
fn privileged_the_blob_of_another_layer_is_not_taken_from_the_registry() {
    let (world, mut documents) = World::new();
    let layers = documents.config["layers"].as_array().expect("layers").clone();
    let base = layers.iter().find(|layer| layer["parent"] == -1).expect("the base image's layer");
    let hex = base["blob"].as_str().expect("a digest").trim_start_matches("sha256:");
    let base = fs::read(documents.folder.join("blobs/sha256").join(hex)).expect("the blob");
    documents.replace(1, &base);
    documents.write();
    world.push("base");
    world.pushed("base");
}

#[test]
fn privileged_a_cache_does_not_decide_how_a_layer_is_compressed() {
    let (world, mut documents) = World::new();
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    for layer in documents.made() {
        layer["annotations"]["mediaType"] = zstd.into();
    }
    documents.write();
    let built = world.push("typed");
    assert!(built.stderr.contains("is not compressed as its type"), "{}", built.stderr);
    world.pushed("typed");
    let archive = world.fixture.path("typed.tar");
    // As an archive; and where the files were needed first.
    for (store, dockerfile) in
        [("archive", STEPS.to_owned()), ("files", format!("{STEPS}RUN true\n"))]
    {
        world.fixture.write("Dockerfile", dockerfile);
        world.build(store, &["-o", &format!("type=oci,dest={}", archive.display())]).ok();
        valid("oci", &archive);
    }
}
