//! Cache mounts of caches that somebody else wrote, who may mean harm.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_cache::{
    CacheMountKey, CacheMountUse, CacheName, ImageName, ImageSource, ImageSourceOptions,
    LayoutImage, OciLayout, Overlay, OverlayXattrs, PullProgress, RegistryClient, RegistryOptions,
    RenewCacheMount, Store, TakenCacheMount,
};
use rbuild_solver::{Event, Progress};
use rbuild_testdata::{Compression, Entry, Layer, sha256};
use serde_json::{Value, json};

use crate::layers::namespace::privileged;

/// A cache in a folder, which a store imports.
struct World {
    folder: tempfile::TempDir,
    store: Store,
    key: CacheMountKey,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        std::fs::create_dir_all(folder.path().join("cache/blobs/sha256")).unwrap();
        Self { folder, store, key: CacheMountKey { id: "/deps".to_owned(), content: None } }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// The name of the mount in an index: that of its directory.
    fn name(&self) -> String {
        let scratch = Store::open(&self.folder.path().join("scratch")).unwrap();
        let (sharing, renew) = (CacheMountUse::Private, RenewCacheMount::Never);
        match scratch.cache_mounts.try_take(&self.key, sharing, renew).unwrap() {
            TakenCacheMount::Fresh(fresh) => drop(fresh.ready().unwrap()),
            taken => drop(taken),
        }
        let mut entries = std::fs::read_dir(self.folder.path().join("scratch/caches")).unwrap();
        let name = entries.next().unwrap().unwrap().file_name().into_string().unwrap();
        name.split('.').next().unwrap().to_owned()
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        let path = self.cache().join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        std::fs::write(path, bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Publishes a cache with this index of mounts.
    fn publish(&self, index: &[u8]) {
        let config = self.blob("application/vnd.buildkit.cacheconfig.v0", b"{}");
        let index = self.blob("application/vnd.rbuild.cachemounts.v1+json", index);
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [index] });
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = self.blob(manifest_type, &serde_json::to_vec(&manifest).unwrap());
        let layout = json!({ "schemaVersion": 2, "manifests": [manifest] });
        std::fs::write(self.cache().join("index.json"), layout.to_string()).unwrap();
        let marker = r#"{"imageLayoutVersion":"1.0.0"}"#;
        std::fs::write(self.cache().join("oci-layout"), marker).unwrap();
    }

    /// An index of one mount that is this archive, cut into two chunks.
    fn index(&self, archive: &[u8]) -> Value {
        let chunks: Vec<&[u8]> = archive.chunks(archive.len().div_ceil(2)).collect();
        let frames: Vec<Vec<u8>> =
            chunks.iter().map(|chunk| zstd::bulk::compress(chunk, 1).unwrap()).collect();
        let pack = self.blob("application/vnd.rbuild.cachemounts.pack.v1+zstd", &frames.concat());
        let chunk =
            |(chunk, frame): (&&[u8], &Vec<u8>)| json!([sha256(chunk), chunk.len(), frame.len()]);
        let entries: Vec<Value> = chunks.iter().zip(&frames).map(chunk).collect();
        json!({
            "packs": [{ "blob": pack["digest"], "size": pack["size"], "chunks": entries }],
            "mounts": [{
                "key": self.name(), "id": "/deps", "mode": 0o750, "uid": 0, "gid": 0,
                "size": archive.len(), "chunks": [0, 1],
            }],
        })
    }

    /// Imports the cache and takes the mount: what was warned of, and where the mount is.
    fn take(&self) -> (Vec<String>, PathBuf) {
        let overlay = Arc::new(Overlay::new(OverlayXattrs::User, &self.store.layers));
        let registry = RegistryClient::new(RegistryOptions::default());
        let lease = self.store.lease().unwrap();
        let options = ImageSourceOptions::default();
        let images = ImageSource::new(&self.store, lease, overlay, registry, options);
        let (progress, mut events) = Progress::channel();
        let pull = PullProgress { progress, ..PullProgress::discard() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let layout = ImageName::Layout(OciLayout::new(&self.cache()), LayoutImage::Only);
            let name = CacheName::Image(layout);
            images.import_cache(&name).await.unwrap();
            let (sharing, renew) = (CacheMountUse::Shared, RenewCacheMount::IfEmpty);
            let taken = self.store.cache_mounts.try_take(&self.key, sharing, renew).unwrap();
            let TakenCacheMount::Fresh(fresh) = taken else { panic!("{taken:?}") };
            images.fill_mount(&self.key, &fresh, &pull).await.unwrap();
            fresh.ready().unwrap();
            drop((pull, images));
            let mut warnings = Vec::new();
            while let Some(event) = events.recv().await {
                if let Event::Warning { message, .. } = event {
                    warnings.push(message);
                }
            }
            let path = self.folder.path().join("store/caches").join(format!("{}.0", self.name()));
            (warnings, path)
        })
    }
}

fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    Layer::compressed(entries, Compression::None).tar
}

#[test]
fn privileged_what_is_right_is_unpacked() {
    privileged("remote_mounts::privileged_what_is_right_is_unpacked", |_| {
        let world = World::new();
        let archive = archive(&[Entry::directory("d"), Entry::file("d/.wh.x", "text")]);
        world.publish(world.index(&archive).to_string().as_bytes());
        let (warnings, path) = world.take();
        assert_eq!(warnings, [""; 0]);
        assert_eq!(names(&path.join("d")), [".wh.x"]);
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o750);
    });
}

#[test]
fn privileged_nothing_leads_out_of_a_mount() {
    privileged("remote_mounts::privileged_nothing_leads_out_of_a_mount", |_| {
        for entries in [
            vec![Entry::file("../../../evil", "text")],
            vec![Entry::symlink("out", "../../.."), Entry::file("out/evil", "text")],
            vec![Entry::symlink("out", "/"), Entry::file("out/tmp/evil-of-rbuild", "text")],
            vec![Entry::hardlink("own", "/etc/passwd")],
            vec![
                Entry::symlink("link", "../../version"),
                Entry::hardlink("own", "link/../version"),
            ],
            vec![Entry::symlink(".", "/tmp")],
        ] {
            let world = World::new();
            world.publish(world.index(&archive(&entries)).to_string().as_bytes());
            let (_, path) = world.take();
            assert!(path.is_dir() && !path.is_symlink(), "{entries:?}");
            assert_eq!(names(world.folder.path()), ["cache", "scratch", "store"], "{entries:?}");
            assert!(!Path::new("/tmp/evil-of-rbuild").exists());
            let store = world.folder.path().join("store");
            for folder in [store.clone(), store.join("caches"), store.join("tmp")] {
                assert!(!names(&folder).contains(&"evil".to_owned()), "{entries:?}");
            }
        }
    });
}

#[test]
fn privileged_what_makes_no_sense_is_an_empty_mount() {
    privileged("remote_mounts::privileged_what_makes_no_sense_is_an_empty_mount", |_| {
        type Change = fn(&mut Value);
        let changes: [(Change, &str); 8] = [
            (|index| *index = json!([]), "cannot be understood"),
            (|index| index["packs"][0]["size"] = json!(1), "does not have the sizes of a pack"),
            (|index| index["packs"][0]["chunks"][0][1] = json!(u32::MAX), "sizes of a pack"),
            (|index| index["mounts"][0]["chunks"] = json!([0, 7]), "chunk 7, which is not"),
            (|index| index["mounts"][0]["size"] = json!(u64::MAX), "another number"),
            // Both chunks exist, and are not what the index says.
            (
                |index| index["packs"][0]["chunks"][0][0] = json!(sha256(b"another")),
                "is another one",
            ),
            (|index| index["mounts"][0]["chunks"] = json!([1, 0]), "cannot unpack it"),
            (|index| index["packs"][0]["blob"] = json!(sha256(b"gone")), "has no blob"),
        ];
        for (change, reason) in changes {
            let world = World::new();
            let mut index = world.index(&archive(&[Entry::file("file", vec![7; 3000])]));
            change(&mut index);
            world.publish(index.to_string().as_bytes());
            let (warnings, path) = world.take();
            assert!(warnings.concat().contains(reason), "{warnings:?}");
            assert_eq!(warnings.len(), 1, "{reason}");
            assert_eq!(names(&path), [""; 0], "{reason}");
        }
        // A tebibyte of zeros, in a kilobyte.
        let world = World::new();
        let mut index = world.index(&vec![0; 1 << 20]);
        let count = 2_000_000_u64;
        index["mounts"][0]["chunks"] = json!(vec![0; count as usize]);
        index["mounts"][0]["size"] = json!(count * (512 << 10));
        world.publish(index.to_string().as_bytes());
        let (warnings, path) = world.take();
        assert!(warnings.concat().contains("and the disk of the store has"), "{warnings:?}");
        assert_eq!(names(&path), [""; 0]);
    });
}
