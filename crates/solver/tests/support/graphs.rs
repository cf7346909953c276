use rbuild_solver::{
    CopyAction, DiffOp, Edge, ExecMeta, ExecOp, FileAction, FileActionKind, FileOp, Graph,
    GraphBuilder, MergeOp, Mount, NetworkMode, Op, SecurityMode, SourceLocation, SourceOp,
    VertexId, VertexMeta,
};

/// The first output of a vertex.
pub(crate) fn edge(vertex: VertexId) -> Edge {
    Edge { vertex, output: 0 }
}

/// Builds graphs.
#[derive(Default)]
pub(crate) struct Build {
    pub(crate) builder: GraphBuilder,
    /// Whether the vertices added from now on ignore the cache.
    pub(crate) ignore_cache: bool,
}

impl Build {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn finish(self) -> Graph {
        self.builder.finish()
    }

    pub(crate) fn add(&mut self, name: &str, op: Op, inputs: Vec<Edge>) -> Edge {
        let location =
            SourceLocation { file: "Dockerfile".to_owned(), first_line: 1, last_line: 2 };
        let meta = VertexMeta {
            name: name.to_owned(),
            ignore_cache: self.ignore_cache,
            location: Some(location),
        };
        edge(self.builder.add(op, inputs, None, meta))
    }

    pub(crate) fn source(&mut self, identifier: &str) -> Edge {
        self.add(identifier, Op::Source(SourceOp::new(identifier)), Vec::new())
    }

    /// A command on a base; its name is its arguments.
    pub(crate) fn run(&mut self, command: &str, base: Edge) -> Edge {
        self.run_with(command, vec![base], vec![Mount::root()])
    }

    pub(crate) fn run_with(
        &mut self,
        command: &str,
        inputs: Vec<Edge>,
        mounts: Vec<Mount>,
    ) -> Edge {
        let args = command.split(' ').map(str::to_owned).collect();
        let exec = ExecOp {
            meta: ExecMeta { args, cwd: "/".to_owned(), ..ExecMeta::default() },
            mounts,
            network: NetworkMode::Default,
            security: SecurityMode::Sandbox,
            secret_env: Vec::new(),
        };
        self.add(command, Op::Exec(Box::new(exec)), inputs)
    }

    /// Copies `src` (`/`, `/a` or `/b`) of `from`; its name is given.
    pub(crate) fn copy(&mut self, name: &str, base: Edge, from: Edge, src: &str) -> Edge {
        let copy = CopyAction {
            src: src.to_owned(),
            dest: "/".to_owned(),
            dir_copy_contents: true,
            ..CopyAction::default()
        };
        let action = FileAction {
            input: Some(0),
            secondary_input: Some(1),
            output: Some(0),
            kind: FileActionKind::Copy(copy),
        };
        self.add(name, Op::File(FileOp { actions: vec![action] }), vec![base, from])
    }

    pub(crate) fn merge(&mut self, name: &str, lower: Edge, upper: Edge) -> Edge {
        let merge = MergeOp { inputs: vec![Some(0), Some(1), None] };
        self.add(name, Op::Merge(merge), vec![lower, upper])
    }

    pub(crate) fn diff(&mut self, name: &str, lower: Edge, upper: Edge) -> Edge {
        let diff = DiffOp { lower: Some(0), upper: Some(1) };
        self.add(name, Op::Diff(diff), vec![lower, upper])
    }
}
