//! Every output is read back by others and by our own oracle.

use std::fs;
use std::process::Command;

use crate::fixture::{Fixture, have, ran, read, valid};

const FILES_ONLY: &str = "FROM busybox\n\
    LABEL a=b\n\
    WORKDIR /made/by/workdir\n\
    COPY one two/ /new/folder/\n\
    COPY --chown=1000:1000 --chmod=640 one /owned\n\
    ENTRYPOINT [\"cat\"]\n";

fn files_only() -> Fixture {
    let fixture = Fixture::with(FILES_ONLY);
    fixture.write("one", "1");
    fixture.write("two/three", "3");
    fixture
}

#[test]
fn privileged_archives_validate_in_every_compression() {
    let fixture = files_only();
    for (kind, compression) in [
        ("oci", "gzip"),
        ("oci", "zstd"),
        ("oci", "uncompressed"),
        ("docker", "gzip"),
        ("docker", "uncompressed"),
    ] {
        let archive = fixture.path(&format!("{kind}-{compression}.tar"));
        let spec = format!("type={kind},dest={},compression={compression}", archive.display());
        fixture.build(&["-t", "example.com/app:1", "-o", &spec]).ok();
        let image = valid(kind, &archive);
        assert_eq!(image.layers.len(), 4, "{kind} {compression}");
        assert_eq!(image.config["config"]["Labels"]["a"], "b");
        assert_eq!(image.config["config"]["Entrypoint"][0], "cat");
    }
}

#[test]
fn privileged_skopeo_and_umoci_read_what_we_write() {
    const TEST: &str = "privileged_skopeo_and_umoci_read_what_we_write";
    if !have(TEST, "skopeo") || !have(TEST, "umoci") {
        return;
    }
    let fixture = files_only();
    let archive = fixture.path("app.tar");
    fixture.build(&["-t", "app:1", "-o", &format!("type=oci,dest={}", archive.display())]).ok();
    let layout = fixture.path("layout");
    let from = format!("oci-archive:{}:1", archive.display());
    let copy = Command::new("skopeo")
        .args(["copy", "--insecure-policy", &from, &format!("oci:{}:1", layout.display())])
        .output()
        .expect("skopeo runs");
    ran(copy).ok();
    let unpack = Command::new("umoci")
        .args(["unpack", "--image", &format!("{}:1", layout.display())])
        .arg(fixture.path("bundle"))
        .output()
        .expect("umoci runs");
    ran(unpack).ok();
    let root = fixture.path("bundle/rootfs");
    assert_eq!(read(&root, "new/folder/three"), "3");
    let owned = fs::metadata(root.join("owned")).expect("the file");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&owned) & 0o7777, 0o640);

    let docker = fixture.path("docker.tar");
    fixture.build(&["-t", "app:1", "-o", &format!("type=docker,dest={}", docker.display())]).ok();
    let inspect = Command::new("skopeo")
        .args(["inspect", "--config", &format!("docker-archive:{}", docker.display())])
        .output()
        .expect("skopeo runs");
    let config: serde_json::Value =
        serde_json::from_slice(&ran(inspect).ok().stdout).expect("JSON");
    assert_eq!(config["config"]["Labels"]["a"], "b");
}

#[test]
fn privileged_the_same_build_twice_is_the_same_image() {
    let fixture = files_only();
    let digest = |store: &str| {
        let metadata = fixture.path(&format!("{store}.json"));
        let ran = fixture
            .build_command(
                store,
                &["-t", "same", "--metadata-file", &metadata.display().to_string()],
            )
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .output()
            .expect("rbuild starts");
        crate::fixture::ran(ran).ok();
        let metadata: serde_json::Value =
            serde_json::from_slice(&fs::read(metadata).expect("metadata")).expect("JSON");
        metadata["containerimage.digest"].as_str().expect("a digest").to_owned()
    };
    assert_eq!(digest("one"), digest("two"));
}

#[test]
fn privileged_a_cached_build_gives_the_same_image_again() {
    let fixture =
        Fixture::with("FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id\nENV A=1\n");
    let id = |args: &[&str]| fixture.build(&[&["-q", "-t", "x"], args].concat()).ok().text();
    assert_eq!(id(&[]), id(&[]));
}

#[test]
fn privileged_the_local_image_store() {
    let fixture = files_only();
    let id = fixture.path("id");
    fixture
        .build(&["-t", "app:1", "-t", "localhost/other", "--iidfile", &id.display().to_string()])
        .ok();
    let config = fs::read_to_string(&id).expect("the id");

    let images = fixture.run(["images"]).ok().text();
    assert!(images.contains("app ") && images.contains("localhost/other"), "{images}");
    let inspected: serde_json::Value =
        serde_json::from_slice(&fixture.run(["inspect", "app:1"]).ok().stdout).expect("JSON");
    assert_eq!(inspected[0]["Manifest"]["config"]["digest"], config.as_str());
    assert_eq!(inspected[0]["Names"].as_array().map(Vec::len), Some(2));

    fixture.run(["tag", "app:1", "third:v2"]).ok();
    for (format, name) in [("oci", "third:v2"), ("docker", "app:1")] {
        let archive = fixture.path(format);
        fixture.run(["save", "--format", format, "-o", &archive.display().to_string(), name]).ok();
        valid(format, &archive);
    }

    // What was built is a base for others, without any registry.
    fixture.write("Dockerfile", "FROM app:1\nRUN cat /owned > /copied\n");
    let out = fixture.build_files(&[]);
    assert_eq!(read(&out, "copied"), "1");

    fixture.run(["rmi", "app:1", "localhost/other", "third:v2"]).ok();
    let error = fixture.run(["inspect", "app:1"]).fails(2);
    assert!(error.contains("no image `app:1`"), "{error}");
    assert!(fixture.run(["du"]).ok().text().contains("Total"));
    fixture.run(["prune", "--all"]).ok();
    let left = fs::read_dir(fixture.path("store/layers")).expect("layers").count();
    assert_eq!(left, 0, "layers are left after everything was removed");
}

#[test]
fn privileged_tars_and_folders_hold_the_files() {
    let fixture = files_only();
    let tar = fixture.build(&["-o", "-"]).ok().stdout;
    let mut archive = tar::Archive::new(tar.as_slice());
    let names: Vec<String> = archive
        .entries()
        .expect("an archive")
        .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string())
        .collect();
    assert!(names.contains(&"new/folder/three".to_owned()), "{names:?}");
    assert!(names.is_sorted(), "{names:?}");

    // What the folder holds stays, and a link in it is not followed.
    let out = fixture.path("out");
    fs::create_dir_all(&out).expect("a folder");
    fs::write(out.join("mine"), "stays").expect("a file");
    fs::write(fixture.path("precious"), "untouched").expect("a file");
    std::os::unix::fs::symlink(fixture.path("precious"), out.join("owned")).expect("a link");
    fixture.build_files(&[]);
    assert_eq!(read(&out, "mine"), "stays");
    assert_eq!(read(&out, "owned"), "1");
    assert_eq!(read(&fixture.path("."), "precious"), "untouched");
}

#[test]
fn privileged_llb_goes_out_and_comes_in() {
    let fixture = Fixture::with("FROM busybox\nCOPY one /one\nRUN cat /one /one > /two\n");
    fixture.write("one", "1");
    let busybox = format!("busybox=oci-layout://{}:latest", fixture.busybox().display());
    let context = fixture.context().display().to_string();
    let llb = fixture.run(["debug", "dump-llb", "--build-context", &busybox, &context]).ok().stdout;
    fs::write(fixture.path("graph.llb"), llb).expect("a file");
    let spec = format!("type=local,dest={}", fixture.path("out").display());
    let graph = fixture.path("graph.llb").display().to_string();
    fixture.run(["build", "--progress=plain", "--llb", &graph, "-o", &spec, &context]).ok();
    assert_eq!(read(&fixture.path("out"), "two"), "11");
    fs::write(fixture.path("graph.llb"), b"\x0a\x03abc").expect("a file");
    let error = fixture.run(["build", "--llb", &graph]).fails(2);
    assert!(error.contains("graph.llb"), "{error}");
}

#[test]
fn an_output_that_cannot_be_is_refused_before_anything_runs() {
    let fixture = Fixture::with("FROM busybox\nRUN false\n");
    for (spec, part) in [
        ("type=nope", "unknown type"),
        ("type=local", "needs dest"),
        ("type=image,dest=x", "type=image has no `dest`"),
    ] {
        let error = fixture.build(&["-o", spec]).fails(2);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn two_outputs_to_one_place_are_refused() {
    let fixture = Fixture::with("FROM busybox\nRUN false\n");
    for specs in [["-", "type=docker,dest=-"], ["type=tar,dest=same", "type=oci,dest=same"]] {
        let error = fixture.build(&["-o", specs[0], "-o", specs[1]]).fails(2);
        assert!(error.contains("two outputs go to"), "{error}");
    }
}

#[test]
fn privileged_an_image_is_found_by_the_id_that_is_printed() {
    let fixture = Fixture::with("FROM busybox\nENV A=b\n");
    let id = fixture.build(&["-q"]).ok().text();
    fixture.run(["tag", id.trim(), "named:1"]).ok();
    assert!(fixture.run(["images"]).ok().text().contains("named"));
    let archive = fixture.run(["save", &id.trim()["sha256:".len()..][..12]]).ok().stdout;
    rbuild_testdata::validate::docker_archive(&archive).expect("a whole image");
}
