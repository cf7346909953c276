//! `--allow`: what a step only gets if whoever builds says so.

use crate::fixture::{Fixture, read};

const INSECURE: &str =
    "FROM busybox\nRUN --security=insecure grep CapBnd /proc/self/status > /bounding\n";

#[test]
fn privileged_insecure_steps_have_to_be_allowed() {
    let fixture = Fixture::with(INSECURE);
    let refused = fixture.build(&["-o", "type=cacheonly"]).fails(1);
    assert!(refused.contains("failed to solve: security.insecure is not allowed"), "{refused}");
    assert!(refused.contains(">>> RUN --security=insecure"), "{refused}");
    assert!(refused.contains("--allow security.insecure"), "{refused}");
    let not_enough = fixture.build(&["--allow", "network.host", "-o", "type=cacheonly"]).fails(1);
    assert!(not_enough.contains("security.insecure is not allowed"), "{not_enough}");

    let out = fixture.build_files(&["--allow", "security.insecure"]);
    let ours = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = ours.lines().find(|line| line.starts_with("CapBnd")).unwrap();
    assert_eq!(read(&out, "bounding").trim_end(), bounding);
    // What an allowed build has made is not for one that is not.
    let refused = fixture.build(&["-o", "type=cacheonly"]).fails(1);
    assert!(refused.contains("security.insecure is not allowed"), "{refused}");
}

#[test]
fn privileged_insecure_steps_of_llb_have_to_be_allowed() {
    let fixture = Fixture::with(INSECURE);
    let busybox = format!("busybox=oci-layout://{}:latest", fixture.busybox().display());
    let context = fixture.context().display().to_string();
    let graph = fixture.run(["debug", "dump-llb", "--build-context", &busybox, &context]).ok();
    std::fs::write(fixture.path("graph"), &graph.stdout).unwrap();
    let build = |allow: &[&str]| {
        fixture.run(["build", "--llb", "graph", "-o", "type=cacheonly"].iter().chain(allow))
    };
    let refused = build(&[]).fails(1);
    assert!(refused.contains("failed to solve: security.insecure is not allowed"), "{refused}");
    build(&["--allow=security.insecure"]).ok();
}

#[test]
fn unknown_entitlements_are_refused() {
    let fixture = Fixture::with("FROM scratch\n");
    let refused = fixture.build(&["--allow", "everything"]).fails(2);
    assert!(refused.contains("security.insecure"), "{refused}");
}

#[test]
fn privileged_the_hosts_network_has_to_be_allowed() {
    let fixture =
        Fixture::with("FROM busybox\nRUN --network=host readlink /proc/self/ns/net > /net\n");
    let refused = fixture.build(&["-o", "type=cacheonly"]).fails(1);
    assert!(refused.contains("failed to solve: network.host is not allowed"), "{refused}");
    assert!(refused.contains("--allow network.host"), "{refused}");
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    // Who gives it to all steps has allowed it, as with buildx.
    for args in [&["--network=host"][..], &["--allow", "network.host"]] {
        assert_eq!(read(&fixture.build_files(args), "net").trim_end(), ours);
    }

    let busybox = format!("busybox=oci-layout://{}:latest", fixture.busybox().display());
    let context = fixture.context().display().to_string();
    let graph = fixture.run(["debug", "dump-llb", "--build-context", &busybox, &context]).ok();
    std::fs::write(fixture.path("graph"), &graph.stdout).unwrap();
    let llb = ["build", "--llb", "graph", "-o", "type=cacheonly"];
    let refused = fixture.run(llb).fails(1);
    assert!(refused.contains("network.host is not allowed"), "{refused}");
    fixture.run(llb.iter().chain(&["--allow=network.host"])).ok();
}
