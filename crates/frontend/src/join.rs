//! Builds of one file for several platforms as one graph, in which what they share is there once.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_solver::{Edge, Graph, GraphBuilder, MergeOp, Op, Vertex, VertexId, VertexMeta};

use crate::draft::FOLLOW_PATHS;
use crate::{Build, Scan};

/// The graph of several builds.
#[derive(Debug)]
pub struct Joined {
    /// What any of them needs.
    pub graph: Graph,
    /// What is looked into for packages beside it, of each.
    pub scans: Vec<Vec<Scan>>,
    /// The state that becomes the image of each, in their order; `None` is an image without files.
    pub targets: Vec<Option<Edge>>,
    /// A vertex that builds on all of them, for who wants to name the graph: nothing has to make it. `None` if no build
    /// has files.
    pub all: Option<Edge>,
}

/// Joins builds that were lowered from one file.
///
/// A stage that is the same for several platforms, such as one `FROM --platform=$BUILDPLATFORM`, becomes the same
/// vertices, with the names that the first of them gave. For that a local folder is one source, of which is seen what any
/// of the builds looks at.
pub fn join(builds: &[Build]) -> Joined {
    let looked_at = looked_at(builds);
    let vertices = builds.iter().map(|build| build.graph.vertices().len()).sum();
    let mut builder = GraphBuilder::with_capacity(vertices);
    let mut scans = Vec::with_capacity(builds.len());
    let targets: Vec<Option<Edge>> = builds
        .iter()
        .map(|build| {
            let moved = add(&mut builder, &build.graph, &looked_at);
            let scan = |scan: &Scan| Scan { target: follow(&moved, scan.target), ..scan.clone() };
            scans.push(build.scans.iter().map(scan).collect());
            build.target.map(|edge| follow(&moved, edge))
        })
        .collect();
    let mut distinct = Vec::new();
    for target in targets.iter().flatten() {
        if !distinct.contains(target) {
            distinct.push(*target);
        }
    }
    let all = match distinct[..] {
        [] => None,
        [only] => Some(only),
        _ => {
            let op = Op::Merge(MergeOp { inputs: (0..distinct.len() as u32).map(Some).collect() });
            let name = "[internal] all platforms".to_owned();
            let meta = VertexMeta { name, ..VertexMeta::default() };
            Some(Edge { vertex: builder.add(op, distinct, None, meta), output: 0 })
        }
    };
    Joined { graph: builder.finish(), scans, targets, all }
}

/// What is looked at of each local folder, as its source says it; `None` for everything.
fn looked_at(builds: &[Build]) -> BTreeMap<&str, Option<String>> {
    let mut paths: BTreeMap<&str, Option<BTreeSet<&String>>> = BTreeMap::new();
    for local in builds.iter().flat_map(|build| &build.locals) {
        let all = paths.entry(&local.name).or_insert_with(|| Some(BTreeSet::new()));
        match (&local.follow_paths, &mut *all) {
            (Some(more), Some(paths)) => paths.extend(more),
            _ => *all = None,
        }
    }
    let json = |paths| serde_json::to_string(&paths).expect("a list of texts is always JSON");
    paths.into_iter().map(|(name, paths)| (name, paths.map(json))).collect()
}

/// Adds the vertices of a graph; returns where each of them is.
fn add(
    builder: &mut GraphBuilder,
    graph: &Graph,
    looked_at: &BTreeMap<&str, Option<String>>,
) -> Vec<VertexId> {
    let mut moved = Vec::with_capacity(graph.vertices().len());
    for Vertex { op, inputs, platform, meta, .. } in graph.vertices() {
        let inputs = inputs.iter().map(|edge| follow(&moved, *edge)).collect();
        let mut op = op.clone();
        if let Op::Source(source) = &mut op
            && let Some(paths) = source.local_name().and_then(|name| looked_at.get(name))
        {
            match paths {
                Some(paths) => source.attrs.insert(FOLLOW_PATHS.to_owned(), paths.clone()),
                None => source.attrs.remove(FOLLOW_PATHS),
            };
        }
        moved.push(builder.add(op, inputs, platform.clone(), meta.clone()));
    }
    moved
}

fn follow(moved: &[VertexId], edge: Edge) -> Edge {
    Edge { vertex: moved[edge.vertex.index()], ..edge }
}
