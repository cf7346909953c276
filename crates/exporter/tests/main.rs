//! What the exporters write, reread by the oracle, which recomputes every digest, diff id and size.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use rbuild_cache::{
    ActiveLayer, Compression, DeferredLayers, Lease, Overlay, OverlayXattrs, Store,
};
use rbuild_exporter::{
    ArchiveForm, BuildResult, DocumentTypes, ExistingBlobs, ExportStore, FileDestination,
    FilesDestination, FolderMode, ForeignLayers, ImageDestination, ImageForm, IndexContents,
    LayerCount, LayerForm, NamedDocument, PlacedFiles, export_files, export_image, make_image,
    make_index, needs,
};
use rbuild_oci::{History, ImageConfig, Reference};
use rbuild_solver::{LayerId, Snapshot};
use rbuild_testdata::validate;
use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;

struct Fixture {
    folder: TempDir,
    store: Store,
    lease: Lease,
    overlay: Overlay,
    deferred: DeferredLayers,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("store")).expect("a store");
        let lease = store.lease().expect("a lease");
        let overlay = Overlay::new(OverlayXattrs::Trusted, &store.layers);
        Self { folder, store, lease, overlay, deferred: DeferredLayers::default() }
    }

    fn parts(&self) -> ExportStore<'_> {
        ExportStore {
            content: &self.store.content,
            layers: &self.store.layers,
            index: &self.store.index,
            lease: &self.lease,
            overlay: &self.overlay,
            deferred: &self.deferred,
        }
    }

    /// A result of one layer with one file, made without any mount.
    fn result(&self) -> BuildResult {
        let base = Snapshot::default();
        let layer = ActiveLayer::begin(&self.overlay, &self.store.layers, &base).expect("a layer");
        let flags = OFlags::WRONLY | OFlags::CREATE;
        let file =
            rustix::fs::openat(layer.root().as_fd(), "hello", flags, Mode::from_raw_mode(0o640))
                .expect("a file");
        rustix::io::write(&file, b"text").expect("text");
        let id = LayerId::derived("test", &[b"hello"]);
        layer.commit(&id).expect("a commit");
        let history = vec![
            History { created_by: "COPY hello /".to_owned(), ..History::default() },
            History { created_by: "ENV A=b".to_owned(), empty_layer: true, ..History::default() },
        ];
        let config = ImageConfig {
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            history,
            ..ImageConfig::default()
        };
        BuildResult {
            snapshot: base.with(id),
            config,
            base_history: 0,
            epoch: Some(1_000),
            inline_cache: None,
        }
    }
}

fn form(compression: Compression, types: DocumentTypes) -> ImageForm {
    let existing = ExistingBlobs::Keep;
    let layers = LayerForm { compression, existing, epoch: Some(1_000) };
    ImageForm { layers, types, foreign: ForeignLayers::Include, count: LayerCount::Keep }
}

fn path(folder: &Path, name: &str) -> FileDestination {
    FileDestination::Path(folder.join(name))
}

#[test]
fn archives_of_every_kind_are_whole() {
    let fixture = Fixture::new();
    let result = fixture.result();
    for compression in [Compression::GZIP, Compression::ZSTD, Compression::Uncompressed] {
        for types in [DocumentTypes::Oci, DocumentTypes::Docker] {
            let image =
                make_image(fixture.parts(), &result, form(compression, types)).expect("an image");
            for kind in [ArchiveForm::Oci, ArchiveForm::Docker] {
                let names = vec![Reference::parse("example.com/app:1").expect("a name")];
                let file = path(fixture.folder.path(), "image.tar");
                let destination = ImageDestination::Archive { form: kind, names, file };
                export_image(
                    fixture.parts(),
                    &NamedDocument::from(&image),
                    &destination,
                    result.epoch,
                )
                .expect("an archive");
                let bytes = fs::read(fixture.folder.path().join("image.tar")).expect("the archive");
                let read = match kind {
                    ArchiveForm::Oci => validate::oci_archive(&bytes),
                    ArchiveForm::Docker => validate::docker_archive(&bytes),
                };
                let read = read
                    .unwrap_or_else(|error| panic!("{compression:?} {types:?} {kind:?}: {error}"));
                assert_eq!(
                    read[0].layers[0].entry("hello").map(|entry| (entry.mode, entry.size)),
                    Some((0o640, 4))
                );
                assert_eq!(read[0].config["created"], "1970-01-01T00:16:40Z");
            }
        }
    }
}

#[test]
fn a_layer_is_compressed_once() {
    let fixture = Fixture::new();
    let result = fixture.result();
    let gzip = form(Compression::GZIP, DocumentTypes::Oci);
    let unpacked =
        || needs(fixture.parts(), &result.snapshot, gzip.layers).expect("an answer").unpacked;
    assert_eq!(unpacked(), 1);
    let first = make_image(fixture.parts(), &result, gzip).expect("an image");
    assert_eq!(unpacked(), 0);
    // Without its directory nothing could be archived again.
    fixture.store.layers.remove(&result.snapshot.layers()[0]).expect("a removal");
    let second = make_image(fixture.parts(), &result, gzip).expect("an image");
    assert_eq!(first.descriptor, second.descriptor);
}

#[test]
fn files_go_to_tars_and_folders() {
    let fixture = Fixture::new();
    let result = Arc::new(fixture.result());
    let files = [PlacedFiles {
        folder: String::new(),
        result: Arc::clone(&result),
        attestations: Vec::new(),
    }];
    let folder = fixture.folder.path();
    export_files(fixture.parts(), &files, &FilesDestination::Tar(path(folder, "files.tar")))
        .expect("a tar");
    let entries = validate::tar_entries(&fs::read(folder.join("files.tar")).expect("the tar"))
        .expect("a whole tar");
    assert_eq!(entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["hello"]);
    let destination = FilesDestination::Folder {
        path: folder.join("out"),
        mode: FolderMode::Add,
        keep_owners: false,
    };
    export_files(fixture.parts(), &files, &destination).expect("a folder");
    assert_eq!(fs::read(folder.join("out/hello")).expect("the file"), b"text");
    let two = ["linux_b", "linux_a"];
    let two = two.map(|name| PlacedFiles {
        folder: name.to_owned(),
        result: Arc::clone(&result),
        attestations: Vec::new(),
    });
    export_files(fixture.parts(), &two, &FilesDestination::Tar(path(folder, "two.tar")))
        .expect("a tar");
    let entries = validate::tar_entries(&fs::read(folder.join("two.tar")).expect("the tar"))
        .expect("a whole tar");
    assert_eq!(
        entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(),
        ["linux_a/", "linux_a/hello", "linux_b/", "linux_b/hello"]
    );
}

#[test]
fn an_index_lists_images() {
    let fixture = Fixture::new();
    let mut result = fixture.result();
    let gzip = form(Compression::GZIP, DocumentTypes::Oci);
    let entries = ["amd64", "arm64"].map(|architecture| {
        architecture.clone_into(&mut result.config.architecture);
        let mut entry = make_image(fixture.parts(), &result, gzip).expect("an image").descriptor;
        entry.annotations.insert("of".to_owned(), architecture.to_owned());
        entry
    });
    for (types, media_type) in [
        (DocumentTypes::Oci, "application/vnd.oci.image.index.v1+json"),
        (DocumentTypes::Docker, "application/vnd.docker.distribution.manifest.list.v2+json"),
    ] {
        let annotations = [("own".to_owned(), "1".to_owned())].into();
        let contents = IndexContents { entries: entries.to_vec(), annotations, types };
        let index = make_index(fixture.parts(), contents).expect("an index");
        assert_eq!(index.descriptor.media_type.to_string(), media_type);
        let archive = |form, file| ImageDestination::Archive {
            form,
            names: vec![Reference::parse("example.com/app:1").expect("a name")],
            file: path(fixture.folder.path(), file),
        };
        let export = |destination| export_image(fixture.parts(), &index, &destination, None);
        export(archive(ArchiveForm::Oci, "index.tar")).expect("an archive");
        let bytes = fs::read(fixture.folder.path().join("index.tar")).expect("the archive");
        let images = validate::oci_archive(&bytes).expect("a whole archive");
        let platforms: Vec<&str> = images.iter().map(|image| image.platform.as_str()).collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
        assert_eq!(images[1].names, ["example.com/app:1", "1"]);
        let error =
            export(archive(ArchiveForm::Docker, "none.tar")).expect_err("a list").to_string();
        assert_eq!(error, "docker exporter does not currently support exporting manifest lists");
        assert!(!fixture.folder.path().join("none.tar").exists());
    }
}
