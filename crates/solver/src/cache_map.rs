//! How operations are keyed (sections 2.2 and 2.3 of the behaviour reference).

use std::borrow::Cow;

use rbuild_oci::{Digest, Hasher};

use crate::{
    CacheSharing, ChownSpec, CopyAction, ExecOp, FileActionKind, FileOp, MountKind, Op, Owner,
    Selector, Vertex, clean_path, has_wildcards, llb,
};

/// How an operation is keyed: the part of it that decides what comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMap {
    /// Digest of the operation without what must not matter.
    pub digest: Digest,
    /// Per input of the vertex.
    pub inputs: Vec<InputKeying>,
}

/// How one input takes part in a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputKeying {
    /// The selections whose content may stand for the input; empty when only the input as a whole may.
    pub content: Vec<Selector>,
}

impl CacheMap {
    /// How a vertex is keyed; `None` for sources, of which only an executor knows what they are.
    ///
    /// Left out of the digest: proxy variables, addresses of extra hosts, the names and sharing of cache
    /// mounts, and the place in an input whose content is looked at (of a copy's source the last element
    /// stays, it names what is made). The platform counts where a program runs.
    ///
    /// An input's content may stand for it when nothing but the selected files can show in an output. So
    /// never for what a file operation changes, for the root of an exec, or for a writable mount of a part
    /// whose whole becomes an output; nor for an input that is also used in such a way.
    ///
    /// The files that say what the name of an owner means are no selection, although BuildKit has one for
    /// them: they are those of the state that is changed, where it makes no difference, and when they are not
    /// a link's content would be missed.
    pub fn of(vertex: &Vertex) -> Option<Self> {
        let mut uses = Uses::new(vertex.inputs.len());
        let (op, platform) = match &vertex.op {
            Op::Source(_) => return None,
            Op::Exec(exec) => {
                uses.of_exec(exec);
                let exec = Op::Exec(Box::new(exec_that_matters(exec, &uses)));
                (Cow::Owned(exec), vertex.platform.as_ref())
            }
            Op::File(file) => {
                uses.of_file(file);
                (Cow::Owned(Op::File(file_that_matters(file, &uses))), None)
            }
            Op::Merge(_) | Op::Diff(_) => (Cow::Borrowed(&vertex.op), None),
        };
        let mut hasher = Hasher::default();
        hasher.update(meaning(&vertex.op).as_bytes());
        hasher.update(&llb::encode_op(&op, std::iter::empty(), platform));
        Some(Self { digest: hasher.finish(), inputs: uses.finish() })
    }
}

/// What kinds of operations mean, by version: it is in their keys.
///
/// A key has all that an operation says, but not what the worker makes of that. Whoever changes what comes out of an
/// operation that says the same, such as the owner of a directory that a copy makes, raises its version here: then
/// what was made before is not found any more, in no store and no cache.
fn meaning(op: &Op) -> &'static str {
    match op {
        Op::Source(_) => "rbuild.source.v1",
        Op::Exec(_) => "rbuild.exec.v1",
        Op::File(_) => "rbuild.file.v1",
        Op::Merge(_) => "rbuild.merge.v1",
        Op::Diff(_) => "rbuild.diff.v1",
    }
}

/// What an operation does with its inputs.
struct Uses {
    selectors: Vec<Vec<Selector>>,
    /// Whether an input is also used in a way for which its definition counts.
    whole: Vec<bool>,
}

impl Uses {
    fn new(inputs: usize) -> Self {
        Self { selectors: vec![Vec::new(); inputs], whole: vec![false; inputs] }
    }

    fn of_exec(&mut self, exec: &ExecOp) {
        for mount in &exec.mounts {
            let path = rooted(&mount.selector);
            // A mount that becomes an output carries everything along, also what is not selected.
            let all_shows = mount.output.is_some() && path != "/";
            if rooted(&mount.dest) == "/" || all_shows {
                self.as_whole(mount.input);
            } else {
                let selector = Selector { path, follow_symlink: true, ..Selector::default() };
                self.select(mount.input, selector);
            }
        }
    }

    fn of_file(&mut self, file: &FileOp) {
        for action in &file.actions {
            self.as_whole(action.input);
            let owner = match &action.kind {
                FileActionKind::Copy(copy) => {
                    self.select(action.secondary_input, copied(copy));
                    &copy.owner
                }
                FileActionKind::Mkfile(mkfile) => &mkfile.owner,
                FileActionKind::Mkdir(mkdir) => &mkdir.owner,
                FileActionKind::Symlink(symlink) => &symlink.owner,
                FileActionKind::Rm(_) => &None,
            };
            if let Some(ChownSpec { user, group }) = owner {
                for owner in [user, group].into_iter().flatten() {
                    if let Owner::Name { input, .. } = owner {
                        self.as_whole(*input);
                    }
                }
            }
        }
    }

    /// Numbers from the count of inputs on are states that earlier actions left, not inputs.
    fn as_whole(&mut self, input: Option<u32>) {
        if let Some(whole) = input.and_then(|input| self.whole.get_mut(input as usize)) {
            *whole = true;
        }
    }

    fn select(&mut self, input: Option<u32>, selector: Selector) {
        if let Some(list) = input.and_then(|input| self.selectors.get_mut(input as usize))
            && !list.contains(&selector)
        {
            list.push(selector);
        }
    }

    /// Whether the content of an input may stand for it.
    fn by_content(&self, input: Option<u32>) -> bool {
        input.is_some_and(|input| self.whole.get(input as usize) == Some(&false))
    }

    fn finish(self) -> Vec<InputKeying> {
        let inputs = self.selectors.into_iter().zip(self.whole);
        inputs
            .map(|(content, whole)| InputKeying {
                content: if whole { Vec::new() } else { content },
            })
            .collect()
    }
}

/// What a copy reads.
fn copied(copy: &CopyAction) -> Selector {
    Selector {
        path: rooted(&copy.src),
        wildcard: copy.allow_wildcard && has_wildcards(&copy.src),
        follow_symlink: copy.follow_symlink,
        contents_only: copy.dir_copy_contents,
        include: copy.include_patterns.clone(),
        exclude: copy.exclude_patterns.clone(),
        required: copy.required_paths.clone(),
    }
}

fn rooted(path: &str) -> String {
    clean_path(&format!("/{path}"))
}

fn exec_that_matters(exec: &ExecOp, uses: &Uses) -> ExecOp {
    let mut exec = exec.clone();
    exec.meta.proxy_env = None;
    for line in &mut exec.meta.extra_hosts {
        line.ip.clear();
    }
    for mount in &mut exec.mounts {
        if uses.by_content(mount.input) {
            mount.selector.clear();
        }
        if let MountKind::Cache { id, sharing } = &mut mount.kind {
            id.clear();
            *sharing = CacheSharing::Shared;
        }
    }
    exec
}

fn file_that_matters(file: &FileOp, uses: &Uses) -> FileOp {
    let mut file = file.clone();
    for action in &mut file.actions {
        if let FileActionKind::Copy(copy) = &mut action.kind
            && uses.by_content(action.secondary_input)
        {
            let path = rooted(&copy.src);
            copy.src = path.rsplit('/').next().unwrap_or_default().to_owned();
        }
    }
    file
}

#[cfg(test)]
mod tests {
    use rbuild_oci::Platform;

    use super::*;
    use crate::{
        Edge, ExecMeta, FileAction, GraphBuilder, HostIp, Mount, NetworkMode, ProxyEnv, SecretEnv,
        SecurityMode, SourceOp, VertexMeta,
    };

    /// How an operation on two inputs is keyed.
    fn map_of(op: Op, platform: Option<&str>) -> CacheMap {
        let mut builder = GraphBuilder::new();
        let inputs = ["one", "two"].map(|name| {
            let source = Op::Source(SourceOp::new(name));
            let vertex = builder.add(source, Vec::new(), None, VertexMeta::default());
            Edge { vertex, output: 0 }
        });
        let platform = platform.map(|text| text.parse::<Platform>().unwrap());
        let vertex = builder.add(op, inputs.to_vec(), platform, VertexMeta::default());
        CacheMap::of(builder.graph().vertex(vertex)).unwrap()
    }

    fn bind(input: u32, selector: &str, output: Option<u32>, readonly: bool) -> Mount {
        Mount {
            input: Some(input),
            selector: selector.to_owned(),
            dest: "/mnt".to_owned(),
            output,
            readonly,
            kind: MountKind::Bind,
        }
    }

    fn exec(change: impl FnOnce(&mut ExecOp)) -> CacheMap {
        let cache = MountKind::Cache { id: "c".to_owned(), sharing: CacheSharing::Shared };
        let secret =
            MountKind::Secret { id: "s".to_owned(), uid: 0, gid: 0, mode: 0o400, optional: false };
        let line = HostIp { host: "h".to_owned(), ip: "10.0.0.1".to_owned() };
        let mount = |kind| Mount { input: None, output: None, kind, ..Mount::root() };
        let mut exec = ExecOp {
            meta: ExecMeta {
                args: vec!["true".to_owned()],
                env: vec!["A=1".to_owned(), "B=2".to_owned()],
                extra_hosts: vec![line],
                ..ExecMeta::default()
            },
            mounts: vec![Mount::root(), bind(1, "/src", None, true), mount(cache), mount(secret)],
            network: NetworkMode::Default,
            security: SecurityMode::Sandbox,
            secret_env: Vec::new(),
        };
        change(&mut exec);
        map_of(Op::Exec(Box::new(exec)), None)
    }

    #[test]
    fn an_exec_is_keyed_by_what_matters() {
        type Change = fn(&mut ExecOp);
        let same: [Change; 4] = [
            |exec| exec.meta.proxy_env = Some(ProxyEnv::default()),
            |exec| exec.meta.extra_hosts[0].ip.clear(),
            |exec| exec.mounts[1].selector = "/other".to_owned(),
            |exec| {
                let (id, sharing) = ("other".to_owned(), CacheSharing::Locked);
                exec.mounts[2].kind = MountKind::Cache { id, sharing };
            },
        ];
        let base = exec(|_| {});
        for (number, change) in same.into_iter().enumerate() {
            assert_eq!(exec(change).digest, base.digest, "{number}");
        }
        let other: [Change; 18] = [
            |exec| exec.meta.args.push(String::new()),
            |exec| exec.meta.env.swap(0, 1),
            |exec| exec.meta.cwd = "/w".to_owned(),
            |exec| exec.meta.user = "u".to_owned(),
            |exec| exec.meta.hostname = "h".to_owned(),
            |exec| exec.meta.extra_hosts[0].host = "i".to_owned(),
            |exec| exec.meta.cgroup_parent = "p".to_owned(),
            |exec| exec.meta.valid_exit_codes = vec![1],
            |exec| exec.meta.remove_mount_stubs_recursive = true,
            |exec| exec.network = NetworkMode::None,
            |exec| exec.security = SecurityMode::Insecure,
            |exec| exec.mounts[1].readonly = false,
            |exec| exec.mounts[1].dest = "/other".to_owned(),
            |exec| exec.mounts[1].output = Some(1),
            |exec| exec.mounts[2].kind = MountKind::Tmpfs { size: 1 },
            |exec| exec.mounts[2].dest = "/c".to_owned(),
            |exec| {
                if let MountKind::Secret { id, .. } = &mut exec.mounts[3].kind {
                    id.push('x');
                }
            },
            |exec| {
                let (id, name) = ("s".to_owned(), "S".to_owned());
                exec.secret_env.push(SecretEnv { id, name, optional: true });
            },
        ];
        for (number, change) in other.into_iter().enumerate() {
            assert_ne!(exec(change).digest, base.digest, "{number}");
        }
    }

    #[test]
    fn mounts_are_read_as_content_unless_all_of_them_may_show() {
        let content = |mounts: Vec<Mount>| {
            let map = exec(|exec| exec.mounts = mounts);
            let paths = |keying: &InputKeying| {
                keying.content.iter().map(|selector| selector.path.clone()).collect::<Vec<_>>()
            };
            assert_eq!(paths(&map.inputs[0]), Vec::<String>::new(), "never the root");
            paths(&map.inputs[1])
        };
        let root = Mount::root;
        assert_eq!(content(vec![root(), bind(1, "src/", None, true)]), ["/src"]);
        assert_eq!(content(vec![root(), bind(1, "", None, false)]), ["/"]);
        assert_eq!(content(vec![root(), bind(1, "", Some(1), false)]), ["/"]);
        assert_eq!(content(vec![root(), bind(1, "/src", Some(1), false)]), [""; 0]);
        let twice = vec![root(), bind(1, "/a", None, true), bind(1, "/b", None, true)];
        assert_eq!(content(twice), ["/a", "/b"]);
        let both = vec![root(), bind(1, "/a", None, true), bind(1, "/b", Some(1), false)];
        assert_eq!(content(both), [""; 0]);
        assert_eq!(content(vec![root(), bind(0, "/a", None, true)]), [""; 0]);
        assert_eq!(content(vec![root()]), [""; 0]);
    }

    fn copy(input: u32, secondary: u32, change: impl FnOnce(&mut CopyAction)) -> CacheMap {
        let mut copy = CopyAction {
            src: "/dir/file".to_owned(),
            dest: "/".to_owned(),
            allow_wildcard: true,
            ..CopyAction::default()
        };
        change(&mut copy);
        let action = FileAction {
            input: Some(input),
            secondary_input: Some(secondary),
            output: Some(0),
            kind: FileActionKind::Copy(copy),
        };
        map_of(Op::File(FileOp { actions: vec![action] }), Some("linux/arm64"))
    }

    #[test]
    fn a_copy_is_keyed_by_the_content_and_name_of_its_source() {
        let base = copy(0, 1, |_| {});
        assert_eq!(base.inputs[0].content, []);
        assert_eq!(base.inputs[1].content[0].path, "/dir/file");
        assert!(!base.inputs[1].content[0].wildcard);
        assert_eq!(base.digest, copy(0, 1, |copy| copy.src = "other/file".to_owned()).digest);
        assert_ne!(base.digest, copy(0, 1, |copy| copy.src = "/dir/other".to_owned()).digest);
        assert_ne!(base.digest, copy(0, 1, |copy| copy.mode = Some(0o600)).digest);
        assert_ne!(base.digest, copy(0, 1, |copy| copy.timestamp = Some(0)).digest);
        let pattern = copy(0, 1, |copy| copy.src = "/dir/*.c".to_owned());
        assert!(pattern.inputs[1].content[0].wildcard);
        // Both base and source: by definition, and then the whole path counts.
        let both = copy(1, 1, |_| {});
        assert_eq!(both.inputs[1].content, []);
        assert_ne!(both.digest, copy(1, 1, |copy| copy.src = "/other/file".to_owned()).digest);
        // A name that is looked up in the source makes all of the source count.
        let owner = |input| {
            let user = Some(Owner::Name { name: "app".to_owned(), input: Some(input) });
            Some(ChownSpec { user, group: None })
        };
        assert_eq!(copy(0, 1, |copy| copy.owner = owner(1)).inputs[1].content, []);
        assert_eq!(copy(0, 1, |copy| copy.owner = owner(0)).inputs[1].content.len(), 1);
    }

    #[test]
    fn the_platform_counts_where_a_program_runs() {
        let exec = || {
            let exec = ExecOp {
                meta: ExecMeta::default(),
                mounts: vec![Mount::root()],
                network: NetworkMode::Default,
                security: SecurityMode::Sandbox,
                secret_env: Vec::new(),
            };
            Op::Exec(Box::new(exec))
        };
        let digest = |op: Op, platform: &str| map_of(op, Some(platform)).digest;
        assert_ne!(digest(exec(), "linux/arm64"), digest(exec(), "linux/amd64"));
        let merge = || Op::Merge(crate::MergeOp { inputs: vec![Some(0), Some(1)] });
        assert_eq!(digest(merge(), "linux/arm64"), digest(merge(), "linux/amd64"));
    }
}
