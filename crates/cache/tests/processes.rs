//! Several processes on one store: the test binary runs itself again, as [`child`].

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rbuild_cache::{LocalRecords, LockName, PruneOptions, Store, prune};
use rbuild_oci::{Digest, VerifyingReader};
use rbuild_solver::CacheStore;

use crate::fixture::{key, layer_id, new_record, parts, snapshot};

const ROLE: &str = "RBUILD_TEST_CHILD";

/// Starts this binary again to do one of the roles below on the store in `root`.
fn spawn(role: &str, root: &Path) -> Child {
    command(Command::new(std::env::current_exe().unwrap()), role, root).spawn().unwrap()
}

fn command(mut command: Command, role: &str, root: &Path) -> Command {
    command
        .args(["--exact", "processes::child", "--nocapture"])
        .env(ROLE, format!("{role}:{}", root.display()))
        .stdout(Stdio::piped());
    command
}

/// Waits for a child and panics unless it went well.
fn wait(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Not a test of its own: what a child process does.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (role, root) = role.split_once(':').unwrap();
    let root = Path::new(root);
    match role {
        "open" => drop(Store::open(root).unwrap()),
        "count" => count(root),
        "hold" => hold(root),
        "churn" => churn(root),
        "fill" => fill(root),
        "build" => build(root),
        "prune" => prune_everything(root),
        other => panic!("{other}"),
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "\n{line}").unwrap();
    out.flush().unwrap();
}

#[test]
fn many_may_make_the_store_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let children: Vec<_> = (0..8).map(|_| spawn("open", &root)).collect();
    children.into_iter().for_each(|child| drop(wait(child)));
    let store = Store::open(&root).unwrap();
    assert_eq!(store.warnings, []);
    assert_eq!(std::fs::read_dir(root.join("tmp")).unwrap().count(), 0);
}

const COUNTS: u32 = 50;

/// Counts in a file, in a way that loses counts unless the lock holds; and makes a step that only one may make.
fn count(root: &Path) {
    let store = Store::open(root).unwrap();
    let records = LocalRecords::new(&store, store.lease().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let counter = root.parent().unwrap().join("counter");
    runtime.block_on(async {
        for _ in 0..COUNTS {
            let _guard = records.lock(&key("counter")).await.unwrap();
            let count: u32 =
                std::fs::read_to_string(&counter).map_or(0, |text| text.parse().unwrap());
            std::fs::write(&counter, (count + 1).to_string()).unwrap();
        }
        for step in 0..20 {
            let name = format!("step {step}");
            let _guard = records.lock(&key(&name)).await.unwrap();
            if records.lookup(&key(&name)).unwrap().is_none() {
                let layer = store.layers.begin().unwrap();
                layer.commit(&layer_id(&name)).unwrap();
                records.store(&[new_record(&parts(&name), &[snapshot(&[&name])])]).unwrap();
                say("made");
            }
        }
    });
}

#[test]
fn processes_take_turns_and_share_work() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let children: Vec<_> = (0..4).map(|_| spawn("count", &root)).collect();
    let said: String = children.into_iter().map(wait).collect();
    let counted = std::fs::read_to_string(dir.path().join("counter")).unwrap();
    assert_eq!(counted, (4 * COUNTS).to_string());
    assert_eq!(said.matches("made").count(), 20);
    let left: Vec<_> = std::fs::read_dir(root.join("locks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "index")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Holds one of everything until it is killed.
fn hold(root: &Path) {
    let store = Store::open(root).unwrap();
    let lease = store.lease().unwrap();
    lease.pin_layers(&[layer_id("used")]).unwrap();
    let _lock = store.locks.try_lock(LockName::Vertex(&key("held"))).unwrap().unwrap();
    let mut layer = store.layers.begin().unwrap();
    std::fs::write(layer.path().join("half"), "").unwrap();
    layer.work_dir().unwrap();
    let mut blob = store.content.begin().unwrap();
    blob.write_all(&vec![1; 1 << 20]).unwrap();
    say("holding");
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_process_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = Store::open(&root).unwrap();
    store.layers.begin().unwrap().commit(&layer_id("used")).unwrap();
    let mut child = spawn("hold", &root);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap() == "holding").unwrap().unwrap();

    let everything = PruneOptions { all: true, ..PruneOptions::default() };
    assert_eq!(prune(&store, &everything).unwrap().layers, []);
    assert!(store.locks.try_lock(LockName::Vertex(&key("held"))).unwrap().is_none());
    assert_eq!(staged(&root), 1);
    // The living are not swept.
    drop(Store::open(&root).unwrap());
    assert_eq!(staged(&root), 1);

    child.kill().unwrap();
    child.wait().unwrap();
    drop(Store::open(&root).unwrap());
    assert_eq!(staged(&root), 0);
    assert!(store.locks.try_lock(LockName::Vertex(&key("held"))).unwrap().is_some());
    assert_eq!(prune(&store, &everything).unwrap().layers, [layer_id("used")]);
    let leases = std::fs::read_dir(root.join("leases")).unwrap();
    assert_eq!(leases.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), ["gate"]);
}

fn staged(root: &Path) -> usize {
    let own = std::fs::read_dir(root.join("tmp")).unwrap();
    // What this process staged is kept, empty, while its store is open.
    own.filter(|own| std::fs::read_dir(own.as_ref().unwrap().path()).unwrap().count() > 0).count()
}

const FILES: usize = 20;

/// Makes blobs, layers and records until it is killed, saying what it has finished.
fn churn(root: &Path) {
    let store = Store::open(root).unwrap();
    let records = LocalRecords::new(&store, store.lease().unwrap());
    for number in 0.. {
        let name = format!("{} {number}", std::process::id());
        let layer = store.layers.begin().unwrap();
        for file in 0..FILES {
            std::fs::write(layer.path().join(file.to_string()), &name).unwrap();
        }
        layer.commit(&layer_id(&name)).unwrap();
        store.content.put(name.repeat(1000).as_bytes()).unwrap();
        records.store(&[new_record(&parts(&name), &[snapshot(&[&name])])]).unwrap();
        say(&format!("done {name}"));
    }
}

/// Every layer has its files, and every blob its content.
fn assert_whole(store: &Store) {
    assert_eq!(store.warnings, []);
    for id in store.layers.list().unwrap() {
        let files = std::fs::read_dir(store.layers.path(&id)).unwrap().count();
        assert_eq!(files, FILES);
    }
    for blob in std::fs::read_dir(store.root().join("blobs/sha256")).unwrap() {
        let hex = blob.unwrap().file_name().into_string().unwrap();
        let digest = Digest::parse(&format!("sha256:{hex}")).unwrap();
        let size = store.content.size(&digest).unwrap().unwrap();
        let file = store.content.open(&digest, None).unwrap();
        std::io::copy(&mut VerifyingReader::new(file, digest, size), &mut std::io::sink()).unwrap();
    }
}

/// Gives up everything, and says when it begins.
fn prune_everything(root: &Path) {
    let store = Store::open(root).unwrap();
    say("pruning");
    prune(&store, &PruneOptions { all: true, ..PruneOptions::default() }).unwrap();
    say("pruned");
}

#[test]
fn a_prune_that_is_killed_leaves_whole_things_only() {
    const STEPS: usize = 30;
    const ROUNDS: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let mut cut_short = 0;
    for round in 0..ROUNDS {
        let store = Store::open(&root).unwrap();
        let records = LocalRecords::new(&store, store.lease().unwrap());
        let names: Vec<String> = (0..STEPS).map(|step| format!("step {step}")).collect();
        for name in &names {
            let layer = store.layers.begin().unwrap();
            for file in 0..FILES {
                std::fs::write(layer.path().join(file.to_string()), name).unwrap();
            }
            layer.commit(&layer_id(name)).unwrap();
            store.content.put(name.repeat(100).as_bytes()).unwrap();
            records.store(&[new_record(&parts(name), &[snapshot(&[name])])]).unwrap();
        }
        let mirror = store.git_mirrors().join(Digest::of(b"mirror").hex());
        std::fs::create_dir_all(mirror.join("refs")).unwrap();
        std::fs::create_dir_all(root.join("builds/project")).unwrap();
        drop((records, store));

        let mut child = spawn("prune", &root);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        lines.find(|line| line == "pruning").unwrap();
        // Each round at another moment, told by what is gone: nothing, a few layers, most of them.
        let left = || std::fs::read_dir(root.join("layers")).unwrap().count();
        while left() > STEPS - round * STEPS / ROUNDS && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        cut_short += usize::from(!lines.any(|line| line == "pruned"));
        child.wait().unwrap();

        let store = Store::open(&root).unwrap();
        assert_whole(&store);
        assert_eq!(staged(&root), 0);
        // What is still found is there.
        let records = LocalRecords::new(&store, store.lease().unwrap());
        for name in &names {
            if records.lookup(&key(name)).unwrap().is_some() {
                assert!(store.layers.contains(&layer_id(name)).unwrap(), "{name}");
            }
        }
        drop(records);
        prune_everything(&root);
        assert_eq!(left(), 0);
        assert_eq!(std::fs::read_dir(root.join("blobs/sha256")).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(store.git_mirrors()).unwrap().count(), 0);
    }
    assert!(cut_short > 0, "every prune was over before it was killed");
}

#[test]
fn a_kill_at_any_moment_leaves_whole_things_only() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let mut done = Vec::new();
    for round in 0..10 {
        let mut child = spawn("churn", &root);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut finished = lines
            .map(Result::unwrap)
            .filter_map(|line| line.strip_prefix("done ").map(str::to_owned));
        done.extend((0..=round).map(|_| finished.next().unwrap()));
        child.kill().unwrap();
        done.extend(finished);
        child.wait().unwrap();

        let store = Store::open(&root).unwrap();
        assert_whole(&store);
        // SQLite loses nothing that was committed when only the process dies.
        let records = LocalRecords::new(&store, store.lease().unwrap());
        for name in &done {
            assert!(records.lookup(&key(name)).unwrap().is_some(), "{name}");
        }
    }
}

/// Builds the same few steps again and again, each build with a lease of its own, and sees that what it found or
/// made is there to the end.
fn build(root: &Path) {
    for _ in 0..40 {
        let store = Store::open(root).unwrap();
        let records = LocalRecords::new(&store, store.lease().unwrap());
        let names: Vec<String> = (0..8).map(|step| format!("step {step}")).collect();
        for name in &names {
            if records.lookup(&key(name)).unwrap().is_some() {
                say("found");
            } else {
                let layer = store.layers.begin().unwrap();
                std::fs::write(layer.path().join("file"), name).unwrap();
                layer.commit(&layer_id(name)).unwrap();
                store.content.put(name.as_bytes()).unwrap();
                records.store(&[new_record(&parts(name), &[snapshot(&[name])])]).unwrap();
            }
        }
        for name in &names {
            let file = store.layers.path(&layer_id(name)).join("file");
            assert_eq!(&std::fs::read_to_string(file).unwrap(), name);
        }
    }
}

#[test]
fn collection_takes_nothing_from_running_builds() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = Store::open(&root).unwrap();
    let mut children: Vec<_> = (0..3).map(|_| spawn("build", &root)).collect();
    let everything = PruneOptions { all: true, ..PruneOptions::default() };
    while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        prune(&store, &everything).unwrap();
    }
    children.into_iter().for_each(|child| drop(wait(child)));
    prune(&store, &everything).unwrap();
    assert_eq!(store.layers.list().unwrap(), []);
}

/// Fills the disk and says how each part of the store fails.
fn fill(root: &Path) {
    let store = Store::open(root).unwrap();
    let (kept, _) = store.content.put(b"kept").unwrap();
    let mut blob = store.content.begin().unwrap();
    let error = loop {
        if let Err(error) = blob.write_all(&[7; 65536]) {
            break error;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    let error = loop {
        // Small things still fit for a while.
        match store.content.put(uniquely().as_bytes()) {
            Ok(_) => {}
            Err(rbuild_cache::ContentError::Disk(error)) => break error,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(error.is_full(), "{error:?}");
    let error = loop {
        let name = uniquely();
        let descriptor = rbuild_oci::Descriptor::new(
            rbuild_oci::MediaType::Other(name.repeat(100)),
            Digest::of(name.as_bytes()),
            1,
        );
        if let Err(error) = store.index.tag_image(&name, &descriptor) {
            break error;
        }
    };
    assert!(error.is_full(), "{error:?}");
    let error = Store::open(&root.with_file_name("second")).unwrap_err();
    assert!(matches!(error, rbuild_cache::StoreError::Full { .. }), "{error:?}");
    drop(blob);
    // With space again, everything works again, without repair.
    let again = Store::open(root).unwrap();
    assert_eq!(again.warnings, []);
    assert_eq!(again.content.read(&kept, 10).unwrap(), b"kept");
    again.content.put(uniquely().as_bytes()).unwrap();
    again.index.remove_dangling_images().unwrap();
    say("filled");
}

fn uniquely() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:x}", RandomState::new().hash_one(0))
}

#[test]
fn privileged_a_full_disk_is_said_and_survived() {
    let dir = tempfile::tempdir().unwrap();
    let mut inside = Command::new("unshare");
    inside.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    inside.arg("mount -t tmpfs -o size=4m none \"$0\" || { echo SKIPPED; exit; }; exec \"$@\"");
    inside.arg(dir.path()).arg(std::env::current_exe().unwrap());
    let root = dir.path().join("store");
    let output = command(inside, "fill", &root).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    if said.contains("SKIPPED") || !output.status.success() && said.is_empty() {
        let why = String::from_utf8_lossy(&output.stderr);
        let line = format!("SKIPPED privileged_a_full_disk_is_said_and_survived: {why}");
        writeln!(std::io::stderr(), "{line}").unwrap();
        return;
    }
    assert!(output.status.success() && said.contains("filled"), "{output:?}");
}
