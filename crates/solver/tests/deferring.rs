//! What is not made as long as nobody needs it.

use rbuild_solver::{Edge, Graph, Presence, Progress, SolveOptions, solve};

use crate::support::{Behaviour, Build, Lab, MemoryStore};

/// A lab that defers what is called so.
fn lazy_lab() -> Lab {
    let mut lab = Lab::new(&["docker-image://base", "local://context"]);
    for name in ["copy", "other copy", "merged"] {
        lab.behaviours.insert(name.to_owned(), Behaviour::Defer);
    }
    lab
}

/// What was executed.
async fn executed(
    (lab, store): (&Lab, &MemoryStore),
    (graph, target): (&Graph, Edge),
    need: Presence,
) -> Vec<String> {
    let options = SolveOptions { need, ..SolveOptions::default() };
    solve(graph, &[target], lab, store, &Progress::discard(), options).await.unwrap();
    lab.take_executed()
}

#[tokio::test]
async fn what_nobody_reads_is_made_when_somebody_does() {
    let (lab, store) = (lazy_lab(), MemoryStore::default());
    let at = (&lab, &store);
    let mut build = Build::new();
    let (base, context) = (build.source("docker-image://base"), build.source("local://context"));
    let copy = build.copy("copy", base, context, "/a");
    let graph = build.finish();
    let all = ["copy", "docker-image://base"];
    assert_eq!(executed(at, (&graph, copy), Presence::Known).await, all);
    assert_eq!(executed(at, (&graph, copy), Presence::Known).await, [""; 0]);
    // Whoever executed it then cannot make its archive any more.
    assert_eq!(executed(at, (&graph, copy), Presence::Archive).await, ["copy"]);
    assert_eq!(executed(at, (&graph, copy), Presence::Known).await, [""; 0]);
    assert_eq!(executed(at, (&graph, copy), Presence::Files).await, ["copy"]);
    assert_eq!(executed(at, (&graph, copy), Presence::Files).await, [""; 0]);
    assert_eq!(executed(at, (&graph, copy), Presence::Known).await, [""; 0]);
}

#[tokio::test]
async fn what_a_step_reads_is_made() {
    let (lab, store) = (lazy_lab(), MemoryStore::default());
    let at = (&lab, &store);
    let graph_of = |steps: &[&str]| {
        let mut build = Build::new();
        let base = build.source("docker-image://base");
        let context = build.source("local://context");
        let mut top = build.copy("copy", base, context, "/a");
        for step in steps {
            top = build.run(step, top);
        }
        (build.finish(), top)
    };
    let (graph, target) = graph_of(&[]);
    executed(at, (&graph, target), Presence::Known).await;
    let (graph, target) = graph_of(&["step"]);
    assert_eq!(executed(at, (&graph, target), Presence::Known).await, ["copy", "step"]);
    // Made, it is found by those who need its files.
    let (graph, target) = graph_of(&["another step"]);
    assert_eq!(executed(at, (&graph, target), Presence::Known).await, ["another step"]);
}

#[tokio::test]
async fn what_is_put_on_top_of_one_another_is_not_read() {
    let (lab, store) = (lazy_lab(), MemoryStore::default());
    let at = (&lab, &store);
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let context = build.source("local://context");
    let copy = build.copy("copy", base, context, "/a");
    let other = build.copy("other copy", base, context, "/b");
    let merged = build.merge("merged", copy, other);
    let step = build.run("step", merged);
    let graph = build.finish();
    let first = executed(at, (&graph, merged), Presence::Known).await;
    assert_eq!(first, ["copy", "docker-image://base", "merged", "other copy"]);
    assert_eq!(executed(at, (&graph, merged), Presence::Known).await, [""; 0]);
    let all = ["copy", "merged", "other copy", "step"];
    assert_eq!(executed(at, (&graph, step), Presence::Known).await, all);
}
