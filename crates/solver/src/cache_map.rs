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
        hasher.update(b"rbuild.cachemap.v1");
        hasher.update(&llb::encode_op(&op, std::iter::empty(), platform));
        Some(Self { digest: hasher.finish(), inputs: uses.finish() })
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
