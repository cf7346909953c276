//! Images that are caches of themselves.

use std::fs;
use std::path::Path;

use rbuild_testdata::Registry;

use crate::fixture::{Fixture, Ran, valid};

const TWO_STAGES: &str = "FROM busybox AS made\n\
    COPY source /source\n\
    RUN wc -c < /source > /size\n\
    FROM busybox\n\
    COPY --from=made /size /size\n\
    COPY --link source /linked\n\
    RUN cp /size /final\n";

fn fixture() -> Fixture {
    let fixture = Fixture::with(TWO_STAGES);
    fixture.write("source", "text");
    fixture
}

/// The instructions that ran.
fn instructions(ran: &Ran) -> Vec<String> {
    let is_one = |step: &String| step.contains("RUN ") || step.contains("COPY ");
    ran.steps_run().into_iter().filter(is_one).collect()
}

fn has_cache(fixture: &Fixture, archive: &str) -> bool {
    valid("oci", &fixture.path(archive)).config.get("moby.buildkit.cache.v0").is_some()
}

fn unpack(archive: &Path, to: &Path) {
    let archive = fs::File::open(archive).expect("the archive");
    tar::Archive::new(archive).unpack(to).expect("an OCI layout");
}

#[test]
fn privileged_an_image_at_a_registry_is_a_cache() {
    let registry = Registry::start();
    let fixture = fixture();
    let name = format!("{}/app", registry.address());
    fixture.build(&["-t", &name, "--push", "--cache-to", "type=inline"]).ok();
    let from = format!("type=registry,ref={name}");
    let known = ["--cache-from", &from, "-o", "type=cacheonly"];
    let built = fixture.build_in("other", &known).ok();
    assert_eq!(instructions(&built), [""; 0], "{}", built.stderr);
    assert_eq!(fs::read_dir(fixture.path("other/layers")).expect("layers").count(), 0);
    // Stages that are not in the image run again where what copies from them has changed.
    fixture.write("source", "longer");
    let built = fixture.build_in("third", &known).ok();
    assert_eq!(instructions(&built).len(), 6, "{}", built.stderr);
    fixture.write("source", "text");
    fixture.write("Dockerfile", format!("{TWO_STAGES}RUN cat /final > /more\n"));
    let built = fixture.build_in("fourth", &known).ok();
    assert_eq!(instructions(&built).len(), 1, "{}", built.stderr);
}

#[test]
fn privileged_an_image_in_a_layout_is_a_cache() {
    let fixture = fixture();
    let output = format!("type=oci,dest={}", fixture.path("one.tar").display());
    let argument = ["--build-arg", "BUILDKIT_INLINE_CACHE=1"];
    fixture.build(&[&["-t", "app", "-o", &output][..], &argument].concat()).ok();
    assert!(has_cache(&fixture, "one.tar"));
    unpack(&fixture.path("one.tar"), &fixture.path("layout"));
    let from = format!("type=local,src={}", fixture.path("layout").display());
    let built = fixture.build_in("other", &["--cache-from", &from, "-o", "type=cacheonly"]).ok();
    assert_eq!(instructions(&built), [""; 0], "{}", built.stderr);
}

#[test]
fn privileged_an_image_with_an_epoch_has_the_same_cache_everywhere() {
    let fixture = fixture();
    let digest = |store: &str| {
        let path = fixture.path(&format!("{store}.tar"));
        let output = format!("type=oci,dest={}", path.display());
        let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1000000000"];
        let args = [&["-o", &output, "--cache-to", "type=inline"][..], &epoch].concat();
        fixture.build_in(store, &args).ok();
        assert!(has_cache(&fixture, &format!("{store}.tar")));
        valid("oci", &path).manifest_digest
    };
    assert_eq!(digest("one"), digest("two"));
}

#[test]
fn privileged_a_cache_is_of_its_own_image() {
    let fixture = fixture();
    fixture.build(&["-t", "base", "--cache-to", "type=inline"]).ok();
    fixture.write("Dockerfile", "FROM base\nRUN true\n");
    let output = format!("type=oci,dest={}", fixture.path("derived.tar").display());
    fixture.build(&["-o", &output]).ok();
    assert!(!has_cache(&fixture, "derived.tar"), "what the base image says is not passed on");
    for output in ["type=cacheonly", "type=tar,dest=out.tar"] {
        let error = fixture.build(&["-o", output, "--cache-to", "type=inline"]).fails(2);
        assert!(error.contains("no output is one"), "{error}");
    }
    let twice = ["--cache-to", "type=inline", "--cache-to", "type=inline,mode=min"];
    assert!(fixture.build(&twice).fails(2).contains("two --cache-to go to the image"));
}
