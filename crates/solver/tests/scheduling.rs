//! What runs, when, and how often.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::Poll;

use rbuild_solver::{
    Edge, Graph, Output, Progress, Snapshot, SolveError, SolveErrorKind, SolveOptions, solve,
};
use tokio::sync::Barrier;

use crate::support::{Behaviour, Build, Lab, LabError, MemoryStore, StoreError};

async fn solve_one(
    graph: &Graph,
    target: Edge,
    lab: &Lab,
    store: &MemoryStore,
) -> Result<Output, SolveError<LabError, StoreError>> {
    let options = SolveOptions::default();
    let outputs = solve(graph, &[target], lab, store, &Progress::discard(), options).await?;
    assert_eq!(outputs.len(), 1);
    Ok(outputs[0].clone())
}

const NOTHING: [&str; 0] = [];

#[tokio::test]
async fn each_vertex_runs_once_and_then_never() {
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let left = build.run("left", base);
    let right = build.run("right", base);
    let again = build.run("left", base);
    assert_eq!(left, again);
    let target = build.copy("copy", left, right, "/a");
    let (graph, lab, store) =
        (build.finish(), Lab::new(&["docker-image://base"]), MemoryStore::default());
    let first = solve_one(&graph, target, &lab, &store).await.unwrap();
    assert_eq!(lab.take_executed(), ["copy", "docker-image://base", "left", "right"]);
    store.take_lookups();
    let second = solve_one(&graph, target, &lab, &store).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(lab.take_calls(), ["source_key docker-image://base"]);
    assert_eq!(store.take_lookups(), 1, "the target is found, so nothing else is looked for");
}

#[tokio::test]
async fn what_no_target_needs_is_never_touched() {
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let other = build.source("docker-image://missing");
    let context = build.source("local://context");
    let unused = build.run("unused", other);
    build.copy("unused copy", unused, context, "/none");
    let target = build.run("used", base);
    let (graph, lab) = (build.finish(), Lab::new(&["docker-image://base"]));
    solve_one(&graph, target, &lab, &MemoryStore::default()).await.unwrap();
    let expected =
        ["source_key docker-image://base", "execute docker-image://base", "execute used"];
    assert_eq!(lab.take_calls(), expected);
}

#[tokio::test]
async fn several_targets_come_in_order() {
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let folder = build.source("local://context");
    let step = build.run("step", base);
    let (graph, lab) = (build.finish(), Lab::new(&["docker-image://base", "local://context"]));
    let store = MemoryStore::default();
    let targets = [step, folder, base, step];
    let options = SolveOptions::default();
    let progress = Progress::discard();
    let outputs = solve(&graph, &targets, &lab, &store, &progress, options).await.unwrap();
    assert_eq!(outputs[0], outputs[3]);
    assert!(matches!(&outputs[1], Output::Local(source) if source.local_name() == Some("context")));
    assert!(matches!(&outputs[2], Output::Snapshot(_)));
    let outputs = solve(&graph, &[], &lab, &store, &progress, options).await.unwrap();
    assert_eq!(outputs, []);
}

#[tokio::test]
async fn independent_vertices_overlap() {
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let steps: Vec<_> = (0..8).map(|number| build.run(&format!("step {number}"), base)).collect();
    let mut lab = Lab::new(&["docker-image://base"]);
    // None gets past the barrier before all are there.
    let barrier = Arc::new(Barrier::new(steps.len()));
    for number in 0..steps.len() {
        lab.behaviours.insert(format!("step {number}"), Behaviour::Meet(Arc::clone(&barrier)));
    }
    let graph = build.finish();
    let (store, progress) = (MemoryStore::default(), Progress::discard());
    solve(&graph, &steps, &lab, &store, &progress, SolveOptions::default()).await.unwrap();
    assert_eq!(lab.most_running(), 8);
}

#[tokio::test]
async fn parallelism_can_be_limited() {
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let steps: Vec<_> = (0..20).map(|number| build.run(&format!("step {number}"), base)).collect();
    let lab = Lab::new(&["docker-image://base"]);
    let graph = build.finish();
    let options = SolveOptions { max_parallelism: NonZeroUsize::new(3), ..SolveOptions::default() };
    let (store, progress) = (MemoryStore::default(), Progress::discard());
    solve(&graph, &steps, &lab, &store, &progress, options).await.unwrap();
    assert_eq!(lab.most_running(), 3);
    assert_eq!(lab.take_executed().len(), 21);
}

#[tokio::test]
async fn a_rebuilt_stage_with_the_same_files_is_a_hit_and_so_is_what_follows() {
    let graph_of = |version: &str| {
        let mut build = Build::new();
        let base = build.source("docker-image://base");
        let stage = build.run(version, base);
        let stage = build.run("constant x", stage);
        let copy = build.copy("copy", base, stage, "/a");
        let step = build.run("step", copy);
        let target = build.run("last", step);
        (build.finish(), target)
    };
    let (lab, store) = (Lab::new(&["docker-image://base"]), MemoryStore::default());
    let (graph, target) = graph_of("one");
    let first = solve_one(&graph, target, &lab, &store).await.unwrap();
    assert_eq!(lab.take_executed().len(), 6);

    let (graph, target) = graph_of("two");
    let second = solve_one(&graph, target, &lab, &store).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(lab.take_executed(), ["constant x", "two"]);

    // What the slow key found is linked to the definition.
    solve_one(&graph, target, &lab, &store).await.unwrap();
    assert_eq!(lab.take_executed(), NOTHING);
}

#[tokio::test]
async fn only_the_selected_files_of_a_folder_count() {
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let context = build.source("local://context");
    let copy = build.copy("copy a", base, context, "/a");
    let one = build.run("step", copy);
    let two = build.copy("copy all", base, context, "/");
    let (graph, store) = (build.finish(), MemoryStore::default());
    let lab = Lab::new(&["docker-image://base", "local://context"]);
    solve_one(&graph, one, &lab, &store).await.unwrap();
    solve_one(&graph, two, &lab, &store).await.unwrap();
    lab.take_calls();

    let changed = [lab.outside.lock().unwrap()["local://context"][0], rbuild_oci::Digest::of(b"b")];
    lab.outside.lock().unwrap().insert("local://context".to_owned(), changed);
    solve_one(&graph, one, &lab, &store).await.unwrap();
    assert_eq!(lab.take_executed(), NOTHING);
    let output = solve_one(&graph, two, &lab, &store).await.unwrap();
    assert_eq!(lab.take_executed(), ["copy all"]);
    assert_eq!(lab.files(&output), changed);
}

#[tokio::test]
async fn an_image_under_another_name_is_a_hit() {
    let (lab, store) = (Lab::new(&[]), MemoryStore::default());
    lab.set("docker-image://one", "same");
    lab.set("docker-image://two", "same");
    for (name, executed) in [("one", 2), ("two", 0)] {
        let mut build = Build::new();
        let base = build.source(&format!("docker-image://{name}"));
        let target = build.run("step", base);
        solve_one(&build.finish(), target, &lab, &store).await.unwrap();
        assert_eq!(lab.take_executed().len(), executed, "{name}");
    }
}

#[tokio::test]
async fn ignoring_the_cache_reaches_what_builds_on_it_but_not_copies_of_the_same() {
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let before = build.run("before", base);
    build.ignore_cache = true;
    let ignoring = build.run("half", before);
    build.ignore_cache = false;
    let after = build.run("after", ignoring);
    let copy = build.copy("copy", base, after, "/a");
    let same = build.copy("same", base, ignoring, "/b");
    let step = build.run("step", same);
    let merged = build.merge("merge", copy, step);
    let (graph, lab, store) =
        (build.finish(), Lab::new(&["docker-image://base"]), MemoryStore::default());
    solve_one(&graph, merged, &lab, &store).await.unwrap();
    assert_eq!(lab.take_executed().len(), 8);
    // Contents are the same again here, so the copies are hits by content, and what follows by state.
    let second = solve_one(&graph, merged, &lab, &store).await.unwrap();
    assert_eq!(lab.take_executed(), ["after", "half"]);
    assert_eq!(second, solve_one(&graph, merged, &lab, &store).await.unwrap());
    lab.take_calls();
    // What ignored the cache left its result there for others.
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let before = build.run("before", base);
    let target = build.run("half", before);
    solve_one(&build.finish(), target, &lab, &store).await.unwrap();
    assert_eq!(lab.take_executed(), NOTHING);
}

#[tokio::test]
async fn the_first_error_cancels_the_rest_and_stores_nothing() {
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let fails = build.run("fails", base);
    let hangs = build.run("hangs", base);
    let target = build.merge("never", fails, hangs);
    let mut lab = Lab::new(&["docker-image://base"]);
    lab.behaviours.insert("fails".to_owned(), Behaviour::Fail);
    lab.behaviours.insert("hangs".to_owned(), Behaviour::Hang);
    let (graph, mut store) = (build.finish(), MemoryStore::default());
    for _ in 0..2 {
        let error = solve_one(&graph, target, &lab, &store).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot solve `fails`");
        assert_eq!(error.vertex, fails.vertex);
        assert_eq!(error.location.unwrap().first_line, 1);
        assert!(matches!(error.kind, SolveErrorKind::Execute(LabError::Failed)));
        assert_eq!(lab.running(), 0, "what ran was dropped");
        assert!(lab.take_executed().contains(&"fails".to_owned()), "failures are not remembered");
        assert_eq!(store.names(), ["docker-image://base"]);
    }
    store.broken = true;
    let error = solve_one(&graph, target, &lab, &store).await.unwrap_err();
    assert!(matches!(error.kind, SolveErrorKind::Store(StoreError)));
}

#[tokio::test]
async fn what_is_missing_outside_names_who_wanted_it() {
    let mut build = Build::new();
    let context = build.source("local://context");
    let copy = build.copy("COPY none /", context, context, "/none");
    let image = build.source("docker-image://none");
    let (graph, lab) = (build.finish(), Lab::new(&["local://context"]));
    let store = MemoryStore::default();
    let error = solve_one(&graph, copy, &lab, &store).await.unwrap_err();
    assert_eq!((error.vertex, error.name.as_str()), (copy.vertex, "COPY none /"));
    assert!(matches!(error.kind, SolveErrorKind::Content(LabError::NotFound(_))));
    let error = solve_one(&graph, image, &lab, &store).await.unwrap_err();
    assert!(matches!(error.kind, SolveErrorKind::Source(LabError::NotFound(_))));
}

#[tokio::test]
async fn outputs_are_counted() {
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let step = build.run("step", base);
    let beyond = Edge { output: 1, ..step };
    let target = build.run("user", beyond);
    let (graph, mut lab, store) =
        (build.finish(), Lab::new(&["docker-image://base"]), MemoryStore::default());
    for target in [target, beyond] {
        let error = solve_one(&graph, target, &lab, &store).await.unwrap_err();
        assert!(matches!(error.kind, SolveErrorKind::MissingOutput { output: 1, count: 1, .. }));
        assert_eq!(lab.take_calls(), NOTHING);
    }
    // A record that cannot be of the vertex is none.
    solve_one(&graph, step, &lab, &store).await.unwrap();
    store.damage(|outputs| outputs.push(Output::Snapshot(Snapshot::default())));
    lab.take_calls();
    solve_one(&graph, step, &lab, &store).await.unwrap();
    assert_eq!(lab.take_executed(), ["docker-image://base", "step"]);
    lab.behaviours.insert("step".to_owned(), Behaviour::YieldNothing);
    let error = solve_one(&graph, step, &lab, &MemoryStore::default()).await.unwrap_err();
    assert!(matches!(error.kind, SolveErrorKind::OutputCount { expected: 1, actual: 0 }));
}

#[tokio::test]
async fn dropping_the_solve_cancels_it() {
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let target = build.run("hangs", base);
    let mut lab = Lab::new(&["docker-image://base"]);
    lab.behaviours.insert("hangs".to_owned(), Behaviour::Hang);
    let (graph, store) = (build.finish(), MemoryStore::default());
    {
        let mut future = std::pin::pin!(solve_one(&graph, target, &lab, &store));
        while lab.running() == 0 || !lab.calls_contain("execute hangs") {
            std::future::poll_fn(|context| {
                assert!(future.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            tokio::task::yield_now().await;
        }
        assert_eq!(lab.running(), 1);
    }
    assert_eq!(lab.running(), 0);
    assert_eq!(store.names(), ["docker-image://base"], "what was done stays");
    // The lock is free again.
    lab.behaviours.clear();
    solve_one(&graph, target, &lab, &store).await.unwrap();
}

#[tokio::test]
async fn two_solves_on_one_store_run_a_vertex_once() {
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let target = build.run("step", base);
    let (graph, mut lab, store) =
        (build.finish(), Lab::new(&["docker-image://base"]), MemoryStore::default());
    // The step ends only when the other solve waits for its lock.
    let barrier = Arc::new(Barrier::new(2));
    lab.behaviours.insert("step".to_owned(), Behaviour::Meet(Arc::clone(&barrier)));
    let both_want_it = async {
        // The base is locked by one or both of them, the step by both.
        while !store.is_contended(2) {
            store.locking.notified().await;
        }
        barrier.wait().await;
    };
    let (one, two, ()) = tokio::join!(
        solve_one(&graph, target, &lab, &store),
        solve_one(&graph, target, &lab, &store),
        both_want_it
    );
    assert_eq!(one.unwrap(), two.unwrap());
    let executed = lab.take_executed();
    assert_eq!(executed.iter().filter(|name| *name == "step").count(), 1, "{executed:?}");
}

#[tokio::test]
async fn long_chains_and_large_graphs_are_solved() {
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let deep = (0..10_000).fold(base, |base, number| build.run(&format!("deep {number}"), base));
    let wide: Vec<_> =
        (0..30_000).map(|number| build.run(&format!("wide {number}"), base)).collect();
    let graph = build.finish();
    let (lab, store) = (Lab::new(&["docker-image://base"]), MemoryStore::default());
    let targets: Vec<_> = wide.iter().copied().chain([deep]).collect();
    let (options, progress) = (SolveOptions::default(), Progress::discard());
    let first = solve(&graph, &targets, &lab, &store, &progress, options).await.unwrap();
    assert_eq!(lab.take_executed().len(), 40_001);
    let second = solve(&graph, &targets, &lab, &store, &progress, options).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(lab.take_executed(), NOTHING);
}

#[test]
fn a_solve_may_move_between_threads() {
    fn check<T: Send>(_: &T) {}
    let (graph, lab, store) = (Graph::default(), Lab::default(), MemoryStore::default());
    let progress = Progress::discard();
    check(&solve(&graph, &[], &lab, &store, &progress, SolveOptions::default()));
}
