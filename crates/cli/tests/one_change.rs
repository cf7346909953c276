//! What a build reads of a context in which little has changed.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::fixture::{Fixture, have};

const FILES: usize = 400;
const SIZE: usize = 64 << 10;

/// The calls that read, or would let read without one.
const READS: &str =
    "trace=read,pread64,readv,preadv,preadv2,mmap,sendfile,copy_file_range,splice,io_uring_setup";

/// How many bytes a build reads of files in these folders, by what the calls say that they did.
fn read_of(fixture: &Fixture, folders: &[PathBuf], args: &[&str]) -> usize {
    let build = fixture.build_command("store", args);
    // With the paths of descriptors.
    let (done, trace) = fixture.traced(&build, &["-y", "-e", READS]);
    done.ok();
    assert!(!trace.contains("io_uring_setup"), "what a ring reads is not in a trace");
    let folders: Vec<String> =
        folders.iter().map(|folder| format!("<{}/", folder.display())).collect();
    let mut unfinished = HashSet::new();
    let mut read = 0;
    for line in trace.lines() {
        let thread = line.split(' ').next().unwrap_or_default();
        let is_rest = line.contains(" resumed>") && unfinished.remove(thread);
        if !is_rest && !folders.iter().any(|folder| line.contains(folder)) {
            continue;
        }
        assert!(!line.contains("mmap("), "what is mapped is read unseen: {line}");
        if line.ends_with("<unfinished ...>") {
            unfinished.insert(thread);
            continue;
        }
        let said = line.rsplit_once(" = ").and_then(|(_, said)| said.split(' ').next());
        read += said.and_then(|said| said.parse().ok()).unwrap_or(0);
    }
    read
}

fn fixture(dockerfile: &str) -> Fixture {
    let fixture = Fixture::with(dockerfile);
    for file in 0..FILES {
        // Different, so that none stands for another.
        let text = format!("{file:08}").repeat(SIZE / 8);
        fixture.write(&format!("d{}/f{file:04}", file % 2), text);
    }
    fixture
}

#[test]
fn privileged_a_build_reads_what_has_changed() {
    if !have("privileged_a_build_reads_what_has_changed", "strace") {
        return;
    }
    let fixture = fixture("FROM scratch\nCOPY . /\n");
    let read = || read_of(&fixture, &[fixture.context()], &["-o", "type=cacheonly"]);
    let first = read();
    assert!(first >= FILES * SIZE, "the first build has to read all, and read {first} bytes");
    // What was written right before it was hashed is hashed once more.
    read();
    let again = read();
    assert!(again < SIZE, "nothing has changed, and {again} bytes were read");
    fixture.write("d0/f0100", "changed".repeat(SIZE / 7));
    let changed = read();
    assert!(
        (SIZE / 2..4 * SIZE).contains(&changed),
        "a file of {SIZE} bytes has changed, and {changed} were read"
    );
}

#[test]
fn privileged_an_image_costs_the_layers_that_have_changed() {
    if !have("privileged_an_image_costs_the_layers_that_have_changed", "strace") {
        return;
    }
    let fixture = fixture("FROM scratch\nCOPY d0 /d0\nCOPY d1 /d1\nCOPY small /\n");
    fixture.write("small", "one");
    let store = fixture.path("store");
    let folders = [fixture.context(), store.join("layers"), store.join("blobs")];
    let read = || read_of(&fixture, &folders, &["-t", "app"]);
    for _ in 0..2 {
        read();
    }
    fixture.write("small", "two");
    let changed = read();
    assert!(changed < SIZE, "a file of three bytes has changed, and {changed} were read");
}
