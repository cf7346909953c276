//! Builds for several platforms as one graph.

use rbuild_frontend::{Build, BuildOptions, join};
use rbuild_oci::Platform;

use super::build::{Images, build_with, options};

fn builds(text: &str, architectures: &[&str]) -> Vec<Build> {
    let build = |architecture: &&str| {
        let platform = Some(Platform::new("linux", architecture, ""));
        let given = BuildOptions { platform, multi_platform: true, ..options() };
        build_with(text, &given, &Images::new())
    };
    architectures.iter().map(build).collect()
}

#[test]
fn what_is_the_same_for_all_is_there_once() {
    let builds = builds(
        "FROM --platform=$BUILDPLATFORM base AS tools\nCOPY tools /\nRUN once\n\
         FROM base\nARG TARGETARCH\nCOPY for-$TARGETARCH /f\nCOPY --from=tools /out /out\nRUN each\n",
        &["amd64", "arm64"],
    );
    let joined = join(&builds);
    let mut names: Vec<&str> =
        joined.graph.vertices().iter().map(|vertex| vertex.meta.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "[internal] all platforms",
            "[internal] load build context",
            "[linux/amd64 stage-1 2/4] COPY for-amd64 /f",
            "[linux/amd64 stage-1 3/4] COPY --from=tools /out /out",
            "[linux/amd64 stage-1 4/4] RUN each",
            "[linux/amd64 tools 1/3] FROM docker.io/library/base:latest@pinned",
            "[linux/amd64 tools 2/3] COPY tools /",
            "[linux/amd64 tools 3/3] RUN once",
            "[linux/arm64 stage-1 1/4] FROM docker.io/library/base:latest@pinned",
            "[linux/arm64 stage-1 2/4] COPY for-arm64 /f",
            "[linux/arm64 stage-1 3/4] COPY --from=tools /out /out",
            "[linux/arm64 stage-1 4/4] RUN each",
        ]
    );
    let [Some(first), Some(second)] = joined.targets[..] else { panic!("two targets") };
    assert_eq!(joined.graph.vertex(first.vertex).meta.name, "[linux/amd64 stage-1 4/4] RUN each");
    assert_eq!(joined.graph.vertex(second.vertex).meta.name, "[linux/arm64 stage-1 4/4] RUN each");
    let all = joined.all.expect("files");
    assert!(joined.graph.reachable(&[all]).iter().all(|reachable| *reachable));
    // One folder, of which all is seen that any of them copies.
    let folder = joined.graph.vertices().iter().find_map(|vertex| match &vertex.op {
        rbuild_solver::Op::Source(source) if source.local_name().is_some() => Some(source),
        _ => None,
    });
    assert_eq!(
        folder.expect("the context").attrs["local.followpaths"],
        r#"["for-amd64","for-arm64","tools"]"#
    );
}

#[test]
fn a_folder_that_one_copies_whole_is_seen_whole() {
    let builds = builds(
        "FROM scratch AS of-amd64\nCOPY a /\nFROM scratch AS of-arm64\nCOPY . /\nFROM of-$TARGETARCH\n",
        &["amd64", "arm64"],
    );
    for vertex in join(&builds).graph.vertices() {
        if let rbuild_solver::Op::Source(source) = &vertex.op {
            assert!(!source.attrs.contains_key("local.followpaths"), "{source:?}");
        }
    }
}

#[test]
fn images_without_files_have_no_target() {
    let scratch = builds("FROM scratch\nENV A=b\n", &["amd64", "arm64"]);
    let joined = join(&scratch);
    assert_eq!((joined.targets, joined.all), (vec![None, None], None));
    let same = builds("FROM scratch\nCOPY a /\n", &["amd64", "arm64"]);
    let joined = join(&same);
    assert_eq!(joined.targets[0], joined.targets[1]);
    assert_eq!(joined.targets[0], joined.all);
}
