//! Rules 29, 30 and 33: what stands in layers.

use std::io::Write as _;

use rbuild_testdata::{Compression, Entry, EntryKind, Layer};

use super::world::{
    age, build, history, listing, new_layers, rebuild, refusal, run, text, with_base,
};

#[test]
fn privileged_rule_29_whiteouts() {
    let fixture = with_base(
        "FROM busybox\n\
         RUN mkdir -p /d/sub /was-dir/x /e/keep && echo 1 > /d/old && echo 2 > /d/sub/f && echo 3 > /was-file && echo 4 > /was-dir/x/y && touch /e/keep/a\n\
         RUN rm -r /d && mkdir /d && echo new > /d/new && rm -r /was-dir && echo f > /was-dir && rm /was-file && mkdir /was-file && rm /e/keep/a\n\
         RUN chmod 700 /e && touch -d @5 /d/new\n",
    );
    let image = build(&fixture, &[]);
    assert_eq!(
        listing(&image.layers[2]),
        [
            "d0755 0:0 0 d/",
            "-0644 0:0 4 d/new",
            "-0000 0:0 0 d/.wh.old",
            "-0000 0:0 0 d/.wh.sub",
            "d0755 0:0 0 e/",
            "d0755 0:0 0 e/keep/",
            "-0000 0:0 0 e/keep/.wh.a",
            "-0644 0:0 2 was-dir",
            "d0755 0:0 0 was-file/",
        ]
    );
    for entry in image.layers[2].entries.iter().filter(|entry| entry.path.contains(".wh.")) {
        assert_eq!(entry.mtime, 0, "{entry}");
    }
    assert_eq!(
        listing(&image.layers[3]),
        ["d0755 0:0 0 d/", "-0644 0:0 4 d/new", "d0700 0:0 0 e/"]
    );
    assert_eq!(image.layers[3].entry("d/new").map(|entry| entry.mtime), Some(5));
}

#[test]
fn privileged_rule_30_times_have_seconds() {
    let fixture =
        with_base("FROM busybox\nCOPY one /one\nRUN cp -p /one /two && stat -c %y /one > /seen\n");
    fixture.write("one", "1");
    age(&fixture.context().join("one"));
    let image = build(&fixture, &[]);
    for (layer, name) in [(1, "one"), (2, "two")] {
        let entry = image.layers[layer].entry(name).expect("the file");
        assert_eq!((entry.mtime, entry.records.len()), (super::world::SOURCE_TIME, 0), "{name}");
    }
    // In the snapshot the time is whole.
    assert!(text(&image, "seen").contains(".987654321"), "{}", text(&image, "seen"));
}

/// An archive with a folder, a file of somebody's and links.
fn archive() -> Layer {
    let entries = [
        Entry::directory("d").mode(0o711).owner(3, 4),
        Entry::file("d/f", "text").mode(0o600).owner(5, 6),
        Entry::hardlink("d/hard", "d/f"),
        Entry::symlink("soft", "d/f"),
    ];
    Layer::compressed(&entries, Compression::None)
}

#[test]
fn privileged_rule_33_archives() {
    let fixture = with_base(
        "FROM base\n\
         ADD plain.txt /plain\n\
         ADD gzip.bin zstd /both/\n\
         ADD --chown=8:9 --chmod=777 plain.txt /owned\n\
         ADD --unpack=false plain.txt /packed\n\
         ADD fake.tar.gz notes.tar /\n\
         COPY gzip.bin /copied\n\
         ADD dir /dir\n",
    );
    let tar = archive().tar;
    fixture.write("plain.txt", &tar);
    let compressed = gzip(&tar);
    fixture.write("gzip.bin", &compressed);
    fixture.write("dir/inner.tar.gz", &compressed);
    fixture.write("fake.tar.gz", &compressed[..20]);
    fixture.write("notes.tar", "neither");
    let zstd = Layer::from_tar(tar.clone(), Compression::Zstd);
    fixture.write("zstd", zstd.blob);
    let image = build(&fixture, &[]);
    let unpacked = |at: &str| {
        vec![
            format!("d0755 0:0 0 {at}/"),
            format!("d0711 3:4 0 {at}/d/"),
            format!("-0600 5:6 4 {at}/d/f"),
            format!("h0600 5:6 0 {at}/d/hard -> {at}/d/f"),
            format!("l0777 0:0 0 {at}/soft -> d/f"),
        ]
    };
    let layers = new_layers(&image);
    assert_eq!(listing(&layers[0]), unpacked("plain"));
    assert_eq!(listing(&layers[1]), unpacked("both"));
    assert_eq!(
        listing(&layers[2]),
        [
            "d0755 8:9 0 owned/",
            "d0711 8:9 0 owned/d/",
            "-0600 8:9 4 owned/d/f",
            "h0600 8:9 0 owned/d/hard -> owned/d/f",
            "l0777 8:9 0 owned/soft -> d/f",
        ]
    );
    assert_eq!(layers[3].paths(), ["packed"]);
    assert_eq!(layers[4].paths(), ["fake.tar.gz", "notes.tar"]);
    assert_eq!(layers[5].paths(), ["copied"]);
    // Only what is named is unpacked, nothing below it.
    assert_eq!(layers[6].paths(), ["dir/", "dir/inner.tar.gz"]);
    assert_eq!(history(&image, 1)[2], "+ ADD --chown=8:9 --chmod=777 plain.txt /owned # buildkit");

    let error = refusal(&fixture, "FROM base\nADD plain.txt /file\n");
    assert!(error.contains("/file"), "{error}");
    let image = rebuild(&fixture, "FROM scratch\nADD plain.txt /\n", &[]);
    assert_eq!(image.layers[0].paths(), ["d/", "d/f", "d/hard", "soft"]);
}

#[test]
fn privileged_rule_33_owners_and_times_of_archives() {
    let fixture = with_base(
        "FROM base\n\
         ADD --chown=8:9 a.tar /new/deep/\n\
         ADD --chown=8:9 a.tar /\n\
         ADD a.tar /own/\n",
    );
    let archive = Layer::new(&[
        Entry::file("implied/f", "1").owner(3, 4).mtime(5),
        Entry::directory("existing").mode(0o750).owner(3, 4),
        Entry::special("pipe", EntryKind::Fifo).owner(3, 4),
    ]);
    fixture.write("a.tar", archive.tar);
    let image = build(&fixture, &["--build-arg", "SOURCE_DATE_EPOCH=1000"]);
    // Those of the archive's entries, and of what leads to it; what it only implies is root's.
    assert_eq!(
        listing(&new_layers(&image)[0]),
        [
            "d0755 8:9 0 new/",
            "d0755 8:9 0 new/deep/",
            "d0750 8:9 0 new/deep/existing/",
            "d0755 0:0 0 new/deep/implied/",
            "-0644 8:9 1 new/deep/implied/f",
            "p0600 8:9 0 new/deep/pipe",
        ]
    );
    assert_eq!(
        listing(&new_layers(&image)[1]),
        [
            "d0750 8:9 0 existing/",
            "d0755 0:0 0 implied/",
            "-0644 8:9 1 implied/f",
            "p0600 8:9 0 pipe"
        ]
    );
    let own = &new_layers(&image)[2];
    assert_eq!(listing(own)[2..4], ["d0755 0:0 0 own/implied/", "-0644 3:4 1 own/implied/f"]);
    // Nothing is younger than the epoch, and what is older stays so.
    let times = ["own/implied/f", "own/"].map(|path| own.entry(path).expect("an entry").mtime);
    assert_eq!(times, [5, 1000]);
}

#[test]
fn privileged_rule_29_a_name_that_would_delete_is_refused() {
    let fixture = with_base(
        "FROM base AS one\nCOPY one /existing/.wh.kept\nFROM base\nCOPY --from=one /existing/ /\n",
    );
    fixture.write("one", "1");
    let image = ["-o".to_owned(), format!("type=oci,dest={}", fixture.path("x.tar").display())];
    for name in ["/existing/.wh.kept", "/.wh.kept"] {
        let target = if name == "/.wh.kept" { "" } else { "one" };
        let mut args = vec![image[0].as_str(), image[1].as_str()];
        args.extend(["--target", target].iter().filter(|_| !target.is_empty()));
        let error = run(&fixture, "store", &args).fails(1);
        assert!(error.contains(&format!("`{name}` cannot be in an image")), "{error}");
    }
    // Where nothing becomes a layer it is a name like others.
    let out = fixture.path("out");
    let files = format!("type=local,dest={}", out.display());
    run(&fixture, "store", &["-o", &files, "--target", "one"]).ok();
    assert!(out.join("existing/.wh.kept").exists() && out.join("existing/kept").exists());
}

#[test]
fn privileged_rule_33_archives_stay_in_their_directory() {
    let fixture = with_base("FROM base\nADD dot.tar /new\nADD dot.tar /\n");
    let dot = Layer::new(&[
        Entry::directory("./").mode(0o700).owner(3, 4).mtime(5),
        Entry::file("./a/../f", "1"),
    ]);
    fixture.write("dot.tar", dot.tar);
    let image = build(&fixture, &[]);
    // The directory itself is not the archive's.
    assert_eq!(listing(&new_layers(&image)[0]), ["d0755 0:0 0 new/", "-0644 0:0 1 new/f"]);
    assert_eq!(listing(&new_layers(&image)[1]), ["-0644 0:0 1 f"]);

    for name in ["../f", "a/../../f", "/../f"] {
        fixture.write("out.tar", Layer::new(&[Entry::file(name, "1")]).tar);
        let error = refusal(&fixture, "FROM base\nADD out.tar /x/\n");
        assert!(error.contains("leads out of the directory"), "{name}: {error}");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new("gzip")
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("gzip starts");
    child.stdin.take().expect("a pipe").write_all(bytes).expect("gzip reads");
    child.wait_with_output().expect("gzip ends").stdout
}

#[test]
fn privileged_rule_40_no_attestation_that_nobody_asked_for() {
    let fixture = with_base("FROM base\nCOPY one /\n");
    fixture.write("one", "1");
    build(&fixture, &[]);
    let archive = std::fs::read(fixture.path("built.tar")).expect("the archive");
    let entries = rbuild_testdata::validate::tar_entries(&archive).expect("an archive");
    let index = entries.iter().find(|entry| entry.path == "index.json").expect("an index");
    let index: serde_json::Value = serde_json::from_slice(&index.content).expect("a document");
    let manifests = index["manifests"].as_array().expect("a list");
    assert_eq!(manifests.len(), 1, "{index}");
    assert_eq!(manifests[0]["mediaType"], "application/vnd.oci.image.manifest.v1+json");
}
