//! Solving graphs with operations that cost nothing: what is left is the solver. Its time is to grow as the vertices do.

#![expect(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::collections::HashMap;
use std::sync::Mutex;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rbuild_oci::Digest;
use rbuild_solver::{
    CacheKey, CacheRecord, CacheStore, Edge, ExecMeta, ExecOp, ExecuteCall, Executed, Executor,
    Graph, GraphBuilder, LayerId, MergeOp, Mount, NetworkMode, NewRecord, Op, Output, Presence,
    Progress, SecurityMode, Selector, Snapshot, SolveOptions, SourceOp, Vertex, VertexMeta, llb,
    solve,
};

const STAGES: usize = 100;
const STEPS: usize = 99;

criterion_group!(benches, ten_thousand_vertices, growth);
criterion_main!(benches);

fn ten_thousand_vertices(criterion: &mut Criterion) {
    let (graph, target) = merged();
    let vertices = graph.vertices().len();
    assert!((10_000..10_100).contains(&vertices), "{vertices}");
    let runtime = runtime();
    let run = |store: &Memory| solved(&runtime, &graph, &[target], store);
    let mut group = criterion.benchmark_group("a graph of 10,000 vertices");
    group.sample_size(20).throughput(Throughput::Elements(vertices as u64));
    group.bench_function("solve, nothing known", |bencher| {
        bencher.iter_batched(Memory::default, |store| run(&store), BatchSize::PerIteration);
    });
    let known = Memory::default();
    run(&known);
    group.bench_function("solve, all known", |bencher| bencher.iter(|| run(&known)));
    group.bench_function("encode", |bencher| bencher.iter(|| llb::to_bytes(&graph, target)));
    let bytes = llb::to_bytes(&graph, target);
    group.bench_function("decode", |bencher| bencher.iter(|| llb::from_bytes(&bytes).unwrap()));
    group.finish();
}

fn growth(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("vertices");
    let runtime = runtime();
    for stages in [10, 100, 1_000] {
        let mut builder = GraphBuilder::new();
        let ends = add_stages(&mut builder, stages);
        let graph = builder.finish();
        let vertices = graph.vertices().len();
        assert_eq!(vertices, stages * (STEPS + 1));
        group.sample_size(10).throughput(Throughput::Elements(vertices as u64));
        let run = |store: &Memory| solved(&runtime, &graph, &ends, store);
        group.bench_function(BenchmarkId::new("solve, nothing known", vertices), |bencher| {
            bencher.iter_batched(Memory::default, |store| run(&store), BatchSize::PerIteration);
        });
        let known = Memory::default();
        run(&known);
        group.bench_function(BenchmarkId::new("solve, all known", vertices), |bencher| {
            bencher.iter(|| run(&known));
        });
    }
    group.finish();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn solved(
    runtime: &tokio::runtime::Runtime,
    graph: &Graph,
    targets: &[Edge],
    store: &Memory,
) -> Vec<Output> {
    let progress = Progress::discard();
    let options = SolveOptions::default();
    runtime.block_on(solve(graph, targets, &Nothing, store, &progress, options)).unwrap()
}

/// A hundred stages of a hundred steps on one image, merged two by two.
fn merged() -> (Graph, Edge) {
    let mut builder = GraphBuilder::new();
    let ends = add_stages(&mut builder, STAGES);
    let mut last = ends[0];
    for end in &ends[1..] {
        let merge = Op::Merge(MergeOp { inputs: vec![Some(0), Some(1)] });
        let vertex = builder.add(merge, vec![last, *end], None, VertexMeta::default());
        last = Edge { vertex, output: 0 };
    }
    (builder.finish(), last)
}

/// Adds stages that have nothing in common; returns their ends.
fn add_stages(builder: &mut GraphBuilder, stages: usize) -> Vec<Edge> {
    let mut add = |op, inputs| {
        let vertex = builder.add(op, inputs, None, VertexMeta::default());
        Edge { vertex, output: 0 }
    };
    let mut ends = Vec::with_capacity(stages);
    for stage in 0..stages {
        let source = SourceOp::new(format!("docker-image://base-{stage}"));
        let mut last = add(Op::Source(source), Vec::new());
        for step in 0..STEPS {
            last = add(Op::Exec(Box::new(command(stage, step))), vec![last]);
        }
        ends.push(last);
    }
    ends
}

fn command(stage: usize, step: usize) -> ExecOp {
    let args = ["/bin/sh", "-c"].map(str::to_owned).into_iter();
    let args = args.chain([format!("make stage-{stage}-{step}")]).collect();
    let env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    ExecOp {
        meta: ExecMeta { args, env, cwd: "/".to_owned(), ..ExecMeta::default() },
        mounts: vec![Mount::root()],
        network: NetworkMode::Default,
        security: SecurityMode::Sandbox,
        secret_env: Vec::new(),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

/// Executes by naming what would have come of it.
struct Nothing;

impl Executor for Nothing {
    type Error = Never;

    async fn source_key(&self, vertex: &Vertex) -> Result<Digest, Never> {
        Ok(vertex.digest)
    }

    async fn content_digest(
        &self,
        _output: &Output,
        selector: &Selector,
        _consumer: &Vertex,
    ) -> Result<Digest, Never> {
        Ok(selector.digest())
    }

    async fn execute(&self, call: ExecuteCall<'_>) -> Result<Executed, Never> {
        let layer = LayerId::derived(&call.layer_seed.to_string(), &[]);
        Ok(Executed::now(vec![Output::Snapshot(Snapshot::new(vec![layer]))]))
    }
}

#[derive(Default)]
struct Memory(Mutex<HashMap<CacheKey, Vec<Output>>>);

impl CacheStore for Memory {
    type Error = Never;
    type Guard = ();

    fn lookup(&self, key: &CacheKey) -> Result<Option<CacheRecord>, Never> {
        let found = self.0.lock().unwrap().get(key).cloned();
        Ok(found.map(|outputs| CacheRecord { outputs, presence: Presence::Files }))
    }

    fn store(&self, records: &[NewRecord<'_>]) -> Result<(), Never> {
        let records = records.iter().map(|record| (record.key, record.outputs.to_vec()));
        self.0.lock().unwrap().extend(records);
        Ok(())
    }

    async fn lock(&self, _key: &CacheKey) -> Result<(), Never> {
        Ok(())
    }
}
