//! Images, archives, contexts and graphs from who means harm.

use std::fs;

use rbuild_solver::{
    CopyAction, Edge, FileAction, FileActionKind, FileOp, GraphBuilder, MkdirAction, MkfileAction,
    Op, RmAction, SourceOp, SymlinkAction, VertexMeta, llb,
};
use rbuild_testdata::{Entry, Image, Layer, Layout, busybox_image};
use serde_json::json;

use super::bait::Bait;
use crate::fixture::{Fixture, Ran};

const NOTHING: [&str; 2] = ["-o", "type=cacheonly"];

/// Builds a graph of file operations on nothing, each on what the one before has made, and on the context as what is copied from.
fn build_actions(fixture: &Fixture, actions: Vec<FileActionKind>) -> Ran {
    let mut graph = GraphBuilder::new();
    let source = SourceOp::new("local://context");
    let local = graph.add(Op::Source(source), vec![], None, VertexMeta::default());
    let context = Edge { vertex: local, output: 0 };
    let count = actions.len();
    let actions = actions
        .into_iter()
        .enumerate()
        .map(|(index, kind)| FileAction {
            input: index.checked_sub(1).map(|before| before as u32 + 1),
            secondary_input: matches!(kind, FileActionKind::Copy(_)).then_some(0),
            output: (index + 1 == count).then_some(0),
            kind,
        })
        .collect();
    let op = Op::File(FileOp { actions });
    let vertex = graph.add(op, vec![context], None, VertexMeta::default());
    let bytes = llb::to_bytes(&graph.finish(), Edge { vertex, output: 0 });
    build_llb(fixture, &bytes)
}

fn build_llb(fixture: &Fixture, bytes: &[u8]) -> Ran {
    fs::write(fixture.path("graph"), bytes).expect("the graph");
    let out = format!("type=local,dest={}", fixture.path("out").display());
    let context = format!("context={}", fixture.context().display());
    fixture.run([
        "build",
        "--llb",
        "graph",
        "--progress=plain",
        "--build-context",
        &context,
        "-o",
        &out,
    ])
}

fn file(path: &str) -> FileActionKind {
    FileActionKind::Mkfile(MkfileAction {
        path: path.to_owned(),
        mode: 0o644,
        data: b"written".to_vec(),
        owner: None,
        timestamp: None,
    })
}

fn link(target: &str, path: &str) -> FileActionKind {
    FileActionKind::Symlink(SymlinkAction {
        target: target.to_owned(),
        path: path.to_owned(),
        owner: None,
        timestamp: None,
    })
}

fn remove(path: &str, wildcard: bool) -> FileActionKind {
    FileActionKind::Rm(RmAction {
        path: path.to_owned(),
        allow_not_found: true,
        allow_wildcard: wildcard,
    })
}

fn copy(src: &str, dest: &str) -> FileActionKind {
    FileActionKind::Copy(CopyAction {
        src: src.to_owned(),
        dest: dest.to_owned(),
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..CopyAction::default()
    })
}

/// Malformed graphs, which made the daemon panic; also GHSA-qx3x-mv6r-52p6.
#[test]
fn privileged_cve_2024_23650_malformed_graphs_are_errors() {
    let fixture = Fixture::with("FROM scratch\nCOPY a /b\nADD --chown=1:2 a /c/\nWORKDIR /d\n");
    fixture.write("a", "a");
    let context = fixture.context().display().to_string();
    let graph = fixture.run(["debug", "dump-llb", &context]).ok().stdout;
    let check = |bytes: &[u8]| {
        let ran = build_llb(&fixture, bytes);
        assert!(matches!(ran.code, 0..=2), "{}: {}", ran.code, ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    };
    check(&[]);
    check(&[0xff; 64]);
    for cut in (0..graph.len()).step_by(graph.len() / 15) {
        check(&graph[..cut]);
    }
    for at in (0..graph.len()).step_by(graph.len() / 45) {
        let mut bytes = graph.clone();
        bytes[at] ^= 1 << (at % 8);
        check(&bytes);
    }
}

/// File operations of a graph whose paths lead out of the state, directly and through links.
#[test]
fn privileged_cve_2026_33747_paths_of_graphs_stay_in_their_state() {
    let up = "../".repeat(20);
    for through_link in [false, true] {
        let fixture = Fixture::new();
        let bait = Bait::new(&fixture);
        let path = bait.path();
        symlink_in_context(&fixture, &path);
        fixture.write("file", "file");
        let outside = if through_link { "/link".to_owned() } else { format!("/{up}{path}") };
        let mkdir = FileActionKind::Mkdir(MkdirAction {
            path: format!("{outside}/made"),
            mode: 0o777,
            make_parents: true,
            owner: None,
            timestamp: None,
        });
        for action in [
            file(&format!("{outside}/secret")),
            mkdir,
            remove(&format!("{outside}/secret"), false),
            remove(&format!("{outside}/*"), true),
            link("/", &format!("{outside}/link")),
            copy("/file", &format!("{outside}/secret")),
            copy(&format!("{outside}/secret"), "/copied"),
            copy("/link/secret", "/copied"),
            copy("/link/*", "/copied/"),
        ] {
            let ran = build_actions(&fixture, vec![link(&path, "/link"), action]);
            bait.is_untouched(&ran, &[&fixture.path("out"), &fixture.path("store")]);
            assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        }
    }
}

fn symlink_in_context(fixture: &Fixture, to: &str) {
    std::os::unix::fs::symlink(to, fixture.context().join("link")).expect("a link");
}

/// Removing the root of a state must not remove what it is made in.
#[test]
fn privileged_ghsa_32pv_7hq5_qhwq_the_root_cannot_be_removed() {
    for path in ["", "/", ".", "..", "/..", "../..", "/../../*", "*", "/./", "//"] {
        let fixture = Fixture::new();
        let bait = Bait::new(&fixture);
        let sibling = fixture.path("store/tmp/of-another-build");
        fs::create_dir_all(&sibling).expect("a folder");
        fs::write(sibling.join("file"), "").expect("a file");
        fixture.write("file", "file");
        for wildcard in [false, true] {
            let ran = build_actions(&fixture, vec![file("/a"), remove(path, wildcard), file("/b")]);
            bait.is_untouched(&ran, &[]);
            assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
            assert!(
                fixture.path("store/version").exists() && fixture.context().join("file").exists()
            );
        }
    }
}

/// Digests that are no digests, and would be paths.
#[test]
fn privileged_cve_2024_3727_digests_are_not_paths() {
    let bad = [
        "sha256:../../../../../../..@/secret",
        "../../..@/secret",
        "md5:@",
        "sha256:",
        "@/secret",
        "sha256:zz",
        "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
    ];
    for digest in bad {
        let fixture = Fixture::new();
        let bait = Bait::new(&fixture);
        let digest = digest.replace('@', &bait.path());
        fixture.write("Dockerfile", format!("FROM busybox@{digest}\nRUN true\n"));
        let ran = fixture.build(&NOTHING);
        assert_ne!(ran.code, 0, "{digest}");
        bait.is_untouched(&ran, &[&fixture.path("store")]);

        // In the index of a layout, and in a manifest.
        fixture.write("Dockerfile", "FROM hostile\nRUN true\n");
        let folder = fixture.path("hostile");
        let image = busybox_image();
        let mut layout = Layout::create(&folder);
        let mut manifest = image.manifest();
        manifest["layers"][0]["digest"] = json!(digest);
        layout.add(Some("latest"), &image.publish_with(&manifest));
        let hostile = format!("hostile=oci-layout://{}:latest", folder.display());
        let ran = fixture.build(&["-o", "type=cacheonly", "--build-context", &hostile]);
        assert_ne!(ran.code, 0, "{digest}");
        bait.is_untouched(&ran, &[]);
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 35,
            "annotations": {"org.opencontainers.image.ref.name": "latest"}}]});
        fs::write(folder.join("index.json"), index.to_string()).expect("the index");
        let ran = fixture.build(&["-o", "type=cacheonly", "--build-context", &hostile]);
        assert_ne!(ran.code, 0, "{digest}");
        bait.is_untouched(&ran, &[&fixture.path("store")]);
    }
}

/// An image that claims the history of another must not stand for it in the cache.
#[test]
fn privileged_cve_2024_24557_the_cache_goes_by_content() {
    let fixture = Fixture::with("FROM base\nRUN cat /who\n");
    let build = |who: &str| {
        let folder = fixture.path(who);
        let image = busybox_image().layer(Layer::new(&[Entry::file("who", who)]));
        Layout::create(&folder).add(Some("latest"), &image.publish());
        let base = format!("base=oci-layout://{}:latest", folder.display());
        fixture.build(&["-o", "type=cacheonly", "--build-context", &base]).ok()
    };
    assert!(build("honest").stderr.contains(" honest\n"));
    let poisoned = build("poisoned");
    assert!(poisoned.stderr.contains(" poisoned\n"), "{}", poisoned.stderr);
    // An image of our own with the configuration of the other and none of its layers.
    assert_eq!(build("honest").steps_run().len(), 0);
}

/// Archives of a context or of a layer whose names lead out (kaniko, buildah: also CVE-2020-10696).
#[test]
fn privileged_cve_2026_28406_archives_stay_in_their_folder() {
    let fixture = Fixture::new();
    let bait = Bait::new(&fixture);
    let path = bait.path();
    let up = format!("{}{}", "../".repeat(20), &path[1..]);
    let hostile = [
        Entry::file(&format!("{up}/secret"), "written"),
        Entry::file(&format!("{path}/secret"), "written"),
        Entry::symlink("link", &path),
        Entry::file("link/secret", "written"),
        Entry::hardlink("hard", &format!("{path}/secret")),
        Entry::hardlink("hard2", &format!("{up}/secret")),
        Entry::symlink("up", "../../../../../.."),
        Entry::file(&format!("up{path}/secret"), "written"),
        Entry::whiteout(&format!("{up}/secret")),
        Entry::opaque(&up),
    ];
    for count in 1..=hostile.len() {
        let mut entries =
            vec![Entry::file("Dockerfile", "FROM scratch\nCOPY . /\nADD a.tar /x/\n")];
        entries.extend_from_slice(&hostile[count - 1..]);
        let layer = Layer::new(&entries);
        let tar = layer.blob.clone();
        let inner = Layer::new(&[
            Entry::file("Dockerfile", "FROM scratch\nADD a.tar /x/\n"),
            Entry::file("a.tar", tar.clone()),
        ]);
        let out = format!("type=local,dest={}", fixture.path("out").display());
        for tar in [&tar, &inner.blob] {
            let ran = fixture.run_with_input(&["build", "--progress=plain", "-o", &out, "-"], tar);
            bait.is_untouched(&ran, &[&fixture.path("out")]);
            assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        }
        let folder = fixture.path(&format!("image{count}"));
        Layout::create(&folder)
            .add(Some("latest"), &Image::new("linux/amd64").layer(layer).publish());
        fixture.write("Dockerfile", "FROM hostile\nCOPY --from=hostile / /\n");
        let hostile = format!("hostile=oci-layout://{}:latest", folder.display());
        let ran = fixture.build(&["-o", &out, "--build-context", &hostile]);
        bait.is_untouched(&ran, &[&fixture.path("out")]);
    }
}
