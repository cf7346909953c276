//! What a solve reports.

use std::collections::HashMap;

use rbuild_solver::{Edge, Event, Graph, Progress, ProgressReceiver, SolveOptions, solve};

use crate::support::{Behaviour, Build, Lab, MemoryStore};

/// The events as lines, vertices by name.
fn lines(graph: &Graph, mut events: ProgressReceiver) -> Vec<String> {
    let names: HashMap<_, _> =
        graph.vertices().iter().map(|vertex| (vertex.digest, vertex.meta.name.as_str())).collect();
    let mut lines = Vec::new();
    while let Ok(event) = events.try_recv() {
        lines.push(match event {
            // Keys are digests of what the tests do not say.
            Event::Keyed { .. } => continue,
            Event::Added { vertex, inputs, .. } => {
                let inputs: Vec<_> = inputs.iter().map(|input| names[input]).collect();
                format!("added {} {inputs:?}", names[&vertex])
            }
            Event::Started { vertex, .. } => format!("started {}", names[&vertex]),
            Event::Completed { vertex, cached, error, .. } => match error {
                Some(error) => format!("failed {}: {error}", names[&vertex]),
                None if cached => format!("cached {}", names[&vertex]),
                None => format!("done {}", names[&vertex]),
            },
            event => format!("{event:?}"),
        });
    }
    lines
}

async fn events(graph: &Graph, target: Edge, lab: &Lab, store: &MemoryStore) -> Vec<String> {
    let (progress, receiver) = Progress::channel();
    let _ = solve(graph, &[target], lab, store, &progress, SolveOptions::default()).await;
    lines(graph, receiver)
}

#[tokio::test]
async fn a_cold_and_a_warm_solve() {
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let context = build.source("local://context");
    let step = build.run("step", base);
    let copy = build.copy("copy", step, context, "/a");
    let graph = build.finish();
    let lab = Lab::new(&["docker-image://base", "local://context"]);
    let store = MemoryStore::default();
    let added = [
        "added docker-image://base []",
        "added local://context []",
        r#"added step ["docker-image://base"]"#,
        r#"added copy ["step", "local://context"]"#,
    ];
    let cold = [
        "started local://context",
        "done local://context",
        "started docker-image://base",
        "done docker-image://base",
        "started step",
        "done step",
        "started copy",
        "done copy",
    ];
    assert_eq!(events(&graph, copy, &lab, &store).await, [&added[..], &cold].concat());
    let warm = [
        "started local://context",
        "done local://context",
        "started docker-image://base",
        "cached docker-image://base",
        "started step",
        "cached step",
        "started copy",
        "cached copy",
    ];
    assert_eq!(events(&graph, copy, &lab, &store).await, [&added[..], &warm].concat());
}

#[tokio::test]
async fn a_hit_by_content_is_cached() {
    let (lab, store) = (Lab::new(&["docker-image://base"]), MemoryStore::default());
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let stage = build.run("constant x", base);
    let target = build.copy("copy", base, stage, "/b");
    events(&build.finish(), target, &lab, &store).await;
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let stage = build.run("other", base);
    let stage = build.run("constant x", stage);
    let target = build.copy("copy", base, stage, "/b");
    let graph = build.finish();
    let events = events(&graph, target, &lab, &store).await;
    assert_eq!(events.last().unwrap(), "cached copy");
    assert!(events.contains(&"done constant x".to_owned()));
}

#[tokio::test]
async fn a_failure_cancels_its_siblings() {
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let hangs = build.run("hangs", base);
    let fails = build.run("fails", base);
    let target = build.merge("never", hangs, fails);
    let mut lab = Lab::new(&["docker-image://base"]);
    lab.behaviours.insert("fails".to_owned(), Behaviour::Fail);
    lab.behaviours.insert("hangs".to_owned(), Behaviour::Hang);
    let graph = build.finish();
    let events = events(&graph, target, &lab, &MemoryStore::default()).await;
    let end = ["failed fails: exit code 1", "failed hangs: context canceled"];
    assert_eq!(events[events.len() - 2..], end);
    assert!(!events.iter().any(|line| line.contains("started never")));
}

#[tokio::test]
async fn a_missing_file_fails_the_vertex_that_wants_it() {
    let mut build = Build::new();
    let context = build.source("local://context");
    let copy = build.copy("copy", context, context, "/none");
    let graph = build.finish();
    let lab = Lab::new(&["local://context"]);
    let events = events(&graph, copy, &lab, &MemoryStore::default()).await;
    let end = [
        "started local://context",
        "started copy",
        "failed copy: failed to compute cache key: `/none` is not there",
        "failed local://context: context canceled",
    ];
    assert_eq!(events[2..], end);
}
