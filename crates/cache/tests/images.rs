//! Images from registries, layouts and the local store, down to their files.

use std::error::Error;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rbuild_cache::{
    ImageError, ImageName, ImageSource, ImageSourceOptions, LayoutImage, OciLayout, Overlay,
    OverlayXattrs, PullMode, PullProgress, RegistryClient, RegistryOptions, ResolvedImage,
    RetryPolicy, View,
};
use rbuild_oci::{Descriptor, Digest, MediaType, Platform, Reference};
use rbuild_solver::{LayerId, Snapshot};
use rbuild_testdata::{
    Compression, Entry, Image, ImageIndex, Layer, Layout, Published, Registry, Reply, Scripted,
    serve_image,
};
use serde_json::json;

use crate::fixture::Fixture;
use crate::layers::namespace::privileged;

struct World {
    fixture: Fixture,
    overlay: Arc<Overlay>,
    source: ImageSource,
}

impl World {
    fn new() -> Self {
        Self::with(OverlayXattrs::User)
    }

    fn with(xattrs: OverlayXattrs) -> Self {
        let fixture = Fixture::new();
        let store = &fixture.store;
        let overlay = Arc::new(Overlay::new(xattrs, &store.layers));
        let retry = RetryPolicy { attempts: 2, first_delay: Duration::ZERO, ..Default::default() };
        let registry = RegistryClient::new(RegistryOptions { retry, ..Default::default() });
        let options = ImageSourceOptions::default();
        let lease = store.lease().unwrap();
        let source = ImageSource::new(store, lease, Arc::clone(&overlay), registry, options);
        Self { fixture, overlay, source }
    }

    async fn resolve(&self, name: &ImageName) -> Result<ResolvedImage, ImageError> {
        self.source.resolve(name, &amd64(), PullMode::Missing).await
    }

    async fn unpack(&self, snapshot: &Snapshot) -> Result<(), ImageError> {
        self.source.ensure_unpacked(snapshot, &PullProgress::discard()).await
    }

    fn view(&self, snapshot: &Snapshot) -> (View, PathBuf) {
        use std::os::fd::AsRawFd;
        let view = View::open(&self.overlay, &self.fixture.store.layers, snapshot).unwrap();
        let path = format!("/proc/self/fd/{}", view.root().as_raw_fd()).into();
        (view, path)
    }

    /// Neither a layer nor anything pending but the empty files of locks.
    fn assert_nothing_half_made(&self) {
        assert_eq!(self.fixture.store.layers.list().unwrap(), []);
        let pending = std::fs::read_dir(self.fixture.root().join("tmp"))
            .unwrap()
            .flat_map(|own| std::fs::read_dir(own.unwrap().path()).unwrap())
            .map(|pending| pending.unwrap().metadata().unwrap())
            .filter(|pending| !pending.is_file() || pending.len() > 0);
        assert_eq!(pending.count(), 0);
    }
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn at(address: &str, rest: &str) -> ImageName {
    ImageName::Reference(Reference::parse(&format!("{address}/{rest}")).unwrap())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn said(error: &dyn Error) -> String {
    let below = error.source().map(said);
    [Some(error.to_string()), below].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

fn image() -> Image {
    let lower = [
        Entry::directory("a"),
        Entry::file("a/gone", "1"),
        Entry::file("a/kept", "2").mode(0o600),
        Entry::hardlink("a/same", "a/kept"),
        Entry::symlink("link", "a/kept"),
    ];
    let middle = [Entry::directory("a"), Entry::whiteout("a/gone"), Entry::file("a/new", "3")];
    Image::new("linux/amd64")
        .layer(Layer::new(&lower))
        .layer(Layer::compressed(&middle, Compression::Zstd))
        .layer(Layer::compressed(&[Entry::file("top", "4")], Compression::None))
}

#[tokio::test]
async fn resolves_and_pulls_nothing() {
    let other = Image::new("linux/arm64").layer(Layer::new(&[]));
    let published = ImageIndex::new().image(&other).image(&image()).publish();
    let server = {
        let right = serve_image("a/b", "x", &published);
        Scripted::start(move |request, _| right(request))
    };
    let world = World::new();
    let resolved = world.resolve(&at(&server.address(), "a/b:x")).await.unwrap();
    assert_eq!(resolved.digest().to_string(), published.digest());
    assert_eq!(
        resolved.name.to_string(),
        format!("{}/a/b:x@{}", server.address(), published.digest())
    );
    assert_eq!(resolved.config.platform(), amd64());
    assert_eq!(resolved.config_bytes, image().config_blob().bytes);
    assert_eq!(resolved.manifest.digest.to_string(), image().publish().digest());
    assert_eq!(resolved.layers.len(), 3);
    assert_eq!(resolved.layers[0].id, LayerId::of_diff_id(&resolved.layers[0].diff_id));
    assert_ne!(resolved.layers[1].id, LayerId::of_diff_id(&resolved.layers[1].diff_id));
    let chain = rbuild_oci::DiffId(resolved.chain_id().unwrap().0);
    assert_eq!(resolved.layers[2].id, LayerId::of_diff_id(&chain));
    // The index, the manifest and the configuration.
    assert_eq!(server.lines().len(), 3, "{:?}", server.lines());
    drop(server);
    // By digest, nobody is asked any more.
    let again = world.resolve(&resolved.name).await.unwrap();
    assert_eq!(again.snapshot, resolved.snapshot);
    let always = world.source.resolve(&resolved.name, &amd64(), PullMode::Always).await.unwrap();
    assert_eq!(always.manifest.digest, resolved.manifest.digest);
}

#[tokio::test]
async fn local_images_need_no_registry() {
    let world = World::new();
    let store = &world.fixture.store;
    let published = image().publish();
    for blob in published.blobs.iter().chain([&published.top]) {
        store.content.put(&blob.bytes).unwrap();
    }
    let digest = Digest::parse(&published.digest()).unwrap();
    let size = published.top.bytes.len() as u64;
    let descriptor = Descriptor::new(MediaType::OciManifest, digest, size);
    store.index.tag_image("docker.io/library/base:latest", &descriptor).unwrap();
    store.index.tag_image("127.0.0.1:1/base:latest", &descriptor).unwrap();
    let base = ImageName::Reference(Reference::parse("base").unwrap());
    let resolved = world.resolve(&base).await.unwrap();
    assert_eq!(resolved.digest(), digest);
    assert_eq!(resolved.name.to_string(), format!("base:latest@{digest}"));
    // Another platform, and --pull, are for the registry, which does not exist here.
    let loopback = at("127.0.0.1:1", "base");
    assert!(world.resolve(&loopback).await.is_ok());
    let other: Platform = "linux/s390x".parse().unwrap();
    let always = world.source.resolve(&loopback, &amd64(), PullMode::Always).await;
    assert!(matches!(always, Err(ImageError::Registry(_))), "{always:?}");
    let error = world.source.resolve(&loopback, &other, PullMode::Missing).await.unwrap_err();
    let text = "the local image `127.0.0.1:1/base` is for linux/amd64, not for linux/s390x, and its registry does not help";
    assert_eq!(error.to_string(), text);
    // Part of it was collected: the registry is asked as well.
    store.content.remove(&resolved.config_descriptor.digest).unwrap();
    assert!(matches!(world.resolve(&loopback).await, Err(ImageError::Registry(_))));
}

/// A layout with one image, and its name.
fn layout_of(published: &Published) -> (tempfile::TempDir, Layout, ImageName) {
    let folder = tempfile::tempdir().unwrap();
    let mut layout = Layout::create(folder.path());
    layout.add(Some("x"), published);
    let named = LayoutImage::Named("x".to_owned());
    let name = ImageName::Layout(OciLayout::new(folder.path()), named);
    (folder, layout, name)
}

#[tokio::test]
async fn resolves_layouts() {
    let world = World::new();
    let inner = ImageIndex::new().image(&image());
    let (folder, _, name) = layout_of(&ImageIndex::new().nested(&inner).publish());
    let resolved = world.resolve(&name).await.unwrap();
    assert_eq!(resolved.manifest.digest.to_string(), image().publish().digest());
    assert_eq!(
        resolved.name.to_string(),
        format!("oci-layout://{}@{}", folder.path().display(), resolved.digest())
    );
    assert_eq!(world.resolve(&resolved.name).await.unwrap().snapshot, resolved.snapshot);
    let scratch = layout_of(&Image::new("linux/amd64").publish());
    let resolved = world.resolve(&scratch.2).await.unwrap();
    assert!(resolved.snapshot.is_empty() && resolved.chain_id().is_none());
}

#[tokio::test]
async fn says_what_is_wrong_with_an_image() {
    let world = World::new();
    let with = |change: fn(&mut serde_json::Value)| {
        let mut manifest = image().manifest();
        change(&mut manifest);
        image().publish_with(&manifest)
    };
    let arm = Image::new("linux/arm64").layer(Layer::new(&[]));
    let deep =
        (0..6).fold(ImageIndex::new().image(&image()), |index, _| ImageIndex::new().nested(&index));
    for (published, expected) in [
        (
            ImageIndex::new().image(&arm).publish(),
            "is not there for linux/amd64, only for linux/arm64",
        ),
        (ImageIndex::new().publish(), "only for no platform at all"),
        (deep.publish(), "nested too deeply"),
        (
            image().configured(|config| config["rootfs"]["diff_ids"] = json!([])).publish(),
            "its manifest has 3 layers, its configuration 0 diff ids",
        ),
        (
            image().configured(|config| config["rootfs"] = json!("x")).publish(),
            "the configuration of image",
        ),
        (
            with(|manifest| manifest["config"]["mediaType"] = json!("application/x.helm")),
            "is not a container image: its configuration has type `application/x.helm`",
        ),
        (with(|manifest| manifest["layers"][0]["mediaType"] = json!("a/b")), "type `a/b`"),
        (
            with(|manifest| {
                manifest["layers"][1]["mediaType"] =
                    json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
            }),
            "is not distributable",
        ),
        (with(|manifest| manifest["schemaVersion"] = json!(1)), "schema 1"),
        (with(|manifest| manifest["manifests"] = json!([])), "both a manifest and an index"),
        (with(|manifest| manifest["config"]["size"] = json!(1_u64 << 40)), "are believed"),
        (with(|manifest| manifest["config"]["size"] = json!(1)), "goes on after its 1 bytes"),
        (with(|manifest| manifest["layers"] = json!("x")), "cannot be understood"),
    ] {
        let (folder, _, name) = layout_of(&published);
        let error = said(&world.resolve(&name).await.unwrap_err());
        assert!(error.contains(expected), "{error}");
        assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
    }
}

#[test]
fn privileged_pulls_what_is_needed_once() {
    privileged("images::privileged_pulls_what_is_needed_once", |xattrs| {
        let registry = Registry::start();
        registry.push("a/b", "x", &image().publish());
        let world = World::with(xattrs);
        runtime().block_on(async {
            let name = at(&registry.address(), "a/b:x");
            let resolved = world.resolve(&name).await.unwrap();
            assert_eq!(world.fixture.store.layers.list().unwrap(), []);
            let all = &resolved.snapshot;
            // Two that need the same at once.
            let (one, two) = tokio::join!(world.unpack(all), world.unpack(all));
            one.unwrap();
            two.unwrap();
            let (_view, root) = world.view(all);
            let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
            assert_eq!(
                (read("a/kept"), read("a/new"), read("top")),
                ("2".into(), "3".into(), "4".into())
            );
            assert!(!root.join("a/gone").exists());
            let kept = std::fs::metadata(root.join("a/kept")).unwrap();
            assert_eq!((kept.mode() & 0o7777, kept.nlink()), (0o600, 2));
            assert_eq!(std::fs::read_link(root.join("link")).unwrap(), Path::new("a/kept"));
            for layer in &resolved.layers {
                let Descriptor { digest, size, .. } = layer.descriptor;
                assert!(world.fixture.store.content.contains(&digest, size).unwrap());
            }
            // A directory that was collected is made again from the blob, without the registry.
            drop(registry);
            world.fixture.store.layers.remove(&resolved.layers[1].id).unwrap();
            world.unpack(all).await.unwrap();
            assert!(!world.view(all).1.join("a/gone").exists());
        });
    });
}

#[test]
fn privileged_each_blob_is_asked_for_once() {
    privileged("images::privileged_each_blob_is_asked_for_once", |xattrs| {
        let right = serve_image("a/b", "x", &image().publish());
        let server = Scripted::start(move |request, _| right(request));
        let world = World::with(xattrs);
        runtime().block_on(async {
            let resolved = world.resolve(&at(&server.address(), "a/b:x")).await.unwrap();
            let lower = Snapshot::new(vec![resolved.layers[0].id]);
            let discard = PullProgress::discard();
            let top = &resolved.layers[2].descriptor;
            let results = tokio::join!(
                world.unpack(&lower),
                world.unpack(&resolved.snapshot),
                world.unpack(&lower),
                world.source.ensure_blob(top, &discard),
            );
            assert!(matches!(results, (Ok(()), Ok(()), Ok(()), Ok(()))), "{results:?}");
        });
        let mut blobs = server.lines();
        blobs.retain(|line| line.contains("/blobs/"));
        let count = blobs.len();
        blobs.sort_unstable();
        blobs.dedup();
        assert_eq!((count, blobs.len()), (4, 4));
    });
}

#[test]
fn privileged_layers_that_need_their_parents_get_them() {
    privileged("images::privileged_layers_that_need_their_parents_get_them", |xattrs| {
        let root = Entry::directory(".").mode(0o750);
        let base = [root, Entry::directory("private").mode(0o700), Entry::file("private/old", "1")];
        let image = Image::new("linux/amd64")
            .layer(Layer::new(&base))
            .layer(Layer::new(&[Entry::file("plain", "")]))
            .layer(Layer::new(&[Entry::file("private/new", "2")]))
            .layer(Layer::new(&[Entry::hardlink("again", "private/old")]));
        let (_folder, _, name) = layout_of(&image.publish());
        let world = World::with(xattrs);
        runtime().block_on(async {
            let resolved = world.resolve(&name).await.unwrap();
            // The upper part alone needs the lower part too.
            let upper = Snapshot::new(vec![resolved.layers[3].id]);
            world.unpack(&upper).await.unwrap();
            let (_view, root) = world.view(&resolved.snapshot);
            let mode = |path: &str| std::fs::metadata(root.join(path)).unwrap().mode() & 0o7777;
            assert_eq!((mode(""), mode("private"), mode("private/new")), (0o750, 0o700, 0o644));
            assert_eq!(std::fs::read_to_string(root.join("again")).unwrap(), "1");
        });
    });
}

#[test]
fn privileged_nothing_half_made_is_ever_seen() {
    privileged("images::privileged_nothing_half_made_is_ever_seen", |xattrs| {
        type Damage = Option<fn(&Path, &[u8])>;
        let files = [Entry::directory("a"), Entry::file("a/b", "x".repeat(300_000))];
        let other = image().layers[0].diff_id();
        let good = Image::new("linux/amd64").layer(Layer::new(&files));
        let lying = good.clone().configured(|config| {
            config["rootfs"]["diff_ids"] = json!([other]);
        });
        let no_archive = Layer::from_tar(vec![b'x'; 2000], Compression::Gzip);
        let mut cut = Layer::new(&files);
        cut.tar.truncate(5000);
        let cut = Layer::from_tar(cut.tar, Compression::Zstd);
        let dangling = Layer::new(&[Entry::hardlink("a", "nowhere")]);
        let cases: [(Image, Damage, &str); 8] = [
            (
                good.clone(),
                Some(|path, right| std::fs::write(path, &right[..99]).unwrap()),
                "ends after 99",
            ),
            (
                good.clone(),
                Some(|path, right| std::fs::write(path, [right, b"."].concat()).unwrap()),
                "goes on after",
            ),
            (
                good.clone(),
                Some(|path, right| std::fs::write(path, vec![0; right.len()]).unwrap()),
                "content has digest",
            ),
            (good, Some(|path, _| std::fs::remove_file(path).unwrap()), "has no blob"),
            (lying, None, "has diff id"),
            (Image::new("linux/amd64").layer(no_archive), None, "cannot unpack layer"),
            (Image::new("linux/amd64").layer(cut), None, "is cut off"),
            (Image::new("linux/amd64").layer(dangling), None, "hard link"),
        ];
        for (image, damage, expected) in cases {
            let published = image.publish();
            let (folder, layout, name) = layout_of(&published);
            if let Some(damage) = damage {
                let blob = &published.blobs[0];
                damage(&layout.blob_path(&blob.digest()), &blob.bytes);
            }
            let world = World::with(xattrs);
            let error = runtime().block_on(async {
                let resolved = world.resolve(&name).await.unwrap();
                world.unpack(&resolved.snapshot).await.unwrap_err()
            });
            let error = said(&error);
            assert!(error.contains(expected), "{error}");
            if damage.is_some() {
                assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
                assert!(error.contains(&published.blobs[0].digest()), "{error}");
            }
            world.assert_nothing_half_made();
        }
    });
}

#[test]
fn privileged_an_image_that_lies_of_a_layer_does_not_harm_others_with_it() {
    privileged(
        "images::privileged_an_image_that_lies_of_a_layer_does_not_harm_others_with_it",
        |xattrs| {
            let files = [Entry::directory("a"), Entry::file("a/b", "right")];
            let good = Image::new("linux/amd64").layer(Layer::new(&files));
            let evil = [Entry::directory("a"), Entry::file("a/b", "evil!")];
            let diff_ids = json!([good.layers[0].diff_id()]);
            let other = Image::new("linux/amd64")
                .layer(Layer::new(&evil))
                .configured(|config| config["rootfs"]["diff_ids"] = diff_ids);
            let with = |key: &str, value| {
                let mut manifest = good.manifest();
                manifest["layers"][0][key] = value;
                good.publish_with(&manifest)
            };
            let lies = [
                other.publish(),
                with("digest", json!(format!("sha256:{}", "0".repeat(64)))),
                with("size", json!(10)),
            ];
            for lie in lies {
                let right = Digest::parse(&good.layers[0].digest()).unwrap();
                let (_folder, _, lying) = layout_of(&lie);
                let (_other_folder, _, honest) = layout_of(&good.publish());
                for unpacks in [true, false] {
                    let world = World::with(xattrs);
                    runtime().block_on(async {
                        world.resolve(&lying).await.unwrap();
                        let resolved = world.resolve(&honest).await.unwrap();
                        let layer = resolved.layers[0].id;
                        if unpacks {
                            world.unpack(&resolved.snapshot).await.unwrap();
                            let (_view, root) = world.view(&resolved.snapshot);
                            let text = std::fs::read_to_string(root.join("a/b")).unwrap();
                            assert_eq!(text, "right");
                        }
                        let progress = PullProgress::discard();
                        world.source.ensure_layer_blob(&layer, None, &progress).await.unwrap();
                        let blobs = world.fixture.store.index.layer(&layer).unwrap().unwrap().blobs;
                        assert_eq!(blobs[0].descriptor, resolved.layers[0].descriptor);
                        assert_eq!(blobs[0].descriptor.digest, right);
                        assert!(blobs[0].verified);
                        assert!(blobs[1..].iter().all(|blob| !blob.verified));
                    });
                }
            }
        },
    );
}

#[test]
fn privileged_hostile_names_stay_inside() {
    privileged("images::privileged_hostile_names_stay_inside", |xattrs| {
        let hostile = [
            Entry::file("../../escaped", "1"),
            Entry::file("/absolute", "2"),
            Entry::symlink("out", "/"),
            Entry::file("out/through", "3"),
        ];
        let image = Image::new("linux/amd64").layer(Layer::new(&hostile));
        let (_folder, _, name) = layout_of(&image.publish());
        let world = World::with(xattrs);
        runtime().block_on(async {
            let resolved = world.resolve(&name).await.unwrap();
            world.unpack(&resolved.snapshot).await.unwrap();
            let directory = world.fixture.store.layers.path(&resolved.layers[0].id);
            for inside in ["escaped", "absolute", "through"] {
                assert!(directory.join(inside).exists(), "{inside}");
            }
        });
        assert!(!Path::new("/through").exists() && !Path::new("/absolute").exists());
        assert!(!world.fixture.root().join("escaped").exists());
    });
}

#[test]
fn privileged_a_pull_that_is_given_up_leaves_nothing() {
    privileged("images::privileged_a_pull_that_is_given_up_leaves_nothing", |xattrs| {
        let files = [Entry::file("a", "x".repeat(100_000))];
        let layer = Layer::compressed(&files, Compression::None);
        let published = Image::new("linux/amd64").layer(layer).publish();
        let right = serve_image("a/b", "x", &published);
        let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
        let (go_on, waiting) = mpsc::channel::<()>();
        let waiting = Mutex::new(waiting);
        let layer = published.blobs[0].digest();
        let server = Scripted::start(move |request, _| {
            if request.path.ends_with(&layer) {
                arrived.send(()).unwrap();
                // Until the test has given up.
                let _ = waiting.lock().unwrap().recv();
                return Reply::hang_up();
            }
            right(request)
        });
        let world = World::with(xattrs);
        let runtime = runtime();
        runtime.block_on(async {
            let resolved = world.resolve(&at(&server.address(), "a/b:x")).await.unwrap();
            tokio::select! {
                result = world.unpack(&resolved.snapshot) => panic!("{result:?}"),
                _ = arrivals.recv() => {}
            }
        });
        // Waits for its blocking threads.
        drop(runtime);
        world.assert_nothing_half_made();
        drop(go_on);
    });
}
