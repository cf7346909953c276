//! Opening.

use std::os::unix::fs::PermissionsExt;

use rbuild_cache::{IndexError, IndexWarning, Store, StoreError};
use rbuild_oci::{Descriptor, Digest, MediaType};

use crate::fixture::Fixture;

#[test]
fn an_empty_place_becomes_a_private_store() {
    let fixture = Fixture::new();
    let mut names: Vec<_> = std::fs::read_dir(fixture.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("index.db-"))
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "blobs", "builds", "caches", "contexts", "git", "index.db", "layers", "leases",
            "locks", "logs", "tmp", "usage", "version"
        ]
    );
    assert_eq!(std::fs::read_to_string(fixture.root().join("version")).unwrap(), "1\n");
    let mode = std::fs::metadata(fixture.root()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    assert_eq!(std::fs::read_dir(fixture.root().join("tmp")).unwrap().count(), 0);

    let (digest, _) = fixture.store.content.put(b"kept").unwrap();
    let again = Store::open(&fixture.root()).unwrap();
    assert_eq!(again.content.read(&digest, 10).unwrap(), b"kept");
    assert_eq!(again.warnings, []);
}

#[test]
fn a_newer_store_is_refused() {
    let Fixture { store, dir } = Fixture::new();
    drop(store);
    let root = dir.path().join("store");
    std::fs::write(root.join("version"), "2\n").unwrap();
    let error = Store::open(&root).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 2, .. }));
    assert!(error.to_string().contains("use the newer rbuild"), "{error}");
}

#[test]
fn a_newer_index_is_refused_and_not_touched() {
    let Fixture { store, dir } = Fixture::new();
    drop(store);
    let root = dir.path().join("store");
    let connection = rusqlite::Connection::open(root.join("index.db")).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    for _ in 0..2 {
        let StoreError::Index { source, .. } = Store::open(&root).unwrap_err() else { panic!() };
        assert!(matches!(source, IndexError::Newer { found: 99, .. }), "{source}");
    }
}

#[test]
fn other_directories_are_not_made_into_stores() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "").unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("contains `thesis.tex`"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);

    std::fs::write(dir.path().join("version"), "three\n").unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");

    let error = Store::open(&dir.path().join("thesis.tex")).unwrap_err();
    assert!(matches!(error, StoreError::Disk(_)), "{error}");
}

#[test]
fn an_unwritable_place_is_named() {
    // Nobody, root included, can make a directory there.
    let error = Store::open("/sys/rbuild-store".as_ref()).unwrap_err();
    assert!(matches!(error, StoreError::NotWritable { .. }), "{error:?}");
    assert_eq!(error.to_string(), "the store `/sys/rbuild-store` is not writable");
}

#[test]
fn making_goes_on_where_a_dead_process_stopped() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("tmp/1-dead/0")).unwrap();
    std::fs::create_dir(dir.path().join("blobs")).unwrap();
    Store::open(dir.path()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

fn damage(root: &std::path::Path, from: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(root.join("index.db")).unwrap();
    let size = file.metadata().unwrap().len();
    file.write_all_at(&vec![0x5a; (size - from) as usize], from).unwrap();
    for log in ["index.db-wal", "index.db-shm"] {
        let _ = std::fs::remove_file(root.join(log));
    }
}

#[test]
fn a_damaged_index_is_replaced_and_content_stays() {
    let Fixture { store, dir } = Fixture::new();
    let root = dir.path().join("store");
    let (digest, _) = store.content.put(b"kept").unwrap();
    drop(store);
    damage(&root, 0);
    let store = Store::open(&root).unwrap();
    let [IndexWarning::Replaced { aside, images: 0 }] = &store.warnings[..] else { panic!() };
    assert!(aside.exists());
    assert_eq!(store.content.read(&digest, 10).unwrap(), b"kept");
    assert_eq!(store.index.images().unwrap(), []);
    drop(store);
    assert_eq!(Store::open(&root).unwrap().warnings, []);
}

#[test]
fn damage_that_shows_later_is_replaced_at_the_next_start() {
    let Fixture { store, dir } = Fixture::new();
    let root = dir.path().join("store");
    drop(store);
    // Everything into the main file, then all of it but the head and the schema's root.
    let connection = rusqlite::Connection::open(root.join("index.db")).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(connection);
    let page = 4096;
    damage(&root, page);
    let store = Store::open(&root).unwrap();
    let error = store.index.images().unwrap_err();
    assert!(matches!(error, IndexError::Damaged(_)), "{error}");
    drop(store);
    let store = Store::open(&root).unwrap();
    assert_eq!(store.warnings.len(), 1);
    assert_eq!(store.index.images().unwrap(), []);
}

#[test]
fn images_are_saved_from_a_damaged_index() {
    use std::os::unix::fs::FileExt;
    let Fixture { store, dir } = Fixture::new();
    let root = dir.path().join("store");
    let image = Descriptor::new(MediaType::OciManifest, Digest::of(b"manifest"), 8);
    store.index.tag_image("app", &image).unwrap();
    drop(store);
    let connection = rusqlite::Connection::open(root.join("index.db")).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let page: u64 = connection
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'layers'", [], |row| {
            row.get::<_, i64>(0).map(i64::unsigned_abs)
        })
        .unwrap();
    drop(connection);
    let file = std::fs::File::options().write(true).open(root.join("index.db")).unwrap();
    file.write_all_at(&[0x5a; 4096], (page - 1) * 4096).unwrap();
    let store = Store::open(&root).unwrap();
    let error = store.index.layer(&rbuild_solver::LayerId::derived("a", &[])).unwrap_err();
    assert!(matches!(error, IndexError::Damaged(_)), "{error}");
    let store = Store::open(&root).unwrap();
    assert!(matches!(store.warnings[..], [IndexWarning::Replaced { images: 1, .. }]));
    assert_eq!(store.index.image("app").unwrap().unwrap().descriptor, image);
    assert_eq!(store.index.layer(&rbuild_solver::LayerId::derived("a", &[])).unwrap(), None);
}

#[test]
fn deleted_directories_are_made_again() {
    let Fixture { store, dir } = Fixture::new();
    drop(store);
    let root = dir.path().join("store");
    for name in ["blobs", "contexts", "git", "layers", "leases", "locks", "tmp"] {
        std::fs::remove_dir_all(root.join(name)).unwrap();
    }
    let store = Store::open(&root).unwrap();
    assert_eq!(store.warnings, []);
    let (digest, _) = store.content.put(b"kept").unwrap();
    assert_eq!(store.content.read(&digest, 10).unwrap(), b"kept");
    store.lease().unwrap();
}
