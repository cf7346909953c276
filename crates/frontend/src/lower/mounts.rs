//! The mounts of RUN.

use rbuild_solver::{
    CacheSharing, ChownSpec, FileAction, FileActionKind, FileOp, MkdirAction, Mount, MountKind, Op,
    Owner, SecretEnv, VertexMeta, clean_path,
};

use super::copy::{CONTEXT, Source, index_of};
use super::lowering::Lowering;
use super::place::{Fallible, Place};
use super::state::{State, join};
use crate::dockerfile::ast::Run;
use crate::dockerfile::mapped::Mapped;
use crate::dockerfile::mount::{self, Attributes, Sharing};
use crate::draft::Node;
use crate::stage::Origin;

/// Where the owner and mode of a cache's directory are made.
const CACHE_ROOT: &str = "/cache";

/// What the mounts of a RUN come to.
#[derive(Debug, Default)]
pub(super) struct RunMounts {
    /// All but secrets and agents, which come after them.
    mounts: Vec<Mount>,
    secrets: Vec<Mount>,
    agents: Vec<Mount>,
    pub(super) secret_env: Vec<SecretEnv>,
}

impl RunMounts {
    /// Adds a mount that no flag asks for.
    pub(super) fn push(&mut self, mount: Mount) {
        self.mounts.push(mount);
    }

    /// Whether something is mounted there.
    pub(super) fn has(&self, dest: &str) -> bool {
        self.mounts.iter().any(|mount| mount.dest == dest)
    }

    /// Where the first agent's socket is.
    pub(super) fn agent(&self) -> Option<&str> {
        self.agents.first().map(|mount| mount.dest.as_str())
    }

    /// The mounts in BuildKit's order, in which each comes after what it lies in.
    pub(super) fn into_mounts(mut self) -> Vec<Mount> {
        self.mounts.sort_by(|one, other| one.dest.cmp(&other.dest));
        [self.mounts, self.secrets, self.agents].concat()
    }
}

impl<'a> Lowering<'a> {
    /// The mounts that a RUN's flags ask for; what they show is added to `inputs`. `None` if one of them is an error
    /// which was told.
    pub(super) fn mounts(
        &mut self,
        place: &Place<'_, 'a>,
        state: &State,
        run: &Run,
        inputs: &mut Vec<Node>,
    ) -> Fallible<Option<RunMounts>> {
        let mut made = RunMounts::default();
        for (spec, origin) in run.mounts.iter().zip(&place.step.mounted) {
            let mount =
                spec.resolve(|value| self.expand(place, state, value).map_err(|error| *error));
            let mount = mount.map_err(|mut error| {
                error.span = place.step.place(error.span);
                Box::new(error)
            })?;
            let asked = Asked { written: spec.written(), from: spec.from(), origin };
            if !self.mount(place, state, &asked, mount, inputs, &mut made)? {
                return Ok(None);
            }
        }
        Ok(Some(made))
    }

    /// Adds one mount; whether it is known what it shows.
    fn mount(
        &mut self,
        place: &Place<'_, 'a>,
        state: &State,
        asked: &Asked<'_>,
        mount: mount::Mount,
        inputs: &mut Vec<Node>,
        made: &mut RunMounts,
    ) -> Fallible<bool> {
        let dest = |target: &str| {
            let dest = join(state.directory(), target);
            if dest == "/" {
                let message = "invalid mount target \"/\"";
                return Err(place.error("mount-target", asked.written.span(), message));
            }
            Ok(dest)
        };
        match mount {
            mount::Mount::Bind { target, source, read_only, .. } => {
                let dest = dest(&target)?;
                let path = join("/", source.as_deref().unwrap_or("/"));
                let context = Some(Source::Context);
                let from = match asked.from {
                    None => context,
                    Some(from) => self.mounted(place, from, asked.origin)?,
                };
                let Some(from) = from else { return Ok(false) };
                let input = self.files(&from, &path).map(|node| index_of(inputs, node));
                let selector = if path == "/" { String::new() } else { path };
                let kind = MountKind::Bind;
                made.push(Mount { input, selector, dest, output: None, readonly: read_only, kind });
            }
            mount::Mount::Cache { target, id, source, sharing, read_only, attributes, .. } => {
                let dest = dest(&target)?;
                let path = join("/", source.as_deref().unwrap_or("/"));
                let from = match asked.from {
                    None => Some(Source::Files(None)),
                    Some(from) => self.mounted(place, from, asked.origin)?,
                };
                let Some(from) = from else { return Ok(false) };
                let files = self.files(&from, &path);
                let (files, selector) = match path.as_str() {
                    "/" if attributes == Attributes::default() => (files, String::new()),
                    "/" => (Some(self.cache_root(files, attributes)), CACHE_ROOT.to_owned()),
                    _ => (files, path),
                };
                let id = id.unwrap_or_else(|| clean_path(&target));
                let namespace = self.options.build_args.get("BUILDKIT_CACHE_MOUNT_NS");
                let id = format!("{}/{id}", namespace.map_or("", String::as_str));
                let sharing = match sharing {
                    Sharing::Shared => CacheSharing::Shared,
                    Sharing::Private => CacheSharing::Private,
                    Sharing::Locked => CacheSharing::Locked,
                };
                let input = files.map(|node| index_of(inputs, node));
                let kind = MountKind::Cache { id, sharing };
                made.push(Mount { input, selector, dest, output: None, readonly: read_only, kind });
            }
            mount::Mount::Tmpfs { target, size, read_only } => {
                let size = size.and_then(|size| i64::try_from(size).ok()).unwrap_or(0);
                let kind = MountKind::Tmpfs { size };
                made.push(Mount { readonly: read_only, ..without_files(dest(&target)?, kind) });
            }
            mount::Mount::Secret { id, target, env, required, attributes } => {
                if let Some(target) = target {
                    let kind = MountKind::Secret {
                        id: id.clone(),
                        uid: attributes.uid.unwrap_or(0),
                        gid: attributes.gid.unwrap_or(0),
                        mode: attributes.mode.unwrap_or(0o400),
                        optional: !required,
                    };
                    made.secrets.push(without_files(dest(&target)?, kind));
                }
                if let Some(name) = env {
                    made.secret_env.push(SecretEnv { id, name, optional: !required });
                }
            }
            mount::Mount::Ssh { id, target, required, attributes } => {
                let dest = match target {
                    Some(target) => dest(&target)?,
                    None => format!("/run/buildkit/ssh_agent.{}", made.agents.len()),
                };
                let kind = MountKind::Ssh {
                    id,
                    uid: attributes.uid.unwrap_or(0),
                    gid: attributes.gid.unwrap_or(0),
                    mode: attributes.mode.unwrap_or(0o600),
                    optional: !required,
                };
                made.agents.push(without_files(dest, kind));
            }
        }
        Ok(true)
    }

    /// What a mount's `from` names; `None` if that is an error which was told.
    fn mounted(
        &mut self,
        place: &Place<'_, 'a>,
        from: &Mapped,
        origin: &Option<Origin>,
    ) -> Fallible<Option<Source>> {
        self.origin(origin.as_ref()).map_err(|stage| {
            let message = format!(
                "cannot mount from stage {:?} to {:?}, stage needs to be defined before current command",
                from.text(),
                place.label
            );
            let span = place.plan.stages[stage].statement.original.span();
            let error = place.error("stage-order", from.span(), message);
            Box::new(error.with_other(span, "defined here"))
        })
    }

    /// The first content of a cache whose directory has an owner or a mode of its own.
    fn cache_root(&mut self, on: Option<Node>, attributes: Attributes) -> Node {
        let owner = |id: Option<u32>| Some(Owner::Id(id.unwrap_or(0)));
        let mkdir = MkdirAction {
            path: CACHE_ROOT.to_owned(),
            mode: attributes.mode.unwrap_or(0o755),
            make_parents: false,
            owner: Some(ChownSpec { user: owner(attributes.uid), group: owner(attributes.gid) }),
            timestamp: None,
        };
        let kind = FileActionKind::Mkdir(mkdir);
        let input = on.map(|_| 0);
        let action = FileAction { input, secondary_input: None, output: Some(0), kind };
        let name = "[internal] setting cache mount permissions".to_owned();
        let meta = VertexMeta { name, ..VertexMeta::default() };
        self.draft.add(Op::File(FileOp { actions: vec![action] }), Vec::from_iter(on), None, meta)
    }

    /// The vertex of a source, of which `path` is looked at.
    fn files(&mut self, source: &Source, path: &str) -> Option<Node> {
        match source {
            Source::Files(node) => *node,
            Source::Context => {
                let node = self.main_context();
                self.draft.follow(CONTEXT, path);
                Some(node)
            }
            Source::Local(name) => {
                let node = self.local(name);
                self.draft.follow(name, path);
                Some(node)
            }
        }
    }
}

/// A flag.
#[derive(Debug)]
struct Asked<'t> {
    written: &'t Mapped,
    from: Option<&'t Mapped>,
    origin: &'t Option<Origin>,
}

fn without_files(dest: String, kind: MountKind) -> Mount {
    let readonly = matches!(kind, MountKind::Secret { .. } | MountKind::Ssh { .. });
    Mount { input: None, selector: String::new(), dest, output: None, readonly, kind }
}
