//! What was built, at a registry, read back by us and by skopeo.

use std::fs;
use std::process::Command;

use rbuild_testdata::{Entry, Image, ImageIndex, Layer, Registry, Scripted};

use crate::fixture::{Fixture, have, ran, read};

const DOCKERFILE: &str = "FROM busybox\nCOPY one /one\nRUN cat /one /one > /two\nENV A=b\n";

fn fixture() -> Fixture {
    let fixture = Fixture::with(DOCKERFILE);
    fixture.write("one", "1");
    fixture
}

fn metadata(fixture: &Fixture) -> serde_json::Value {
    let bytes = fs::read(fixture.path("metadata.json")).expect("metadata");
    serde_json::from_slice(&bytes).expect("JSON")
}

#[test]
fn privileged_a_build_is_pushed_and_read_by_others() {
    let (registry, second) = (Registry::start(), Registry::start());
    let fixture = fixture();
    let names = [
        format!("{}/team/app:1", registry.address()),
        format!("{}/team/app:2", registry.address()),
        format!("{}/app", second.address()),
    ];
    let metadata_file = fixture.path("metadata.json").display().to_string();
    let tags = names.iter().flat_map(|name| ["-t", name]);
    let mut args: Vec<&str> = tags.collect();
    args.extend(["--push", "--metadata-file", &metadata_file]);
    let ran_build = fixture.build(&args).ok();
    let metadata = metadata(&fixture);
    let digest = metadata["containerimage.digest"].as_str().expect("a digest");
    assert_eq!(
        metadata["image.name"],
        [&names[0], &names[1], &(names[2].clone() + ":latest")].map(String::as_str).join(",")
    );
    for (registry, repository, tag) in
        [(&registry, "team/app", "1"), (&registry, "team/app", "2"), (&second, "app", "latest")]
    {
        let there = registry.manifest(repository, tag).expect("the tag is there");
        assert_eq!(there.digest(), digest);
    }
    for shown in ["pushing layers", &format!("pushing manifest for {}@{digest}", names[0])] {
        assert!(ran_build.stderr.contains(shown), "{shown}: {}", ran_build.stderr);
    }
    // It has its names here, too, and is the same from there.
    assert!(fixture.run(["images"]).ok().text().contains("team/app"));
    fixture.write("Dockerfile", format!("FROM {}\nRUN test \"$A\" = b\n", names[0]));
    let out = fixture.path("out");
    let spec = format!("type=local,dest={}", out.display());
    fixture.build_in("elsewhere", &["-o", &spec]).ok();
    assert_eq!(read(&out, "two"), "11");

    if !have("privileged_a_build_is_pushed_and_read_by_others", "skopeo") {
        return;
    }
    let layout = fixture.path("layout");
    let copy = Command::new("skopeo")
        .args(["copy", "--insecure-policy", "--src-tls-verify=false"])
        .args([format!("docker://{}", names[0]), format!("oci:{}:1", layout.display())])
        .output()
        .expect("skopeo runs");
    ran(copy).ok();
    rbuild_testdata::validate::oci_layout(&layout).expect("a whole image");
}

#[test]
fn privileged_the_ways_to_say_it() {
    let registry = Registry::start();
    let fixture = fixture();
    let at = |rest: &str| format!("{}/{rest}", registry.address());
    // Only there.
    let spec = format!("type=registry,name={},store=false", at("a:1"));
    fixture.build(&["-o", &spec]).ok();
    assert!(registry.manifest("a", "1").is_some());
    assert!(!fixture.run(["images"]).ok().text().contains(&registry.address()));
    // Beside a folder.
    let out = format!("type=local,dest={}", fixture.path("out").display());
    fixture.build(&["-o", &out, "--push", "-t", &at("b")]).ok();
    assert!(registry.manifest("b", "latest").is_some());
    assert_eq!(read(&fixture.path("out"), "two"), "11");
    // Without a tag.
    let file = fixture.path("metadata.json").display().to_string();
    let spec = "type=image,push=true,push-by-digest=true";
    fixture.build(&["-t", &at("c"), "-o", spec, "--metadata-file", &file]).ok();
    let digest = metadata(&fixture)["containerimage.digest"].as_str().expect("a digest").to_owned();
    assert!(
        registry.manifest("c", &digest).is_some() && registry.manifest("c", "latest").is_none()
    );
    // Not at all.
    fixture.build(&["-t", &at("d"), "-o", "type=image,push=false"]).ok();
    assert!(registry.manifest("d", "latest").is_none());
}

#[test]
fn a_push_that_cannot_be_is_refused_before_anything_runs() {
    let fixture = Fixture::with("FROM busybox\nRUN false\n");
    let by_digest = "type=image,push=true,push-by-digest=true";
    for (args, part) in [
        (&["--push"][..], "tag is needed when pushing to registry"),
        (&["-o", "type=registry"], "tag is needed when pushing to registry"),
        (&["-t", "x:1", "-o", by_digest], "can't push tagged ref x:1 by digest"),
        (&["-t", "x", "-o", "type=image,push-by-digest=true"], "needs push=true"),
        (&["-t", "x", "-o", "type=image,registry.insecure=true"], "needs push=true"),
        (&["-o", "type=oci,dest=x,push=true"], "type=oci has no `push`"),
    ] {
        let error = fixture.build(args).fails(2);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn privileged_a_push_that_fails_says_why() {
    let gone = Scripted::start(|_, _| rbuild_testdata::Reply::hang_up()).address();
    let fixture = fixture();
    let error = fixture.build(&["--push", "-t", &format!("{gone}/x")]).fails(1);
    assert!(error.contains("failed to push") && error.contains("cannot connect"), "{error}");
    // What was built is here all the same.
    assert!(fixture.run(["images"]).ok().text().contains(&gone));
}

#[test]
fn privileged_a_login_is_used_and_never_shown() {
    use base64::Engine as _;
    let registry = Registry::start_with_password();
    let fixture = fixture();
    let name = format!("{}/app:1", registry.protected_address());
    let error = fixture.build(&["--push", "-t", &name]).fails(1);
    assert!(error.contains("needs a login"), "{error}");
    fs::create_dir(fixture.path(".docker")).expect("a folder");
    let login = |password: &str| {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("name:{password}"));
        let host = registry.protected_address();
        let text = format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#);
        fs::write(fixture.path(".docker/config.json"), text).expect("a login");
        auth
    };
    let auth = login("falsch");
    let error = fixture.run(["push", &name]).fails(1);
    assert!(error.contains("login") && !error.contains("falsch"), "{error}");
    assert!(!error.contains(&auth), "{error}");
    login("geheim");
    let pushed = fixture.run(["push", &name]).ok();
    assert!(!format!("{}{}", pushed.text(), pushed.stderr).contains("geheim"));
    assert!(registry.manifest("app", "1").is_some());
    let command = |args: &[&str]| {
        ran(fixture.command("elsewhere").args(args).output().expect("rbuild starts"))
    };
    assert_eq!(command(&["pull", &name]).ok().text(), pushed.text());
}

#[test]
fn privileged_stored_images_are_pushed_and_pulled() {
    let registry = Registry::start();
    let fixture = fixture();
    let name = format!("{}/app:1", registry.address());
    fixture.build(&["-t", &name]).ok();
    let ran_push = fixture.run(["push", &name]).ok();
    let pushed = ran_push.text();
    let there = registry.manifest("app", "1").expect("the tag is there");
    let lines = ran_push.stderr;
    assert!(lines.contains("sha256:") && lines.contains("pushing manifest for "), "{lines}");
    assert!(lines.lines().all(|line| line.ends_with(" done")), "{lines}");
    assert_eq!(pushed, format!("{name}@{}\n", there.digest()));
    let quiet = fixture.run(["push", "-q", &name]).ok();
    assert_eq!((quiet.text().as_str(), quiet.stderr.as_str()), ("", ""));

    let elsewhere = |args: &[&str]| {
        ran(fixture.command("elsewhere").args(args).output().expect("rbuild starts"))
    };
    assert_eq!(elsewhere(&["pull", &name]).ok().text(), pushed);
    let archive = fixture.path("saved.tar").display().to_string();
    elsewhere(&["save", &name, "-o", &archive]).ok();
    crate::fixture::valid("docker", fixture.path("saved.tar").as_path());

    // Of an index, the platform that is asked for.
    let image = |platform: &str| {
        Image::new(platform).layer(Layer::new(&[Entry::file("is", platform.as_bytes())]))
    };
    let index = ImageIndex::new().image(&image("linux/amd64")).image(&image("linux/s390x"));
    registry.push("many", "1", &index.publish());
    let name = format!("{}/many:1", registry.address());
    elsewhere(&["pull", "--platform", "linux/s390x", &name]).ok();
    let inspected = elsewhere(&["inspect", &name]).ok().text();
    assert!(inspected.contains("s390x"), "{inspected}");

    // By itself it would hide the other one, which is not here.
    let there = || registry.manifest("many", "1").expect("the tag is there");
    let error = elsewhere(&["push", &name]).fails(2);
    assert!(error.contains("it would hide linux/amd64") && error.contains("--partial"), "{error}");
    let error = elsewhere(&["push", "--all-platforms", &name]).fails(2);
    assert!(error.contains("the registry also has linux/amd64"), "{error}");
    elsewhere(&["push", "--partial", &name]).ok();
    let listed: serde_json::Value = serde_json::from_slice(&there().bytes).expect("JSON");
    assert_eq!(listed["manifests"].as_array().map(Vec::len), Some(2), "{listed}");
    let other = format!("{}/copied:1", registry.address());
    elsewhere(&["tag", &name, &other]).ok();
    elsewhere(&["push", &other]).ok();
    elsewhere(&["push", "--platform", "linux/s390x", &name]).ok();
    let copied = registry.manifest("copied", "1").expect("the tag is there");
    assert_eq!(there().digest(), copied.digest());
    // That is all there is now.
    elsewhere(&["push", &name]).ok();
    registry.push("many", "1", &index.publish());

    let app = format!("{}/app:1", registry.address());
    let warned = elsewhere(&["pull", "--platform", "linux/s390x", &app]).ok().stderr;
    assert!(warned.contains("is for linux/amd64, not for linux/s390x"), "{warned}");

    for (args, code, part) in [
        (&["push", "none:1"][..], 2, "no image `none:1`"),
        (&["push", "--platform", "linux/arm64", &name], 1, "is not for linux/arm64"),
        (&["push", "--platform", "a/b/c/d", &name], 2, "invalid platform"),
        (&["pull", "Upper"], 2, "cannot pull `Upper`"),
        (&["pull", "--platform", "linux/arm64", &name], 1, "only for linux/amd64, linux/s390x"),
        (&["pull", &format!("{}/none", registry.address())], 1, "not found"),
    ] {
        let error = elsewhere(args).fails(code);
        assert!(error.contains(part), "{error}");
    }
}
