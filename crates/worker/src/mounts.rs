//! The mounts of a step, opened.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use rbuild_cache::{ActiveLayer, CacheMountKey, Tree, View};
use rbuild_solver::{Mount, MountKind, Snapshot};
use rustix::fs::{OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use crate::agent::{Agent, SocketOwner};
use crate::cache_mounts::TakenCaches;
use crate::exec::ExecError;
use crate::local_mounts::LocalMount;
use crate::sandbox;
use crate::secrets::Provided;
use crate::snapshots::{SnapshotError, Snapshots};

/// What a mount of a step shows.
#[derive(Clone, Debug)]
pub(crate) enum StepInput {
    /// A state in the store, all of whose layers are there.
    Snapshot(Snapshot),
    /// A folder of the user's.
    Local(Arc<Tree>),
}

/// A mount that is written to.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) layer: ActiveLayer,
    pub(crate) base: Snapshot,
    pub(crate) output: Option<u32>,
}

/// Opens mounts.
pub(crate) struct Mounts<'a> {
    pub(crate) inputs: &'a [StepInput],
    pub(crate) snapshots: &'a Snapshots,
    pub(crate) provided: &'a Provided,
    pub(crate) caches: &'a TakenCaches,
    pub(crate) agents: Vec<Agent>,
    pub(crate) descriptors: Vec<OwnedFd>,
    pub(crate) layers: Vec<Changed>,
    pub(crate) views: Vec<View>,
    /// Folders of the user's that are used in place, and copies of such.
    pub(crate) locals: Vec<LocalMount>,
    /// Whether folders may be used in place.
    pub(crate) in_place: bool,
}

impl Mounts<'_> {
    fn input(&self, mount: &Mount) -> Result<StepInput, ExecError> {
        let Some(input) = mount.input else { return Ok(StepInput::Snapshot(Snapshot::default())) };
        let missing = || ExecError::NoSuchInput { dest: mount.dest.clone(), input };
        self.inputs.get(input as usize).cloned().ok_or_else(missing)
    }

    /// An input that something is to be put on top of that stays.
    fn base(&self, mount: &Mount) -> Result<Snapshot, ExecError> {
        match self.input(mount)? {
            StepInput::Snapshot(snapshot) => Ok(snapshot),
            // The worker copies for what stays in another way.
            StepInput::Local(_) => Err(ExecError::NoSuchInput {
                dest: mount.dest.clone(),
                input: mount.input.unwrap_or_default(),
            }),
        }
    }

    /// The root is written to in any case, if only for mount points; whether that stays is another matter.
    pub(crate) fn open_root(&mut self, mount: &Mount) -> Result<OwnedFd, ExecError> {
        let base = self.base(mount)?;
        let layer = self.snapshots.begin(&base).map_err(ExecError::Snapshot)?;
        let root = if base.is_empty() {
            // No mount yet, but the layer's directory.
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH;
            match rustix::mount::open_tree(layer.root(), c"", flags) {
                // For a step without mounts the directory will do; for others it is refused later.
                Err(Errno::PERM) => duplicate(layer.root())?,
                root => root.map_err(|errno| SnapshotError::Root { source: errno.into() })?,
            }
        } else {
            duplicate(layer.root())?
        };
        self.layers.push(Changed { layer, base, output: mount.output });
        Ok(root)
    }

    /// Opens a mount; `None` for one that there is nothing for, and need not be.
    pub(crate) fn open(
        &mut self,
        mount: &Mount,
        cache: Option<&CacheMountKey>,
    ) -> Result<Option<sandbox::Mount>, ExecError> {
        let descriptor = self.descriptors.len();
        let kind = match &mount.kind {
            MountKind::Bind => self.open_bind(mount)?,
            MountKind::Tmpfs { size } => sandbox::MountKind::Tmpfs {
                size: u64::try_from(*size).ok().filter(|size| *size > 0),
                mode: 0o1777,
            },
            MountKind::Cache { id, .. } => {
                let cache = cache.and_then(|key| self.caches.get(key));
                let cache = cache.ok_or_else(|| ExecError::NoCache(id.clone()))?;
                self.descriptors.push(duplicate(cache.dir())?);
                sandbox::MountKind::Bind { descriptor }
            }
            MountKind::Secret { id, uid, gid, mode, optional } => {
                match self.provided.secrets.get(id) {
                    Some(value) => {
                        let (contents, mode, uid, gid) = (value.to_vec(), *mode, *uid, *gid);
                        sandbox::MountKind::File { contents, mode, uid, gid }
                    }
                    None if *optional => return Ok(None),
                    None => return Err(ExecError::SecretNotFound(id.clone())),
                }
            }
            MountKind::Ssh { id, uid, gid, mode, optional } => {
                let owner = SocketOwner { uid: *uid, gid: *gid, mode: *mode };
                match self.provided.agents.get(id) {
                    Some(target) => {
                        let scratch = self.snapshots.scratch()?;
                        let failed = |source| ExecError::Agent { id: id.clone(), source };
                        let (agent, socket) = Agent::new(target, scratch, owner).map_err(failed)?;
                        self.agents.push(agent);
                        self.descriptors.push(socket);
                        sandbox::MountKind::Bind { descriptor }
                    }
                    None if *optional => return Ok(None),
                    None => return Err(ExecError::NoAgent(id.clone())),
                }
            }
        };
        let is_private = matches!(mount.kind, MountKind::Secret { .. } | MountKind::Ssh { .. });
        let attributes = sandbox::MountAttributes {
            read_only: mount.readonly || is_private,
            no_suid: is_private || matches!(mount.kind, MountKind::Tmpfs { .. }),
            no_exec: is_private,
            no_dev: is_private,
        };
        Ok(Some(sandbox::Mount { destination: mount.dest.clone(), kind, attributes }))
    }

    fn open_bind(&mut self, mount: &Mount) -> Result<sandbox::MountKind, ExecError> {
        let snapshot = match self.input(mount)? {
            StepInput::Snapshot(snapshot) => snapshot,
            StepInput::Local(tree) if mount.output.is_none() => {
                return self.open_local(mount, &tree);
            }
            StepInput::Local(_) => self.base(mount)?,
        };
        let is_empty = snapshot.is_empty();
        let root = if mount.readonly && mount.output.is_none() {
            let view = self.snapshots.view(&snapshot)?;
            let root = duplicate(view.root())?;
            self.views.push(view);
            root
        } else {
            let layer = self.snapshots.begin(&snapshot)?;
            let root = duplicate(layer.root())?;
            self.layers.push(Changed { layer, base: snapshot, output: mount.output });
            root
        };
        let selector = mount.selector.trim_matches('/');
        let descriptor = self.descriptors.len();
        if matches!(selector, "" | ".") {
            self.descriptors.push(root);
            // The empty state is no mount but a directory.
            return Ok(match is_empty {
                true => sandbox::MountKind::Bind { descriptor },
                false => sandbox::MountKind::Attach { descriptor },
            });
        }
        // The sandbox finds it again; from here the error is clearer.
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let part =
            rbuild_cache::open_in_root(&root, selector, flags, resolve).map_err(|errno| {
                ExecError::Selector {
                    selector: mount.selector.clone(),
                    dest: mount.dest.clone(),
                    source: errno.into(),
                }
            })?;
        drop(part);
        self.descriptors.push(root);
        Ok(sandbox::MountKind::Part { descriptor, path: selector.to_owned() })
    }
}

pub(crate) fn duplicate(root: BorrowedFd<'_>) -> Result<OwnedFd, ExecError> {
    root.try_clone_to_owned().map_err(|source| ExecError::Snapshot(SnapshotError::Root { source }))
}
