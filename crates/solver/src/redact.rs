//! Graphs as they may be written down.

use std::collections::HashMap;

use rbuild_oci::Digest;

use crate::{Edge, Graph, GraphBuilder, Op, ProxyEnv, VertexId, redact_url};

/// What `target` needs of a graph, without passwords in addresses and without proxies, which may have passwords too; with
/// the digests that vertices have there, for those that have another.
pub fn redacted(graph: &Graph, target: Edge) -> (Graph, Edge, HashMap<Digest, Digest>) {
    rebuilt(graph, target, redacted_op)
}

/// What `target` needs of a graph, with other operations in place of the same ones; and the digests that vertices have there,
/// for those that have another.
pub(crate) fn rebuilt(
    graph: &Graph,
    target: Edge,
    changed_op: impl Fn(&Op) -> Op,
) -> (Graph, Edge, HashMap<Digest, Digest>) {
    let reachable = graph.reachable(&[target]);
    let mut builder = GraphBuilder::new();
    let mut ids: Vec<Option<VertexId>> = vec![None; reachable.len()];
    let mut changed = HashMap::new();
    let moved = |ids: &[Option<VertexId>], edge: &Edge| {
        let vertex = ids[edge.vertex.index()].expect("inputs come before their users");
        Edge { vertex, output: edge.output }
    };
    for id in graph.ids().filter(|id| reachable[id.index()]) {
        let vertex = graph.vertex(id);
        let inputs = vertex.inputs.iter().map(|edge| moved(&ids, edge)).collect();
        let new = builder.add(
            changed_op(&vertex.op),
            inputs,
            vertex.platform.clone(),
            vertex.meta.clone(),
        );
        let digest = builder.graph().vertex(new).digest;
        if digest != vertex.digest {
            changed.insert(vertex.digest, digest);
        }
        ids[id.index()] = Some(new);
    }
    let target = moved(&ids, &target);
    (builder.finish(), target, changed)
}

/// Whether [`redacted`] would change anything of a graph.
pub fn has_secrets(graph: &Graph) -> bool {
    graph.vertices().iter().any(|vertex| match &vertex.op {
        Op::Source(source) => {
            let mut texts = std::iter::once(&source.identifier).chain(source.attrs.values());
            texts.any(|text| redact_url(text) != *text)
        }
        Op::Exec(exec) => exec.meta.proxy_env.is_some(),
        Op::File(_) | Op::Merge(_) | Op::Diff(_) => false,
    })
}

pub(crate) fn redacted_op(op: &Op) -> Op {
    let mut op = op.clone();
    match &mut op {
        Op::Source(source) => {
            source.identifier = redact_url(&source.identifier);
            source.attrs.values_mut().for_each(|value| *value = redact_url(value));
        }
        Op::Exec(exec) => {
            exec.meta.proxy_env = exec.meta.proxy_env.as_ref().map(|_| ProxyEnv::default());
        }
        Op::File(_) | Op::Merge(_) | Op::Diff(_) => {}
    }
    op
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CopyAction, FileAction, FileActionKind, FileOp, SourceOp, VertexMeta};

    #[test]
    fn passwords_go_and_vertices_are_found_again() {
        let mut builder = GraphBuilder::new();
        let mut source = SourceOp::new("git://example.com/a.git");
        source.attrs.insert("git.fullurl".into(), "https://me:hidden@example.com/a.git".into());
        let meta = VertexMeta::default;
        let source = builder.add(Op::Source(source), Vec::new(), None, meta());
        let from = Edge { vertex: source, output: 0 };
        let action = FileAction {
            input: None,
            secondary_input: Some(0),
            output: Some(0),
            kind: FileActionKind::Copy(CopyAction::default()),
        };
        let copy =
            builder.add(Op::File(FileOp { actions: vec![action] }), vec![from], None, meta());
        let graph = builder.finish();
        assert!(has_secrets(&graph));
        let target = Edge { vertex: copy, output: 0 };
        let (stored, target, changed) = redacted(&graph, target);
        assert!(!has_secrets(&stored));
        let bytes = crate::llb::to_bytes(&stored, target);
        assert!(!String::from_utf8_lossy(&bytes).contains("hidden"));
        assert_eq!(changed.len(), 2);
        assert_eq!(changed[&graph.vertex(copy).digest], stored.vertex(target.vertex).digest);
    }
}
