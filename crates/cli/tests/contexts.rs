//! Where a build's files come from, whatever they are.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;

use rbuild_testdata::{Image, Layer, Registry, busybox_image};

use crate::fixture::{Fixture, have, read, valid};

#[test]
fn privileged_ignored_files_are_not_there() {
    let fixture = Fixture::with("FROM busybox\nCOPY . /all\n");
    for name in ["kept", "dropped.tmp", "deep/dropped.tmp", "deep/except.tmp", "secret/key"] {
        fixture.write(name, name);
    }
    fixture.write(".dockerignore", "# comment\n**/*.tmp\nsecret\n!deep/except.tmp\n");
    let out = fixture.build_files(&[]);
    assert_eq!(read(&out, "all/kept"), "kept");
    assert_eq!(read(&out, "all/deep/except.tmp"), "deep/except.tmp");
    for gone in ["dropped.tmp", "deep/dropped.tmp", "secret"] {
        assert!(!out.join("all").join(gone).exists(), "{gone}");
    }
    fixture.write("Dockerfile", "FROM busybox\nCOPY secret/key /\n");
    let error = fixture.build(&[]).fails(1);
    assert!(error.contains("\"/secret/key\": not found"), "{error}");
}

#[test]
fn privileged_strange_files_do_no_harm() {
    let fixture = Fixture::with("FROM busybox\nCOPY strange /strange\n");
    fixture.write("strange/file", "x");
    let strange = fixture.context().join("strange");
    let _socket = UnixListener::bind(strange.join("socket")).expect("a socket");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        strange.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("a fifo");
    std::os::unix::fs::symlink("/etc/passwd", strange.join("absolute")).expect("a link");
    std::os::unix::fs::symlink("../../../../etc/passwd", strange.join("upwards")).expect("a link");
    fs::write(strange.join(OsStr::from_bytes(b"not-\xff-utf8")), "y").expect("a file");
    let out = fixture.build_files(&[]).join("strange");
    assert_eq!(read(&out, "file"), "x");
    assert!(!out.join("socket").exists());
    assert!(fs::symlink_metadata(out.join("upwards")).expect("the link").is_symlink());
    assert_eq!(fs::read(out.join(OsStr::from_bytes(b"not-\xff-utf8"))).expect("the file"), b"y");

    // A link that is named itself is followed, but never out of the context.
    fixture.write("Dockerfile", "FROM busybox\nCOPY strange/upwards /passwd\n");
    let error = fixture.build(&[]).fails(1);
    assert!(error.contains("not found"), "{error}");
    assert!(error.contains("hint: \"/strange/upwards\" is there, but it is a link"), "{error}");
    assert!(!error.contains("did you mean"), "{error}");
}

#[test]
fn privileged_standard_input_is_a_dockerfile_or_an_archive() {
    let fixture = Fixture::new();
    let spec = |name: &str| format!("type=local,dest={}", fixture.path(name).display());
    let busybox = format!("busybox=oci-layout://{}:latest", fixture.busybox().display());
    let args = |out: &str, rest: &[&str]| {
        let mut args = vec![
            "build".to_owned(),
            "--build-context".to_owned(),
            busybox.clone(),
            "-o".to_owned(),
            spec(out),
        ];
        args.extend(rest.iter().map(|arg| (*arg).to_owned()));
        args
    };
    let run = |args: Vec<String>, input: &[u8]| {
        fixture.run_with_input(&args.iter().map(String::as_str).collect::<Vec<_>>(), input)
    };
    run(args("text", &["-"]), b"FROM busybox\nRUN echo hi > /hi\n").ok();
    assert_eq!(read(&fixture.path("text"), "hi"), "hi\n");

    run(args("empty", &["-"]), b"FROM busybox\nCOPY . /all/\n").ok();
    let error = run(args("empty", &["-"]), b"FROM busybox\nCOPY file /\n").fails(1);
    assert!(error.contains("\"/file\": not found"), "{error}");

    let mut archive = tar::Builder::new(Vec::new());
    // It has what whoever packed it has chosen, whatever an ignore file says.
    for (name, text) in [
        ("Dockerfile", "FROM busybox\nCOPY data /data\n"),
        (".dockerignore", "data\n"),
        ("data", "from a tar"),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_uid(77);
        header.set_gid(78);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, text.as_bytes()).expect("an entry");
    }
    run(args("tar", &["-"]), &archive.into_inner().expect("an archive")).ok();
    assert_eq!(read(&fixture.path("tar"), "data"), "from a tar");
    let data = fs::metadata(fixture.path("tar/data")).expect("the file");
    assert_eq!((data.uid(), data.gid()), (77, 78));

    fixture.write("data", "from a folder");
    let context = fixture.context().display().to_string();
    run(args("folder", &["-f", "-", &context]), b"FROM busybox\nCOPY data /data\n").ok();
    assert_eq!(read(&fixture.path("folder"), "data"), "from a folder");

    let error = run(args("none", &["-f", "-", "-"]), b"").fails(2);
    assert!(error.contains("cannot both come from standard input"), "{error}");
}

#[test]
fn privileged_named_contexts_have_ignore_files_of_their_own() {
    let fixture = Fixture::with(
        "FROM busybox\nCOPY --from=lib a.txt /\nCOPY --from=busybox /etc/passwd /p\n",
    );
    fs::create_dir(fixture.path("lib")).expect("a folder");
    fs::write(fixture.path("lib/a.txt"), "a").expect("a file");
    fs::write(fixture.path("lib/b.txt"), "b").expect("a file");
    fs::write(fixture.path("lib/.dockerignore"), "b.txt\n").expect("a file");
    let lib = format!("lib={}", fixture.path("lib").display());
    let out = fixture.build_files(&["--build-context", &lib]);
    assert_eq!(read(&out, "a.txt"), "a");
    assert!(out.join("p").exists());
    fixture.write("Dockerfile", "FROM busybox\nCOPY --from=lib b.txt /\n");
    fixture.build(&["--build-context", &lib]).fails(1);
}

/// Section 1.14 of the behaviour reference, line by line, for what is a folder.
#[test]
fn privileged_named_contexts_replace_stages_and_images() {
    let fixture = Fixture::new();
    for (folder, text) in [("lib", "lib"), ("two", "two")] {
        fs::create_dir(fixture.path(folder)).expect("a folder");
        fs::write(fixture.path(folder).join("a"), text).expect("a file");
        fs::write(fixture.path(folder).join("hidden"), text).expect("a file");
        fs::write(fixture.path(folder).join(".dockerignore"), "hidden\n").expect("a file");
    }
    let build = |dockerfile: &str, contexts: &[&str]| {
        fixture.write("Dockerfile", dockerfile);
        let out = fixture.path("out");
        let _ = fs::remove_dir_all(&out);
        let spec = format!("type=local,dest={}", out.display());
        let mut args = vec!["build", "--progress=plain", "-o", &spec];
        args.extend(contexts.iter().flat_map(|context| ["--build-context", context]));
        fixture.run([&args[..], &["context"]].concat()).ok();
        out
    };
    // A stage: its body is not looked at, by name (in any letter case) and by number.
    for from in ["st", "ST", "0"] {
        let lines = format!(
            "FROM scratch AS st\nCOPY nothing /\nRUN false\nFROM scratch\nCOPY --from={from} a /\n"
        );
        assert_eq!(read(&build(&lines, &["st=lib"]), "a"), "lib");
    }
    assert_eq!(read(&build("FROM nothing AS st\nRUN false\nFROM st\n", &["st=lib"]), "a"), "lib");
    // An image, by all names that it has; its files are those that its ignore file lets through.
    for name in ["alpine", "alpine:latest", "library/alpine", "docker.io/library/alpine:latest"] {
        for context in ["alpine=lib", "docker.io/library/alpine:latest=lib"] {
            let out = build(&format!("FROM {name}\nCOPY --from={name} a /b\n"), &[context]);
            assert_eq!((read(&out, "a"), read(&out, "b")), ("lib".into(), "lib".into()));
            assert!(!out.join("hidden").exists());
            let out = build(&format!("FROM {name}\n"), &[context]);
            assert_eq!(read(&out, "a"), "lib");
        }
    }
    assert_eq!(read(&build("FROM alpine:3\n", &["alpine=two", "alpine:3=lib"]), "a"), "lib");
    // One for this platform comes first, one for another is none.
    let platform = rbuild_oci::Platform::host().normalize().to_string();
    let (own, other) = (format!("lib::{platform}=two"), "lib::linux/riscv64=two".to_owned());
    let lines = "FROM scratch\nCOPY --from=lib a /\n";
    assert_eq!(read(&build(lines, &["lib=lib", &own]), "a"), "two");
    assert_eq!(read(&build(lines, &["lib=lib", &other]), "a"), "lib");
    // Names that mean what they mean.
    fixture.write("a", "main");
    let lines = "FROM scratch\nCOPY a /\n";
    assert_eq!(read(&build(lines, &["context=lib", "scratch=lib"]), "a"), "main");
    let out = build("FROM lib\nCOPY a /b\n", &["lib=docker-image://scratch"]);
    assert!(!out.join("a").exists());
}

#[test]
fn privileged_images_come_from_a_registry_when_they_are_needed() {
    if !have("privileged_images_come_from_a_registry_when_they_are_needed", "docker-registry") {
        return;
    }
    let registry = Registry::start();
    registry.push("library/base", "v1", &busybox_image().publish());
    let base = format!("{}/library/base:v1", registry.address());
    let fixture = Fixture::with(&format!("FROM {base}\nENV A=b\n"));
    // Only the configuration changes: no layer is fetched.
    fixture.build(&["-t", "config-only"]).ok();
    let blobs = || fs::read_dir(fixture.path("store/layers")).expect("layers").count();
    assert_eq!(blobs(), 0);
    // Whoever needs the layer gets it, also from an image that was never unpacked here.
    let archive = fixture.path("saved.tar");
    fixture.run(["save", "-o", &archive.display().to_string(), "config-only"]).ok();
    valid("docker", &archive);
    fixture.write("Dockerfile", format!("FROM {base}\nRUN echo ran > /ran\n"));
    assert_eq!(read(&fixture.build_files(&[]), "ran"), "ran\n");
}

#[test]
fn privileged_damaged_layers_are_refused() {
    for (name, damage) in [("cut", 10), ("changed", 0)] {
        let fixture = Fixture::with("FROM damaged\nRUN true\n");
        let folder = fixture.path("damaged");
        let mut layout = rbuild_testdata::Layout::create(&folder);
        let layer = Layer::new(&[rbuild_testdata::Entry::file("a", vec![b'x'; 10_000])]);
        let digest = layer.digest();
        layout.add(None, &Image::new("linux/amd64").layer(layer).publish());
        let blob = layout.blob_path(&digest);
        let mut bytes = fs::read(&blob).expect("the blob");
        bytes.truncate(bytes.len() - damage);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&blob, bytes).expect("the blob");
        let context = format!("damaged=oci-layout://{}", folder.display());
        let error = fixture.build(&["--build-context", &context]).fails(1);
        assert!(error.contains(&digest), "{name}: {error}");
        let left = fs::read_dir(fixture.path("store/layers")).expect("layers").count();
        assert_eq!(left, 0, "{name}: a damaged layer is in the store");
    }
}

/// An archive may be of somebody else: what it has for a Dockerfile leads nowhere else.
#[test]
fn privileged_archives_on_standard_input_show_nothing_of_the_host() {
    let fixture = Fixture::new();
    let secret = fixture.path("secret");
    fs::write(&secret, "SECRET of the host\n").expect("a file");
    let run = |links: &[(&str, &str)], files: &[(&str, &str)], args: &[&str]| {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, target) in links {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            archive.append_link(&mut header, name, target).expect("an entry");
        }
        for (name, text) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, text.as_bytes()).expect("an entry");
        }
        let archive = archive.into_inner().expect("an archive");
        let all = [&["build", "-o", "type=cacheonly"], args, &["-"]].concat();
        fixture.run_with_input(&all, &archive)
    };
    let target = secret.display().to_string();
    let ok = ("Dockerfile", "FROM scratch\nCOPY f /\n");
    for (links, files) in [
        (vec![("Dockerfile", target.as_str())], vec![]),
        (vec![("Dockerfile", "../../../../../../../../etc/passwd")], vec![]),
        (vec![(".dockerignore", target.as_str())], vec![ok, ("f", "x")]),
    ] {
        let ran = run(&links, &files, &[]);
        assert!(!ran.stderr.contains("SECRET") && !ran.stderr.contains("root:"), "{}", ran.stderr);
        assert_eq!(ran.code == 0, !files.is_empty(), "{}", ran.stderr);
    }
    // Within the archive they lead where they say.
    run(&[("Dockerfile", "d/other")], &[("d/other", ok.1), ("f", "x")], &[]).ok();
    run(&[], &[("dockerfile", ok.1), ("f", "x")], &[]).ok();
    run(&[], &[("d/x", ok.1), ("f", "x")], &["-f", "/d/x"]).ok();
    let error = run(&[], &[("f", "x")], &[]).fails(2);
    assert!(error.contains("cannot open `Dockerfile` in the archive on standard input"), "{error}");
}
