//! Copies whose files nobody needs (design D4).

use std::fs;
use std::os::unix::fs::{DirEntryExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use rbuild_testdata::validate;

use crate::fixture::{Fixture, read, valid};

/// A stage with the context: what is copied from that itself is done at once, unless nothing is kept of it.
const STAGE: &str = "FROM scratch AS c\nCOPY --exclude=Dockerfile . /\n";

/// An archive whose bytes do not depend on when it is made.
const EPOCH: &str = "type=oci,source-date-epoch=1";

/// How many layers of a store are directories.
fn layers(fixture: &Fixture, store: &str) -> usize {
    fs::read_dir(fixture.path(store).join("layers")).expect("a store").count()
}

fn fill(fixture: &Fixture) {
    for (name, text) in [("a", "a"), ("d/x", "x"), ("d/sub/y", "y"), ("d/sub-z", "z")] {
        fixture.write(name, text);
    }
    let d = fixture.context().join("d");
    symlink("x", d.join("link")).expect("a link");
    fs::hard_link(d.join("x"), d.join("same")).expect("a second name");
    fs::set_permissions(d.join("sub"), fs::Permissions::from_mode(0o2750)).expect("a mode");
    fs::set_permissions(d.join("sub-z"), fs::Permissions::from_mode(0o4711)).expect("a mode");
}

#[test]
fn privileged_the_archive_of_what_is_deferred_is_that_of_what_is_made() {
    let fixture = Fixture::new();
    fill(&fixture);
    for (number, dockerfile) in [
        "FROM scratch\nCOPY --from=c . /src",
        "FROM scratch\nCOPY --from=c d/ /",
        "FROM scratch\nCOPY --from=c a /x/y",
        "FROM busybox\nCOPY --from=c a /bin/",
        "FROM busybox\nCOPY --from=c . /",
        "FROM busybox\nCOPY --from=c d /bin",
        "FROM busybox\nCOPY --from=c --chown=5:6 --chmod=u=rwX,go= d /usr/new/dir/",
        "FROM busybox\nCOPY --from=c --chown=nobody --chmod=700 a /usr/new/dir/",
        "FROM busybox\nCOPY --from=c --link d /usr/new/dir/",
        "FROM busybox\nCOPY --from=c --link a /a\nCOPY --from=c --link d /c/",
        "FROM busybox\nRUN mkdir -p /p/sub && ln -s /p /q && echo o >/p/sub-z && chmod 711 /p/sub\nCOPY --from=c d /q/",
        "FROM busybox\nRUN mkdir /p && ln -s ../../p/none /q\nCOPY --from=c a /q/",
        "FROM busybox AS b\nRUN mkdir -p /o/k && echo 1 >/o/k/1 && chown -R 7:8 /o/k\nFROM busybox\nCOPY --from=b /o /",
        "FROM busybox\nCOPY --from=c --parents d/./sub/y /bin/",
        "FROM busybox\nCOPY <<X /h\nhello\nX",
        "FROM busybox\nCOPY --from=c --exclude=sub d /bin\nUSER 5\nCMD [\"x\"]",
        // A base that has the very files.
        "FROM busybox AS b\nCOPY --exclude=x --exclude=same --exclude=sub d /d\nRUN true\nFROM b\nCOPY --from=b /d/ /d/",
    ]
    .iter()
    .enumerate()
    {
        fixture.write("Dockerfile", format!("{STAGE}{dockerfile}"));
        let stores = [format!("deferred-{number}"), format!("made-{number}")];
        let archives = ["deferred.tar", "made.tar"].map(|name| fixture.path(name));
        for (store, archive) in stores.iter().zip(&archives) {
            let spec = format!("{EPOCH},compression=uncompressed,dest={}", archive.display());
            let mut args = Vec::new();
            if store.starts_with("made") {
                args.extend(["-o", "type=image,unpack=true,compression=uncompressed,source-date-epoch=1"]);
            }
            args.extend(["-o", &spec]);
            fixture.build_in(store, &args).ok();
        }
        let [deferred, made] = archives.map(|path| fs::read(path).expect("an archive"));
        assert!(deferred == made, "{dockerfile}");
        let [deferred, made] = stores.map(|store| layers(&fixture, &store));
        assert_eq!(deferred + 1, made, "{dockerfile}");
    }
}

/// Entries of a layer, with the times of those that may have one of the build's own left out.
fn entries(layer: &validate::ValidLayer) -> Vec<validate::ValidEntry> {
    let mut entries = layer.entries.clone();
    for entry in entries.iter_mut().filter(|entry| entry.kind == 'd') {
        entry.mtime = 0;
    }
    entries
}

#[test]
fn privileged_the_context_is_archived_without_a_copy_on_the_disk() {
    for (dockerfile, archived) in [
        ("FROM scratch\nCOPY . /src\n", true),
        ("FROM busybox\nCOPY d /usr/new/dir/\n", true),
        ("FROM busybox\nCOPY --chown=nobody --chmod=u=rwX,go= . /bin/\n", true),
        ("FROM busybox\nWORKDIR /app\nCOPY --exclude=sub . .\nUSER 5\n", true),
        ("FROM busybox\nCOPY --link a d /x/\n", false),
        ("FROM busybox\nCOPY a /a\nRUN true\n", false),
    ] {
        let fixture = Fixture::with(dockerfile);
        fill(&fixture);
        let forms = [("plain", "uncompressed"), ("gzip", "gzip"), ("zstd", "zstd")];
        let spec = |store: &str, (name, compression): (&str, &str)| {
            let file = fixture.path(&format!("{store}-{name}.tar"));
            format!("type=oci,compression={compression},dest={}", file.display())
        };
        let specs = forms.map(|form| spec("archived", form));
        let outputs: Vec<&str> = specs.iter().flat_map(|spec| ["-o", spec]).collect();
        fixture.build_in("archived", &outputs).ok();
        assert_eq!(
            fixture.build_in("archived", &outputs).ok().steps_run(),
            [""; 0],
            "{dockerfile}"
        );
        let specs = forms.map(|form| spec("made", form));
        let mut outputs: Vec<&str> = specs.iter().flat_map(|spec| ["-o", spec]).collect();
        outputs.extend(["-o", "type=image,unpack=true"]);
        fixture.build_in("made", &outputs).ok();
        let [one, two] = ["archived", "made"].map(|store| layers(&fixture, store));
        assert_eq!(one + usize::from(archived), two, "{dockerfile}");
        for (name, _) in forms {
            let [one, two] = ["archived", "made"]
                .map(|store| valid("oci", &fixture.path(&format!("{store}-{name}.tar"))).layers);
            let [one, two] =
                [one, two].map(|layers| layers.iter().map(entries).collect::<Vec<_>>());
            assert_eq!(one, two, "{dockerfile}");
        }
    }
}

#[test]
fn privileged_a_context_that_was_archived_is_copied_when_a_step_needs_it() {
    const COPY: &str = "FROM busybox\nCOPY d /d\n";
    let fixture = Fixture::with(COPY);
    fill(&fixture);
    fixture.build(&["-t", "app"]).ok();
    assert_eq!(layers(&fixture, "store"), 1);
    fixture.write("Dockerfile", format!("{COPY}RUN cat /d/x /d/same > /seen\n"));
    assert_eq!(read(&fixture.build_files(&[]), "seen"), "xx");
    // Again only an image: what is there does.
    fixture.write("Dockerfile", COPY);
    assert_eq!(fixture.build(&["-t", "again"]).ok().steps_run(), [""; 0]);
    // And of another form.
    let spec = format!("type=oci,compression=zstd,dest={}", fixture.path("z.tar").display());
    assert_eq!(fixture.build(&["-o", &spec]).ok().steps_run(), [""; 0]);
    let image = valid("oci", &fixture.path("z.tar"));
    assert!(image.layers[1].entry("d/sub/y").is_some());
}

/// All there is to say of the files of a folder.
fn archived(folder: &Path) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--numeric-owner", "--mtime=@0", "--no-recursion", "-c", "-C"])
        .arg(folder);
    let output = tar.arg(".").output().expect("tar runs");
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--numeric-owner", "--exclude=./.", "-c", "-C"]).arg(folder);
    tar.args(
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name()),
    );
    [output.stdout, tar.output().expect("tar runs").stdout].concat()
}

#[test]
fn privileged_files_come_straight_from_their_source() {
    for (copy, streams) in [
        ("COPY --from=c . /", true),
        ("COPY --from=c --chown=5:6 --chmod=go= d /a/b/", true),
        ("COPY --from=c a /x/y", true),
        ("COPY --from=c a /a\nCOPY --from=c d /", false),
    ] {
        let fixture = Fixture::with(&format!("{STAGE}FROM scratch\n{copy}\n"));
        fill(&fixture);
        let spec = |name: &str| {
            format!("type=local,source-date-epoch=1,dest={}", fixture.path(name).display())
        };
        let tar = |name: &str| {
            format!("type=tar,source-date-epoch=1,dest={}", fixture.path(name).display())
        };
        // What stands where something goes is replaced, and what else is there stays.
        for name in ["straight", "made"] {
            let there = fixture.path(name).join("d/sub");
            fs::create_dir_all(&there).expect("a folder");
            fs::write(there.join("y"), "old").expect("a file");
            fs::write(there.join("other"), "mine").expect("a file");
            symlink("/nowhere", fixture.path(name).join("a")).expect("a link");
        }
        let straight = ["-o", &spec("straight"), "-o", &tar("straight.tar")];
        fixture.build_in("one", &straight).ok();
        assert_eq!(layers(&fixture, "one") == 1, streams, "{copy}");
        let made = ["-o", "type=image,unpack=true", "-o", &spec("made"), "-o", &tar("made.tar")];
        fixture.build_in("two", &made).ok();
        let [one, two] = ["straight.tar", "made.tar"].map(|name| fs::read(fixture.path(name)));
        assert!(one.expect("a tar") == two.expect("a tar"), "{copy}");
        let [one, two] = ["straight", "made"].map(|name| archived(&fixture.path(name)));
        assert!(one == two, "{copy}");
    }
}

#[test]
fn privileged_what_nobody_needs_is_made_when_somebody_does() {
    const COPY: &str = "FROM busybox\nCOPY --from=c --chown=3:4 d /d\n";
    const LOOK: &str = "RUN stat -c '%n %a %u:%g %y' /d/* /d > /seen && cat /d/x >> /seen\n";
    let fixture = Fixture::with(&format!("{STAGE}{COPY}"));
    fill(&fixture);
    let cacheonly = ["-o", "type=cacheonly"];
    fixture.build(&cacheonly).ok();
    assert_eq!(layers(&fixture, "store"), 2, "those of the base and the stage");
    assert_eq!(fixture.build(&cacheonly).ok().steps_run(), [""; 0]);
    // An image needs the archive and no files.
    fixture.build(&["-t", "app"]).ok();
    assert_eq!(fixture.build(&["-t", "app"]).ok().steps_run(), [""; 0]);
    assert_eq!(layers(&fixture, "store"), 2);

    // A step sees what it would see without the image, to the nanosecond.
    fixture.write("Dockerfile", format!("{STAGE}{COPY}{LOOK}"));
    fixture.build(&cacheonly).ok();
    assert_eq!(layers(&fixture, "store"), 4);
    let seen = read(&fixture.build_files(&[]), "seen");
    let files = format!("type=local,dest={}", fixture.path("new").display());
    fixture.build_in("new store", &["-o", &files]).ok();
    assert_eq!(read(&fixture.path("new"), "seen"), seen);
}

#[test]
fn privileged_a_folder_in_which_the_context_is_keeps_its_files() {
    let fixture = Fixture::with("FROM scratch\nCOPY . /\n");
    fill(&fixture);
    let context = fixture.context();
    for dest in [context.clone(), context.join("out"), context.join("out")] {
        let spec = format!("type=local,dest={}", dest.display());
        fixture.build(&["-o", &spec]).ok();
        assert_eq!(read(&context, "a") + &read(&context, "d/x") + &read(&dest, "d/x"), "axx");
    }
    // Nor is what is written there in the way of what is written after it.
    let tar = format!("type=tar,dest={}", context.join("out.tar").display());
    let archive = format!("type=oci,dest={}", fixture.path("x.tar").display());
    for _ in 0..2 {
        fixture.build(&["-o", &tar, "-o", &archive]).ok();
    }
}

#[test]
fn privileged_times_of_an_image_are_no_times_of_files() {
    let fixture = Fixture::with(&format!("{STAGE}FROM busybox\nCOPY --from=c d /d\n"));
    fill(&fixture);
    fixture.build(&["-o", "type=image,name=a,source-date-epoch=5"]).ok();
    let times = |out: &Path| fs::metadata(out.join("d/x")).and_then(|file| file.modified());
    let expected = times(&fixture.context()).expect("a time");
    assert_eq!(times(&fixture.build_files(&[])).expect("a time"), expected);
}

#[test]
fn privileged_a_layer_has_only_what_is_new_whatever_the_cache_has() {
    let fixture = Fixture::with(&format!("{STAGE}FROM busybox\nCOPY --from=c d /src/d\n"));
    fill(&fixture);
    fs::remove_file(fixture.context().join("d/same")).expect("one name is enough");
    fixture.build(&["-t", "app"]).ok();
    let more = format!("{STAGE}FROM busybox\nCOPY --from=c d /src/d\nCOPY --from=c d/../ /src/\n");
    fixture.write("Dockerfile", more);
    let archive = |store: &str| {
        let path = fixture.path(&format!("{store}.tar"));
        let spec = format!("{EPOCH},compression=uncompressed,dest={}", path.display());
        fixture.build_in(store, &["-o", &spec]).ok();
        fs::metadata(path).expect("an archive").len()
    };
    assert_eq!(archive("store"), archive("fresh"));
}

#[test]
fn privileged_what_was_deferred_is_made_from_the_context_of_the_build_that_needs_it() {
    let fixture = Fixture::with("FROM scratch\nCOPY d /d\n");
    fill(&fixture);
    fixture.build(&["-o", "type=cacheonly"]).ok();
    fixture.write("d/x", "other");
    assert_eq!(read(&fixture.build_files(&[]), "d/x"), "other");
    fixture.write("d/x", "x");
    assert_eq!(read(&fixture.build_files(&[]), "d/x"), "x");
}

#[test]
fn privileged_an_image_with_a_fixed_time_is_archived_once() {
    let fixture = Fixture::with(&format!("{STAGE}FROM busybox\nCOPY --from=c d /d\n"));
    fill(&fixture);
    let blobs = || {
        let blobs = fs::read_dir(fixture.path("store/blobs/sha256")).expect("a store");
        let made = |blob: fs::DirEntry| (blob.file_name(), blob.ino());
        let mut blobs: Vec<_> = blobs.map(|blob| made(blob.expect("a blob"))).collect();
        blobs.sort();
        blobs
    };
    let build = || {
        fixture.build(&["-t", "app", "--build-arg", "SOURCE_DATE_EPOCH=1"]).ok();
        assert_eq!(layers(&fixture, "store"), 3, "the base's, the stage's, and the copy's");
        blobs()
    };
    assert_eq!(build(), build());
}

#[test]
fn privileged_explain_says_why_a_copy_is_done_after_all() {
    let fixture = Fixture::with("FROM busybox\nCOPY a /a\n");
    fill(&fixture);
    fixture.build(&["-o", "type=cacheonly"]).ok();
    let said = fixture.build(&["-t", "app", "--explain"]).ok().stderr;
    assert!(said.contains("but not kept its files: nothing needed them"), "{said}");
}

#[test]
fn privileged_a_cache_has_what_was_deferred() {
    let fixture = Fixture::with(&format!("{STAGE}FROM busybox\nCOPY --from=c d /d\n"));
    fill(&fixture);
    let cache = |kind: &str| format!("type=local,{kind}={}", fixture.path("cache").display());
    fixture.build(&["-o", "type=cacheonly"]).ok();
    fixture.build(&["-o", "type=cacheonly", "--cache-to", &cache("dest")]).ok();
    assert_eq!(layers(&fixture, "store"), 2);
    let spec = format!("type=local,dest={}", fixture.path("out").display());
    let ran = fixture.build_in("other", &["--cache-from", &cache("src"), "-o", &spec]).ok();
    assert!(!ran.steps_run().iter().any(|step| step.contains("COPY")), "{}", ran.stderr);
    assert_eq!(read(&fixture.path("out"), "d/sub/y"), "y");
}

#[test]
fn privileged_what_would_fail_fails_though_nobody_needs_it() {
    let last_line = |said: String| said.trim_end().lines().last().map(str::to_owned);
    for last in [
        "COPY d /bin/busybox",
        "COPY a /bin/busybox/x",
        "COPY nothing /",
        "COPY --chown=nobody:nobody a /a/\nCOPY d /a/a",
    ] {
        let fixture = Fixture::with(&format!("FROM busybox\n{last}\n"));
        fill(&fixture);
        let deferred = last_line(fixture.build(&["-o", "type=cacheonly"]).fails(1));
        let files = format!("type=tar,dest={}", fixture.path("files.tar").display());
        assert_eq!(deferred, last_line(fixture.build(&["-o", &files]).fails(1)), "{last}");
    }
}
