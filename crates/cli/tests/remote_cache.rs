//! Caches for other machines: another store stands for another machine.

use std::fs;
use std::path::{Path, PathBuf};

use rbuild_testdata::{Registry, sha256};

use crate::fixture::{Fixture, Ran, ran, read, valid};

const TWO_STAGES: &str = "FROM busybox AS made\n\
    COPY source /source\n\
    RUN wc -c < /source > /size; cat /proc/sys/kernel/random/uuid > /id\n\
    FROM busybox\n\
    COPY --from=made /size /size\n\
    COPY --link source /linked\n\
    RUN cp /size /final; cat /proc/sys/kernel/random/uuid > /final-id\n";

fn fixture() -> Fixture {
    let fixture = Fixture::with(TWO_STAGES);
    fixture.write("source", "text");
    fixture
}

fn to(fixture: &Fixture, more: &str) -> String {
    format!("type=local,dest={}{more}", fixture.path("cache").display())
}

fn from(fixture: &Fixture) -> String {
    format!("type=local,src={}", fixture.path("cache").display())
}

fn oci(fixture: &Fixture, name: &str) -> (String, PathBuf) {
    let path = fixture.path(name);
    (format!("type=oci,dest={}", path.display()), path)
}

/// The instructions that ran.
fn instructions(ran: &Ran) -> Vec<String> {
    let is_one = |step: &String| step.contains("RUN ") || step.contains("COPY ");
    ran.steps_run().into_iter().filter(is_one).collect()
}

fn blobs(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache.join("blobs/sha256")).expect("the blobs");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

fn layers_here(fixture: &Fixture, store: &str) -> usize {
    fs::read_dir(fixture.path(store).join("layers")).map_or(0, Iterator::count)
}

fn config(cache: &Path) -> serde_json::Value {
    let read = |path: PathBuf| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).expect("a document")).expect("JSON")
    };
    let blob = |digest: &serde_json::Value| {
        let hex = digest.as_str().expect("a digest").trim_start_matches("sha256:");
        cache.join("blobs/sha256").join(hex)
    };
    let index = read(cache.join("index.json"));
    let manifest = read(blob(&index["manifests"][0]["digest"]));
    assert_eq!(
        manifest["config"]["mediaType"], "application/vnd.buildkit.cacheconfig.v0",
        "{manifest}"
    );
    read(blob(&manifest["config"]["digest"]))
}

#[test]
fn privileged_another_machine_runs_nothing() {
    let fixture = fixture();
    let (one, first) = oci(&fixture, "one.tar");
    fixture.build(&["-o", &one, "--cache-to", &to(&fixture, ",mode=max")]).ok();
    let cache = from(&fixture);
    // Nothing has to be fetched to know that there is nothing to do.
    let known = fixture.build_in("other", &["--cache-from", &cache, "-o", "type=cacheonly"]).ok();
    assert_eq!(instructions(&known), [""; 0], "{}", known.stderr);
    assert!(known.stderr.contains("importing cache manifest from local:"), "{}", known.stderr);
    assert_eq!(layers_here(&fixture, "other"), 0);
    let (two, second) = oci(&fixture, "two.tar");
    let built = fixture.build_in("other", &["--cache-from", &cache, "-o", &two]).ok();
    assert_eq!(instructions(&built), [""; 0], "{}", built.stderr);
    assert_eq!(layers_here(&fixture, "other"), 0, "an archive takes blobs, not files");
    assert_eq!(valid("oci", &first).manifest_digest, valid("oci", &second).manifest_digest);
    // What is imported is exported the same.
    let again = format!("type=local,mode=max,dest={}", fixture.path("again").display());
    fixture.build_in("other", &["-o", "type=cacheonly", "--cache-to", &again]).ok();
    assert_eq!(config(&fixture.path("cache")), config(&fixture.path("again")));
}

#[test]
fn privileged_a_change_builds_on_the_cache() {
    let fixture = fixture();
    fixture.build(&["-o", "type=cacheonly", "--cache-to", &to(&fixture, ",mode=max")]).ok();
    // The size stays: by content, all after it is known.
    fixture.write("Dockerfile", TWO_STAGES.replace("AS made\n", "AS made\nENV changed=1\n"));
    let cache = from(&fixture);
    let built = fixture.build_in("other", &["--cache-from", &cache, "-o", "type=cacheonly"]).ok();
    let ran = instructions(&built);
    assert!(ran.iter().all(|step| step.contains("made")), "{}", built.stderr);
    // A new last step gets the files of those before it from the cache.
    fixture.write("Dockerfile", format!("{TWO_STAGES}RUN cat /final > /more\n"));
    let out = fixture.path("out");
    let spec = format!("type=local,dest={}", out.display());
    let built = fixture.build_in("third", &["--cache-from", &cache, "-o", &spec]).ok();
    assert_eq!(instructions(&built).len(), 1, "{}", built.stderr);
    assert_eq!(read(&out, "more").trim(), "4");
}

#[test]
fn privileged_min_has_the_image_only() {
    let fixture = fixture();
    fixture.build(&["-o", "type=cacheonly", "--cache-to", &to(&fixture, "")]).ok();
    let few = blobs(&fixture.path("cache")).len();
    let names = config(&fixture.path("cache")).to_string();
    assert!(!names.contains("wc -c") && names.contains("cp /size"), "{names}");
    fixture.build(&["-o", "type=cacheonly", "--cache-to", &to(&fixture, ",mode=max")]).ok();
    assert!(blobs(&fixture.path("cache")).len() > few);
    assert!(config(&fixture.path("cache")).to_string().contains("wc -c"));
    // Other names stay, until they are to go.
    fixture.build(&["-o", "type=cacheonly", "--cache-to", &to(&fixture, ",tag=b,reset=true")]).ok();
    assert_eq!(blobs(&fixture.path("cache")).len(), few);
    let error = fixture.build_in("other", &["--cache-from", &from(&fixture)]).ok().stderr;
    assert!(error.contains("has no image `latest`; it has `b`"), "{error}");
}

#[test]
fn privileged_a_failed_build_exports_what_was_finished() {
    let fixture = fixture();
    fixture.write("Dockerfile", format!("{TWO_STAGES}RUN false\n"));
    fixture.build(&["--cache-to", &to(&fixture, ",on-failure=false")]).fails(1);
    assert!(!fixture.path("cache").exists());
    fixture.build(&["--cache-to", &to(&fixture, "")]).fails(1);
    fixture.write("Dockerfile", TWO_STAGES);
    let built =
        fixture.build_in("other", &["--cache-from", &from(&fixture), "-o", "type=cacheonly"]).ok();
    assert_eq!(instructions(&built), [""; 0], "{}", built.stderr);
}

#[test]
fn privileged_a_broken_cache_costs_a_build() {
    let fixture = fixture();
    let cache = from(&fixture);
    let out = fixture.path("out");
    let spec = format!("type=local,dest={}", out.display());
    // It is not there.
    let built = fixture.build_in("none", &["--cache-from", &cache, "-o", "type=cacheonly"]).ok();
    assert!(built.stderr.contains("WARN: the cache is not used"), "{}", built.stderr);
    assert_eq!(instructions(&built).len(), 6, "{}", built.stderr);
    // Blobs that it names are other blobs, or gone.
    fixture.build(&["-o", "type=cacheonly", "--cache-to", &to(&fixture, ",mode=max")]).ok();
    let layers = config(&fixture.path("cache"))["layers"].clone();
    let own: Vec<&serde_json::Value> = layers
        .as_array()
        .expect("layers")
        .iter()
        .filter(|layer| layer["annotations"]["createdAt"].is_string())
        .collect();
    assert!(own.len() >= 3, "{layers}");
    for layer in &own {
        let hex = layer["blob"].as_str().expect("a digest").trim_start_matches("sha256:");
        let path = fixture.path("cache").join("blobs/sha256").join(hex);
        let size = fs::metadata(&path).expect("the blob").len() as usize;
        fs::write(&path, vec![7; size]).expect("another blob");
    }
    let built = fixture.build_in("lies", &["--cache-from", &cache, "-o", &spec]).ok();
    assert!(built.stderr.contains("that a cache promised cannot be had"), "{}", built.stderr);
    assert_eq!(read(&out, "final").trim(), "4");
    fixture.build_in("gone", &["--cache-from", &cache, "-o", "type=cacheonly"]).ok();
    fs::remove_dir_all(fixture.path("cache")).expect("the cache");
    let built = fixture.build_in("gone", &["-o", &spec]).ok();
    assert!(built.stderr.contains("that a cache promised cannot be had"), "{}", built.stderr);
    // And also where only the image is written, or the next cache.
    fixture.build_in("lies", &["-o", "type=cacheonly", "--cache-to", &to(&fixture, "")]).ok();
    fixture.build_in("late", &["--cache-from", &cache, "-o", "type=cacheonly"]).ok();
    fs::remove_dir_all(fixture.path("cache").join("blobs")).expect("the blobs");
    let (archive, path) = oci(&fixture, "late.tar");
    let built = fixture.build_in("late", &["-o", &archive]).ok();
    assert!(built.stderr.contains("that a cache promised cannot be had"), "{}", built.stderr);
    valid("oci", &path);
}

#[test]
fn privileged_what_is_damaged_in_a_folder_is_written_again() {
    let fixture = fixture();
    let image = fixture.path("image");
    let output = format!("type=oci,tar=false,dest={}", image.display());
    let write = || fixture.build(&["-o", &output, "--cache-to", &to(&fixture, ",mode=max")]).ok();
    write();
    for folder in [image.clone(), fixture.path("cache")] {
        for path in blobs(&folder) {
            let size = fs::metadata(&path).expect("the blob").len() as usize;
            fs::write(&path, vec![7; size]).expect("another blob");
        }
        write();
        for path in blobs(&folder) {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            assert_eq!(sha256(&fs::read(&path).expect("the blob")), format!("sha256:{name}"));
        }
    }
    let cache = ["--cache-from", &from(&fixture), "-o", "type=cacheonly"];
    assert_eq!(instructions(&fixture.build_in("other", &cache).ok()), [""; 0]);
}

#[test]
fn privileged_an_image_that_is_kept_needs_no_cache() {
    let fixture = fixture();
    fixture.build(&["-o", "type=cacheonly", "--cache-to", &to(&fixture, ",mode=max")]).ok();
    let cache = from(&fixture);
    let saved = fixture.path("saved.tar").display().to_string();
    let save = |store: &str| {
        let mut command = fixture.command(store);
        command.args(["save", "app", "--format=oci", "-o", &saved]);
        ran(command.output().expect("rbuild starts"))
    };
    let incomplete = "type=image,store-allow-incomplete=true";
    for (store, more) in [("whole", &[][..]), ("lazy", &["-o", incomplete])] {
        let args = [&["--cache-from", &cache, "-t", "app"], more].concat();
        let built = fixture.build_in(store, &args).ok();
        assert_eq!(instructions(&built), [""; 0], "{}", built.stderr);
    }
    assert_eq!(layers_here(&fixture, "whole"), 0, "an image takes blobs, not files");
    fs::remove_dir_all(fixture.path("cache")).expect("the cache");
    save("whole").ok();
    valid("oci", &fixture.path("saved.tar"));
    let error = save("lazy").fails(1);
    assert!(error.contains("cannot fetch a layer of the image: "), "{error}");
    assert!(error.contains("/cache`") && error.contains("build the image again"), "{error}");
    // That makes it whole.
    let built = fixture.build_in("lazy", &["-t", "app"]).ok();
    assert!(built.stderr.contains("that a cache promised cannot be had"), "{}", built.stderr);
    assert!(!built.stderr.contains("ERROR"), "{}", built.stderr);
    save("lazy").ok();
    valid("oci", &fixture.path("saved.tar"));
}

#[test]
fn privileged_what_cannot_be_exported_is_an_error() {
    let fixture = fixture();
    fs::write(fixture.path("cache"), "a file").expect("a file");
    let error = fixture.build(&["-o", "type=cacheonly", "--cache-to", &to(&fixture, "")]).fails(1);
    assert!(error.contains("failed to export the cache: cannot create"), "{error}");
    assert!(error.contains("ignore-error=true"), "{error}");
    let ignoring = to(&fixture, ",ignore-error=true");
    let built = fixture.build(&["-o", "type=cacheonly", "--cache-to", &ignoring]).ok();
    assert!(built.stderr.contains("WARN: the cache was not exported"), "{}", built.stderr);
    let quiet = fixture.build(&["-q", "-o", "type=cacheonly", "--cache-to", &ignoring]).ok();
    assert!(quiet.stderr.starts_with("WARN: the cache was not exported"), "{}", quiet.stderr);
    assert_eq!(quiet.stderr.lines().count(), 1, "{}", quiet.stderr);
    let folder = fixture.path("images").display().to_string();
    let output = format!("type=oci,dest={folder},tar=false,name=z:1");
    let reset = format!("type=local,dest={folder}/../images,reset=true");
    let error = fixture.build(&["-o", &output, "--cache-to", &reset]).fails(2);
    assert!(error.contains("reset=true removes all other names"), "{error}");
    let pinned = format!("type=registry,ref=localhost:1/x:t@sha256:{}", "0".repeat(64));
    let error = fixture.build(&["--cache-to", &pinned]).fails(2);
    assert!(error.contains("has a digest: a cache is written under a tag"), "{error}");
    let twice = ["--cache-to", &to(&fixture, ""), "--cache-to", &to(&fixture, ",mode=max")];
    assert!(fixture.build(&twice).fails(2).contains("two --cache-to go to"));
    let error = fixture.build(&["--cache-from", "type=gha,scope=x"]).fails(2);
    assert!(error.contains("type=gha is not supported yet"), "{error}");
}

#[test]
fn privileged_a_hostile_cache_is_a_warning() {
    let fixture = fixture();
    fixture
        .build(&["-o", "type=cacheonly", "--cache-to", &to(&fixture, ",image-manifest=false")])
        .ok();
    let cache = from(&fixture);
    let built = fixture.build_in("other", &["--cache-from", &cache, "-o", "type=cacheonly"]).ok();
    assert!(!instructions(&built).iter().any(|step| step.contains("cp /size")), "an index will do");
    let publish = |config: &str| {
        let blob = |bytes: &[u8]| {
            let digest = sha256(bytes);
            let hex = digest.trim_start_matches("sha256:").to_owned();
            fs::write(fixture.path("cache").join("blobs/sha256").join(hex), bytes).expect("a blob");
            digest
        };
        let config_digest = blob(config.as_bytes());
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.buildkit.cacheconfig.v0","digest":"{config_digest}","size":{}}},"layers":[]}}"#,
            config.len()
        );
        let digest = blob(manifest.as_bytes());
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"latest"}}}}]}}"#,
            manifest.len()
        );
        fs::write(fixture.path("cache").join("index.json"), index).expect("the index");
    };
    let blob = format!("sha256:{}", "0".repeat(64));
    for (config, reason) in [
        ("[", "cannot be understood".to_owned()),
        (
            &*format!(r#"{{"layers":[{{"blob":"{blob}"}}]}}"#),
            format!("of the blob `{blob}` it does not say what it is"),
        ),
    ] {
        publish(config);
        let built = fixture.build_in("bad", &["--cache-from", &cache, "-o", "type=cacheonly"]).ok();
        assert!(built.stderr.contains(&reason), "{}", built.stderr);
    }
}

#[test]
fn privileged_a_registry_keeps_a_cache() {
    let registry = Registry::start();
    let fixture = fixture();
    let name = format!("{}/cache", registry.address());
    let (one, first) = oci(&fixture, "one.tar");
    let to = format!("type=registry,ref={name},mode=max");
    fixture.build(&["-o", &one, "--cache-to", &to]).ok();
    let written = registry.manifest("cache", "latest").expect("a cache").digest();
    let known = fixture.build_in("other", &["--cache-from", &name, "-o", "type=cacheonly"]).ok();
    assert_eq!(instructions(&known), [""; 0], "{}", known.stderr);
    assert_eq!(layers_here(&fixture, "other"), 0);
    let (two, second) = oci(&fixture, "two.tar");
    let built = fixture.build_in("other", &["-o", &two, "--cache-to", &to]).ok();
    assert_eq!(valid("oci", &first).manifest_digest, valid("oci", &second).manifest_digest);
    assert_eq!(registry.manifest("cache", "latest").expect("a cache").digest(), written);
    assert!(!built.stderr.contains("pushing layers"), "{}", built.stderr);
    // An image is no cache, and nothing is none either.
    fixture.build(&["-t", &format!("{}/app", registry.address()), "--push"]).ok();
    for (name, reason) in [("app", "it is an image without a cache"), ("none", "none")] {
        let name = format!("{}/{name}", registry.address());
        let built = fixture.build_in(
            "third",
            &["--cache-from", &name, "-o", "type=cacheonly", "--cache-to", "localhost:1/x"],
        );
        let error = built.fails(1);
        assert!(error.contains("WARN: the cache is not used") && error.contains(reason), "{error}");
        assert!(error.contains("failed to export the cache"), "{error}");
    }
}

#[test]
fn privileged_all_layers_of_a_cache_may_be_compressed_alike() {
    let fixture = fixture();
    let types = |more: &str| {
        fixture.build(&["-o", "type=cacheonly", "--cache-to", &to(&fixture, more)]).ok();
        let layers = config(&fixture.path("cache"))["layers"].as_array().expect("layers").clone();
        let of = |layer: &serde_json::Value| layer["annotations"]["mediaType"].to_string();
        layers.iter().map(|layer| of(layer).contains("+zstd")).collect::<Vec<_>>()
    };
    assert!(types(",mode=max,compression=zstd").contains(&false), "the base image's is gzip");
    assert!(!types(",mode=max,compression=zstd,force-compression=true").contains(&false));
    let (one, archive) = oci(&fixture, "one.tar");
    let built = fixture.build_in("other", &["--cache-from", &from(&fixture), "-o", &one]).ok();
    assert_eq!(instructions(&built), [""; 0], "{}", built.stderr);
    valid("oci", &archive);
}
