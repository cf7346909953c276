//! RUN, WORKDIR and the options that are part of steps.

use rbuild_frontend::{BuildOptions, NoCache};
use rbuild_solver::{HostIp, NetworkMode, Op};

use super::build::{
    Images, build, build_with, check, check_errors_with, check_with, history, options, with_args,
};

#[test]
fn steps_of_one_stage() {
    check(
        "FROM base\nRUN echo \"$BASE\" $X\nRUN [\"a\", \"b\"]\nWORKDIR /w\nRUN x\n",
        r#"
        0 [1/5] FROM docker.io/library/base:latest@pinned
            docker-image://docker.io/library/base:latest@pinned
        1 [2/5] RUN echo "1" $X
            on 0 in / run ["/bin/sh", "-c", "echo \"$BASE\" $X"] env ["BASE=1"]
        2 [3/5] RUN ["a", "b"]
            on 1 in / run ["a", "b"] env ["BASE=1"]
        3 [4/5] WORKDIR /w
            on 2 mkdir /w 755
        4 [5/5] RUN x
            on 3 in /w run ["/bin/sh", "-c", "x"] env ["BASE=1"]
        = 4
        "#,
    );
}

#[test]
fn platforms_are_those_of_exec_and_image() {
    let build = build("FROM base\nRUN a\nCOPY a b\n");
    let platforms: Vec<bool> =
        build.graph.vertices().iter().map(|vertex| vertex.platform.is_some()).collect();
    assert_eq!(platforms, [true, true, false, false]);
    let Op::Exec(exec) = &build.graph.vertices()[1].op else { panic!("a RUN is an exec") };
    assert!(exec.meta.remove_mount_stubs_recursive);
    let location = build.graph.vertices()[1].meta.location.clone().unwrap();
    assert_eq!(
        (location.file.as_str(), location.first_line, location.last_line),
        ("Dockerfile", 2, 2)
    );
}

#[test]
fn nothing_at_all() {
    check("FROM scratch\nENV a=b\n", "\n= nothing");
    check(
        "FROM scratch\nRUN [\"x\"]\n",
        r#"
        0 [1/1] RUN ["x"]
            on - in / run ["x"]
        = 0
        "#,
    );
}

#[test]
fn rule_12_workdir() {
    check(
        "FROM scratch\nUSER app:staff\nWORKDIR /a\nWORKDIR b/../c\nWORKDIR /\nWORKDIR .\n",
        r"
        0 [1/4] WORKDIR /a
            on - mkdir /a 755 owner app@-:staff@-
        1 [2/4] WORKDIR b/../c
            on 0 mkdir /a/c 755 owner app@0:staff@0
        = 1
        ",
    );
    let history = history(&build("FROM scratch\nWORKDIR /a\nWORKDIR b\nWORKDIR /\n"));
    assert_eq!(history, ["WORKDIR /a", "WORKDIR /a/b", "(WORKDIR /)"]);
    // One that the base has is where steps run, and makes nothing.
    let images = Images::new().with("dir", r#"{"config":{"WorkingDir":"/srv/","User":"u"}}"#);
    let build = build_with("FROM dir\nRUN x\nWORKDIR y\n", &options(), &images);
    let Op::Exec(exec) = &build.graph.vertices()[1].op else { panic!("a RUN is an exec") };
    assert_eq!((exec.meta.cwd.as_str(), exec.meta.user.as_str()), ("/srv", "u"));
    assert_eq!(build.config.config.working_dir, "/srv/y");
}

#[test]
fn rule_20_heredocs_of_run() {
    check(
        "FROM scratch\nRUN <<EOF\necho $A\n  two\nEOF\nRUN <<-X sh -e\n\ta\n\tX\n",
        r#"
        0 [1/2] RUN <<EOF (echo $A...)
            on - in / run ["/bin/sh", "-c", "echo $A\n  two\n"]
        1 [2/2] RUN <<-X sh -e
            on 0 in / run ["/bin/sh", "-c", "<<-X sh -e\n\ta\nX"]
        = 1
        "#,
    );
    check(
        "FROM scratch\nRUN <<-EOF\n\t#!/bin/x\n\t\tgo\n\tEOF\n",
        r##"
        0 [internal] preparing inline document
            on - write /EOF 755 "#!/bin/x\ngo\n"
        1 [1/1] RUN <<-EOF (#!/bin/x...)
            on - in / run ["/bin/sh", "-c", "/dev/pipes/EOF"]
            ro 0 at /dev/pipes
        = 1
        "##,
    );
}

#[test]
fn rule_17_shell_is_used_and_inherited() {
    check(
        "FROM scratch AS a\nSHELL [\"/bash\", \"-c\"]\nRUN x\nFROM a\nRUN y\n",
        r#"
        0 [a 1/1] RUN x
            on - in / run ["/bash", "-c", "x"]
        1 [stage-1 1/1] RUN y
            on 0 in / run ["/bash", "-c", "y"]
        = 1
        "#,
    );
}

#[test]
fn networks() {
    let text = "FROM scratch\nRUN --network=none a\nRUN --network=host b\nRUN --network=default c\nRUN d\n";
    let none = BuildOptions { network: NetworkMode::None, ..options() };
    check_with(
        text,
        &none,
        r#"
        0 [1/4] RUN --network=none a
            on - in / run ["/bin/sh", "-c", "a"] network None
        1 [2/4] RUN --network=host b
            on 0 in / run ["/bin/sh", "-c", "b"] network Host
        2 [3/4] RUN --network=default c
            on 1 in / run ["/bin/sh", "-c", "c"] network None
        3 [4/4] RUN d
            on 2 in / run ["/bin/sh", "-c", "d"] network None
        = 3
        "#,
    );
}

#[test]
fn hosts_names_and_caches() {
    let given = BuildOptions {
        extra_hosts: vec![HostIp { host: "db".into(), ip: "10.0.0.1".into() }],
        no_cache: NoCache::Stages(vec!["B".into()]),
        ..with_args(&[("BUILDKIT_SANDBOX_HOSTNAME", "box")])
    };
    check_with(
        "FROM scratch AS a\nRUN x\nFROM a AS b\nWORKDIR /w\nRUN y\nCOPY f .\n",
        &given,
        r#"
        0 [a 1/1] RUN x
            on - in / run ["/bin/sh", "-c", "x"] host db=10.0.0.1 called box
        1 [b 1/3] WORKDIR /w
            on 0 mkdir /w 755
        2 [b 2/3] RUN y (no cache)
            on 1 in /w run ["/bin/sh", "-c", "y"] host db=10.0.0.1 called box
        3 [internal] load build context
            local://context local.followpaths=["f"]
        4 [b 3/3] COPY f . (no cache)
            on 2 copy 3:/f -> /w/
        = 4
        "#,
    );
    let all = BuildOptions { no_cache: NoCache::All, hostname: "h".into(), ..options() };
    let build = build_with("FROM base\nRUN x\n", &all, &Images::new());
    let ignored: Vec<bool> =
        build.graph.vertices().iter().map(|vertex| vertex.meta.ignore_cache).collect();
    assert_eq!(ignored, [false, true]);
}

#[test]
fn several_platforms_are_shown() {
    let given = BuildOptions {
        platform: Some(rbuild_oci::Platform::new("linux", "arm64", "")),
        multi_platform: true,
        ..options()
    };
    check_with(
        "FROM --platform=$BUILDPLATFORM scratch AS a\nFROM base AS b\nARG TARGETPLATFORM\nRUN x\n",
        &given,
        r#"
        0 [linux/arm64 b 1/2] FROM docker.io/library/base:latest@pinned
            docker-image://docker.io/library/base:latest@pinned
        1 [linux/arm64 b 2/2] RUN x
            on 0 in / run ["/bin/sh", "-c", "x"] env ["BASE=1", "TARGETPLATFORM=linux/arm64"]
        = 1
        "#,
    );
    let build = build_with(
        "FROM --platform=$BUILDPLATFORM base\nARG TARGETPLATFORM\nRUN x\n",
        &given,
        &Images::new(),
    );
    assert_eq!(build.graph.vertices()[1].meta.name, "[linux/amd64->arm64 2/2] RUN x");
    assert_eq!(build.platform.to_string(), "linux/amd64");
    assert_eq!((build.config.architecture.as_str(), build.config.os.as_str()), ("arm64", "linux"));
}

#[test]
fn equal_steps_are_one_vertex() {
    let text = "FROM base AS a\nRUN x\nFROM base AS b\nRUN x\nFROM scratch\nCOPY --from=a /1 /\nCOPY --from=b /2 /\n";
    check(
        text,
        r#"
        0 [a 1/2] FROM docker.io/library/base:latest@pinned
            docker-image://docker.io/library/base:latest@pinned
        1 [a 2/2] RUN x
            on 0 in / run ["/bin/sh", "-c", "x"] env ["BASE=1"]
        2 [stage-2 1/2] COPY --from=a /1 /
            on - copy 1:/1 -> /
        3 [stage-2 2/2] COPY --from=b /2 /
            on 2 copy 1:/2 -> /
        = 3
        "#,
    );
}

#[test]
fn layers_have_a_limit() {
    let given = BuildOptions { max_layers: 3, ..options() };
    let error = "too many layers: at most 3 can lie on each other";
    // The base has one, and what makes none does not count.
    let fits = "FROM base\nRUN a\nENV a=b\nWORKDIR /\nWORKDIR /w\n";
    build_with(fits, &given, &Images::new());
    let message = format!("line 6: {error} <COPY a .>");
    let too_many = format!("{fits}COPY a .\n");
    check_errors_with(&too_many, &given, &Images::new(), &[&message]);
    // It is said once, and before the base is known if it is clear by then.
    let message = format!("line 7: {error} <RUN b>");
    let more = format!("{too_many}RUN b\nRUN c\n");
    check_errors_with(&more, &given, &Images::new(), &[&message]);
    // Those of another stage do not count.
    build_with(&format!("{fits}FROM base\nCOPY --from=0 / /\nRUN b\n"), &given, &Images::new());
    let triggers = "FROM base AS x\nONBUILD RUN a\nONBUILD RUN b\nONBUILD RUN c\nFROM x\n";
    let message = format!("line 5: {error} <x>");
    check_errors_with(triggers, &given, &Images::new(), &[&message]);
}
