//! What is set in files and variables becomes the default of flags.

use std::fs;

use rbuild_testdata::{Entry, Image, Layer, Registry};

use crate::fixture::{Fixture, Ran, ran, valid};

/// Runs rbuild with these variables.
fn run(fixture: &Fixture, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = fixture.command("store");
    command.envs(variables.iter().copied()).args(args);
    ran(command.output().expect("rbuild starts"))
}

/// The row of a setting in `config show`.
fn row(fixture: &Fixture, variables: &[(&str, &str)], args: &[&str], key: &str) -> String {
    let text = run(fixture, variables, &[args, &["config", "show"]].concat()).ok().text();
    let row = text.lines().find(|line| line.split(' ').next() == Some(key));
    row.unwrap_or_else(|| panic!("{key}: {text}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_value_says_where_it_comes_from() {
    let fixture = Fixture::new();
    let folder = fixture.path(".config/rbuild");
    fs::create_dir_all(&folder).expect("the folder");
    let file = folder.join("rbuild.toml");
    fs::write(&file, "[build]\njobs = 3\nnetwork = \"none\"\n\n[registry.mirrors]\n\"a.b\" = [\"c.d\", \"e.f\"]\n").expect("the file");
    let shown = |variables, args, key| row(&fixture, variables, args, key);
    let at = |line: u32| format!("{}:{line}", file.display());
    assert_eq!(shown(&[], &[], "build.jobs"), format!("build.jobs 3 {}", at(2)));
    assert_eq!(shown(&[("RBUILD_JOBS", "5")], &[], "build.jobs"), "build.jobs 5 RBUILD_JOBS");
    assert_eq!(shown(&[("RBUILD_JOBS", "")], &[], "build.jobs"), format!("build.jobs 3 {}", at(2)));
    let mirrors = format!("registry.mirrors a.b=c.d,e.f {}", at(6));
    assert_eq!(shown(&[], &[], "registry.mirrors"), mirrors);
    assert_eq!(shown(&[], &[], "build.isolation"), "build.isolation auto default");
    let progress = shown(&[("BUILDKIT_PROGRESS", "plain")], &[], "build.progress");
    assert_eq!(progress, "build.progress plain BUILDKIT_PROGRESS");
    // Which counts for more than a file, too.
    let other = fixture.path("progress.toml").display().to_string();
    fs::write(&other, "[build]\nprogress = 'quiet'\n").expect("the file");
    let named = ["--config", other.as_str()];
    let quiet = shown(&[], &named, "build.progress");
    assert_eq!(quiet, format!("build.progress quiet {other}:2"));
    let variable = [("BUILDKIT_PROGRESS", "plain"), ("RBUILD_CONFIG", other.as_str())];
    let progress = shown(&variable, &[], "build.progress");
    assert_eq!(progress, "build.progress plain BUILDKIT_PROGRESS");
    let both = [("BUILDKIT_PROGRESS", "plain"), ("RBUILD_PROGRESS", "tty")];
    assert_eq!(shown(&both, &[], "build.progress"), "build.progress tty RBUILD_PROGRESS");
    let copy = ["--snapshotter", "copy"];
    assert_eq!(shown(&[], &copy, "snapshotter"), "snapshotter copy --snapshotter");
    // A file that is named is the only one.
    let other = fixture.path("other.toml").display().to_string();
    fs::write(&other, "snapshotter = 'overlay'\n").expect("the file");
    let named = ["--config", other.as_str()];
    assert_eq!(shown(&[], &named, "snapshotter"), format!("snapshotter overlay {other}:1"));
    assert_eq!(shown(&[], &named, "build.jobs"), "build.jobs none default");
    let lines = run(&fixture, &[], &["config", "show", "--json"]).ok().text();
    let jobs = lines.lines().find(|line| line.contains("build.jobs")).expect("a line");
    let jobs: serde_json::Value = serde_json::from_str(jobs).expect("JSON");
    assert_eq!((&jobs["values"][0], &jobs["from"]), (&"3".into(), &at(2).into()));
}

#[test]
fn what_is_not_set_is_shown_as_what_it_comes_to() {
    let fixture = Fixture::new();
    let store = fixture.path("store").display().to_string();
    let text =
        run(&fixture, &[("RBUILD_ROOT", "")], &["--root", &store, "config", "show"]).ok().text();
    let rows: Vec<Vec<&str>> =
        text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.iter().all(|row| row.len() == 3), "{text}");
    for row in [
        "build.compression gzip default",
        "build.timeout none default",
        "build.cache-to none default",
        "store.min-free-space 20% default",
    ] {
        assert!(rows.iter().any(|shown| shown.join(" ") == row), "{row}: {text}");
    }
    // And can be typed as it is shown.
    let build = [
        "build",
        "--call=targets",
        "--jobs=none",
        "--timeout=none",
        "--cache-to=none",
        "--min-free-space=20%",
        "--network=default",
    ];
    let context = fixture.context().display().to_string();
    fs::write(fixture.context().join("Dockerfile"), "FROM scratch\n").expect("the file");
    run(&fixture, &[], &[&build[..], &[&context]].concat()).ok();
}

#[test]
fn a_list_that_is_set_can_be_emptied() {
    let fixture = Fixture::with("FROM scratch\nCOPY Dockerfile /\n");
    let file = fixture.path("rbuild.toml").display().to_string();
    let cache = fixture.path("cache");
    let text = format!(
        "[build]\ncache-to = ['type=local,dest={}']\n[registry.mirrors]\n'a.b' = []\n",
        cache.display()
    );
    fs::write(&file, text).expect("the file");
    let context = fixture.context().display().to_string();
    let build = |variables: &[(&str, &str)], args: &[&str]| {
        let all = ["--config", &file, "build", "-o", "type=cacheonly"];
        run(&fixture, variables, &[&all[..], args, &[&context]].concat()).ok();
        let written = cache.exists();
        let _ = fs::remove_dir_all(&cache);
        written
    };
    assert!(!build(&[], &["--cache-to="]));
    assert!(!build(&[], &["--cache-to", ""]));
    assert!(!build(&[], &["--cache-to", "none"]));
    assert!(!build(&[("RBUILD_CACHE_TO", "none")], &[]));
    assert!(build(&[], &[]));
    let shown = |args: &[&str], key: &str| {
        row(&fixture, &[], &[&["--config", &file][..], args].concat(), key)
    };
    assert_eq!(shown(&[], "registry.mirrors"), format!("registry.mirrors a.b= {file}:4"));
    assert_eq!(
        shown(&["--registry-mirror="], "registry.mirrors"),
        "registry.mirrors none --registry-mirror"
    );
}

#[test]
fn privileged_what_is_set_is_done_unless_something_else_is_typed() {
    let fixture = Fixture::with("FROM busybox\nRUN ip -o link | wc -l > /links\n");
    let file = fixture.path("rbuild.toml").display().to_string();
    fs::write(&file, "[build]\nnetwork = 'none'\n").expect("the file");
    let busybox = format!("busybox=oci-layout://{}:latest", fixture.busybox().display());
    let links = |variables: &[(&str, &str)], args: &[&str]| {
        let context = fixture.context().display().to_string();
        let out = fixture.path("out").display().to_string();
        let all =
            ["--config", &file, "build", "--no-cache", "--build-context", &busybox, "-o", &out];
        run(&fixture, variables, &[&all[..], args, &[&context]].concat()).ok();
        crate::fixture::read(&fixture.path("out"), "links").trim().to_owned()
    };
    assert_eq!(links(&[], &[]), "1");
    let of_host = std::fs::read_dir("/sys/class/net").expect("interfaces").count().to_string();
    assert_eq!(links(&[("RBUILD_NETWORK", "host")], &[]), of_host);
    assert_eq!(links(&[("RBUILD_NETWORK", "host")], &["--network=none"]), "1");
}

#[test]
fn privileged_mirrors_and_compression_are_those_that_are_set() {
    let registry = Registry::start();
    let base = Image::new("linux/amd64").layer(Layer::new(&[Entry::file("a", b"b")]));
    registry.push("hub/team/base", "1", &base.publish());
    let fixture = Fixture::with("FROM registry.invalid/team/base:1\nCOPY Dockerfile /\n");
    let mirror = format!("{}/hub", registry.address());
    let file = fixture.path("rbuild.toml").display().to_string();
    let text = format!(
        "[build]\ncompression = 'zstd:9'\n[registry.mirrors]\n'registry.invalid' = ['127.0.0.1:1', '{mirror}']\n"
    );
    fs::write(&file, text).expect("the file");
    let archive = fixture.path("app.tar");
    let media_types = |args: &[&str], spec: &str| {
        let out = format!("type=oci,dest={}{spec}", archive.display());
        let context = fixture.context().display().to_string();
        let all = ["--config", &file, "build", "-o", &out];
        run(&fixture, &[], &[&all[..], args, &[&context]].concat()).ok();
        let layers = valid("oci", &archive).manifest["layers"].clone();
        let layers = layers.as_array().expect("layers").iter();
        layers
            .map(|layer| {
                layer["mediaType"]
                    .as_str()
                    .expect("a text")
                    .rsplit('+')
                    .next()
                    .expect("its end")
                    .to_owned()
            })
            .collect::<Vec<_>>()
    };
    // That of the base image is as it was.
    assert_eq!(media_types(&[], ""), ["gzip", "zstd"]);
    assert_eq!(media_types(&[], ",compression=gzip"), ["gzip", "gzip"]);
    assert_eq!(media_types(&["--compression=gzip"], ""), ["gzip", "gzip"]);
    let error = fixture.build(&["--no-cache", "--pull"]).fails(1);
    assert!(error.contains("registry.invalid"), "{error}");
    let typed = format!("--registry-mirror=registry.invalid={mirror}");
    fixture.build(&["--pull", &typed]).ok();
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let fixture = Fixture::new();
    let file = fixture.path("rbuild.toml").display().to_string();
    for (text, said) in [
        ("\n[build]\njob = 4\n", ":3:1: there is no setting `build.job`"),
        ("[build]\njobs = 'many'\n", ":2:1: `build.jobs`: invalid value 'many'"),
        (
            "[build]\nprogress = 'x'\n",
            ":2:1: `build.progress`: invalid value 'x' for '--progress <MODE>' [possible values: auto",
        ),
        ("[build]\ncache-to = ['type=tape']\n", ":2:1: `build.cache-to`: invalid value"),
        ("[build]\ntimeout = 'long'\n", ":2:1: `build.timeout`: invalid value 'long'"),
        ("[build]\nresource = ['x=1']\n", ":2:1: `build.resource`: invalid value 'x=1'"),
        ("[store]\nmin-free-space = 'lots'\n", ":2:1: `store.min-free-space`: invalid value"),
        ("[registry.mirrors]\n'hub' = ['a.b']\n", ":2:1: `registry.mirrors`: invalid value"),
        ("root = 'here'\n", ":1:1: `root` is no absolute path"),
        ("[build\n", ":1:7: "),
    ] {
        fs::write(&file, text).expect("the file");
        let no_root = [("RBUILD_ROOT", "")];
        let error = run(&fixture, &no_root, &["--config", &file, "images"]).fails(2);
        assert!(error.contains(&format!("{file}{said}")), "{text}: {error}");
    }
    let error = run(&fixture, &[], &["--config", "/dev/zero", "images"]).fails(2);
    assert!(error.contains("is larger than a configuration may be"), "{error}");
    let error = run(&fixture, &[], &["--config", "missing.toml", "images"]).fails(2);
    assert!(error.contains("there is no configuration `missing.toml`"), "{error}");
    let error = run(&fixture, &[("RBUILD_JOBS", "0")], &["images"]).fails(2);
    assert!(error.contains("RBUILD_JOBS: `build.jobs`"), "{error}");
    fs::write(&file, "[build]\njob = 4\n").expect("the file");
    let error = run(&fixture, &[], &["--config", &file, "images"]).fails(2);
    assert!(error.contains("did you mean `build.jobs`?"), "{error}");
}
