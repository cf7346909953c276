//! Cache mounts in caches for other machines.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use rbuild_testdata::Registry;

use crate::fixture::{Fixture, Ran, read};

const INDEX: &str = "application/vnd.rbuild.cachemounts.v1+json";

/// Files of every kind with every attribute; `$RUN` makes it run again.
const FILL: &str = "FROM busybox\n\
    ARG RUN\n\
    RUN --mount=type=cache,id=deps,target=/c cd /c && mkdir -p d/e && echo text > d/file \
    && chown 12:34 d/file && chmod 4750 d/file && chmod 1777 d/e && ln d/file hard && ln -s ../nowhere/. soft \
    && mkfifo pipe && echo x > .wh.name && echo odd > ' a  name' \
    && touch -d '2001-02-03 04:05:06' d/file d/e d && chmod 750 /c\n";

/// Says what is in the mount.
const LIST: &str = "FROM busybox\n\
    ARG RUN\n\
    RUN --mount=type=cache,id=deps,target=/c cd /c && stat -c '%n %F %a %u:%g' . > /list && find . -mindepth 1 | sort | while IFS= read -r name; do stat -c '%n %F %a %u:%g %s %h %Y' \"$name\"; done >> /list; \
    cat d/file hard .wh.name >> /list; readlink soft >> /list; true\n";

fn to(fixture: &Fixture, more: &str) -> String {
    format!("type=local,dest={}{more}", fixture.path("cache").display())
}

fn from(fixture: &Fixture) -> String {
    format!("type=local,src={}", fixture.path("cache").display())
}

/// Builds a Dockerfile whose steps run, and gives the run and the files.
fn run(fixture: &Fixture, store: &str, dockerfile: &str, args: &[&str]) -> (Ran, PathBuf) {
    fixture.write("Dockerfile", dockerfile);
    let number = fs::read_dir(fixture.path("")).expect("the fixture's folder").count();
    let out = fixture.path(&format!("out{number}"));
    let spec = format!("type=local,dest={}", out.display());
    let run = format!("RUN={number}");
    let args = [&["-o", &spec, "--build-arg", &run][..], args].concat();
    (fixture.build_in(store, &args).ok(), out)
}

/// Names and sizes of the blobs of the cache.
fn blobs(fixture: &Fixture) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(fixture.path("cache/blobs/sha256")).expect("the blobs");
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.expect("a blob");
        let size = entry.metadata().expect("its size").len();
        (entry.file_name().into_string().expect("hexadecimal digits"), size)
    };
    entries.map(entry).collect()
}

fn document(fixture: &Fixture, digest: &serde_json::Value) -> (PathBuf, serde_json::Value) {
    let hex = digest.as_str().expect("a digest").trim_start_matches("sha256:");
    let path = fixture.path("cache/blobs/sha256").join(hex);
    let document = serde_json::from_slice(&fs::read(&path).expect("a document")).expect("JSON");
    (path, document)
}

/// The index of mounts, and the paths of the packs.
fn index(fixture: &Fixture) -> (serde_json::Value, Vec<PathBuf>) {
    let text = fs::read(fixture.path("cache/index.json")).expect("the layout's index");
    let layout: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let (_, manifest) = document(fixture, &layout["manifests"][0]["digest"]);
    let layers = manifest["layers"].as_array().expect("layers");
    let of_mounts = layers.iter().find(|layer| layer["mediaType"] == INDEX).expect("the index");
    let (_, index) = document(fixture, &of_mounts["digest"]);
    let packs = index["packs"].as_array().expect("packs").iter();
    let path = |pack: &serde_json::Value| {
        let hex = pack["blob"].as_str().expect("a digest").trim_start_matches("sha256:");
        fixture.path("cache/blobs/sha256").join(hex)
    };
    let packs = packs.map(path).collect();
    (index, packs)
}

#[test]
fn privileged_another_machine_finds_the_mount_as_it_was() {
    let fixture = Fixture::new();
    run(&fixture, "store", FILL, &["--cache-to", &to(&fixture, ",mounts=deps")]);
    let (_, here) = run(&fixture, "store", LIST, &[]);
    let cache = from(&fixture);
    let (ran, there) = run(&fixture, "other", LIST, &["--cache-from", &cache]);
    let list = read(&there, "list");
    assert_eq!(list, read(&here, "list"), "{}", ran.stderr);
    for line in [
        ". directory 750 0:0",
        "./d/file regular file 4750 12:34 5 2 981173106",
        "./d/e directory 1777",
        "./pipe fifo",
        "./ a  name regular file",
        "../nowhere/.",
    ] {
        assert!(list.contains(line), "{line}: {list}");
    }
    // What is there already stays, and what is empty is filled.
    let add = LIST.replace("cd /c &&", "cd /c && touch added &&");
    run(&fixture, "other", &add, &["--cache-from", &cache]);
    let (_, there) = run(&fixture, "other", LIST, &["--cache-from", &cache]);
    assert!(read(&there, "list").contains("./added"));
    let empty = LIST.replace("cd /c &&", "cd /c && rm -rf ./* ./.wh.name &&");
    run(&fixture, "other", &empty, &[]);
    let (_, there) = run(&fixture, "other", LIST, &["--cache-from", &cache]);
    assert_eq!(read(&there, "list"), list);
    // Who ignores caches ignores that too.
    let (_, there) = run(&fixture, "third", LIST, &["--cache-from", &cache, "--no-cache"]);
    assert!(!read(&there, "list").contains("./d/file"));
}

#[test]
fn privileged_a_second_export_has_what_changed() {
    let fixture = Fixture::new();
    let step = |command: &str| {
        format!(
            "FROM busybox\nARG RUN\nRUN --mount=type=cache,target=/root/.cache cd /root/.cache && {command}\n"
        )
    };
    let export = |command: &str| {
        run(&fixture, "store", &step(command), &["--cache-to", &to(&fixture, ",mounts=all")]).0
    };
    export(
        "for i in 1 2 3; do head -c 10000000 /dev/urandom > $i; done; for i in $(seq 300); do echo $i > small$i; done",
    );
    let first = blobs(&fixture);
    let (before, packs) = index(&fixture);
    assert!((4..=6).contains(&packs.len()), "{packs:?}");
    assert_eq!(before["mounts"][0]["id"], "//root/.cache");
    // A pack of what is around the change, the index, and the documents and layer of the step.
    export("echo changed >> small7 && head -c 1000 /dev/urandom > new");
    let second = blobs(&fixture);
    let new: BTreeMap<&String, &u64> =
        second.iter().filter(|(name, _)| !first.contains_key(*name)).collect();
    let (after, packs_after) = index(&fixture);
    assert_eq!(packs_after.len(), packs.len() + 1, "{after}");
    assert!(new.values().copied().sum::<u64>() < 2_000_000, "{new:?}");
    assert_eq!(after["mounts"][0]["key"], before["mounts"][0]["key"]);
    // Nothing changed: nothing is new.
    let again = index(&fixture).0;
    run(
        &fixture,
        "store",
        "FROM busybox\nRUN --mount=type=cache,target=/root/.cache true\n",
        &["--cache-to", &to(&fixture, ",mounts=all")],
    );
    assert_eq!(index(&fixture).0, again);
    // What is no longer used goes, if it is most of it.
    export("rm -f 1 2 3");
    assert_eq!(index(&fixture).1.len(), 1);
    // And all of it is whole.
    let (_, out) = run(
        &fixture,
        "other",
        &step("ls | wc -l > /count; cat small7 >> /count"),
        &["--cache-from", &from(&fixture)],
    );
    assert_eq!(read(&out, "count"), "301\n7\nchanged\n");
}

#[test]
fn privileged_a_mount_that_nobody_needed_goes_along() {
    let registry = Registry::start();
    let fixture = Fixture::new();
    let name = format!("{}/cache", registry.address());
    let dockerfile = "FROM busybox\nRUN --mount=type=cache,id=a,target=/c echo kept > /c/file\n";
    let to = format!("type=registry,ref={name},mode=max,mounts=all");
    fixture.write("Dockerfile", dockerfile);
    fixture.build(&["-o", "type=cacheonly", "--cache-to", &to]).ok();
    let written = registry.manifest("cache", "latest").expect("a cache").digest();
    // The step is in the cache, so its mount is neither made nor fetched; the cache keeps it all the same.
    let args = ["-o", "type=cacheonly", "--cache-from", &name, "--cache-to", &to];
    fixture.build_in("other", &args).ok();
    assert!(!fixture.path("other/caches").read_dir().expect("mounts").any(|_| true));
    assert_eq!(registry.manifest("cache", "latest").expect("a cache").digest(), written);
    // Another name of the same repository needs no transfer either.
    let branch = to.replace("/cache,", "/cache:branch,");
    fixture
        .build_in("other", &["-o", "type=cacheonly", "--cache-from", &name, "--cache-to", &branch])
        .ok();
    let from = format!("{name}:branch");
    let (_, out) = run(
        &fixture,
        "third",
        "FROM busybox\nRUN --mount=type=cache,id=a,target=/c cp /c/file /found\n",
        &["--cache-from", &from],
    );
    assert_eq!(read(&out, "found"), "kept\n");
}

#[test]
fn privileged_what_is_broken_is_an_empty_mount() {
    let fixture = Fixture::new();
    run(&fixture, "store", FILL, &["--cache-to", &to(&fixture, ",mounts=deps")]);
    let (_, packs) = index(&fixture);
    let [pack] = &packs[..] else { panic!("{packs:?}") };
    let whole = fs::read(pack).expect("the pack");
    let cache = from(&fixture);
    let check = |store: &str| {
        let (ran, out) = run(&fixture, store, LIST, &["--cache-from", &cache]);
        assert!(!read(&out, "list").contains("./d/file"), "{store}");
        let warning = "WARN: cache mount \"deps\" of a cache is not used: ";
        assert!(ran.stderr.contains(warning), "{store}: {}", ran.stderr);
    };
    fs::write(pack, vec![7; whole.len()]).expect("another pack");
    check("lies");
    fs::write(pack, &whole[..whole.len() / 2]).expect("half a pack");
    check("half");
    fs::remove_file(pack).expect("no pack");
    check("gone");
    // An export does not rely on what is gone.
    run(&fixture, "store", LIST, &["--cache-to", &to(&fixture, ",mounts=deps")]);
    let (_, out) = run(&fixture, "whole", LIST, &["--cache-from", &cache]);
    assert!(read(&out, "list").contains("./d/file"));
}

#[test]
fn privileged_only_what_is_asked_for_goes_along() {
    let fixture = Fixture::new();
    let dockerfile = "FROM busybox\nARG RUN\n\
        RUN --mount=type=cache,id=a,target=/a --mount=type=cache,id=b,target=/b --mount=type=cache,id=ns/c,target=/c \
        head -c 100000 /dev/urandom > /a/large; echo b > /b/file; echo c > /c/file\n";
    let ids = |more: &str| {
        let ran = run(&fixture, "store", dockerfile, &["--cache-to", &to(&fixture, more)]).0;
        let mounts = index(&fixture).0["mounts"].as_array().expect("mounts").clone();
        let ids: Vec<String> =
            mounts.iter().map(|mount| mount["id"].as_str().expect("an id").to_owned()).collect();
        (ids.join(" "), ran.stderr)
    };
    assert_eq!(ids(",mounts=all").0, "/a /b /ns/c");
    assert_eq!(ids(",mounts=b,ns/c").0, "/b /ns/c");
    let (found, warnings) = ids(",mounts=b,none");
    assert_eq!(found, "/b");
    assert!(warnings.contains("WARN: there is no cache mount \"none\" to export"), "{warnings}");
    let (found, warnings) = ids(",mounts=all,mounts-max=64k");
    assert_eq!(found, "/b /ns/c");
    assert!(warnings.contains("WARN: cache mount \"a\" has "), "{warnings}");
    // Mounts of other builds are not those of this one.
    let other = "FROM busybox\nRUN --mount=type=cache,id=other,target=/o touch /o/x\n";
    run(&fixture, "store", other, &[]);
    assert_eq!(ids(",mounts=all").0, "/a /b /ns/c");
}
