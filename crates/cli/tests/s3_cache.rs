//! Caches in a bucket: what they cost, how long they live, and whom they are for.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use rbuild_testdata::{BucketServer, Reply, Scripted};
use serde_json::Value;

use crate::fixture::{Fixture, Ran, ran, read, skipped, valid};

const STEPS: &str = "FROM busybox AS made\n\
    RUN echo one > /made\n\
    FROM busybox\n\
    COPY --from=made /made /made\n\
    RUN cat /made > /final\n";

const NOTHING: [&str; 2] = ["-o", "type=cacheonly"];

/// A build, a bucket, and a proxy before it.
struct World {
    fixture: Fixture,
    server: Arc<BucketServer>,
    proxy: Scripted,
}

impl World {
    fn start(test: &str) -> Option<Self> {
        let Some(server) = BucketServer::start() else {
            skipped(test, "no S3 server: run scripts/s3-server target/s3-server");
            return None;
        };
        let server = Arc::new(server);
        let proxy = {
            let server = Arc::clone(&server);
            Scripted::start(move |request, before| match before % 5 {
                // Whoever does not try again gets nowhere.
                2 => Reply::new(503, "<Error><Code>SlowDown</Code></Error>"),
                _ => server.forward(request),
            })
        };
        Some(Self { fixture: Fixture::with(STEPS), server, proxy })
    }

    /// The attributes that every build needs.
    fn spec(&self, more: &str) -> String {
        format!("type=s3,bucket=cache,region=us-east-1{more}")
    }

    /// A build that finds address and keys in the environment.
    fn build(&self, store: &str, args: &[&str]) -> Ran {
        ran(self.keyed(self.fixture.build_command(store, args)).output().expect("rbuild starts"))
    }

    fn keyed(&self, mut command: Command) -> Command {
        let (id, secret) = &self.server.key;
        command
            .env("AWS_ENDPOINT_URL_S3", format!("http://{}", self.proxy.address()))
            .env("AWS_ACCESS_KEY_ID", id)
            .env("AWS_SECRET_ACCESS_KEY", secret);
        command
    }

    fn export(&self, more: &str) -> Vec<String> {
        let before = self.proxy.lines().len();
        let to = self.spec(more);
        let built = self.build("store", &[&NOTHING[..], &["--cache-to", &to]].concat()).ok();
        assert!(built.stderr.contains("exporting cache to S3"), "{}", built.stderr);
        self.lines(before)
    }

    /// The requests from a number on that were not refused.
    fn lines(&self, from: usize) -> Vec<String> {
        let lines = self.proxy.lines().into_iter().enumerate().skip(from);
        lines.filter(|(number, _)| number % 5 != 2).map(|(_, line)| line).collect()
    }

    fn import(&self, store: &str, more: &str, args: &[&str]) -> Ran {
        let from = self.spec(more);
        self.build(store, &[&["--cache-from", &from][..], args].concat()).ok()
    }

    fn document(&self, key: &str) -> Value {
        let objects = self.server.objects();
        let text = objects[key]["text"].as_str().expect("a small document");
        serde_json::from_str(text).expect("JSON")
    }
}

/// How many instructions ran.
fn instructions(ran: &Ran) -> usize {
    let is_one = |step: &String| step.contains("RUN ") || step.contains("COPY ");
    ran.steps_run().into_iter().filter(is_one).count()
}

#[test]
fn privileged_a_bucket_keeps_a_cache() {
    let Some(world) = World::start("privileged_a_bucket_keeps_a_cache") else { return };
    what_an_export_costs(&world);
    what_an_import_costs(&world);
    what_is_old_is_made_new(&world);
    what_is_broken_is_built(&world);
    tables_go_along(&world);
    mounts_go_along(&world);
}

fn what_an_export_costs(world: &World) {
    let first = world.export(",prefix=team/,name=main;x/y,mode=max");
    assert!(first.iter().filter(|line| line.starts_with("PUT ")).count() >= 4, "{first:?}");
    let objects = world.server.objects();
    let config = world.document("team/manifests/main");
    assert_eq!(config, world.document("team/manifests/x/y"));
    for layer in config["layers"].as_array().expect("layers") {
        let blob = layer["blob"].as_str().expect("a digest");
        let size = &objects[&format!("team/blobs/{blob}")]["size"];
        assert_eq!(&layer["annotations"]["size"], size);
        assert!(layer["annotations"]["diffID"].is_string(), "{layer}");
    }
    assert!(config["records"].as_array().is_some_and(|records| records.len() >= 3), "{config}");
    assert!(config.get("rbuild").is_none(), "there is nothing but layers: {config}");
    // One request a name, where nothing is new.
    let mut again = world.export(",prefix=team/,name=main;x/y,mode=max");
    again.sort_unstable();
    assert_eq!(again, ["HEAD /cache/team/manifests/main", "HEAD /cache/team/manifests/x/y"]);
    assert_eq!(world.export(",prefix=team/,name=main,mode=max").len(), 1);
    // A change sends what it made, and nothing else.
    world.fixture.write("Dockerfile", format!("{STEPS}RUN echo more > /more\n"));
    let changed = world.export(",prefix=team/,name=main,mode=max");
    let sent: Vec<_> = changed.iter().filter(|line| line.starts_with("PUT ")).collect();
    assert_eq!(sent.len(), 2, "a layer and the document: {sent:?}");
    assert!(!changed.iter().any(|line| line.starts_with("GET ")), "{changed:?}");
    world.fixture.write("Dockerfile", STEPS);
    let secrets = [&world.server.key.1];
    for request in world.proxy.requests() {
        let text = format!("{request:?}");
        assert!(secrets.iter().all(|secret| !text.contains(*secret)), "{text}");
    }
}

fn what_an_import_costs(world: &World) {
    let before = world.proxy.lines().len();
    let known = world.import("other", ",prefix=team/,name=main", &NOTHING);
    assert_eq!(instructions(&known), 0, "{}", known.stderr);
    let shown = "importing cache manifest from s3:cache/team/manifests/main";
    assert!(known.stderr.contains(shown), "{}", known.stderr);
    assert_eq!(world.lines(before), ["GET /cache/team/manifests/main"]);
    // A later build gets the layers, as who the environment says.
    let archive = |store: &str, name: &str| {
        let path = world.fixture.path(name);
        let output = format!("type=oci,dest={}", path.display());
        let built = world.build(store, &["-o", &output]).ok();
        (instructions(&built), valid("oci", &path).manifest_digest)
    };
    let (own, other) = (archive("store", "own.tar"), archive("other", "other.tar"));
    assert_eq!(own.1, other.1);
    assert_eq!((own.0, other.0), (0, 0));
    // Another server than the environment's gets nothing that is not for it.
    let from = format!(
        "type=s3,bucket=cache,region=us-east-1,prefix=team/,name=main,endpoint_url=http://{},access_key_id={},secret_access_key={}",
        world.proxy.address(),
        world.server.key.0,
        world.server.key.1
    );
    world.fixture.build_in("named", &[&NOTHING[..], &["--cache-from", &from]].concat()).ok();
    let before = world.proxy.requests().len();
    let spec = format!("type=oci,dest={}", world.fixture.path("named.tar").display());
    let mut command = world.fixture.build_command("named", &["-o", &spec]);
    let foreign = [
        ("AWS_ACCESS_KEY_ID", "PRODKEY"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_SESSION_TOKEN", "PRODTOKEN"),
    ];
    ran(command.envs(foreign).output().expect("rbuild starts")).ok();
    let asked = world.proxy.requests().split_off(before);
    assert!(!asked.is_empty() && !format!("{asked:?}").contains("PROD"), "{asked:?}");
    // Of several names, those are read that are there; none is a warning.
    let one = world.import("several", ",prefix=team/,name=none;main", &NOTHING);
    assert_eq!(instructions(&one), 0, "{}", one.stderr);
    let none = world.import("none", ",name=a;b", &NOTHING);
    let reason = "WARN: the cache is not used: `s3://cache/manifests/` has nothing called `a`, `b`";
    assert!(none.stderr.contains(reason), "{}", none.stderr);
    assert_eq!(instructions(&none), 3);
}

fn what_is_old_is_made_new(world: &World) {
    let oldest = || {
        let objects = world.server.objects();
        let ages = objects.iter().filter(|(key, _)| !key.ends_with("/x/y"));
        ages.map(|(_, object)| object["age"].as_f64().expect("an age")).fold(0.0, f64::max)
    };
    world.export(",name=old,mode=max");
    world.server.age(90_000);
    let lines = world.export(",name=old,mode=max,touch_refresh=48h");
    assert_eq!(lines.len(), 1, "{lines:?}");
    let lines = world.export(",name=old,mode=max");
    assert!(lines.iter().any(|line| line.starts_with("PUT /cache/blobs/")), "{lines:?}");
    world.export(",prefix=team/,name=main,mode=max");
    let objects = world.server.objects();
    let is_used = |key: &String| key.starts_with("blobs/") || key.contains("manifests/old");
    for (key, object) in objects.iter().filter(|(key, _)| is_used(key)) {
        assert!(object["age"].as_f64().is_some_and(|age| age < 80_000.0), "{key}: {object}");
    }
    assert!(oldest() > 80_000.0, "what nothing uses any more stays old");
    assert_eq!(instructions(&world.import("renewed", ",name=old", &NOTHING)), 0);
}

fn what_is_broken_is_built(world: &World) {
    let built = |store: &str| {
        let out = world.fixture.path(&format!("{store}-out"));
        let spec = format!("type=local,dest={}", out.display());
        let ran = world.import(store, ",name=broken", &["-o", &spec]);
        assert_eq!(read(&out, "final"), "one\n");
        ran
    };
    world.export(",prefix=broken/,manifests_prefix=documents/,name=broken,mode=max");
    assert!(world.server.objects().contains_key("broken/documents/broken"));
    world.export(",blobs_prefix=broken/blobs/,name=broken,mode=max");
    let blobs: Vec<String> = {
        let objects = world.server.objects();
        objects
            .into_iter()
            .map(|(key, _)| key)
            .filter(|key| key.starts_with("broken/blobs/"))
            .collect()
    };
    world.server.damage("manifests/broken");
    let garbled = built("garbled");
    assert!(garbled.stderr.contains("WARN: the cache is not used: "), "{}", garbled.stderr);
    // The document says what it did, so its damage is not seen: it is another one that is written.
    world.fixture.write("Dockerfile", format!("{STEPS}RUN true\n"));
    world.export(",blobs_prefix=broken/blobs/,name=broken,mode=max");
    for blob in &blobs {
        world.server.damage(blob);
    }
    let lying = built("lying");
    assert!(lying.stderr.contains("that a cache promised cannot be had"), "{}", lying.stderr);
    for blob in &blobs {
        world.server.delete(blob);
    }
    let gone = built("gone");
    assert!(gone.stderr.contains("that a cache promised cannot be had"), "{}", gone.stderr);
    world.fixture.write("Dockerfile", STEPS);
    // Nobody is there.
    let from = world.spec(",name=main,endpoint_url=http://127.0.0.1:1,retry_max_attempts=1");
    let alone = world.build("alone", &[&NOTHING[..], &["--cache-from", &from]].concat()).ok();
    assert!(alone.stderr.contains("cannot connect to `127.0.0.1`"), "{}", alone.stderr);
}

fn tables_go_along(world: &World) {
    world.export(",name=tables,compression=estargz");
    let archive = world.fixture.path("tables.tar");
    let spec = format!("type=oci,compression=estargz,dest={}", archive.display());
    let built = world.import("tables", ",name=tables", &["-o", &spec]);
    assert_eq!(instructions(&built), 0, "{}", built.stderr);
    let manifest = valid("oci", &archive).manifest;
    for layer in &manifest["layers"].as_array().expect("layers")[1..] {
        let notes = &layer["annotations"];
        assert!(notes["containerd.io/snapshot/stargz/toc.digest"].is_string(), "{manifest}");
        assert!(notes["io.containers.estargz.uncompressed-size"].is_string(), "{manifest}");
    }
}

fn mounts_go_along(world: &World) {
    world.fixture.write(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,id=kept,target=/kept echo kept > /kept/file\n",
    );
    world.export(",name=mounts,mounts=kept");
    let config = world.document("manifests/mounts");
    let others = config["rbuild"]["blobs"].as_array().expect("an index and packs");
    assert!(others.len() >= 2, "{config}");
    world.fixture.write(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,id=kept,target=/kept cat /kept/file > /copy\n",
    );
    let out = world.fixture.path("mounts-out");
    let spec = format!("type=local,dest={}", out.display());
    world.import("mounts", ",name=mounts", &["-o", &spec]);
    assert_eq!(read(&out, "copy"), "kept\n");
    // What is packed already is not sent again.
    let lines = world.export(",name=mounts,mounts=kept");
    let packs = lines.iter().filter(|line| line.starts_with("PUT /cache/blobs/")).count();
    assert!(packs <= 2, "a layer, and an index: {lines:?}");
    world.fixture.write("Dockerfile", STEPS);
}

#[test]
fn privileged_keys_come_from_where_aws_tools_have_them() {
    let Some(world) = World::start("privileged_keys_come_from_where_aws_tools_have_them") else {
        return;
    };
    let (id, secret) = &world.server.key;
    let endpoint = format!("http://{}", world.proxy.address());
    let home = world.fixture.path(".aws");
    fs::create_dir(&home).expect("a folder");
    let keys = format!("[ci]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    fs::write(home.join("credentials"), keys).expect("a file");
    let config = format!(
        "[profile ci]\nregion = us-east-1\nendpoint_url = {endpoint}\n[profile role]\nrole_arn = arn:aws:iam::1:role/x\n"
    );
    fs::write(home.join("config"), config).expect("a file");
    let build = |profile: &str, args: &[&str]| {
        let mut command = world.fixture.build_command("store", &[&NOTHING[..], args].concat());
        ran(command
            .env("AWS_PROFILE", profile)
            .env("AWS_BUCKET", "cache")
            .output()
            .expect("it starts"))
    };
    build("ci", &["--cache-to", "type=s3"]).ok();
    assert!(world.server.objects().contains_key("manifests/buildkit"));
    let error = build("role", &["--cache-to", "type=s3,region=us-east-1"]).fails(1);
    assert!(error.contains("come from `role_arn` of the profile `role`"), "{error}");
    assert!(error.contains("aws configure export-credentials"), "{error}");
    assert!(build("none", &["--cache-from", "type=s3"]).fails(1).contains("no profile `none`"));
    // What is typed comes first; what is wrong is an error after a build, and a warning before it.
    let wrong = format!(
        "type=s3,bucket=cache,region=us-east-1,endpoint_url={endpoint},access_key_id={id},secret_access_key=not-it"
    );
    let error = build("ci", &["--cache-to", &wrong]).fails(1);
    assert!(
        error.contains("failed to export the cache: cannot look for `manifests/buildkit`"),
        "{error}"
    );
    assert!(error.contains("access denied") && error.contains("ignore-error=true"), "{error}");
    let ignored = build("ci", &["--cache-to", &format!("{wrong},ignore-error=true")]).ok();
    assert!(ignored.stderr.contains("WARN: the cache was not exported"), "{}", ignored.stderr);
    let unused = build("ci", &["--cache-from", &wrong]).ok();
    assert!(
        unused.stderr.contains("WARN: the cache is not used: cannot read"),
        "{}",
        unused.stderr
    );
    let own = format!(
        "type=s3,bucket=cache,region=us-east-1,endpoint_url={endpoint},access_key_id={id},secret_access_key={secret}"
    );
    let record =
        build("role", &["--cache-from", &own, "--cache-to", &format!("{own},name=own")]).ok();
    assert!(world.server.objects().contains_key("manifests/own"), "{}", record.stderr);
    // The secret is in nothing that is kept or printed.
    assert!(!record.stderr.contains(secret.as_str()));
    let search = Command::new("grep")
        .args(["-rlaF", "--exclude-dir=.aws", secret])
        .arg(world.fixture.path(""))
        .output()
        .expect("grep runs");
    assert_eq!(String::from_utf8_lossy(&search.stdout), "");
}

#[test]
fn what_is_wrong_with_a_bucket_is_said_at_once() {
    let fixture = Fixture::with(STEPS);
    for (flag, spec, expected) in [
        ("--cache-to", "type=s3,region=r", "type=s3 needs bucket=NAME"),
        ("--cache-from", "type=s3,bucket=b", "type=s3 needs region=NAME"),
        (
            "--cache-to",
            "type=s3,bucket=b,region=r,secret_acces_key=GEHEIM",
            "did you mean `secret_access_key`?",
        ),
        ("--cache-to", "type=s3,\"secret_access_key=GEHEIM", "has a quote without an end"),
        ("--cache-from", "type=s3,bucket=b,region=r,session_token=GEHEIM", "belong together"),
        (
            "--cache-to",
            "type=s3,\"secret_access_key=x,GEHEIM\",bucket=b,region=r",
            "belong together",
        ),
        (
            "--cache-to",
            "type=s3,bucket=b,use_path_style=true,endpoint_url=http://me:GEHEIM@127.0.0.1:1",
            "has a login in its address",
        ),
        ("--cache-from", "type=s3,bucket=b,use_path_style=true,region=x@h/", "a region is a name"),
        ("--cache-from", "type=s3,bucket=b,region=r,prefix=../x", "`prefix` has to be a part"),
        (
            "--cache-from",
            "type=s3,bucket=b,region=r,upload_parallelism=4",
            "an attribute of --cache-to",
        ),
    ] {
        let error = fixture.run(["build", flag, spec, "context"]).fails(2);
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("GEHEIM"), "{error}");
    }
    // Nor where it is set for every run.
    let set = |value: &str| {
        let mut command = fixture.command("store");
        command.args(["config", "show"]).env("RBUILD_CACHE_TO", value);
        ran(command.output().expect("rbuild starts"))
    };
    let shown =
        set("type=s3,bucket=b,region=r,access_key_id=A,secret_access_key=GEHEIM").ok().text();
    assert!(shown.contains("bucket=b") && !shown.contains("GEHEIM"), "{shown}");
    let error = set("type=s3,secret_access_key=GEHEIM").fails(2);
    assert!(error.contains("`build.cache-to`") && !error.contains("GEHEIM"), "{error}");
    let twice = "type=s3,bucket=b,region=r,name=a;b";
    let again = "type=s3,bucket=b,region=r,name=b,mode=max";
    let error =
        fixture.run(["build", "--cache-to", twice, "--cache-to", again, "context"]).fails(2);
    assert!(
        error.contains("two --cache-to go to `s3:b/manifests/b`: one would be lost"),
        "{error}"
    );
}
