//! What other tools read of ours, and we of theirs.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use rbuild_cache::{ApplyForm, Compression, FinishedBlob, LayerBlobReader, LayerBlobWriter, apply};
use rbuild_solver::Snapshot;
use rbuild_testdata::{Image, Layer, Layout};

use super::listing::listing;
use super::namespace::privileged;
use super::world::{World, path_of};

/// Whether a tool of this machine took what it got.
fn run(command: &mut Command, input: &[u8]) {
    let program = command.get_program().to_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program:?}: {error}"));
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{program:?}: {errors}");
}

/// One of everything that an image may hold.
fn build(root: &str) {
    let long = "l".repeat(120);
    fs::create_dir_all(format!("{root}/{long}/{long}")).unwrap();
    fs::write(format!("{root}/{long}/{long}/file"), "deep").unwrap();
    fs::write(format!("{root}/b"), vec![b'b'; 100_000]).unwrap();
    fs::hard_link(format!("{root}/b"), format!("{root}/b2")).unwrap();
    symlink(&long, format!("{root}/link")).unwrap();
    symlink(long.repeat(2), format!("{root}/long link")).unwrap();
    fs::write(format!("{root}/\u{e9}"), "").unwrap();
    rustix::fs::setxattr(
        format!("{root}/b"),
        "user.test",
        b"\xff\0\n=",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
}

fn change(root: &str) {
    fs::remove_file(format!("{root}/b2")).unwrap();
    fs::write(format!("{root}/new"), "new").unwrap();
    let long = "l".repeat(120);
    fs::remove_dir_all(format!("{root}/{long}")).unwrap();
    fs::create_dir(format!("{root}/{long}")).unwrap();
}

#[test]
fn privileged_gnu_tar_reads_ours() {
    privileged("layers::tools::privileged_gnu_tar_reads_ours", |xattrs| {
        let world = World::new(xattrs);
        let snapshot = world.layer(&Snapshot::default(), "everything", build);
        let dir = tempfile::tempdir().unwrap();
        let mut tar = Command::new("tar");
        tar.args([
            "--extract",
            "--xattrs",
            "--xattrs-include=*",
            "--same-permissions",
            "--directory",
        ]);
        run(tar.arg(dir.path()), &world.diff(&snapshot));
        let expected = listing(&path_of(&world.view(&snapshot)));
        assert_eq!(listing(dir.path().to_str().unwrap()), expected);
    });
}

#[test]
fn privileged_we_read_gnu_tars() {
    privileged("layers::tools::privileged_we_read_gnu_tars", |xattrs| {
        let world = World::new(xattrs);
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        build(root);
        let sparse = fs::File::create(format!("{root}/sparse")).unwrap();
        sparse.set_len(10_000_000).unwrap();
        for i in 0..40 {
            sparse.write_all_at(b"data", i * 200_000 + 5000).unwrap();
        }
        let formats = [
            &["--format=gnu"][..],
            &["--format=gnu", "--sparse"],
            &["--format=pax"],
            &["--format=pax", "--sparse", "--sparse-version=0.0"],
            &["--format=pax", "--sparse", "--sparse-version=0.1"],
            &["--format=pax", "--sparse", "--sparse-version=1.0"],
        ];
        for (number, format) in formats.iter().enumerate() {
            let archive = tempfile::NamedTempFile::new().unwrap();
            let mut tar = Command::new("tar");
            tar.args(["--create", "--directory", root, "--file"]).arg(archive.path()).args(*format);
            if format[0] == "--format=pax" {
                tar.args(["--xattrs", "--xattrs-include=*"]);
            }
            run(tar.arg("."), b"");
            let archive = fs::read(archive.path()).unwrap();
            let (snapshot, applied) =
                world.apply(&Snapshot::default(), &format!("gnu {number}"), &archive).unwrap();
            assert_eq!(applied.bytes, archive.len() as u64);
            assert!(!applied.needs_parents());
            let mut expected = listing(root);
            if format[0] == "--format=gnu" {
                // That format has no place for them.
                expected = expected.replace(" user.test=\\xff\\x00\\n=", "");
            }
            assert_eq!(listing(&path_of(&world.view(&snapshot))), expected, "{format:?}");
        }
    });
}

#[test]
fn privileged_umoci_unpacks_ours() {
    privileged("layers::tools::privileged_umoci_unpacks_ours", |xattrs| {
        let world = World::new(xattrs);
        let base = world.layer(&Snapshot::default(), "base", build);
        let top = world.layer(&base, "top", change);
        let dir = tempfile::tempdir().unwrap();
        let image = [&base, &top].iter().fold(Image::new("linux/amd64"), |image, snapshot| {
            image.layer(Layer::from_tar(world.diff(snapshot), rbuild_testdata::Compression::Gzip))
        });
        let layout = dir.path().join("layout");
        Layout::create(&layout).add(Some("latest"), &image.publish());
        let mut umoci = Command::new("umoci");
        umoci.args(["unpack", "--image"]).arg(format!("{}:latest", layout.display()));
        if xattrs == rbuild_cache::OverlayXattrs::User {
            umoci.arg("--rootless");
        }
        let bundle = dir.path().join("bundle");
        let output = umoci.arg(&bundle).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let unpacked = listing(bundle.join("rootfs").to_str().unwrap());
        assert_eq!(unpacked, listing(&path_of(&world.view(&top))));
    });
}

#[test]
fn gzip_and_zstd_accept_our_blobs() {
    let content: Vec<u8> = (0..2_000_000_u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
    for (compression, program) in [(Compression::GZIP, "gzip"), (Compression::ZSTD, "zstd")] {
        let mut writer = LayerBlobWriter::new(Vec::new(), compression).unwrap();
        writer.write_all(&content).unwrap();
        let blob = writer.finish().unwrap().out;
        assert!(blob.len() < content.len());
        run(Command::new(program).args(["--test", "--quiet"]), &blob);
    }
}

#[test]
fn privileged_a_blob_becomes_the_layer_that_it_was() {
    privileged("layers::tools::privileged_a_blob_becomes_the_layer_that_it_was", |xattrs| {
        let world = World::new(xattrs);
        let snapshot = world.layer(&Snapshot::default(), "everything", build);
        for compression in [Compression::Uncompressed, Compression::GZIP, Compression::ZSTD] {
            let mut writer = LayerBlobWriter::new(Vec::new(), compression).unwrap();
            writer.write_all(&world.diff(&snapshot)).unwrap();
            let FinishedBlob { diff_id, out: bytes, .. } = writer.finish().unwrap();
            let dir = tempfile::tempdir().unwrap();
            let root = fs::File::open(dir.path()).unwrap();
            let mut reader = LayerBlobReader::new(bytes.as_slice()).unwrap();
            let options = world.options(ApplyForm::Layer(xattrs));
            apply(&mut reader, root.as_fd(), &options).unwrap();
            assert_eq!(reader.diff_id(), diff_id);
            assert!(Path::new(&dir.path().join("link")).is_symlink());
        }
    });
}
