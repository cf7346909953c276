//! Whole graphs: contexts, file operations and steps on a real store.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_cache::{
    DeferredLayers, DownloadsOptions, ImageSource, ImageSourceOptions, LocalRecords, Overlay,
    OverlayXattrs, RegistryClient, RegistryOptions, Store, View,
};
use rbuild_solver::{
    ChownSpec, CopyAction, DiffOp, Edge, Event, ExecMeta, ExecOp, FileAction, FileActionKind,
    FileOp, Graph, GraphBuilder, MergeOp, MkdirAction, MkfileAction, Mount, MountKind, NetworkMode,
    Op, Output, Owner, Progress, RmAction, SecurityMode, Snapshot, SolveOptions, SourceOp, Vertex,
    VertexMeta, solve,
};
use rbuild_worker::{
    Contexts, Entitlements, GitOptions, Platforms, Provided, RemoteSources, StepLimits, Worker,
    WorkerParts,
};

use crate::support::{require_root, sandbox};

/// A store, and a context with a root that has busybox.
struct World {
    dir: tempfile::TempDir,
    /// Mounts as on kernels before 6.7.
    by_path: bool,
}

/// What came of a solve.
struct Solved {
    outputs: Vec<Snapshot>,
    log: String,
    executed: usize,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = Self { dir, by_path: false };
        let root = world.context();
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in ["sh", "cat", "rm", "stat", "mkdir", "ls"] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        for directory in ["etc", "proc", "sys", "dev", "tmp"] {
            fs::create_dir(root.join(directory)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:\napp:x:1000:1001::/:\n").unwrap();
        fs::write(root.join("file"), "from the context\n").unwrap();
        fs::write(root.join("file.o"), "ignored\n").unwrap();
        world
    }

    fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    fn store(&self) -> Store {
        Store::open(&self.dir.path().join("store")).unwrap()
    }

    fn solve(&self, graph: &Graph, targets: &[Edge]) -> Result<Solved, String> {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _entered = runtime.enter();
        let store = self.store();
        let lease = store.lease().unwrap();
        let overlay = Overlay::new(OverlayXattrs::Trusted, &store.layers);
        let overlay = Arc::new(if self.by_path { overlay.by_path() } else { overlay });
        let registry = RegistryClient::new(RegistryOptions::default());
        let options = ImageSourceOptions::default();
        let folders = BTreeMap::from([("context".to_owned(), self.context())]);
        let (progress, mut events) = Progress::channel();
        let worker = Worker::new(WorkerParts {
            layers: store.layers.clone(),
            images: ImageSource::new(
                &store,
                lease.clone(),
                Arc::clone(&overlay),
                registry,
                options,
            ),
            overlay,
            remotes: RemoteSources::new(
                &store,
                lease.clone(),
                DownloadsOptions::default(),
                GitOptions::default(),
                &Provided::default(),
            ),
            contexts: Contexts::new(folders, "/none".into(), store.contexts()),
            sandbox: sandbox(),
            platforms: Platforms::new(Vec::new()),
            entitlements: Entitlements::default(),
            programs: Vec::new(),
            provided: Provided::default(),
            cache_mounts: store.cache_mounts.clone(),
            progress: Progress::discard(),
            max_steps: None,
            limits: StepLimits::none(),
            deferred: DeferredLayers::default(),
        });
        let records = LocalRecords::new(&store, lease);
        let options = SolveOptions::default();
        let result = runtime.block_on(solve(graph, targets, &worker, &records, &progress, options));
        worker.save_contexts().unwrap();
        drop(progress);
        let is_source = |vertex: &&Vertex| matches!(vertex.op, Op::Source(_));
        let sources: Vec<_> =
            graph.vertices().iter().filter(is_source).map(|vertex| vertex.digest).collect();
        let (mut log, mut executed) = (Vec::new(), 0);
        while let Ok(event) = events.try_recv() {
            match event {
                Event::Log(chunk) => log.extend_from_slice(&chunk.bytes),
                Event::Completed { cached: false, vertex, .. } if !sources.contains(&vertex) => {
                    executed += 1;
                }
                _ => {}
            }
        }
        let outputs = result.map_err(|error| {
            let mut chain = vec![error.to_string()];
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                chain.push(error.to_string());
                source = error.source();
            }
            chain.join(": ")
        })?;
        let outputs = outputs.into_iter().map(|output| match output {
            Output::Snapshot(snapshot) => snapshot,
            Output::Local(_) => panic!("a folder came out"),
        });
        Ok(Solved {
            outputs: outputs.collect(),
            log: String::from_utf8_lossy(&log).into_owned(),
            executed,
        })
    }

    /// Looks at the files of a snapshot.
    fn look<T>(&self, snapshot: &Snapshot, look: impl FnOnce(&Path) -> T) -> T {
        let store = self.store();
        let overlay = Overlay::new(OverlayXattrs::Trusted, &store.layers);
        let view = View::open(&overlay, &store.layers, snapshot).unwrap();
        use std::os::fd::AsRawFd;
        look(Path::new(&format!("/proc/self/fd/{}", view.root().as_raw_fd())))
    }
}

/// Builds graphs.
#[derive(Default)]
struct Draft(GraphBuilder);

impl Draft {
    fn add(&mut self, op: Op, inputs: Vec<Edge>) -> Edge {
        let vertex = self.0.add(op, inputs, None, VertexMeta::default());
        Edge { vertex, output: 0 }
    }

    fn context(&mut self) -> Edge {
        let mut source = SourceOp::new("local://context");
        source.attrs.insert("local.excludepatterns".to_owned(), r#"["*.o"]"#.to_owned());
        self.add(Op::Source(source), Vec::new())
    }

    fn file(&mut self, actions: Vec<FileAction>, inputs: Vec<Edge>) -> Edge {
        self.add(Op::File(FileOp { actions }), inputs)
    }

    /// The context's files as a root.
    fn root(&mut self) -> Edge {
        let context = self.context();
        self.file(vec![action(None, Some(0), Some(0), copy("/", "/"))], vec![context])
    }

    fn run(&mut self, root: Edge, script: &str) -> Edge {
        self.add(Op::Exec(Box::new(exec(script))), vec![root])
    }

    fn finish(self) -> Graph {
        self.0.finish()
    }
}

fn exec(script: &str) -> ExecOp {
    ExecOp {
        meta: ExecMeta {
            args: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
            cwd: "/".to_owned(),
            ..ExecMeta::default()
        },
        mounts: vec![Mount::root()],
        network: NetworkMode::None,
        security: SecurityMode::Sandbox,
        secret_env: Vec::new(),
    }
}

fn action(
    input: Option<u32>,
    secondary_input: Option<u32>,
    output: Option<u32>,
    kind: FileActionKind,
) -> FileAction {
    FileAction { input, secondary_input, output, kind }
}

fn copy(src: &str, dest: &str) -> FileActionKind {
    FileActionKind::Copy(copy_action(src, dest))
}

fn copy_action(src: &str, dest: &str) -> CopyAction {
    CopyAction {
        src: src.to_owned(),
        dest: dest.to_owned(),
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..CopyAction::default()
    }
}

fn mkfile(path: &str, data: &str) -> FileActionKind {
    FileActionKind::Mkfile(MkfileAction {
        path: path.to_owned(),
        mode: 0o644,
        data: data.as_bytes().to_vec(),
        owner: None,
        timestamp: None,
    })
}

fn rm(path: &str) -> FileActionKind {
    FileActionKind::Rm(RmAction {
        path: path.into(),
        allow_not_found: false,
        allow_wildcard: false,
    })
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn privileged_a_context_is_copied_run_on_and_copied_from() {
    require_root!();
    let world = World::new();
    let mut draft = Draft::default();
    let root = draft.root();
    let run = draft.run(root, "cat /file; echo made >/out; rm /file; echo oops >&2");
    let taken = draft.file(vec![action(None, Some(0), Some(0), copy("/out", "/x/"))], vec![run]);
    let graph = draft.finish();
    let solved = world.solve(&graph, &[run, taken]).unwrap();
    assert!(solved.log.contains("from the context\n") && solved.log.contains("oops\n"));
    assert_eq!(solved.executed, 3);
    world.look(&solved.outputs[0], |root| {
        assert!(!root.join("file").exists() && !root.join("file.o").exists());
        assert_eq!(read(root.join("out")), "made\n");
    });
    world.look(&solved.outputs[1], |root| {
        assert_eq!(read(root.join("x/out")), "made\n");
        assert_eq!(fs::read_dir(root).unwrap().count(), 1);
    });
    let again = world.solve(&graph, &[run, taken]).unwrap();
    assert_eq!((again.executed, again.outputs), (0, solved.outputs));
    // What is ignored does not count, nor does the time of a file; its content does.
    fs::write(world.context().join("file.o"), "changed\n").unwrap();
    fs::write(world.context().join("file"), "from the context\n").unwrap();
    assert_eq!(world.solve(&graph, &[run]).unwrap().executed, 0);
    fs::write(world.context().join("file"), "from an edit\n").unwrap();
    let edited = world.solve(&graph, &[run, taken]).unwrap();
    assert!(edited.log.contains("from an edit\n"));
    assert_eq!(edited.executed, 2, "the copy of what did not change is found by its content");
}

#[test]
fn privileged_a_failed_step_says_so_and_leaves_nothing() {
    require_root!();
    let world = World::new();
    let mut draft = Draft::default();
    let root = draft.root();
    world.solve(draft.0.graph(), &[root]).unwrap();
    let before = world.store().layers.list().unwrap().len();
    let run = draft.run(root, "echo said; echo half >/half; exit 7");
    let error = world.solve(&draft.finish(), &[run]).err().unwrap();
    let expected = "process \"/bin/sh -c echo said; echo half >/half; exit 7\" did not complete \
                    successfully: exit code: 7";
    assert!(error.contains(expected), "{error}");
    assert_eq!(world.store().layers.list().unwrap().len(), before);
    assert_eq!(fs::read_dir(world.dir.path().join("store/tmp")).unwrap().count(), 0);
}

#[test]
fn privileged_a_missing_file_is_said_in_buildkits_words() {
    require_root!();
    let world = World::new();
    let mut draft = Draft::default();
    let context = draft.context();
    let copied =
        draft.file(vec![action(None, Some(0), Some(0), copy("/none", "/"))], vec![context]);
    let error = world.solve(&draft.finish(), &[copied]).err().unwrap();
    let expected = "failed to calculate checksum of ref context: \"/none\": not found";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn privileged_actions_work_on_each_others_states() {
    require_root!();
    let world = World::new();
    let mut draft = Draft::default();
    let root = draft.root();
    // With one input: state 1 is that after action 0, and so on.
    let actions = vec![
        action(Some(0), None, None, mkfile("/a", "a")),
        action(Some(1), None, Some(0), rm("/file")),
        action(None, Some(2), None, copy("/a", "/b")),
        action(Some(2), Some(3), Some(2), copy("/b", "/c")),
        action(Some(3), None, Some(1), mkfile("/d", "d")),
    ];
    let made = draft.file(actions, vec![root]);
    let output = |output| Edge { output, ..made };
    let graph = draft.finish();
    let solved = world.solve(&graph, &[output(0), output(1), output(2)]).unwrap();
    let has = |snapshot: &Snapshot| {
        world.look(snapshot, |root| {
            ["a", "b", "c", "d", "file", "bin"].map(|name| root.join(name).exists())
        })
    };
    let seen: Vec<_> = solved.outputs.iter().map(has).collect();
    assert_eq!(seen[0], [true, false, false, false, false, true]);
    assert_eq!(seen[1], [false, true, false, true, false, false]);
    assert_eq!(seen[2], [true, false, true, false, false, true]);
}

#[test]
fn privileged_names_of_owners_are_those_of_the_destination() {
    require_root!();
    let world = World::new();
    let mut draft = Draft::default();
    let (root, context) = (draft.root(), draft.context());
    let owned = CopyAction {
        owner: Some(ChownSpec {
            user: Some(Owner::Name { name: "app".to_owned(), input: Some(0) }),
            group: None,
        }),
        ..copy_action("/file", "/new/")
    };
    let mkdir = FileActionKind::Mkdir(MkdirAction {
        path: "/w/x".to_owned(),
        mode: 0o755,
        make_parents: true,
        owner: owned.owner.clone(),
        timestamp: Some(0),
    });
    let actions = vec![
        action(Some(0), Some(1), None, FileActionKind::Copy(owned)),
        action(Some(2), None, Some(0), mkdir),
    ];
    let copied = draft.file(actions, vec![root, context]);
    let solved = world.solve(&draft.finish(), &[copied]).unwrap();
    assert_eq!(solved.outputs[0].layers().len(), 2, "two actions, one layer");
    world.look(&solved.outputs[0], |root| {
        for path in ["new", "new/file", "w", "w/x"] {
            let metadata = fs::metadata(root.join(path)).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (1000, 1001), "{path}");
        }
        assert_eq!(fs::metadata(root.join("w")).unwrap().mtime(), 0);
    });
}

#[test]
fn privileged_mounts_of_a_step_show_inputs_and_become_outputs() {
    require_root!();
    for by_path in [false, true] {
        mounts_of_a_step(&World { by_path, ..World::new() });
    }
}

fn mounts_of_a_step(world: &World) {
    fs::create_dir(world.context().join("part")).unwrap();
    fs::write(world.context().join("part/inside"), "inside\n").unwrap();
    let mut draft = Draft::default();
    let (root, context) = (draft.root(), draft.context());
    let script = "cat /ro/inside /scratch.txt; ! echo x >/ro/y && echo kept >/rw/kept && \
                  echo lost >/lost/lost && stat -f -c %T /tmpfs && ls /tmpfs";
    let mut op = exec(script);
    let bind = |input, selector: &str, dest: &str, output, readonly| Mount {
        input,
        selector: selector.to_owned(),
        dest: dest.to_owned(),
        output,
        readonly,
        kind: MountKind::Bind,
    };
    op.mounts.push(bind(Some(1), "/part", "/ro", None, true));
    op.mounts.push(bind(Some(1), "part/inside", "/scratch.txt", None, true));
    op.mounts.push(bind(None, "", "/rw", Some(1), false));
    op.mounts.push(bind(Some(1), "/", "/lost", None, false));
    op.mounts.push(Mount {
        input: None,
        kind: MountKind::Tmpfs { size: 1 << 20 },
        ..bind(None, "", "/tmpfs", None, false)
    });
    let run = draft.add(Op::Exec(Box::new(op)), vec![root, context]);
    let graph = draft.finish();
    let solved = world.solve(&graph, &[run, Edge { output: 1, ..run }]).unwrap();
    // What goes to standard error may stand between the two: the streams are read side by side.
    assert_eq!(solved.log.matches("inside\n").count(), 2, "{}", solved.log);
    assert!(solved.log.contains("tmpfs"), "{}", solved.log);
    world.look(&solved.outputs[0], |root| {
        let gone =
            ["ro", "rw", "lost", "tmpfs", "scratch.txt"].map(|name| root.join(name).exists());
        assert_eq!(gone, [false; 5]);
    });
    world.look(&solved.outputs[1], |root| assert_eq!(read(root.join("kept")), "kept\n"));
}

#[test]
fn privileged_states_are_merged_and_told_apart() {
    require_root!();
    let world = World::new();
    let mut draft = Draft::default();
    let root = draft.root();
    let top = draft.run(root, "echo top >/top; rm /file");
    let diff = draft.add(Op::Diff(DiffOp { lower: Some(0), upper: Some(1) }), vec![root, top]);
    let other = draft.file(vec![action(None, None, Some(0), mkfile("/file", "other"))], vec![]);
    let merge = MergeOp { inputs: vec![Some(0), Some(1)] };
    let merged = draft.add(Op::Merge(merge), vec![other, diff]);
    let solved = world.solve(&draft.finish(), &[diff, merged]).unwrap();
    assert_eq!(solved.outputs[0].layers().len(), 1);
    world.look(&solved.outputs[1], |root| {
        assert_eq!(read(root.join("top")), "top\n");
        assert!(!root.join("file").exists(), "what the upper state deleted is deleted");
    });
}

#[test]
fn privileged_odd_files_of_a_context() {
    require_root!();
    let world = World::new();
    let context = world.context();
    std::os::unix::fs::chown(context.join("file"), Some(77), Some(78)).unwrap();
    fs::set_permissions(context.join("file"), fs::Permissions::from_mode(0o4750)).unwrap();
    symlink("/etc/shadow", context.join("out")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(context.join("socket")).unwrap();
    let mut draft = Draft::default();
    let root = draft.root();
    let solved = world.solve(&draft.finish(), &[root]).unwrap();
    world.look(&solved.outputs[0], |root| {
        let metadata = fs::metadata(root.join("file")).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (0, 0, 0o4750));
        assert_eq!(fs::read_link(root.join("out")).unwrap(), Path::new("/etc/shadow"));
        assert!(!root.join("socket").exists());
    });
}
