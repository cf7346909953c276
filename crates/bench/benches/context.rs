//! Walking and hashing a context of 10,000 files.

#![expect(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rbuild_bench::source_file;
use rbuild_cache::{StatCache, Tree};
use rbuild_solver::{PatternMatcher, Selector};
use rustix::fs::{CWD, Mode, OFlags};
use tempfile::TempDir;

const FOLDERS: usize = 200;
const FILES: usize = 50;

criterion_group!(benches, walk);
criterion_main!(benches);

fn walk(criterion: &mut Criterion) {
    let dir = context();
    let open = |cache| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root: OwnedFd = rustix::fs::openat(CWD, dir.path(), flags, Mode::empty()).unwrap();
        let ignore = PatternMatcher::new(["**/*.log", ".git", "!keep.log"]).unwrap();
        Tree::of_context(root, ignore, cache).unwrap()
    };
    let everything = Selector::everything();
    let mut group = criterion.benchmark_group("a context of 10,000 files");
    group.sample_size(20).throughput(Throughput::Elements((FOLDERS * FILES) as u64));
    group.bench_function("walk", |bencher| {
        bencher.iter(|| open(None).select(&everything).unwrap());
    });
    group.bench_function("walk and hash", |bencher| {
        bencher.iter(|| open(None).content_digest(&everything).unwrap());
    });
    let cache = tempfile::tempdir().unwrap();
    let known = Arc::new(StatCache::load(cache.path(), dir.path()));
    open(Some(Arc::clone(&known))).content_digest(&everything).unwrap();
    group.bench_function("walk, hashes known", |bencher| {
        bencher.iter(|| open(Some(Arc::clone(&known))).content_digest(&everything).unwrap());
    });
    group.finish();
}

fn context() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for folder in 0..FOLDERS {
        let folder = dir.path().join(format!("src/part-{folder}"));
        fs::create_dir_all(&folder).unwrap();
        (0..FILES).for_each(|file| write(&folder, file));
    }
    dir
}

fn write(folder: &Path, number: usize) {
    let end = if number.is_multiple_of(10) { "log" } else { "c" };
    fs::write(folder.join(format!("file-{number}.{end}")), source_file(number)).unwrap();
}
