//! Matching a large context against a long ignore file. The goal is 200 ms for 100,000 paths and 100 patterns.

#![expect(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use rbuild_bench::{many_paths, open_patterns, usual_patterns};
use rbuild_solver::{Decision, PatternMatcher};

criterion_group!(benches, ignore_list);
criterion_main!(benches);

fn ignore_list(criterion: &mut Criterion) {
    let directories = many_paths();
    let paths: usize = directories.iter().map(|(_, files)| files.len()).sum();
    assert_eq!(paths, 100_000);
    let mut group = criterion.benchmark_group("100,000 paths against 100 patterns");
    group.throughput(Throughput::Elements(paths as u64));
    for (name, patterns) in [("usual", usual_patterns()), ("open ends", open_patterns())] {
        if name == "open ends" {
            // Each pattern has to be tried on each path, which takes hundreds of times as long.
            group.sample_size(10).sampling_mode(SamplingMode::Flat);
        }
        assert_eq!(patterns.len(), 100);
        let matcher = PatternMatcher::new(&patterns).unwrap();
        group.bench_function(format!("{name}, each path by itself"), |bencher| {
            let each = |(_, files): &(String, Vec<String>)| {
                files.iter().filter(|file| matcher.matches(file.as_bytes())).count()
            };
            bencher.iter(|| directories.iter().map(each).sum::<usize>());
        });
        group.bench_function(format!("{name}, as a walk"), |bencher| {
            let each = |(directory, files): &(String, Vec<String>)| {
                let above = directory.split_once('/').map_or("", |(above, _)| above);
                let decision = matcher.decide(&Decision::default(), above.as_bytes());
                let decision = matcher.decide(&decision, directory.as_bytes());
                let is_excluded =
                    |file: &&String| matcher.decide(&decision, file.as_bytes()).excluded();
                files.iter().filter(is_excluded).count()
            };
            bencher.iter(|| directories.iter().map(each).sum::<usize>());
        });
    }
    group.finish();
}
