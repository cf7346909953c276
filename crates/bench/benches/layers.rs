//! From files to a blob and back: reading a layer, writing its archive, compressing, hashing, unpacking.

#![expect(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Write};
use std::os::fd::AsFd;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rbuild_bench::content;
use rbuild_cache::{
    ApplyForm, ApplyOptions, ArchiveLimits, Compression, EntryKind, LayerBlobReader,
    LayerBlobWriter, OverlayXattrs, TarEntry, TarWriter, apply, diff,
};
use rbuild_oci::Digest;
use tempfile::TempDir;

const FILES: usize = 2_000;
const FILE_SIZE: usize = 4 << 10;
const LARGE: usize = 32 << 20;

criterion_group!(benches, trees, archives, blobs);
criterion_main!(benches);

/// A layer of small files, to an archive and from it.
fn trees(criterion: &mut Criterion) {
    let dir = tree();
    let root = File::open(dir.path()).unwrap();
    let archive = || {
        let mut archive = TarWriter::new(Vec::new(), None);
        diff(root.as_fd(), None, OverlayXattrs::User, &mut archive).unwrap();
        archive.finish().unwrap()
    };
    let mut group = criterion.benchmark_group("a layer of 2,000 files");
    group.sample_size(20).throughput(Throughput::Elements(FILES as u64));
    group.bench_function("diff", |bencher| bencher.iter(archive));
    let bytes = archive();
    let options = ApplyOptions {
        form: ApplyForm::Plain,
        ignore_chown_errors: true,
        owner: None,
        limits: ArchiveLimits::default(),
    };
    group.bench_function("apply", |bencher| {
        bencher.iter_batched(
            || tempfile::tempdir().unwrap(),
            |dir| {
                let root = File::open(dir.path()).unwrap();
                apply(bytes.as_slice(), root.as_fd(), &options).unwrap();
                dir
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Headers alone, and content alone.
fn archives(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("an archive");
    group.throughput(Throughput::Elements(FILES as u64));
    group.bench_function("of 2,000 empty files", |bencher| {
        let names: Vec<String> = (0..FILES).map(|it| format!("usr/lib/part/file-{it}")).collect();
        bencher.iter(|| {
            let mut archive = TarWriter::new(io::sink(), None);
            names.iter().for_each(|name| archive.append(&entry(name.as_bytes())).unwrap());
            archive.finish().unwrap();
        });
    });
    let content = content(LARGE);
    group.throughput(Throughput::Bytes(LARGE as u64));
    group.bench_function("of one large file", |bencher| {
        let entry = TarEntry { kind: EntryKind::File { size: LARGE as u64 }, ..entry(b"large") };
        bencher.iter(|| {
            let mut archive = TarWriter::new(io::sink(), None);
            archive.append_file(&entry, &mut content.as_slice()).unwrap();
            archive.finish().unwrap();
        });
    });
    group.finish();
}

fn entry(path: &[u8]) -> TarEntry<'_> {
    TarEntry {
        path,
        kind: EntryKind::File { size: 0 },
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: 1_700_000_000,
        xattrs: &[],
    }
}

/// What a blob costs per byte: with each compression, and its hash alone.
fn blobs(criterion: &mut Criterion) {
    let content = content(LARGE);
    let mut group = criterion.benchmark_group("a blob of 32 MiB");
    group.sample_size(10).throughput(Throughput::Bytes(LARGE as u64));
    group.bench_function("hash", |bencher| bencher.iter(|| Digest::of(black_box(&content))));
    for (name, compression) in [
        ("uncompressed", Compression::Uncompressed),
        ("gzip", Compression::GZIP),
        ("zstd", Compression::ZSTD),
    ] {
        let write = |out| {
            let mut blob = LayerBlobWriter::new(out, compression).unwrap();
            blob.write_all(&content).unwrap();
            blob.finish().unwrap().out
        };
        group
            .bench_function(format!("write, {name}"), |bencher| bencher.iter(|| write(Vec::new())));
        let blob = write(Vec::new());
        group.bench_function(format!("read, {name}"), |bencher| {
            bencher.iter(|| {
                let mut reader = LayerBlobReader::new(blob.as_slice()).unwrap();
                io::copy(&mut reader, &mut io::sink()).unwrap();
                reader.diff_id()
            });
        });
    }
    group.finish();
}

fn tree() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let content = content(FILE_SIZE);
    for number in 0..FILES {
        let folder = dir.path().join(format!("usr/share/part-{}", number / 50));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("file-{number}")), &content).unwrap();
    }
    dir
}
