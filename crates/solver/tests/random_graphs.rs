//! Random graphs, solved and evaluated naively: the solve must give what running everything gives, whatever
//! is in the store.

use proptest::prelude::*;
use rbuild_solver::{
    Edge, Graph, Mount, MountKind, Output, Progress, SolveOptions, VertexId, llb, solve,
};

use crate::support::{Build, Files, Lab, MemoryStore};

/// A vertex to be; inputs are taken modulo what is there.
#[derive(Clone, Debug)]
struct Plan {
    kind: u8,
    inputs: [usize; 2],
    variant: u8,
    ignore_cache: bool,
}

const SELECTIONS: [&str; 3] = ["/", "/a", "/b"];
const COMMANDS: [&str; 4] = ["one", "two", "half", "constant"];

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let plan = (0..10_u8, any::<[usize; 2]>(), 0..12_u8, prop::bool::weighted(0.1));
    let plan = plan.prop_map(|(kind, inputs, variant, ignore_cache)| Plan {
        kind,
        inputs,
        variant,
        ignore_cache,
    });
    prop::collection::vec(plan, 1..24)
}

/// The graph of `plans`, and all its outputs.
fn graph(plans: &[Plan]) -> (Graph, Vec<Edge>) {
    let mut build = Build::new();
    let mut edges = vec![build.source("docker-image://base")];
    for plan in plans {
        build.ignore_cache = plan.ignore_cache;
        let [one, two] = plan.inputs.map(|number| edges[number % edges.len()]);
        let variant = usize::from(plan.variant);
        let (selection, command) = (SELECTIONS[variant % 3], COMMANDS[variant % 4]);
        // A vertex's name says all about it that the model's outcome depends on.
        let edge = match plan.kind {
            0 => build.source(&format!("docker-image://{}", variant % 3)),
            1 => build.source(&format!("local://{}", variant % 3)),
            2 | 3 => build.run(command, one),
            4 | 5 => build.copy("copy", one, two, selection),
            6 => build.merge("merge", one, two),
            7 => build.diff("diff", one, two),
            kind => {
                let writable = kind == 9;
                let mount = Mount {
                    input: Some(1),
                    selector: selection.to_owned(),
                    dest: "/mnt".to_owned(),
                    output: writable.then_some(1),
                    readonly: !writable,
                    kind: MountKind::Bind,
                };
                let edge = build.run_with(command, vec![one, two], vec![Mount::root(), mount]);
                if writable {
                    edges.push(Edge { output: 1, ..edge });
                }
                edge
            }
        };
        edges.push(edge);
    }
    (build.finish(), edges)
}

/// Evaluates by running everything.
fn naive(
    graph: &Graph,
    lab: &Lab,
    vertex: VertexId,
    known: &mut [Option<Vec<Files>>],
) -> Vec<Files> {
    if let Some(files) = &known[vertex.index()] {
        return files.clone();
    }
    let inputs = &graph.vertex(vertex).inputs;
    let inputs: Vec<Files> = inputs
        .iter()
        .map(|edge| naive(graph, lab, edge.vertex, known)[edge.output as usize])
        .collect();
    let files = lab.compute(graph.vertex(vertex), &inputs);
    known[vertex.index()] = Some(files.clone());
    files
}

fn check(graph: &Graph, targets: &[Edge], lab: &Lab, store: &MemoryStore) -> Vec<Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let progress = Progress::discard();
    let options = SolveOptions::default();
    let outputs = runtime.block_on(solve(graph, targets, lab, store, &progress, options)).unwrap();
    let mut known = vec![None; graph.vertices().len()];
    for (target, output) in targets.iter().zip(&outputs) {
        let expected = naive(graph, lab, target.vertex, &mut known)[target.output as usize];
        assert_eq!(lab.files(output), expected, "{:?}", graph.vertex(target.vertex));
    }
    outputs
}

fn lab() -> Lab {
    let mut identifiers = vec!["docker-image://base".to_owned()];
    for number in 0..3 {
        identifiers.push(format!("docker-image://{number}"));
        identifiers.push(format!("local://{number}"));
    }
    Lab::new(&identifiers.iter().map(String::as_str).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn a_solve_gives_what_running_everything_gives(
        first in plans(),
        second in plans(),
        changes in prop::collection::vec((0..3_u8, 0..2_u8, any::<bool>()), 0..4),
    ) {
        let (lab, store) = (lab(), MemoryStore::default());
        let (one, edges) = graph(&first);
        let target = [*edges.last().unwrap()];
        check(&one, &target, &lab, &store);
        let executed = lab.take_executed().len();
        prop_assert!(executed <= one.vertices().len(), "nothing runs twice");
        // The same again: only what ignores the cache, and what comes of it, runs.
        check(&one, &target, &lab, &store);
        let ignoring = one.vertices().iter().any(|vertex| vertex.meta.ignore_cache);
        prop_assert!(lab.take_executed().is_empty() || ignoring);
        // All that there is, with what changed outside, on what the store has.
        for (number, file, image) in changes {
            let scheme = if image { "docker-image" } else { "local" };
            let identifier = format!("{scheme}://{number}");
            let mut outside = lab.outside.lock().unwrap();
            let files = outside.get_mut(&identifier).unwrap();
            files[usize::from(file)] = rbuild_oci::Digest::of(b"changed");
        }
        check(&one, &edges, &lab, &store);
        let (two, edges) = graph(&second);
        check(&two, &edges, &lab, &store);
    }

    #[test]
    fn graphs_survive_llb(plans in plans()) {
        let (graph, edges) = graph(&plans);
        let target = *edges.last().unwrap();
        let bytes = llb::to_bytes(&graph, target);
        let (read, result) = llb::from_bytes(&bytes).unwrap();
        prop_assert_eq!(read.vertex(result.vertex).digest, graph.vertex(target.vertex).digest);
        prop_assert_eq!(result.output, target.output);
        let needed = graph.reachable(&[target]);
        let needed = graph.vertices().iter().zip(needed).filter(|(_, needed)| *needed);
        prop_assert_eq!(needed.clone().count(), read.vertices().len());
        for (vertex, _) in needed {
            let same = read.vertices().iter().find(|other| other.digest == vertex.digest).unwrap();
            prop_assert_eq!(&same.op, &vertex.op);
            prop_assert_eq!(&same.meta, &vertex.meta);
            prop_assert_eq!(&same.platform, &vertex.platform);
        }
        let again = llb::to_bytes(&read, result);
        prop_assert_eq!(llb::from_bytes(&again).unwrap().0.vertices().len(), read.vertices().len());
    }

    #[test]
    fn damaged_llb_is_refused_or_read_but_never_panics(
        plans in plans(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let (graph, edges) = graph(&plans);
        let mut bytes = llb::to_bytes(&graph, *edges.last().unwrap());
        let _ = llb::from_bytes(&bytes[..cut.index(bytes.len())]);
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let _ = llb::from_bytes(&bytes);
    }
}
