//! The build graph: vertices by digest, in an order in which inputs come first.

use std::collections::HashMap;

use rbuild_oci::{Digest, Platform};

use crate::Op;

/// A vertex of one graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexId(u32);

impl VertexId {
    /// The position in [`Graph::vertices`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Output `output` of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    /// The vertex.
    pub vertex: VertexId,
    /// Which of its outputs.
    pub output: u32,
}

/// Where in a source file a vertex comes from; lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLocation {
    /// The file's name as shown to people.
    pub file: String,
    /// First line.
    pub first_line: u32,
    /// Last line.
    pub last_line: u32,
}

/// What is known of a vertex beside its operation; no part of its digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VertexMeta {
    /// What people read, such as `[build 2/5] RUN make`.
    pub name: String,
    /// Whether a known result may not be used.
    pub ignore_cache: bool,
    /// Where it was written.
    pub location: Option<SourceLocation>,
}

/// A vertex.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// The digest of the operation's LLB encoding, which includes the inputs' digests.
    pub digest: Digest,
    /// What it does.
    pub op: Op,
    /// What it works on; all of them stand before it in the graph.
    pub inputs: Vec<Edge>,
    /// The platform that it is for; file, merge and diff operations have none.
    pub platform: Option<Platform>,
    /// What else is known of it.
    pub meta: VertexMeta,
}

/// A build graph. Every vertex comes after its inputs, and no two have one digest.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    vertices: Vec<Vertex>,
}

impl Graph {
    /// The vertices; inputs come before their users.
    pub fn vertices(&self) -> &[Vertex] {
        &self.vertices
    }

    /// One vertex.
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.vertices[id.index()]
    }

    /// All ids, inputs before their users.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = VertexId> + use<> {
        (0..self.vertices.len() as u32).map(VertexId)
    }

    /// Per vertex, whether one of `targets` is it or builds on it.
    pub fn reachable(&self, targets: &[Edge]) -> Vec<bool> {
        let mut reachable = vec![false; self.vertices.len()];
        for target in targets {
            reachable[target.vertex.index()] = true;
        }
        for (index, vertex) in self.vertices.iter().enumerate().rev() {
            if reachable[index] {
                for input in &vertex.inputs {
                    reachable[input.vertex.index()] = true;
                }
            }
        }
        reachable
    }
}

/// Builds a [`Graph`]; the only way to one, so that its promises hold.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    graph: Graph,
    by_digest: HashMap<Digest, VertexId>,
}

impl GraphBuilder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty graph that is going to have about so many vertices.
    pub fn with_capacity(vertices: usize) -> Self {
        Self {
            graph: Graph { vertices: Vec::with_capacity(vertices) },
            by_digest: HashMap::with_capacity(vertices),
        }
    }

    /// Adds a vertex, or finds the equal one that is there.
    ///
    /// An equal vertex keeps its first name; it ignores the cache when either of the two does.
    ///
    /// # Panics
    ///
    /// When an input is not of this graph.
    pub fn add(
        &mut self,
        op: Op,
        inputs: Vec<Edge>,
        platform: Option<Platform>,
        meta: VertexMeta,
    ) -> VertexId {
        let input_digests =
            inputs.iter().map(|edge| (self.graph.vertex(edge.vertex).digest, edge.output));
        let digest = crate::llb::vertex_digest(&op, input_digests, platform.as_ref());
        if let Some(id) = self.by_digest.get(&digest) {
            self.graph.vertices[id.index()].meta.ignore_cache |= meta.ignore_cache;
            return *id;
        }
        let id =
            VertexId(u32::try_from(self.graph.vertices.len()).expect("fewer than 2^32 vertices"));
        self.graph.vertices.push(Vertex { digest, op, inputs, platform, meta });
        self.by_digest.insert(digest, id);
        id
    }

    /// The graph so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The finished graph.
    pub fn finish(self) -> Graph {
        self.graph
    }
}
