//! Which stage needs which.

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::Dfs;

/// The stages as a graph: from each to those that it needs.
#[derive(Debug)]
pub(super) struct Dependencies {
    graph: DiGraph<(), Need>,
}

/// Why a stage needs another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It stands on it, and so comes after it.
    Base,
    /// It copies from it.
    Copy,
}

impl Dependencies {
    /// From each stage's base and the stages that it copies from.
    pub(super) fn new(stages: impl Iterator<Item = (Option<usize>, Vec<usize>)>) -> Self {
        let stages: Vec<_> = stages.collect();
        let mut graph = DiGraph::with_capacity(stages.len(), stages.len());
        for _ in &stages {
            graph.add_node(());
        }
        for (index, (base, copies)) in stages.into_iter().enumerate() {
            let from = NodeIndex::new(index);
            if let Some(base) = base {
                graph.add_edge(from, NodeIndex::new(base), Need::Base);
            }
            for copy in copies {
                graph.add_edge(from, NodeIndex::new(copy), Need::Copy);
            }
        }
        Self { graph }
    }

    /// The stages that `target` needs, itself included, in the file's order.
    pub(super) fn reachable(&self, target: usize) -> Vec<usize> {
        let mut found = Vec::new();
        let mut search = Dfs::new(&self.graph, NodeIndex::new(target));
        while let Some(node) = search.next(&self.graph) {
            found.push(node.index());
        }
        found.sort_unstable();
        found
    }

    /// The cycles of copies: the stages of each in the file's order, the cycles by their first.
    pub(super) fn cycles(&self) -> Vec<Vec<usize>> {
        let copies =
            self.graph.filter_map(|_, _| Some(()), |_, need| (*need == Need::Copy).then_some(()));
        // Kosaraju's algorithm rather than Tarjan's: petgraph's Tarjan recurses, and a file may have any number of
        // stages.
        let mut cycles: Vec<Vec<usize>> = kosaraju_scc(&copies)
            .into_iter()
            .filter(|members| members.len() > 1 || copies.contains_edge(members[0], members[0]))
            .map(|members| {
                let mut members: Vec<usize> = members.into_iter().map(NodeIndex::index).collect();
                members.sort_unstable();
                members
            })
            .collect();
        cycles.sort_unstable();
        cycles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reachable_stages_and_cycles() {
        let dependencies = Dependencies::new(
            [
                (None, vec![]),
                (Some(0), vec![3]),
                (None, vec![2]),
                (None, vec![1]),
                (Some(1), vec![0]),
            ]
            .into_iter(),
        );
        assert_eq!(dependencies.reachable(0), [0]);
        assert_eq!(dependencies.reachable(4), [0, 1, 3, 4]);
        assert_eq!(dependencies.cycles(), [vec![1, 3], vec![2]]);
    }

    #[test]
    fn any_depth_is_fine() {
        let chain =
            (0..100_000).map(|stage: usize| (stage.checked_sub(1), vec![(stage + 1) % 100_000]));
        let dependencies = Dependencies::new(chain);
        assert_eq!(dependencies.reachable(99_999).len(), 100_000);
        assert_eq!(dependencies.cycles().len(), 1);
    }
}
