//! Which frontend, and build arguments that mean something to the build itself.

use std::fs;

use rbuild_testdata::{Reply, Scripted};

use crate::fixture::{Fixture, read, valid};

const NOTHING: [&str; 2] = ["-o", "type=cacheonly"];

#[test]
fn the_frontend_of_docker_is_built_in_and_others_are_refused() {
    let fixture = Fixture::with("# syntax=docker/dockerfile:1.99-labs\nFROM scratch\nLABEL a=b\n");
    fixture.build(&NOTHING).ok();
    fixture.write("Dockerfile", "# check=skip=all\n# syntax=example.com/other:1\nkey: [a]\n");
    let error = fixture.build(&NOTHING).fails(1);
    for part in [
        "ERROR: failed to build: failed to solve: frontend \"example.com/other:1\" is not supported",
        "Dockerfile:2:",
        "^^^^^^^^^^^^^^^^^^^",
        "BUILDKIT_SYNTAX=dockerfile.v0",
    ] {
        assert!(error.contains(part), "`{part}` is not in:\n{error}");
    }
    assert!(!error.contains("unknown instruction"), "{error}");
    let other = fixture.build(&["--check"]).fails(1);
    assert!(other.contains("is not supported"), "{other}");
    let context = fixture.context();
    let check = fixture.run([std::ffi::OsStr::new("check"), context.as_os_str()]);
    assert!(check.fails(1).contains("is not supported"));
    // The argument counts more than the line.
    fixture.write("Dockerfile", "# syntax=example.com/other:1\nFROM scratch\nLABEL a=b\n");
    let syntax = |value: &str| {
        let argument = format!("BUILDKIT_SYNTAX={value}");
        fixture.build(&[&NOTHING[..], &["--build-arg", &argument]].concat())
    };
    syntax("dockerfile.v0").ok();
    syntax("docker.io/docker/dockerfile-upstream:master").ok();
    fixture.write("Dockerfile", "FROM scratch\nLABEL a=b\n");
    assert!(syntax("a/b").fails(1).contains("frontend \"a/b\" is not supported"));
}

#[test]
fn arguments_of_what_cannot_be_done_are_refused() {
    let fixture = Fixture::with("FROM scratch\nLABEL a=b\n");
    for (argument, code, message) in [
        ("BUILDKIT_DISABLE_FILEOP=1", 1, "was removed in BuildKit 0.11"),
        ("BUILDKIT_MULTI_PLATFORM=x", 1, "invalid boolean value x"),
    ] {
        let error = fixture.build(&[&NOTHING[..], &["--build-arg", argument]].concat());
        let error = error.fails(code);
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn privileged_the_host_name_of_steps() {
    let fixture = Fixture::with("FROM busybox\nRUN hostname > /name\n");
    let out = fixture.build_files(&["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=builder"]);
    assert_eq!(read(&out, "name"), "builder\n");
}

#[test]
fn privileged_scans_are_no_variables() {
    let fixture = Fixture::with(
        "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nFROM busybox\nARG BUILDKIT_SBOM_SCAN_STAGE=true\n\
         ARG OTHER=1\nRUN env > /env\n",
    );
    let out = fixture.build_files(&["--build-arg", "BUILDKIT_SBOM_SCAN_CONTEXT=1"]);
    let env = read(&out, "env");
    assert!(env.contains("OTHER=1") && !env.contains("SBOM"), "{env}");
}

#[test]
fn privileged_an_epoch_is_the_time_of_what_a_stage_adds() {
    const MODIFIED: u64 = 784_111_777;
    let mut archive = tar::Builder::new(Vec::new());
    for (name, time) in [("old", 1_000), ("d/new", 2_000)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        header.set_mtime(time);
        archive.append_data(&mut header, name, &b"x"[..]).expect("an entry");
    }
    let archive = archive.into_inner().expect("an archive");
    let server = Scripted::start(move |request, _| match request.path.as_str() {
        "/dated" => {
            Reply::new(200, "text").header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
        }
        "/archive" => Reply::new(200, archive.clone()),
        _ => Reply::new(200, "text"),
    });
    let address = server.address();
    let fixture = Fixture::new();
    let built = |name: &str| {
        fixture.write(
            "Dockerfile",
            format!(
                "ARG SOURCE_DATE_EPOCH=source\n\
                 FROM scratch AS source\nARG NAME={name}\nADD http://{address}/$NAME /\n\
                 FROM busybox\nARG SOURCE_DATE_EPOCH\nWORKDIR /made\nRUN echo \"$SOURCE_DATE_EPOCH\" > /epoch\n"
            ),
        );
        let archive = fixture.path("image.tar");
        fixture.build(&["-o", &format!("type=oci,dest={}", archive.display())]).ok();
        let image = valid("oci", &archive);
        let entry = |path: &str| image.layers.iter().rev().find_map(|layer| layer.entry(path));
        let epoch = String::from_utf8_lossy(&entry("epoch").expect("a file").content).into_owned();
        (epoch, entry("made/").expect("a folder").mtime, image.config["created"].clone())
    };
    let (epoch, made, created) = built("dated");
    assert_eq!((epoch.as_str(), made), ("784111777\n", MODIFIED));
    assert_eq!(created, "1994-11-06T08:49:37Z");
    let (epoch, made, _) = built("archive");
    assert_eq!((epoch.as_str(), made), ("2000\n", 2_000));
    let (epoch, made, _) = built("undated");
    assert_eq!(epoch, "\n");
    assert!(made > MODIFIED, "{made}");
    // By name, in any letter case, and not for what is no such stage.
    let error = fixture.build(&["-o", "type=cacheonly", "--build-arg", "SOURCE_DATE_EPOCH=nobody"]);
    let error = error.fails(1);
    assert!(error.contains("failed to solve: invalid SOURCE_DATE_EPOCH: nobody"), "{error}");
}

#[test]
fn privileged_a_folder_can_be_the_image() {
    let fixture = Fixture::with("FROM files\nLABEL a=b\nWORKDIR /\n");
    fs::create_dir_all(fixture.path("files/sub")).expect("a folder");
    fs::write(fixture.path("files/sub/file"), "text").expect("a file");
    fs::write(fixture.path("files/ignored"), "").expect("a file");
    fs::write(fixture.path("files/.dockerignore"), "ignored\n.dockerignore\n").expect("a file");
    let archive = fixture.path("image.tar");
    let spec = format!("type=oci,dest={}", archive.display());
    let files = format!("files={}", fixture.path("files").display());
    fixture.build(&["-o", &spec, "--build-context", &files]).ok();
    let image = valid("oci", &archive);
    assert_eq!(image.layers.len(), 1);
    assert_eq!(image.layers[0].paths(), ["sub/", "sub/file"]);
    assert!(image.layers[0].entries.iter().all(|entry| (entry.uid, entry.gid) == (0, 0)));
    assert_eq!(image.config["config"]["Labels"]["a"], "b");
}

#[test]
fn more_layers_than_there_can_be_are_refused_before_anything_runs() {
    let steps: String = (0..20_000).map(|step| format!("RUN echo {step}\n")).collect();
    let triggers = steps.replace("RUN", "ONBUILD RUN");
    for text in
        [format!("FROM busybox\n{steps}"), format!("FROM busybox AS base\n{triggers}FROM base\n")]
    {
        let fixture = Fixture::with(&text);
        let ran = fixture.build(&NOTHING);
        assert_eq!(ran.steps_run(), [""; 0]);
        let error = ran.fails(1);
        assert!(error.contains("failed to solve: too many layers"), "{error}");
        assert!(error.len() < 10_000, "{error}");
    }
}

#[test]
fn privileged_text_that_is_not_utf8() {
    let fixture = Fixture::new();
    fixture.write(
        "Dockerfile",
        b"# caf\xe9\nFROM busybox\nMAINTAINER Jos\xe9\nLABEL a=\xff\xfe\n\
          COPY <<'E' /exact\nA\xe9\xffB\nE\nCOPY <<E /replaced\n\xe9\nE\n",
    );
    let archive = fixture.path("image.tar");
    let spec = format!("type=oci,dest={}", archive.display());
    let ran = fixture.build(&["-o", &spec]).ok();
    assert!(ran.stderr.contains("not valid UTF-8"), "{}", ran.stderr);
    let image = valid("oci", &archive);
    assert_eq!(image.config["author"], "Jos\u{fffd}");
    assert_eq!(image.config["config"]["Labels"]["a"], "\u{fffd}\u{fffd}");
    let content = |name: &str| {
        let entry = image.layers.iter().rev().find_map(|layer| layer.entry(name));
        entry.expect("a file").content.clone()
    };
    assert_eq!(content("exact"), b"A\xe9\xffB\n");
    assert_eq!(content("replaced"), "\u{fffd}\n".as_bytes());
    fixture.write("Dockerfile", b"FROM busybox\nRUN echo \xe9\n");
    let error = fixture.build(&NOTHING).fails(1);
    assert!(error.contains("Dockerfile is not valid UTF-8"), "{error}");
}
