//! What `--output` can be told, one attribute after the other (section 4.1 of the behaviour reference).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use rbuild_testdata::validate;

use crate::fixture::{Fixture, have, ran, read, valid};

const COPIES: &str = "FROM busybox\nCOPY one /one\nRUN echo 2 > /two\n";

fn copies() -> Fixture {
    let fixture = Fixture::with(COPIES);
    fixture.write("one", "1");
    fixture
}

/// The image that an output of this kind, with these attributes, is.
fn image(fixture: &Fixture, kind: &str, attributes: &str) -> validate::ValidImage {
    let archive = fixture.path("image.tar");
    let spec = format!("type={kind},dest={}{attributes}", archive.display());
    fixture.build(&["-t", "app:1", "-o", &spec]).ok();
    valid(kind, &archive)
}

fn media_types(image: &validate::ValidImage) -> Vec<&str> {
    let ends = image.layers.iter().map(|layer| layer.media_type.rsplit('.').next());
    ends.map(Option::unwrap_or_default).collect()
}

fn diff_ids(image: &validate::ValidImage) -> Vec<&str> {
    image.layers.iter().map(|layer| layer.diff_id.as_str()).collect()
}

#[test]
fn privileged_force_compression_compresses_what_was_there() {
    let fixture = copies();
    let plain = image(&fixture, "oci", ",compression=zstd");
    assert_eq!(media_types(&plain), ["tar+gzip", "tar+zstd", "tar+zstd"]);
    let forced = image(&fixture, "oci", ",compression=zstd,force-compression=true");
    assert_eq!(media_types(&forced), ["tar+zstd"; 3]);
    assert_eq!(diff_ids(&forced), diff_ids(&plain));
    // What was made by force is not what the base image has.
    let again = image(&fixture, "oci", ",compression=zstd");
    assert_eq!(again.manifest_digest, plain.manifest_digest);
    let uncompressed = image(&fixture, "oci", ",compression=uncompressed,force-compression=true");
    assert_eq!(media_types(&uncompressed), ["tar"; 3]);
    assert_eq!(diff_ids(&uncompressed), diff_ids(&plain));
    // The format is as wanted, so the blob stays; the level can only be kept by compressing it.
    let gzip = image(&fixture, "oci", ",force-compression=true");
    assert_eq!(gzip.layers[0].digest, plain.layers[0].digest);
    let level = image(&fixture, "oci", ",force-compression=true,compression-level=0");
    assert!(level.layers[0].size > gzip.layers[0].size);
    assert_eq!(diff_ids(&level), diff_ids(&plain));
}

#[test]
fn privileged_times_are_rewritten_unless_told() {
    const EPOCH: u64 = 1_000_000_000;
    let fixture = copies();
    let build = |attributes: &str| {
        let archive = fixture.path("image.tar");
        let spec = format!("type=oci,dest={}{attributes}", archive.display());
        let build = fixture
            .build_command("store", &["-o", &spec])
            .env("SOURCE_DATE_EPOCH", EPOCH.to_string())
            .output();
        let said = ran(build.expect("rbuild starts")).ok().stderr;
        (valid("oci", &archive), said)
    };
    let time = |image: &validate::ValidImage| image.layers[2].entry("two").map(|two| two.mtime);
    let (clamped, _) = build("");
    assert_eq!(time(&clamped), Some(EPOCH));
    let (kept, _) = build(",rewrite-timestamp=false");
    assert!(time(&kept) > Some(EPOCH));
    assert_eq!(kept.config["created"], clamped.config["created"]);
    assert_eq!(clamped.config["created"], "2001-09-09T01:46:40Z");
    let (other, _) = build(",source-date-epoch=5,rewrite-timestamp=true");
    assert_eq!(time(&other), Some(5));
    assert_eq!(other.config["created"], "1970-01-01T00:00:05Z");

    let spec = format!("type=oci,dest={},rewrite-timestamp=true", fixture.path("x").display());
    let said = fixture.build(&["-o", &spec]).ok().stderr;
    assert!(said.contains("rewrite-timestamp=true changes nothing without a time"), "{said}");

    let out = fixture.path("out");
    fixture.build(&["-o", &format!("type=local,dest={},source-date-epoch=7", out.display())]).ok();
    assert_eq!(fs::metadata(out.join("two")).expect("a file").mtime(), 7);
    let tar = fixture.build(&["-o", "type=tar,source-date-epoch=9"]).ok().stdout;
    let entries = validate::tar_entries(&tar).expect("a whole tar");
    assert!(entries.iter().all(|entry| entry.mtime <= 9));
}

#[test]
fn privileged_names_with_a_digest() {
    let fixture = Fixture::with("FROM busybox\nENV A=b\n");
    let metadata = fixture.path("metadata.json");
    let build = |args: &[&str]| {
        let file = metadata.display().to_string();
        fixture.build(&[args, &["--metadata-file", &file]].concat()).ok();
        let document: serde_json::Value =
            serde_json::from_slice(&fs::read(&metadata).expect("metadata")).expect("JSON");
        document["containerimage.digest"].as_str().expect("a digest").to_owned()
    };
    let names = |image: &str| {
        let shown = fixture.run(["inspect", image]).ok().stdout;
        let shown: serde_json::Value = serde_json::from_slice(&shown).expect("JSON");
        shown[0]["Names"].to_string()
    };
    let digest = build(&["-t", "app:1", "-o", "type=image,name-canonical=true"]);
    assert!(names("app:1").contains(&format!("app:1@{digest}")), "{}", names("app:1"));
    build(&["-o", "type=image,dangling-name-prefix=left,danging-name-empty-only=true"]);
    assert!(names("app:1").contains(&format!("left@{digest}")), "{}", names("app:1"));
    build(&[
        "-t",
        "app:1",
        "-o",
        "type=image,dangling-name-prefix=other,danging-name-empty-only=true",
    ]);
    assert!(!names("app:1").contains("other@"), "{}", names("app:1"));
    let error = fixture.build(&["-o", "type=image,dangling-name-prefix=NO"]).fails(2);
    assert!(error.contains("must be lowercase"), "{error}");
}

#[test]
fn privileged_layers_are_unpacked_where_that_is_asked_for() {
    let fixture = Fixture::with("FROM busybox\nENV A=b\n");
    let unpacked = || fs::read_dir(fixture.path("store/layers")).expect("layers").count();
    fixture.build(&["-t", "app"]).ok();
    assert_eq!(unpacked(), 0);
    fixture.build(&["-t", "app", "-o", "type=image,unpack=true"]).ok();
    assert_eq!(unpacked(), 1);
}

#[test]
fn privileged_images_collect_in_a_folder() {
    const TEST: &str = "privileged_images_collect_in_a_folder";
    let fixture = copies();
    let folder = fixture.path("images");
    let spec = |kind: &str| format!("type={kind},dest={},tar=false", folder.display());
    fixture.build(&["-t", "app:1", "-t", "app:2", "-o", &spec("oci")]).ok();
    fixture.write("one", "changed");
    fixture.build(&["-t", "app:2", "-t", "other:3", "-o", &spec("docker")]).ok();
    fixture.build(&["-o", &spec("oci")]).ok();
    let images = validate::oci_layout(&folder).expect("a whole layout");
    assert_eq!(images.len(), 4);
    let content = |tag: &str| {
        let named = images.iter().find(|image| image.names.iter().any(|name| name.ends_with(tag)));
        let image = named.unwrap_or_else(|| panic!("no {tag}"));
        image.layers[1].entry("one").expect("the file").content.clone()
    };
    assert_eq!(content("1"), b"1");
    assert_eq!(content("2"), b"changed");
    assert_eq!(content("latest"), b"changed");
    if have(TEST, "skopeo") {
        for tag in ["1", "2", "3", "latest"] {
            let image = format!("oci:{}:{tag}", folder.display());
            ran(Command::new("skopeo").args(["inspect", &image]).output().expect("skopeo runs"))
                .ok();
        }
    }
    fs::write(folder.join("index.json"), "no index").expect("a file");
    let error = fixture.build(&["-o", &spec("oci")]).fails(1);
    assert!(error.contains("is not the index of an OCI layout"), "{error}");
}

#[test]
fn privileged_a_folder_is_made_equal_to_the_result() {
    let fixture = copies();
    let out = fixture.path("out");
    fs::create_dir_all(out.join("old/deep")).expect("a folder");
    fs::write(out.join("old/deep/file"), "old").expect("a file");
    let spec = format!("type=local,dest={}", out.display());
    fixture.build(&["-o", &spec]).ok();
    assert_eq!(read(&out, "old/deep/file"), "old");
    let replaced = format!("{spec},mode=delete");
    fixture.build(&["-o", &replaced]).ok();
    assert_eq!(read(&out, "two").trim(), "2");
    assert!(!out.join("old").exists());

    // Only a mistake deletes the context, or the folder that one is in.
    let (context, parent) = (fixture.context(), fixture.path("."));
    for folder in [&context, &parent] {
        let spec = format!("type=local,dest={},mode=delete", folder.display());
        let error = fixture.build(&["-o", &spec]).fails(2);
        assert!(error.contains("give the result a folder of its own"), "{error}");
        fixture.build(&["--on-failure", &spec]).fails(2);
    }
    assert_eq!(read(&context, "one"), "1");
}

#[test]
fn privileged_what_a_build_uses_is_not_deleted() {
    let fixture = copies();
    let path = |name: &str| fixture.path(name).display().to_string();
    for file in ["named/file", "file/Dockerfile", "secrets/token", "new/nothing"] {
        let file = fixture.path(file);
        fs::create_dir_all(file.parent().expect("a folder")).expect("its folder");
        fs::write(file, "FROM scratch\nCOPY one /\n").expect("a file");
    }
    let cache = format!("type=local,dest={}", path("cached/cache"));
    fixture.build(&["-o", "type=cacheonly", "--cache-to", &cache]).ok();
    std::os::unix::fs::symlink(fixture.path("named"), fixture.path("link")).expect("a link");
    fs::create_dir(fixture.path("layout")).expect("a folder");
    fs::rename(fixture.busybox(), fixture.path("layout/image")).expect("the layout");
    let into = |name: &str| format!("type=local,dest={},mode=delete", path(name));
    let layout = format!("other=oci-layout://{}:latest", path("layout/image"));
    let named = format!("other={}", path("named"));
    let (file, secret) = (path("file/Dockerfile"), format!("id=a,src={}", path("secrets/token")));
    let from = format!("type=local,src={}", path("cached/cache"));
    let archive = format!("type=oci,dest={}", path("new/image.tar"));
    let beside = format!("type=local,dest={}", path("new"));
    let settings = path("conf/rbuild.toml");
    fs::create_dir(fixture.path("conf")).expect("a folder");
    fs::write(&settings, "").expect("a file");
    for (dest, args, what) in [
        ("named", ["--build-context", &*named], "a build context"),
        ("link", ["--build-context", &named], "a build context"),
        ("named", ["--build-context", &format!("other={}", path("link"))], "a build context"),
        ("layout", ["--build-context", &layout], "a layout that is read"),
        ("layout/image/blobs", ["--build-context", &layout], "a layout that is read"),
        ("file", ["-f", &file], "the Dockerfile"),
        ("secrets", ["--secret", &secret], "what is given to steps"),
        ("cached", ["--cache-from", &from], "a cache"),
        ("cached/cache/blobs", ["--cache-to", &cache], "a cache"),
        ("store", ["--label", "a=b"], "the store"),
        ("store/blobs", ["--label", "a=b"], "the store"),
        ("new", ["-o", &archive], "another output"),
        ("new/inner", ["-o", &beside], "another output"),
        ("new", ["--on-failure", &archive], "another output"),
        ("conf", ["--config", &settings], "settings"),
    ] {
        let spec = into(dest);
        let error = fixture.build(&["-o", &spec, args[0], args[1]]).fails(2);
        assert!(error.contains(what) && error.contains("a folder of its own"), "{dest}: {error}");
    }
    for kept in ["named/file", "file/Dockerfile", "secrets/token", "cached/cache/index.json"] {
        assert!(fixture.path(kept).exists(), "{kept}");
    }
    // A folder in the context is where many want the result.
    fixture.build(&["-o", &into("context/out")]).ok();
    assert_eq!(read(&fixture.context(), "out/two").trim(), "2");
}

#[test]
fn privileged_archives_go_to_standard_output_if_no_place_is_given() {
    let fixture = copies();
    let archive = fixture.build(&["-o", "type=oci"]).ok().stdout;
    assert_eq!(validate::oci_archive(&archive).expect("a whole image").len(), 1);
}

const MERGES: &str = "FROM busybox\n\
    RUN mkdir -p /d/sub /gone && echo 1 > /d/a && echo 2 > /d/sub/b && ln /d/a /d/hard && touch /gone/x\n\
    ENV A=b\n\
    RUN rm -r /gone /bin/true && echo 3 > /d/sub/b && chmod 700 /d/sub && rm /d/hard\n\
    RUN rm -r /d/sub /conf && mkdir /d/sub /conf && ln -s a /d/sub/link && echo 4 > /conf/only && touch -t 200001010000 /d/a\n";

/// What a runtime would see of an image, as umoci unpacks it.
fn unpacked(fixture: &Fixture, folder: &str) -> std::path::PathBuf {
    let bundle = fixture.path(&format!("{folder}-bundle"));
    let image = format!("{}:latest", fixture.path(folder).display());
    let unpack = Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle).output();
    ran(unpack.expect("umoci runs")).ok();
    bundle.join("rootfs")
}

#[test]
fn privileged_layers_are_merged() {
    const TEST: &str = "privileged_layers_are_merged";
    let fixture = Fixture::new();
    // The base image has more than a program, to be deleted.
    fixture.write("Dockerfile", "FROM busybox\nRUN mkdir /conf && echo 0 > /conf/old\n");
    fixture.build(&["-t", "base:1"]).ok();
    fixture.write("Dockerfile", MERGES.replace("busybox", "base:1"));
    let build = |count: &str| {
        let folder = fixture.path(count);
        let spec = format!("type=oci,tar=false,dest={},layers={count}", folder.display());
        fixture.build(&["-o", &spec]).ok();
        validate::oci_layout(&folder).expect("a whole layout").remove(0)
    };
    let all = build("keep");
    assert_eq!(all.layers.len(), 5);
    let squashed = build("squash");
    assert_eq!(diff_ids(&squashed)[..2], diff_ids(&all)[..2]);
    assert_eq!(squashed.layers.len(), 3);
    let merged = squashed.layers[2].paths();
    for (path, is_there) in [
        ("bin/.wh.true", true),
        ("conf/.wh.old", true),
        ("conf/only", true),
        ("d/sub/link", true),
        ("d/sub/b", false),
        ("d/sub/.wh.b", false),
        ("d/.wh.hard", false),
        (".wh.gone", false),
        ("bin/busybox", false),
    ] {
        assert_eq!(merged.contains(&path), is_there, "{path} {merged:?}");
    }
    let history = squashed.config["history"].as_array().expect("a history");
    assert_eq!(history.len(), all.config["history"].as_array().expect("a history").len() + 1);
    let with_layers = history.iter().filter(|entry| entry["empty_layer"] != true).count();
    assert_eq!(with_layers, 3);
    let most = build("max:4");
    assert_eq!(diff_ids(&most)[..3], diff_ids(&all)[..3]);
    assert_eq!(most.layers.len(), 4);
    assert!(most.layers[3].paths().contains(&".wh.gone"));
    let one = build("max:1");
    assert_eq!(one.layers.len(), 1);
    assert!(one.layers[0].paths().iter().all(|path| !path.contains(".wh.")));
    // Neither the cache nor what is said of other images has changed.
    assert_eq!(build("keep").manifest_digest, all.manifest_digest);
    assert_eq!(build("squash").manifest_digest, squashed.manifest_digest);

    if have(TEST, "umoci") {
        let expected = unpacked(&fixture, "keep");
        for count in ["squash", "max:4", "max:1"] {
            let folder = count.replace(':', "-");
            if folder != count {
                fs::rename(fixture.path(count), fixture.path(&folder)).expect("a name");
            }
            let other = unpacked(&fixture, &folder);
            let list = |root: &std::path::Path| {
                let list = "find . -printf '%p %y %m %U %G %l %s %T@\\n' | grep -v ' d ' | sort";
                ran(Command::new("sh").args(["-c", list]).current_dir(root).output().expect("sh"))
                    .ok()
                    .text()
            };
            assert_eq!(list(&other), list(&expected), "{count}");
        }
    }
}
