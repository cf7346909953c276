//! Reading Dockerfiles: one of a thousand instructions, and as many as Docker Hub has official images.

#![expect(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::fs;
use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rbuild_bench::long_dockerfile;
use rbuild_frontend::{
    BuildOptions, Dockerfile, ImageSet, Outcome, ResolvedImage, Source, check, lower, parse,
};
use rbuild_oci::{ImageConfig, Platform};
use rbuild_solver::SourceOp;

const INSTRUCTIONS: usize = 1_000;
/// So many Dockerfiles stand behind Docker Hub's official images.
const FILES: usize = 432;

criterion_group!(benches, long_file, many_files);
criterion_main!(benches);

/// The goal is 5 ms for reading and lowering together. To give up what was made is not part of it.
fn long_file(criterion: &mut Criterion) {
    let text = long_dockerfile();
    assert_eq!(read(&text).statements.len(), INSTRUCTIONS);
    let images = known_images(&text);
    let options = options();
    let mut group = criterion.benchmark_group("a file of 1,000 instructions");
    group.throughput(Throughput::Elements(INSTRUCTIONS as u64));
    group.bench_function("parse", |bencher| {
        bencher.iter_with_large_drop(|| read(black_box(&text)));
    });
    let dockerfile = read(&text);
    group.bench_function("lower", |bencher| {
        bencher.iter_with_large_drop(|| lower(black_box(&dockerfile), &options, &images).unwrap());
    });
    group.bench_function("parse and lower", |bencher| {
        bencher.iter_with_large_drop(|| {
            let dockerfile = read(black_box(&text));
            let build = lower(&dockerfile, &options, &images).unwrap();
            (dockerfile, build)
        });
    });
    group.bench_function("check", |bencher| bencher.iter(|| check(black_box(&dockerfile))));
    group.finish();
}

/// The goal is 200 ms. The official images' files are not ours to keep: these are of the same kinds and lengths, each
/// of them many times with other names in it.
fn many_files(criterion: &mut Criterion) {
    let texts = many_texts();
    let size: usize = texts.iter().map(String::len).sum();
    let mut group = criterion.benchmark_group("Dockerfiles");
    group.throughput(Throughput::Bytes(size as u64));
    group.bench_with_input(BenchmarkId::new("parse", FILES), &texts, |bencher, texts| {
        bencher.iter(|| texts.iter().map(|text| read(text).statements.len()).sum::<usize>());
    });
    group.finish();
}

fn read(text: &str) -> Dockerfile {
    parse(&Source::new("Dockerfile", text).unwrap())
}

fn options() -> BuildOptions {
    BuildOptions::new(Platform::new("linux", "amd64", ""))
}

fn known_images(text: &str) -> ImageSet {
    let dockerfile = read(text);
    let mut images = ImageSet::new();
    while let Outcome::NeedsImages(queries) = lower(&dockerfile, &options(), &images).unwrap() {
        for query in &queries {
            let source = SourceOp::new("docker-image://docker.io/library/debian:trixie@sha256:0");
            images.insert(query, ResolvedImage { source, config: ImageConfig::default() });
        }
    }
    images
}

fn many_texts() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../frontend/tests/dockerfiles");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    paths.sort();
    let texts: Vec<String> = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let varied = |number: usize| {
        let text = &texts[number % texts.len()];
        text.replace("1.", &format!("{}.", number / texts.len() + 1))
    };
    (0..FILES).map(varied).collect()
}
