//! One build for several platforms: an index, read by our oracle and by others, and a folder a platform.

use std::fs;
use std::process::Command;

use rbuild_testdata::{Entry, Image, ImageIndex, Layer, Layout, Registry, validate};
use serde_json::Value;

use crate::fixture::{Fixture, Ran, have, ran, read};

/// Runs nothing for arm64, so that no emulator is needed.
const DOCKERFILE: &str = "FROM --platform=$BUILDPLATFORM busybox AS tools\n\
    RUN echo made once > /made; cp /made /again\n\
    FROM base\n\
    ARG TARGETARCH\n\
    COPY for-$TARGETARCH /for\n\
    COPY --from=tools /made /made\n\
    ENV UNUSED=$nothing\n";
const BOTH: &str = "linux/amd64,linux/arm64";

/// A fixture whose context `base` is an image for both platforms.
fn fixture() -> Fixture {
    let fixture = Fixture::with(DOCKERFILE);
    fixture.write("for-amd64", "amd64");
    fixture.write("for-arm64", "arm64");
    let image = |architecture: &str| {
        let layer = Layer::new(&[Entry::file("arch", architecture)]);
        Image::new(&format!("linux/{architecture}")).layer(layer)
    };
    let index = ImageIndex::new().image(&image("amd64")).image(&image("arm64"));
    Layout::create(&fixture.path("base")).add(Some("latest"), &index.publish());
    fixture
}

fn build(fixture: &Fixture, args: &[&str]) -> Ran {
    let base = format!("base=oci-layout://{}:latest", fixture.path("base").display());
    fixture.build(&[&["--build-context", &base], args].concat())
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

fn skopeo(args: &[&str]) -> Vec<u8> {
    ran(Command::new("skopeo").args(args).output().expect("skopeo runs")).ok().stdout
}

fn is_amd64(test: &str) -> bool {
    let is = std::env::consts::ARCH == "x86_64";
    if !is {
        crate::fixture::skipped(test, "not on amd64");
    }
    is
}

#[test]
fn privileged_one_build_makes_an_index() {
    const TEST: &str = "privileged_one_build_makes_an_index";
    if !is_amd64(TEST) {
        return;
    }
    let fixture = fixture();
    let path = |name: &str| fixture.path(name).display().to_string();
    let spec = format!("type=oci,dest={}", path("app.tar"));
    let [id, metadata] = [path("id"), path("metadata.json")];
    let args = ["--platform", BOTH, "-t", "app:1", "-o", &spec, "--iidfile", &id];
    let built = build(&fixture, &[&args[..], &["--metadata-file", &metadata]].concat()).ok();
    let images = validate::oci_archive(&fs::read(path("app.tar")).expect("the archive"))
        .expect("a whole archive");
    let platforms: Vec<&str> = images.iter().map(|image| image.platform.as_str()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    for image in &images {
        let architecture = image.config["architecture"].as_str().expect("an architecture");
        let file = |name: &str| {
            let entry = image.layers.iter().rev().find_map(|layer| layer.entry(name));
            entry.expect("a file").content.clone()
        };
        assert_eq!(file("arch"), architecture.as_bytes());
        assert_eq!(file("for"), architecture.as_bytes());
        assert_eq!(file("made"), b"made once\n");
    }
    // The stage of the machine ran once, and steps say for what they are.
    let steps = built.steps_run();
    let count = |part: &str| steps.iter().filter(|step| step.contains(part)).count();
    assert_eq!(count("tools 1/2] RUN"), 1, "{steps:?}");
    assert_eq!(count("[linux/amd64 stage-1 1/3] COPY for-amd64 /for"), 1, "{steps:?}");
    assert_eq!(count("[linux/arm64 stage-1 1/3] COPY for-arm64 /for"), 1, "{steps:?}");
    assert_eq!(built.stderr.matches("UndefinedVar").count(), 1, "{}", built.stderr);
    for platform in ["amd64", "arm64"] {
        let line = format!("[linux/{platform} internal] load metadata for ");
        assert!(built.stderr.contains(&line), "{}", built.stderr);
    }
    let metadata = json(&fs::read(metadata).expect("metadata"));
    let digest = metadata["containerimage.digest"].as_str().expect("a digest");
    assert_eq!(fs::read_to_string(&id).expect("the id"), digest);
    assert_eq!(metadata["containerimage.config.digest"], Value::Null);
    assert_eq!(
        metadata["containerimage.descriptor"]["mediaType"],
        "application/vnd.oci.image.index.v1+json"
    );
    // All is known the next time, and the same comes out of it.
    let again = build(&fixture, &[&args[..], &["--metadata-file", &path("again.json")]].concat());
    assert_eq!(again.ok().steps_run(), Vec::<String>::new());
    let again = json(&fs::read(path("again.json")).expect("metadata"));
    assert_eq!(again["containerimage.digest"], digest);

    if !have(TEST, "skopeo") {
        return;
    }
    let from = format!("oci-archive:{}:1", path("app.tar"));
    let config = json(&skopeo(&["--override-arch=arm64", "inspect", "--config", &from]));
    assert_eq!(config["architecture"], "arm64");
    let layout = fixture.path("layout");
    let to = format!("oci:{}:1", layout.display());
    skopeo(&["copy", "--insecure-policy", "--all", &from, &to]);
    assert_eq!(validate::oci_layout(&layout).expect("a whole layout").len(), 2);
}

#[test]
fn privileged_an_index_is_pushed_and_stood_on() {
    const TEST: &str = "privileged_an_index_is_pushed_and_stood_on";
    if !is_amd64(TEST) || !have(TEST, "docker-registry") {
        return;
    }
    let registry = Registry::start();
    let fixture = fixture();
    let name = format!("{}/team/app:1", registry.address());
    // Repeated, too.
    let platforms = ["--platform", "linux/amd64", "--platform", "linux/arm64,linux/amd64"];
    build(&fixture, &[&platforms[..], &["-t", &name, "--push"]].concat()).ok();
    let index = json(&registry.manifest("team/app", "1").expect("the tag is there").bytes);
    let entries = index["manifests"].as_array().expect("a list");
    let architectures: Vec<&Value> =
        entries.iter().map(|entry| &entry["platform"]["architecture"]).collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    for entry in entries {
        let digest = entry["digest"].as_str().expect("a digest");
        assert!(registry.manifest("team/app", digest).is_some());
    }
    // Its parts are found here, and what is collected is not among them.
    fixture.run(["prune", "--all"]).ok();
    fixture.write("Dockerfile", format!("FROM {name}\nCOPY --from={name} /for /copied\n"));
    for architecture in ["amd64", "arm64"] {
        let platform = format!("linux/{architecture}");
        for store in ["store", "elsewhere"] {
            let out = fixture.path("out");
            let spec = format!("type=local,dest={}", out.display());
            fixture.build_in(store, &["--platform", &platform, "-o", &spec]).ok();
            assert_eq!(read(&out, "copied"), architecture);
            assert_eq!(read(&out, "arch"), architecture);
        }
    }
    if have(TEST, "skopeo") {
        let from = format!("docker://{name}");
        let args = ["--override-arch=arm64", "inspect", "--tls-verify=false", &from];
        assert_eq!(json(&skopeo(&args))["Architecture"], "arm64");
    }
}

#[test]
fn privileged_each_platform_has_a_folder() {
    const TEST: &str = "privileged_each_platform_has_a_folder";
    if !is_amd64(TEST) {
        return;
    }
    let fixture = fixture();
    let out = fixture.path("out");
    let local = |rest: &str| format!("type=local,dest={}{rest}", out.display());
    build(&fixture, &["--platform", BOTH, "-o", &local("")]).ok();
    assert_eq!(read(&out, "linux_amd64/for"), "amd64");
    assert_eq!(read(&out, "linux_arm64/for"), "arm64");
    let tar = build(&fixture, &["--platform", BOTH, "-o", "-"]).ok().stdout;
    let entries = validate::tar_entries(&tar).expect("a whole tar");
    let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    let each = |folder: &str| ["", "arch", "for", "made"].map(|name| format!("{folder}/{name}"));
    assert_eq!(paths, [each("linux_amd64"), each("linux_arm64")].concat());
    // One platform has the top unless it is said otherwise, either way.
    let one = ["--platform", "linux/arm64"];
    for (rest, argument, file) in [
        ("", "BUILDKIT_MULTI_PLATFORM=0", "for"),
        (",platform-split=true", "A=b", "linux_arm64/for"),
        ("", "BUILDKIT_MULTI_PLATFORM=1", "linux_arm64/for"),
        (",platform-split=false", "BUILDKIT_MULTI_PLATFORM=true", "for"),
    ] {
        fs::remove_dir_all(&out).expect("the folder goes");
        let args = ["-o", &local(rest), "--build-arg", argument];
        build(&fixture, &[&one[..], &args].concat()).ok();
        assert_eq!(read(&out, file), "arm64", "{rest} {argument}");
    }
    let id = fixture.path("id").display().to_string();
    let args = ["--build-arg", "BUILDKIT_MULTI_PLATFORM=1", "-t", "one", "--iidfile", &id];
    build(&fixture, &[&one[..], &args].concat()).ok();
    let inspected = json(&fixture.run(["inspect", "one"]).ok().stdout);
    assert_eq!(inspected[0]["Manifest"]["manifests"].as_array().map(Vec::len), Some(1));

    // Into one folder go files of different names only.
    let mixed = ["--platform", BOTH, "-o", &local(",platform-split=false")];
    let error = build(&fixture, &mixed).fails(1);
    assert!(error.contains("the files of linux/amd64 and linux/arm64 cannot be in one"), "{error}");
    assert_eq!(read(&out, "for"), "arm64", "nothing is written");
    fixture.write(
        "Dockerfile",
        "FROM scratch\nARG TARGETARCH\nCOPY for-$TARGETARCH /bin/app-$TARGETARCH\n",
    );
    fs::remove_dir_all(&out).expect("the folder goes");
    build(&fixture, &mixed).ok();
    assert_eq!(read(&out, "bin/app-amd64"), "amd64");
    assert_eq!(read(&out, "bin/app-arm64"), "arm64");
}

#[test]
fn what_several_platforms_cannot_be_is_refused_before_anything_runs() {
    let fixture = Fixture::with("FROM scratch\nCOPY Dockerfile /\n");
    let tar = fixture.path("x.tar").display().to_string();
    let docker = format!("type=docker,dest={tar}");
    let mixed = format!("type=tar,dest={tar},platform-split=false");
    for (args, part) in [
        (
            &["--platform", BOTH, "-o", &docker][..],
            "docker exporter does not currently support exporting manifest lists",
        ),
        (
            &["--build-arg", "BUILDKIT_MULTI_PLATFORM=1", "-o", &docker],
            "docker exporter does not currently support exporting manifest lists",
        ),
        (&["--platform", BOTH, "-o", &mixed], "is for one platform"),
        (&["--platform", "linux/amd64,nonsense"], "invalid --platform"),
    ] {
        let error = fixture.build(args).fails(2);
        assert!(error.contains(part), "{error}");
        assert!(!fixture.path("x.tar").exists());
    }
    let context = fixture.context().display().to_string();
    let error = fixture.run(["debug", "dump-llb", "--platform", BOTH, &context]).fails(2);
    assert!(error.contains("is for one --platform"), "{error}");
}

#[test]
fn privileged_several_platforms_share_one_cache() {
    const TEST: &str = "privileged_several_platforms_share_one_cache";
    if !is_amd64(TEST) {
        return;
    }
    let fixture = fixture();
    let cache = fixture.path("cache").display().to_string();
    let (to, from) =
        (format!("type=local,dest={cache},mode=max"), format!("type=local,src={cache}"));
    build(&fixture, &["--platform", BOTH, "--cache-to", &to, "-o", "type=cacheonly"]).ok();
    let base = format!("base=oci-layout://{}:latest", fixture.path("base").display());
    let args = ["--build-context", &base, "--cache-from", &from, "-o", "type=cacheonly"];
    for platforms in [BOTH, "linux/arm64"] {
        let again = [&args[..], &["--platform", platforms]].concat();
        let ran = fixture.build_in(&format!("new-{}", platforms.len()), &again).ok();
        assert_eq!(ran.steps_run(), Vec::<String>::new(), "{}", ran.stderr);
    }
    // A failed build explains itself as ever.
    fixture.write("Dockerfile", "FROM --platform=$BUILDPLATFORM busybox\nRUN false\n");
    let error = build(&fixture, &["--platform", BOTH]).fails(1);
    assert!(error.contains("RUN false") && error.contains("rbuild debug"), "{error}");
}

#[test]
fn privileged_an_index_is_shown_and_saved() {
    const TEST: &str = "privileged_an_index_is_shown_and_saved";
    if !is_amd64(TEST) {
        return;
    }
    let fixture = fixture();
    build(&fixture, &["--platform", BOTH, "-t", "app:1"]).ok();
    let line = json(&fixture.run(["images", "--json"]).ok().stdout);
    assert_eq!(line["platforms"], serde_json::json!(["linux/amd64", "linux/arm64"]));
    let whole = json(&fixture.run(["inspect", "app:1"]).ok().stdout);
    assert_eq!(whole[0]["Images"][1]["Config"]["architecture"], "arm64");
    assert_eq!(line["size"], whole[0]["Size"]);
    let one = json(&fixture.run(["inspect", "--platform", "linux/arm64", "app:1"]).ok().stdout);
    assert_eq!(one[0]["Digest"], whole[0]["Images"][1]["Digest"]);
    assert_eq!(one[0]["Config"]["architecture"], "arm64");
    let error = fixture.run(["inspect", "--platform", "linux/s390x", "app:1"]).fails(2);
    assert!(error.contains("not for linux/s390x, only for linux/amd64, linux/arm64"), "{error}");

    let all = fixture.run(["save", "--format=oci", "app:1"]).ok().stdout;
    let images = validate::oci_archive(&all).expect("a whole archive");
    assert_eq!(images.len(), 2);
    let error = fixture.run(["save", "app:1"]).fails(2);
    assert!(error.contains("does not currently support exporting manifest lists"), "{error}");
    assert!(error.contains("--platform takes one of linux/amd64, linux/arm64"), "{error}");
    let saved = fixture.run(["save", "--platform", "linux/arm64", "app:1"]).ok().stdout;
    let images = validate::docker_archive(&saved).expect("a whole archive");
    assert_eq!(images[0].platform, "linux/arm64");
    if have(TEST, "podman") {
        fs::write(fixture.path("all.tar"), all).expect("the archive");
        let root = fixture.path("podman").display().to_string();
        let podman = |args: &[&str]| {
            let mut command = Command::new("podman");
            command.args(["--root", &root, "--runroot", &format!("{root}-run")]);
            ran(command.args(["--storage-driver=vfs"]).args(args).output().expect("podman runs"))
                .ok()
        };
        let archive = format!("oci-archive:{}", fixture.path("all.tar").display());
        podman(&["pull", "--arch=arm64", &archive]);
        let shown = podman(&["images", "--format={{.Id}}"]).text();
        let id = shown.lines().next().expect("an image");
        let inspected = podman(&["inspect", "--format={{.Architecture}}", id]).text();
        assert_eq!(inspected.trim(), "arm64");
    }
}

#[test]
fn privileged_annotations_go_where_they_are_for() {
    let fixture = Fixture::with("FROM scratch\nCOPY Dockerfile /\n");
    let archive = fixture.path("app.tar").display().to_string();
    let spec = format!(
        "type=oci,dest={archive},annotation.a=less,annotation[linux/amd64].Own=x,\
         annotation-manifest-descriptor[linux/arm64].d=arm,annotation-index.e=f,annotation-index-descriptor.g=h"
    );
    let plain = fixture.path("plain.tar").display().to_string();
    let other = format!("type=oci,dest={plain}");
    let args = [
        "--platform",
        BOTH,
        "-o",
        &spec,
        "-o",
        &other,
        "--annotation",
        "a=all",
        "--annotation",
        "manifest[linux/arm64]:a=arm",
        "--annotation",
        "index,manifest-descriptor[linux/amd64]:b=two",
        "--annotation",
        "index-descriptor:c=d",
    ];
    fixture.build(&args).ok();
    let bytes = fs::read(&archive).expect("the archive");
    let images = validate::oci_archive(&bytes).expect("a whole archive");
    let own: Vec<&Value> = images.iter().map(|image| &image.manifest["annotations"]["a"]).collect();
    assert_eq!(own, ["all", "arm"]);
    assert_eq!(images[0].manifest["annotations"]["Own"], "x");
    assert_eq!(images[1].manifest["annotations"]["Own"], Value::Null);
    let others = validate::oci_archive(&fs::read(&plain).expect("the archive")).expect("whole");
    assert_eq!(others[0].manifest["annotations"], serde_json::json!({ "a": "all" }));
    let mut files = std::collections::BTreeMap::new();
    for entry in validate::tar_entries(&bytes).expect("a whole tar") {
        files.insert(entry.path, entry.content);
    }
    let layout = json(&files["index.json"]);
    assert_eq!(layout["manifests"][0]["annotations"]["c"], "d");
    assert_eq!(layout["manifests"][0]["annotations"]["g"], "h");
    let digest = layout["manifests"][0]["digest"].as_str().expect("a digest");
    let index = json(&files[&format!("blobs/{}", digest.replacen(':', "/", 1))]);
    assert_eq!(index["annotations"]["b"], "two");
    assert_eq!(index["manifests"][0]["annotations"]["b"], "two");
    assert_eq!(index["annotations"]["e"], "f");
    assert_eq!(index["manifests"][1]["annotations"], serde_json::json!({ "d": "arm" }));
    for (args, part) in [
        (&["--annotation", "a"][..], "expected KEY=VALUE"),
        (&["--annotation", "index:a=b"], "index annotations not supported for single platform"),
        (&["--annotation", "manifest[linux/s390x]:a=b"], "linux/s390x, which is not built"),
        (&["--annotation", "a=b", "-o", "out"], "no output is one"),
        (
            &["--annotation", "a=b", "-o", "type=image,oci-mediatypes=false"],
            "needs OCI's documents",
        ),
        (&["-o", "type=image,oci-mediatypes=false,annotation.a=b"], "needs OCI's documents"),
        (&["-o", "type=image,annotation-index.a=b"], "index annotations not supported"),
        (&["-o", "type=image,annotation[linux/s390x].a=b"], "linux/s390x, which is not built"),
        (&["-o", "type=local,dest=x,annotation.a=b"], "type=local is no image"),
        (
            &["--on-failure", "type=oci,dest=x,annotation-index.a=b"],
            "index annotations not supported",
        ),
    ] {
        let error = fixture.build(args).fails(2);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn privileged_an_image_is_pulled_for_all_platforms() {
    let registry = Registry::start();
    let (name, other) =
        (format!("{}/app:1", registry.address()), format!("{}/other:1", registry.address()));
    let fixture = Fixture::with(
        "FROM scratch AS all\nCOPY Dockerfile /\nFROM all\nARG TARGETARCH\nLABEL of=$TARGETARCH\n",
    );
    fixture.build(&["--platform", BOTH, "--provenance=true", "--push", "-t", &name]).ok();
    let pushed = registry.manifest("app", "1").expect("the index");
    let run = |args: &[&str]| {
        let mut command = fixture.command("elsewhere");
        // It is for those who say nothing.
        command.env("DOCKER_DEFAULT_PLATFORM", "linux/arm64").args(args);
        ran(command.output().expect("rbuild starts"))
    };
    let pulled = run(&["pull", "--all-platforms", &name]).ok().text();
    assert!(pulled.trim().ends_with(&pushed.digest()), "{pulled}");
    let archive = fixture.path("app.tar").display().to_string();
    run(&["save", "--format=oci", &name, "-o", &archive]).ok();
    let images = validate::oci_archive(&fs::read(&archive).expect("the archive")).expect("whole");
    let of: Vec<&Value> =
        images.iter().map(|image| &image.config["config"]["Labels"]["of"]).collect();
    assert_eq!(of, ["amd64", "arm64"]);
    run(&["tag", &name, &other]).ok();
    run(&["push", "--all-platforms", &other]).ok();
    assert_eq!(registry.manifest("other", "1").expect("the index").digest(), pushed.digest());
    let missing = format!("{}/missing:1", registry.address());
    assert!(run(&["pull", "--all-platforms", &missing]).fails(1).contains("cannot pull"));
}
