//! Which layers of the image each step has made.

use std::collections::HashMap;

use rbuild_oci::{Descriptor, Digest};
use rbuild_solver::{Edge, Graph, Op};

/// The layers of the states that the result stands on, by vertex and output. `layers` are those of `target`.
///
/// A step or file operation puts one layer on top of its root; what an image brings is what is left. Where that cannot be told,
/// as below a difference, nothing is said.
pub(super) fn layer_map<'a>(
    graph: &Graph,
    target: Edge,
    layers: &'a [Descriptor],
) -> HashMap<(Digest, u32), &'a [Descriptor]> {
    let mut known = HashMap::new();
    let mut pending = vec![(target, layers)];
    while let Some((edge, layers)) = pending.pop() {
        let vertex = graph.vertex(edge.vertex);
        if layers.is_empty() || known.insert((vertex.digest, edge.output), layers).is_some() {
            continue;
        }
        match &vertex.op {
            Op::Source(_) | Op::Diff(_) => {}
            Op::Exec(_) | Op::File(_) => {
                let below = base(graph, edge).map(|base| (base, &layers[..layers.len() - 1]));
                pending.extend(below);
            }
            Op::Merge(merge) => {
                let inputs: Vec<Edge> = merge
                    .inputs
                    .iter()
                    .flatten()
                    .map(|input| vertex.inputs[*input as usize])
                    .collect();
                let counts: Vec<_> = inputs.iter().map(|input| count(graph, *input)).collect();
                let sum: usize = counts.iter().flatten().sum();
                let unknown = counts.iter().filter(|count| count.is_none()).count();
                let Some(rest) = layers.len().checked_sub(sum).filter(|_| unknown <= 1) else {
                    continue;
                };
                let mut layers = layers;
                for (input, count) in inputs.iter().zip(&counts) {
                    let Some((own, above)) = layers.split_at_checked(count.unwrap_or(rest)) else {
                        break;
                    };
                    pending.push((*input, own));
                    layers = above;
                }
            }
        }
    }
    known
}

/// The state that an output of a step or file operation stands on.
fn base(graph: &Graph, edge: Edge) -> Option<Edge> {
    let vertex = graph.vertex(edge.vertex);
    let input = match &vertex.op {
        Op::Exec(exec) => exec.mounts.iter().find(|mount| mount.output == Some(edge.output))?.input,
        Op::File(file) => {
            let mut action =
                file.actions.iter().find(|action| action.output == Some(edge.output))?;
            loop {
                let input = action.input? as usize;
                match input.checked_sub(vertex.inputs.len()) {
                    None => break Some(input as u32),
                    Some(earlier) => action = file.actions.get(earlier)?,
                }
            }
        }
        _ => None,
    };
    vertex.inputs.get(input? as usize).copied()
}

/// How many layers a state has, if that is known without its image.
fn count(graph: &Graph, mut edge: Edge) -> Option<usize> {
    let mut count = 0;
    loop {
        match &graph.vertex(edge.vertex).op {
            Op::Exec(_) | Op::File(_) => count += 1,
            Op::Merge(_) | Op::Source(_) | Op::Diff(_) => return None,
        }
        match base(graph, edge) {
            Some(below) => edge = below,
            None => return Some(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use rbuild_oci::MediaType;
    use rbuild_solver::{
        ExecMeta, ExecOp, FileAction, FileActionKind, FileOp, GraphBuilder, MergeOp, MkdirAction,
        Mount, NetworkMode, SecurityMode, SourceOp, VertexMeta,
    };

    use super::*;

    #[test]
    fn steps_and_linked_copies() {
        let mut builder = GraphBuilder::new();
        let mut add = |op, inputs: &[Edge]| Edge {
            vertex: builder.add(op, inputs.to_vec(), None, VertexMeta::default()),
            output: 0,
        };
        let base = add(Op::Source(SourceOp::new("docker-image://a")), &[]);
        let exec = ExecOp {
            meta: ExecMeta::default(),
            mounts: vec![Mount::root()],
            network: NetworkMode::Default,
            security: SecurityMode::Sandbox,
            secret_env: Vec::new(),
        };
        let step = add(Op::Exec(Box::new(exec)), &[base]);
        let mkdir = MkdirAction {
            path: "/a".to_owned(),
            mode: 0o755,
            make_parents: true,
            owner: None,
            timestamp: None,
        };
        let action = |input, output| FileAction {
            input,
            secondary_input: None,
            output,
            kind: FileActionKind::Mkdir(mkdir.clone()),
        };
        let copied = FileOp { actions: vec![action(None, None), action(Some(0), Some(0))] };
        let linked = add(Op::File(copied), &[]);
        let top = add(Op::Merge(MergeOp { inputs: vec![Some(0), Some(1)] }), &[step, linked]);
        let graph = builder.finish();
        let layers: Vec<_> = (0..4u64)
            .map(|size| Descriptor::new(MediaType::OciLayer, Digest::of(b""), size))
            .collect();
        let map = layer_map(&graph, top, &layers);
        let of = |edge: Edge| map[&(graph.vertex(edge.vertex).digest, 0)];
        assert_eq!(of(top), layers);
        assert_eq!(of(linked), &layers[3..]);
        assert_eq!(of(step), &layers[..3]);
        assert_eq!(of(base), &layers[..2]);
    }
}
