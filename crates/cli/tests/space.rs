//! The store stays within its limits, and nobody who uses it notices.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::fixture::{Fixture, ran, valid};

const NOTHING: [&str; 2] = ["-o", "type=cacheonly"];

/// A step that writes megabytes which do not compress.
fn writes(name: &str, megabytes: u32) -> String {
    format!("FROM busybox\nRUN dd if=/dev/urandom of=/{name} bs=1M count={megabytes} 2>/dev/null\n")
}

/// What the layers of a fixture's store take, in bytes.
fn layers(fixture: &Fixture) -> u64 {
    let listed = fixture.run(["du", "--format=json", "--filter", "type=regular"]).ok().text();
    let items = listed.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    items.map(|item: serde_json::Value| item["Bytes"].as_u64().expect("a size")).sum()
}

/// A build whose step waits until [`Waiting::go`].
struct Waiting {
    child: Child,
    go: PathBuf,
}

impl Waiting {
    /// Starts it, and returns when its step runs.
    fn start(fixture: &Fixture, args: &[&str], then: &str) -> Self {
        fixture.write(
            "Waits",
            format!(
                "FROM busybox\nRUN echo before > /before\n\
                 RUN --mount=type=cache,id=meet,target=/m {then}; touch /m/waits; until test -e /m/go; do usleep 10000; done\n"
            ),
        );
        let file = fixture.context().join("Waits").display().to_string();
        let mut command = fixture.build_command("store", &[&["-f", &file], args].concat());
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rbuild starts");
        let caches = fixture.path("store/caches");
        let waits =
            |entry: fs::DirEntry| Some(entry.path()).filter(|path| path.join("waits").exists());
        loop {
            let found = fs::read_dir(&caches).into_iter().flatten().flatten().find_map(waits);
            match found {
                Some(cache) => return Self { child, go: cache.join("go") },
                None => assert!(child.try_wait().expect("a child").is_none(), "it ended"),
            }
            std::thread::yield_now();
        }
    }

    /// Lets it end.
    fn go(self) -> crate::fixture::Ran {
        fs::write(&self.go, "").expect("the file");
        ran(self.child.wait_with_output().expect("rbuild ends"))
    }
}

#[test]
fn privileged_limits_are_kept_after_a_build() {
    let fixture = Fixture::with(&writes("a", 12));
    fixture.build(&NOTHING).ok();
    fixture.write("Dockerfile", writes("b", 12));
    let few = ["-o", "type=cacheonly", "--max-used-space", "20MB"];
    let said = fixture.build(&few).ok().stderr;
    assert!(said.contains("least valuable things went"), "{said}");
    assert!(layers(&fixture) < 20_000_000);
    assert_eq!(fixture.build(&few).ok().steps_run().len(), 0, "the younger one is there");
    fixture.write("Dockerfile", writes("a", 12));
    assert_eq!(fixture.build(&few).ok().steps_run().len(), 1, "the older one is not");
    // A store that nothing can be taken from.
    let archive = fixture.path("kept.tar").display().to_string();
    fixture.build(&["-t", "kept"]).ok();
    let said = fixture.build(&["-t", "kept", "--max-used-space", "1MB"]).ok().stderr;
    assert!(said.contains("more than it may"), "{said}");
    fixture.run(["save", "kept", "-o", &archive]).ok();
    valid("docker", archive.as_ref());
}

#[test]
fn privileged_limits_are_kept_while_a_build_runs() {
    let fixture = Fixture::with(&writes("old", 20));
    fixture.build(&NOTHING).ok();
    let few = ["-o", "type=cacheonly", "--max-used-space", "15MB"];
    let waiting =
        Waiting::start(&fixture, &few, "dd if=/dev/urandom of=/new bs=1M count=12 2>/dev/null");
    // What the last build made goes although this one is not over.
    while layers(&fixture) > 15_000_000 {
        std::thread::yield_now();
    }
    waiting.go().ok();
}

#[test]
fn privileged_what_a_running_build_uses_stays() {
    let fixture = Fixture::with(&writes("other", 2));
    let archive = fixture.path("app.tar").display().to_string();
    let output = format!("type=oci,dest={archive}");
    let waiting = Waiting::start(&fixture, &["-t", "app:1", "-o", &output], "true");
    let nothing = ["-o", "type=cacheonly", "--max-used-space", "1", "--reserved-space", "0"];
    fixture.build(&nothing).ok();
    let pruned = fixture.run(["prune", "--all"]).ok().text();
    assert!(pruned.contains(" 0 layers"), "everything came since the build began: {pruned}");
    waiting.go().ok();
    assert_eq!(valid("oci", archive.as_ref()).layers.len(), 3);
    let pruned = fixture.run(["prune", "--all"]).ok().text();
    assert!(!pruned.contains(" 0 layers"), "{pruned}");
}

#[test]
fn a_store_that_is_not_there_is_not_made_by_looking_for_it() {
    let fixture = Fixture::new();
    let typo = fixture.path("typo").display().to_string();
    for command in [&["images"][..], &["du"], &["inspect", "app"], &["prune", "--all"], &["logs"]] {
        let error = fixture.run([&["--root", &typo], command].concat()).fails(2);
        assert!(error.contains("there is no store in"), "{command:?}: {error}");
        assert!(!fixture.path("typo").exists(), "{command:?}");
    }
    // What is no store is not touched.
    fs::create_dir(fixture.path("typo")).expect("a folder");
    fs::write(fixture.path("typo/version"), "of something else\n").expect("a file");
    fs::write(fixture.path("typo/mine"), "").expect("a file");
    let error = fixture.run(["--root", &typo, "prune", "--all"]).fails(1);
    assert!(error.contains("is not a store of rbuild's"), "{error}");
    assert!(fixture.path("typo/mine").exists());
}

#[test]
fn privileged_only_the_own_store_is_opened() {
    let fixture = Fixture::with("FROM scratch\nCOPY Dockerfile /\n");
    let nothing = ["-o", "type=cacheonly"];
    fixture.build(&nothing).ok();
    // A directory that is a link: what is in there is somebody else's.
    for directory in ["tmp", "contexts"] {
        let (own, aside) = (fixture.path(&format!("store/{directory}")), fixture.path("aside"));
        fs::rename(&own, &aside).expect("a folder");
        let victim = fixture.path("victim");
        fs::create_dir_all(victim.join("precious")).expect("a folder");
        std::os::unix::fs::symlink(&victim, &own).expect("a link");
        let error = fixture.run(["du"]).fails(1);
        let expected = format!("`{}` is not a directory", own.display());
        assert!(error.contains(&expected) && victim.join("precious").exists(), "{error}");
        fs::remove_file(&own).expect("the link");
        fs::rename(&aside, &own).expect("a folder");
    }
    fixture.build(&nothing).ok();
    std::os::unix::fs::chown(fixture.path("store"), Some(65534), None).expect("another owner");
    for args in [&["du"][..], &["images"], &["build", "context"]] {
        let error = fixture.run(args).fails(1);
        assert!(
            error.contains("belongs to user 65534, and you are user 0: run rbuild as"),
            "{error}"
        );
    }
}

#[test]
fn privileged_du_tells_what_made_everything() {
    let fixture = Fixture::with(
        "FROM busybox\nRUN --mount=type=cache,id=meals,target=/c echo one > /one\nRUN echo two > /two\n",
    );
    fixture.build(&["-t", "app"]).ok();
    let all = fixture.run(["du", "--verbose"]).ok().text();
    for part in [
        "Description:  layer 1 of oci-layout://",
        "] RUN --mount=type=cache",
        "Description:  cached mount /meals",
        "Description:  document of docker.io/library/app:latest",
        "Description:  blob of [",
        "Type:         regular",
        "Type:         build",
        "Usage count:",
        "Last used:",
        "KIND",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
    let lines = fixture.run(["du", "--format=json"]).ok().text();
    let items: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of_two = |item: &&serde_json::Value| {
        let description = item["Description"].as_str().expect("a text");
        item["Type"] == "regular" && description.ends_with("RUN echo two > /two")
    };
    let two = items.iter().find(of_two).expect("the layer");
    assert_eq!((&two["Type"], &two["Shared"]), (&"regular".into(), &true.into()));
    let one = items.iter().find(|item| item["ID"] == two["Parents"][0]).expect("what is below");
    assert!(one["Description"].as_str().expect("a text").contains("echo one"), "{one}");
    let few = fixture.run(["du", "--format=json", "--filter", "description~=^cached"]).ok().text();
    assert_eq!(few.lines().count(), 1, "{few}");
    let pruned = fixture.run(["prune", "--verbose", "--filter", "id=/meals"]).ok().text();
    assert!(
        pruned.contains("cached mount /meals") && pruned.contains(" 1 cache mounts"),
        "{pruned}"
    );
    for (bad, said) in [
        (&["prune", "--filter", "nmae=x"][..], "cannot filter by `nmae`"),
        (&["prune", "--max-used-space", "lots"], "no amount of space"),
        (&["du", "--filter", "id~=("], "no regular expression"),
        (&["prune", "--filter", "until=1h", "--keep-duration", "1h"], "say the same"),
    ] {
        let error = fixture.run(bad).fails(2);
        assert!(error.contains(said), "{bad:?}: {error}");
    }
}
