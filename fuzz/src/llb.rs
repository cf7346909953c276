//! LLB from anybody.

use rbuild_oci::Digest;
use rbuild_solver::llb;

/// What is accepted is a graph with its inputs in front, and is written and read without a loss.
pub fn check(data: &[u8]) {
    let Ok((graph, target)) = llb::from_bytes(data) else { return };
    assert!(target.vertex.index() < graph.vertices().len());
    assert!(graph.vertices().len() <= data.len());
    for (index, vertex) in graph.vertices().iter().enumerate() {
        assert!(vertex.inputs.iter().all(|input| input.vertex.index() < index));
    }
    let written = llb::to_definition(&graph, target);
    for (vertex, bytes) in graph.vertices().iter().zip(&written.def) {
        assert_eq!(Digest::of(bytes), vertex.digest);
    }
    let (again, same_target) = llb::from_definition(&written).expect("it is what we wrote");
    assert_eq!(
        again.vertex(same_target.vertex).digest,
        graph.vertex(target.vertex).digest,
        "the result changed"
    );
    assert_eq!(llb::to_bytes(&again, same_target), llb::to_bytes(&graph, target));
}
