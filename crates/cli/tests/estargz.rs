//! `compression=estargz`: layers of which a runtime can fetch single files, and which are gzip layers for everybody else.

use std::fs;
use std::process::Command;

use rbuild_testdata::{Entry, Image, Layer, Layout, Registry, estargz, validate};

use crate::fixture::{Fixture, Ran, have, ran, read, valid};

const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";
const FORCED: &str = ",compression=estargz,force-compression=true";

/// One file of three chunks, and one of each kind.
fn fixture() -> Fixture {
    let long = "n".repeat(120);
    let fixture = Fixture::with(&format!(
        "FROM busybox\nCOPY big small empty /files/\n\
         RUN cd /files && ln small hard && ln -s small soft && mkfifo fifo && mkdir dir && echo 1 > {long} && \
         rm empty && chmod 4711 big && chown 3:4 dir\n"
    ));
    let big: Vec<u8> =
        (0..9_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 17) as u8).collect();
    fixture.write("big", big);
    fixture.write("small", "small");
    fixture.write("empty", "");
    fixture
}

fn build(fixture: &Fixture, store: &str, args: &[&str]) -> Ran {
    let mut command = fixture.build_command(store, args);
    ran(command.env("SOURCE_DATE_EPOCH", "1000000000").output().expect("rbuild starts"))
}

/// The image that an output with these attributes is.
fn image(fixture: &Fixture, store: &str, attributes: &str) -> validate::ValidImage {
    let archive = fixture.path(&format!("{store}.tar"));
    build(fixture, store, &["-o", &format!("type=oci,dest={}{attributes}", archive.display())])
        .ok();
    valid("oci", &archive)
}

/// The names of the files in each layer, as its table has them; all of it is right.
fn tables(manifest: &serde_json::Value, blob: impl Fn(&str) -> Vec<u8>) -> Vec<Vec<String>> {
    let layers = manifest["layers"].as_array().expect("layers");
    let table = |layer: &serde_json::Value| {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
        let blob = blob(layer["digest"].as_str().expect("a digest"));
        let noted =
            |key: &str| layer["annotations"][key].as_str().expect("an annotation").to_owned();
        let checked = estargz::check(&blob, &noted(TOC_DIGEST));
        let checked = checked.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(noted(UNCOMPRESSED_SIZE), checked.uncompressed.to_string());
        checked.names
    };
    layers.iter().map(table).collect()
}

#[test]
fn privileged_each_file_can_be_read_by_itself() {
    let fixture = fixture();
    let made = image(&fixture, "store", FORCED);
    let layout = fixture.path("layout");
    let spec = format!("type=oci,tar=false,dest={}{FORCED}", layout.display());
    build(&fixture, "store", &["-o", &spec]).ok();
    let blob = |digest: &str| {
        let hex = digest.trim_start_matches("sha256:");
        fs::read(layout.join("blobs/sha256").join(hex)).expect("the blob")
    };
    let tables = tables(&made.manifest, blob);
    assert_eq!(tables.len(), 3);
    assert!(tables[0].iter().any(|name| name == "bin/busybox"), "{:?}", tables[0]);
    assert_eq!(tables[1], ["files/", "files/big", "files/empty", "files/small"]);
    for name in ["files/.wh.empty", "files/fifo", "files/hard", "files/soft", "files/dir/"] {
        assert!(tables[2].iter().any(|listed| listed == name), "{name}: {:?}", tables[2]);
    }
    // Another machine makes the same.
    let again = image(&fixture, "other", FORCED);
    assert_eq!(again.manifest_digest, made.manifest_digest);
    // What is made for it does not become the layer of other forms.
    let gzip = image(&fixture, "store", "");
    assert!(
        gzip.manifest["layers"]
            .as_array()
            .expect("layers")
            .iter()
            .all(|layer| layer["annotations"].is_null())
    );
    let (first, ours) = (&gzip.layers[0], image(&fixture, "store", ",compression=estargz"));
    assert_eq!(ours.layers[0].digest, first.digest);
    assert_eq!(ours.layers[1].digest, made.layers[1].digest);
    // Nor what the base image's layer is compressed anew from.
    for form in
        [",compression=zstd", ",compression=gzip,compression-level=1", ",compression=uncompressed"]
    {
        let forced = format!("{form},force-compression=true");
        let (known, fresh) =
            (image(&fixture, "store", &forced), image(&fixture, &form[13..17], &forced));
        assert_eq!(known.manifest_digest, fresh.manifest_digest, "{form}");
    }
    // Levels.
    let sizes = [0, 1, 9].map(|level| {
        let level = format!("{FORCED},compression-level={level}");
        image(&fixture, "store", &level).layers[1].size
    });
    assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2], "{sizes:?}");
}

#[test]
fn privileged_others_read_it_as_a_gzip_layer() {
    const NAME: &str = "privileged_others_read_it_as_a_gzip_layer";
    if !have(NAME, "skopeo") || !have(NAME, "umoci") {
        return;
    }
    let fixture = fixture();
    image(&fixture, "store", FORCED);
    let layout = fixture.path("layout");
    let archive = fixture.path("store.tar");
    let copy = Command::new("skopeo")
        .args(["copy", "--insecure-policy"])
        .args([format!("oci-archive:{}", archive.display()), format!("oci:{}:1", layout.display())])
        .output();
    ran(copy.expect("skopeo runs")).ok();
    let bundle = fixture.path("bundle");
    let unpack = Command::new("umoci")
        .args(["unpack", "--rootless", "--image"])
        .arg(format!("{}:1", layout.display()))
        .arg(&bundle)
        .output();
    ran(unpack.expect("umoci runs")).ok();
    let files = bundle.join("rootfs/files");
    assert_eq!(read(&files, "soft"), "small");
    assert_eq!(fs::metadata(files.join("big")).expect("the file").len(), 9 << 20);
    assert!(!files.join("empty").exists());
    // The table is no file of the image.
    assert!(!bundle.join("rootfs/stargz.index.json").exists());
}

#[test]
fn privileged_a_registry_and_a_cache_have_it() {
    let fixture = fixture();
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.address());
    let spec = format!("type=registry,name={name}{FORCED}");
    let cache = fixture.path("cache").display().to_string();
    // The base image's layer stays what it is, and what lies on it.
    let to = format!("type=local,mode=max,dest={cache}{FORCED}");
    build(&fixture, "store", &["-o", &spec, "--cache-to", &to]).ok();
    let there = registry.manifest("app", "1").expect("the image");
    let manifest: serde_json::Value = serde_json::from_slice(&there.bytes).expect("JSON");
    tables(&manifest, |digest| fs::read(registry.blob_path(digest)).expect("the blob"));

    // What comes from the cache is the same, whatever it becomes.
    let plain = image(&fixture, "store", "");
    let from = format!("type=local,src={cache}");
    let archive = fixture.path("cached.tar");
    let oci = format!("type=oci,dest={}", archive.display());
    for (attributes, expected) in [("", &plain.manifest_digest), (FORCED, &there.digest())] {
        let spec = format!("{oci}{attributes}");
        let built = build(&fixture, "cached", &["--cache-from", &from, "-o", &spec]).ok();
        assert!(built.stderr.contains("CACHED"), "{}", built.stderr);
        assert_eq!(&valid("oci", &archive).manifest_digest, expected, "{attributes}");
    }

    // And what stands on the image has its layers, and still knows their tables.
    fixture.write(
        "Dockerfile",
        format!("FROM {name}\nRUN test -s /files/soft && test ! -e /stargz.index.json\n"),
    );
    let on_it = image(&fixture, "third", "");
    let bases = &on_it.manifest["layers"].as_array().expect("layers")[..3];
    assert_eq!(bases, manifest["layers"].as_array().expect("layers"));
}

#[test]
fn what_it_cannot_be_is_told() {
    let fixture = Fixture::with("FROM scratch\nCOPY a /\n");
    fixture.write("a", "a");
    for (spec, reason) in [
        ("type=image,compression=estargz,compression-level=10", "compression-level is 0 to 9"),
        (
            "type=image,compression=estargz,oci-mediatypes=false",
            "compression=estargz needs OCI's media types",
        ),
    ] {
        let error = fixture.build(&["-o", spec]).fails(2);
        assert!(error.contains(reason), "{error}");
    }
    let spec = "type=local,dest=c,compression=estargz,oci-mediatypes=false,image-manifest=false";
    let error = fixture.build(&["--cache-to", spec]).fails(2);
    assert!(error.contains("compression=estargz needs OCI's media types"), "{error}");
}

#[test]
fn privileged_the_name_of_the_table_is_taken() {
    let fixture = Fixture::with("FROM scratch\nCOPY stargz.index.json /\n");
    fixture.write("stargz.index.json", "{}");
    fixture.build(&["-o", "type=image,name=a"]).ok();
    let error = fixture.build(&["-o", "type=image,name=a,compression=estargz"]).fails(1);
    assert!(error.contains("stargz.index.json"), "{error}");
}

#[test]
fn privileged_the_table_of_a_base_image_is_made_anew() {
    // The usual form has it within the archive.
    let base = Layer::new(&[
        Entry::file("file", "text"),
        Entry::file("stargz.index.json", "{}"),
        Entry::file("more", ""),
    ]);
    let fixture = Fixture::with("FROM usual\nCOPY other /\n");
    fixture.write("other", "other");
    let folder = fixture.path("usual");
    Layout::create(&folder).add(Some("latest"), &Image::new("linux/amd64").layer(base).publish());
    let context = format!("usual=oci-layout://{}", folder.display());
    let layout = fixture.path("layout");
    for (attributes, files) in [
        (",layers=max:1", vec![vec!["file", "more", "other"]]),
        (",force-compression=true,compression-level=1", vec![vec!["file", "more"], vec!["other"]]),
    ] {
        let spec =
            format!("type=oci,tar=false,dest={},compression=estargz{attributes}", layout.display());
        build(&fixture, "store", &["--build-context", &context, "-o", &spec]).ok();
        let images = validate::oci_layout(&layout).unwrap_or_else(|error| panic!("{error}"));
        let manifest = &images.last().expect("an image").manifest;
        let blob = |digest: &str| {
            let hex = digest.trim_start_matches("sha256:");
            fs::read(layout.join("blobs/sha256").join(hex)).expect("the blob")
        };
        assert_eq!(tables(manifest, blob), files, "{attributes}");
        fs::remove_dir_all(&layout).expect("the layout");
    }
}
