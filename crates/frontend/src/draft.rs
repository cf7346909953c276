//! The graph while it is made: what a local folder is asked for is known only at the end.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_oci::Platform;
use rbuild_solver::{
    CopyAction, Edge, FileAction, FileActionKind, FileOp, Graph, GraphBuilder, Op, SourceOp,
    VertexMeta,
};

use crate::build::LocalUse;

/// The attribute of a local folder that says what is looked at.
pub(crate) const FOLLOW_PATHS: &str = "local.followpaths";

/// A vertex of the draft; only first outputs are ever used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node(usize);

#[derive(Debug)]
struct Planned {
    op: Op,
    inputs: Vec<Node>,
    platform: Option<Platform>,
    meta: VertexMeta,
}

/// A local folder, which is one vertex however many steps read it.
#[derive(Debug)]
struct Local {
    node: Node,
    /// Clean, without the slash in front; the empty one is everything.
    paths: BTreeSet<String>,
}

/// What will be the graph.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// Inputs come before their users.
    planned: Vec<Planned>,
    locals: BTreeMap<String, Local>,
}

impl Draft {
    pub(crate) fn add(
        &mut self,
        op: Op,
        inputs: Vec<Node>,
        platform: Option<Platform>,
        meta: VertexMeta,
    ) -> Node {
        self.planned.push(Planned { op, inputs, platform, meta });
        Node(self.planned.len() - 1)
    }

    /// The local folder `name`, of which everything but what `ignore` matches can be seen.
    pub(crate) fn local(&mut self, name: &str, ignore: &[String]) -> Node {
        if let Some(local) = self.locals.get(name) {
            return local.node;
        }
        let mut source = SourceOp::new(format!("local://{name}"));
        let is_main = name == "context";
        let hint = if is_main { name.to_owned() } else { format!("context:{name}-") };
        source.attrs.insert("local.sharedkeyhint".to_owned(), hint);
        if !ignore.is_empty() {
            source.attrs.insert("local.excludepatterns".to_owned(), json(ignore));
        }
        let shown = match is_main {
            true => "[internal] load build context".to_owned(),
            false => format!("[context {name}] load from client"),
        };
        let meta = VertexMeta { name: shown, ..VertexMeta::default() };
        let node = self.add(Op::Source(source), Vec::new(), None, meta);
        self.locals.insert(name.to_owned(), Local { node, paths: BTreeSet::new() });
        node
    }

    /// Whether a vertex is a local folder.
    pub(crate) fn is_local(&self, node: Node) -> bool {
        self.locals.values().any(|local| local.node == node)
    }

    /// Says that a step looks at `path` (clean and absolute) of a local folder.
    pub(crate) fn follow(&mut self, name: &str, path: &str) {
        if let Some(local) = self.locals.get_mut(name) {
            local.paths.insert(path.trim_start_matches('/').to_owned());
        }
    }

    /// A copy of a node that is a local folder: a result is files that stay as they are. All others are that already.
    fn as_files(&mut self, node: Node) -> Node {
        if !self.locals.values().any(|local| local.node == node) {
            return node;
        }
        let copy = CopyAction {
            src: "/".to_owned(),
            dest: "/".to_owned(),
            dir_copy_contents: true,
            create_dest_path: true,
            ..CopyAction::default()
        };
        let kind = FileActionKind::Copy(copy);
        let action = FileAction { input: None, secondary_input: Some(0), output: Some(0), kind };
        let name = "[internal] copy the folder that is the result".to_owned();
        let meta = VertexMeta { name, ..VertexMeta::default() };
        self.add(Op::File(FileOp { actions: vec![action] }), vec![node], None, meta)
    }

    /// The graph of what `target` and `others` need, and where they are in it.
    pub(crate) fn finish(
        mut self,
        target: Option<Node>,
        others: &[Node],
    ) -> (Graph, Option<Edge>, Vec<Edge>, Vec<LocalUse>) {
        let target = target.map(|target| self.as_files(target));
        let others: Vec<Node> = others.iter().map(|other| self.as_files(*other)).collect();
        let mut is_needed = vec![false; self.planned.len()];
        target.iter().chain(&others).for_each(|node| is_needed[node.0] = true);
        for index in (0..is_needed.len()).rev() {
            if is_needed[index] {
                self.planned[index].inputs.iter().for_each(|input| is_needed[input.0] = true);
            }
        }
        let mut locals = Vec::new();
        for (name, Local { node, paths }) in std::mem::take(&mut self.locals) {
            if !is_needed[node.0] {
                continue;
            }
            let everything = paths.is_empty() || paths.contains("");
            let follow_paths = (!everything).then(|| Vec::from_iter(paths));
            if let (Op::Source(source), Some(paths)) = (&mut self.planned[node.0].op, &follow_paths)
            {
                source.attrs.insert(FOLLOW_PATHS.to_owned(), json(paths));
            }
            locals.push(LocalUse { name, follow_paths });
        }
        let mut builder =
            GraphBuilder::with_capacity(is_needed.iter().filter(|needed| **needed).count());
        let mut made = vec![None; is_needed.len()];
        for (index, planned) in self.planned.into_iter().enumerate() {
            if !is_needed[index] {
                continue;
            }
            let inputs = planned.inputs.iter().filter_map(|input| made[input.0]).collect();
            let vertex = builder.add(planned.op, inputs, planned.platform, planned.meta);
            made[index] = Some(Edge { vertex, output: 0 });
        }
        let target = target.and_then(|target| made[target.0]);
        let others = others.iter().filter_map(|other| made[other.0]).collect();
        (builder.finish(), target, others, locals)
    }
}

fn json(list: &[String]) -> String {
    serde_json::to_string(list).expect("a list of texts is always JSON")
}
