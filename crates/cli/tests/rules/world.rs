//! What the tests of the rules share: a base image with something of everything, and the built image read back.

use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rbuild_testdata::validate::{ValidImage, ValidLayer};
use rbuild_testdata::{Entry, Image, Layer, Layout};
use serde_json::Value;

use crate::fixture::{Fixture, Ran, valid};

/// When everything in the base image was changed last.
pub(super) const BASE_TIME: u64 = 1_700_000_000;

/// When what [`age`] touches was changed last; the nanoseconds are for nobody to see in a layer.
pub(super) const SOURCE_TIME: u64 = 1_234_567_890;

/// The entry `BASE_TIME` as histories write it.
pub(super) const BASE_CREATED: &str = "2023-11-14T22:13:20Z";

/// An image with users, a folder of another owner's, links to it, and a file.
pub(super) fn base() -> Image {
    let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
    Image::new("linux/amd64").layer(Layer::new(&[
        Entry::directory("etc"),
        Entry::file("etc/passwd", passwd),
        Entry::file("etc/group", "root:x:0:\nstaff:x:2000:app\n"),
        Entry::directory("existing").mode(0o700).owner(7, 8),
        Entry::file("existing/kept", "kept"),
        Entry::directory("existing/sub").mode(0o711).owner(9, 9),
        Entry::symlink("link", "existing"),
        Entry::symlink("absolute", "/existing/sub"),
        Entry::symlink("outside", "../../../existing"),
        Entry::file("file", "base"),
        Entry::directory("tmp").mode(0o1777),
    ]))
}

/// A fixture whose Dockerfile can say `FROM base`.
pub(super) fn with_base(dockerfile: &str) -> Fixture {
    with_image(dockerfile, &base())
}

/// A fixture whose Dockerfile can say `FROM base` for this image.
pub(super) fn with_image(dockerfile: &str, image: &Image) -> Fixture {
    let fixture = Fixture::with(dockerfile);
    Layout::create(&fixture.path("base")).add(None, &image.publish());
    fixture
}

/// Runs `rbuild build` with `base` as a context.
pub(super) fn run(fixture: &Fixture, store: &str, args: &[&str]) -> Ran {
    let base = format!("base=oci-layout://{}", fixture.path("base").display());
    let mut all = vec![];
    if fixture.path("base").exists() {
        all.extend(["--build-context", base.as_str()]);
    }
    all.extend(args);
    fixture.build_in(store, &all)
}

/// Builds, and reads the image back.
#[track_caller]
pub(super) fn build(fixture: &Fixture, args: &[&str]) -> ValidImage {
    build_in(fixture, "store", args)
}

/// As [`build`], with another store.
#[track_caller]
pub(super) fn build_in(fixture: &Fixture, store: &str, args: &[&str]) -> ValidImage {
    let archive = fixture.path("built.tar");
    let spec = format!("type=oci,dest={}", archive.display());
    run(fixture, store, &[&["-o", &spec], args].concat()).ok();
    valid("oci", &archive)
}

/// Builds another Dockerfile, and reads the image back.
#[track_caller]
pub(super) fn rebuild(fixture: &Fixture, dockerfile: &str, args: &[&str]) -> ValidImage {
    fixture.write("Dockerfile", dockerfile);
    build(fixture, args)
}

/// Builds another Dockerfile, which must fail; returns what is said.
#[track_caller]
pub(super) fn refusal(fixture: &Fixture, dockerfile: &str) -> String {
    fixture.write("Dockerfile", dockerfile);
    run(fixture, "store", &["-o", "type=cacheonly"]).fails(1)
}

/// The entries of a layer as `ls -l` might show them.
pub(super) fn listing(layer: &ValidLayer) -> Vec<String> {
    layer.entries.iter().map(ToString::to_string).collect()
}

/// The layers that the build put on top of the base image's one.
pub(super) fn new_layers(image: &ValidImage) -> &[ValidLayer] {
    &image.layers[1..]
}

/// The content of the topmost file of this name.
#[track_caller]
pub(super) fn text(image: &ValidImage, path: &str) -> String {
    let found = image.layers.iter().rev().find_map(|layer| layer.entry(path));
    let entry = found.unwrap_or_else(|| panic!("no layer has `{path}`"));
    String::from_utf8_lossy(&entry.content).into_owned()
}

/// What the image's configuration has at `config.KEY`.
pub(super) fn config<'i>(image: &'i ValidImage, key: &str) -> &'i Value {
    &image.config["config"][key]
}

/// The history without that of the base: `created_by`, with `+ ` before what made a layer and `- ` before what did not.
pub(super) fn history(image: &ValidImage, base: usize) -> Vec<String> {
    let entries = image.config["history"].as_array().expect("a history");
    entries[base..]
        .iter()
        .map(|entry| {
            assert_eq!(entry["comment"], "buildkit.dockerfile.v0", "{entry}");
            let sign = if entry["empty_layer"] == true { '-' } else { '+' };
            format!("{sign} {}", entry["created_by"].as_str().expect("a text"))
        })
        .collect()
}

/// Gives a file or folder of the context a time in the past.
pub(super) fn age(path: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(SOURCE_TIME, 987_654_321);
    let times = FileTimes::new().set_modified(time);
    File::open(path).and_then(|file| file.set_times(times)).expect("a new time");
}

/// Sets the permission bits of a file or folder of the context.
pub(super) fn chmod(fixture: &Fixture, name: &str, mode: u32) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(fixture.context().join(name), mode).expect("a new mode");
}

/// Gives a file or folder of the context to somebody else. Only root can; for others it stays theirs.
pub(super) fn give_away(path: &Path) {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(55), Some(66)).expect("a new owner");
    }
}

/// Makes a symbolic link in the context.
pub(super) fn symlink(fixture: &Fixture, target: &str, name: &str) {
    std::os::unix::fs::symlink(target, fixture.context().join(name)).expect("a link");
}
