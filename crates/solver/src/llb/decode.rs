//! Operations from LLB messages of whoever wrote them.

use bollard_buildkit_proto::pb;
use pb::file_action::Action;
use pb::user_opt::User;
use rbuild_oci::Platform;

use super::encode::NONE;
use crate::{
    CacheSharing, ChownSpec, CopyAction, DiffOp, ExecMeta, ExecOp, FileAction, FileActionKind,
    FileOp, HostIp, MergeOp, MkdirAction, MkfileAction, Mount, MountKind, NetworkMode, Op, Owner,
    ProxyEnv, RmAction, SecretEnv, SecurityMode, SourceOp, SymlinkAction, Ulimit,
};

/// Why an operation is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// It is none of the kinds that exist here, or an action of a file operation is none.
    #[error("its kind, or that of an action, is not known to this version")]
    UnknownKind,
    /// It asks for something that is not supported.
    #[error("`{0}` is not supported")]
    Unsupported(&'static str),
    /// A part that it cannot do without is missing.
    #[error("it has no `{0}`")]
    Missing(&'static str),
    /// A field has a value that is not known.
    #[error("`{field}` has the unknown value {value}")]
    UnknownValue {
        /// Which field.
        field: &'static str,
        /// What it says.
        value: i64,
    },
    /// A number names no input, or a negative size, or the like.
    #[error("`{field}` is {value}, which is out of range")]
    OutOfRange {
        /// Which field.
        field: &'static str,
        /// What it says.
        value: i64,
    },
    /// The outputs are not numbered from 0 without gaps, each given once.
    #[error("its outputs are not numbered 0, 1, 2, ...")]
    OutputNumbers,
    /// There is not exactly one mount on `/`.
    #[error("it has {0} mounts on `/` instead of one")]
    RootMounts(usize),
}

/// The platform as it is written: folding it would change the digest.
pub(super) fn platform(platform: pb::Platform) -> Platform {
    Platform {
        architecture: platform.architecture,
        os: platform.os,
        os_version: platform.os_version,
        os_features: platform.os_features,
        variant: platform.variant,
    }
}

/// The operation in a message with `inputs` inputs.
pub(super) fn op(op: pb::op::Op, inputs: usize) -> Result<Op, OpError> {
    let op = match op {
        pb::op::Op::Source(source) => source_op(source, inputs)?,
        pb::op::Op::Exec(exec) => Op::Exec(Box::new(exec_op(exec, inputs)?)),
        pb::op::Op::File(file) => Op::File(file_op(file, inputs)?),
        pb::op::Op::Build(_) => return Err(OpError::Unsupported("build")),
        pb::op::Op::Merge(merge) => Op::Merge(merge_op(merge, inputs)?),
        pb::op::Op::Diff(diff) => Op::Diff(diff_op(diff, inputs)?),
    };
    Ok(op)
}

/// Checks a number that says which of `count` things is meant, or -1 for none.
fn index(field: &'static str, value: i64, count: usize) -> Result<Option<u32>, OpError> {
    match u32::try_from(value) {
        Ok(number) if (number as usize) < count => Ok(Some(number)),
        _ if value == NONE => Ok(None),
        _ => Err(OpError::OutOfRange { field, value }),
    }
}

/// Checks that outputs are numbered from 0 without gaps, in whatever order; those with -1 are none.
fn output_numbers(outputs: impl Iterator<Item = Option<u32>>) -> Result<(), OpError> {
    let mut numbers: Vec<u32> = outputs.flatten().collect();
    numbers.sort_unstable();
    let counted = numbers.iter().zip(0..).all(|(number, expected)| *number == expected);
    if counted { Ok(()) } else { Err(OpError::OutputNumbers) }
}

fn source_op(source: pb::SourceOp, inputs: usize) -> Result<Op, OpError> {
    if inputs > 0 {
        return Err(OpError::Unsupported("inputs"));
    }
    Ok(Op::Source(SourceOp { identifier: source.identifier, attrs: source.attrs }))
}

fn exec_op(exec: pb::ExecOp, inputs: usize) -> Result<ExecOp, OpError> {
    if !exec.cdi_devices.is_empty() {
        return Err(OpError::Unsupported("cdiDevices"));
    }
    let network = match pb::NetMode::try_from(exec.network) {
        Ok(pb::NetMode::Unset) => NetworkMode::Default,
        Ok(pb::NetMode::Host) => NetworkMode::Host,
        Ok(pb::NetMode::None) => NetworkMode::None,
        Err(_) => return Err(unknown("network", exec.network)),
    };
    let security = match pb::SecurityMode::try_from(exec.security) {
        Ok(pb::SecurityMode::Sandbox) => SecurityMode::Sandbox,
        Ok(pb::SecurityMode::Insecure) => SecurityMode::Insecure,
        Err(_) => return Err(unknown("security", exec.security)),
    };
    let secret_env = exec.secretenv.into_iter().map(|secret| SecretEnv {
        id: secret.id,
        name: secret.name,
        optional: secret.optional,
    });
    let mounts = exec.mounts.into_iter().map(|mount| self::mount(mount, inputs));
    let exec = ExecOp {
        meta: meta(exec.meta.ok_or(OpError::Missing("meta"))?),
        mounts: mounts.collect::<Result<Vec<_>, _>>()?,
        network,
        security,
        secret_env: secret_env.collect(),
    };
    let roots = exec.mounts.iter().filter(|mount| mount.dest == "/").count();
    if roots != 1 {
        return Err(OpError::RootMounts(roots));
    }
    output_numbers(exec.mounts.iter().map(|mount| mount.output))?;
    Ok(exec)
}

fn unknown(field: &'static str, value: i32) -> OpError {
    OpError::UnknownValue { field, value: value.into() }
}

fn meta(meta: pb::Meta) -> ExecMeta {
    let proxy_env = meta.proxy_env.map(|proxy| ProxyEnv {
        http: proxy.http_proxy,
        https: proxy.https_proxy,
        ftp: proxy.ftp_proxy,
        no: proxy.no_proxy,
        all: proxy.all_proxy,
    });
    let extra_hosts = meta.extra_hosts.into_iter();
    let ulimits = meta.ulimit.into_iter();
    ExecMeta {
        args: meta.args,
        env: meta.env,
        cwd: meta.cwd,
        user: meta.user,
        proxy_env,
        extra_hosts: extra_hosts.map(|line| HostIp { host: line.host, ip: line.ip }).collect(),
        hostname: meta.hostname,
        ulimits: ulimits
            .map(|limit| Ulimit { name: limit.name, soft: limit.soft, hard: limit.hard })
            .collect(),
        cgroup_parent: meta.cgroup_parent,
        remove_mount_stubs_recursive: meta.remove_mount_stubs_recursive,
        valid_exit_codes: meta.valid_exit_codes,
    }
}

fn mount(mount: pb::Mount, inputs: usize) -> Result<Mount, OpError> {
    if !mount.result_id.is_empty() {
        return Err(OpError::Unsupported("mount.resultID"));
    }
    if mount.content_cache != pb::MountContentCache::Default as i32 {
        return Err(OpError::Unsupported("mount.contentCache"));
    }
    let kind = match pb::MountType::try_from(mount.mount_type) {
        Ok(pb::MountType::Bind) => MountKind::Bind,
        Ok(pb::MountType::Cache) => cache_mount(mount.cache_opt.unwrap_or_default())?,
        Ok(pb::MountType::Tmpfs) => {
            let size = mount.tmpfs_opt.unwrap_or_default().size;
            if size < 0 {
                return Err(OpError::OutOfRange { field: "mount.TmpfsOpt.size", value: size });
            }
            MountKind::Tmpfs { size }
        }
        Ok(pb::MountType::Secret) => {
            let pb::SecretOpt { id, uid, gid, mode, optional } =
                mount.secret_opt.ok_or(OpError::Missing("mount.secretOpt"))?;
            MountKind::Secret { id, uid, gid, mode, optional }
        }
        Ok(pb::MountType::Ssh) => {
            let pb::SshOpt { id, uid, gid, mode, optional } =
                mount.ssh_opt.ok_or(OpError::Missing("mount.SSHOpt"))?;
            MountKind::Ssh { id, uid, gid, mode, optional }
        }
        Err(_) => return Err(unknown("mount.mountType", mount.mount_type)),
    };
    Ok(Mount {
        input: index("mount.input", mount.input, inputs)?,
        selector: mount.selector,
        dest: mount.dest,
        output: index("mount.output", mount.output, usize::MAX)?,
        readonly: mount.readonly,
        kind,
    })
}

fn cache_mount(options: pb::CacheOpt) -> Result<MountKind, OpError> {
    let sharing = match pb::CacheSharingOpt::try_from(options.sharing) {
        Ok(pb::CacheSharingOpt::Shared) => CacheSharing::Shared,
        Ok(pb::CacheSharingOpt::Private) => CacheSharing::Private,
        Ok(pb::CacheSharingOpt::Locked) => CacheSharing::Locked,
        Err(_) => return Err(unknown("mount.cacheOpt.sharing", options.sharing)),
    };
    Ok(MountKind::Cache { id: options.id, sharing })
}

fn file_op(file: pb::FileOp, inputs: usize) -> Result<FileOp, OpError> {
    if file.actions.is_empty() {
        return Err(OpError::Missing("actions"));
    }
    // An action sees the vertex's inputs and the states that earlier actions left.
    let actions = file.actions.into_iter().zip(inputs..);
    let actions = actions.map(|(action, states)| self::action(action, states));
    let actions = actions.collect::<Result<Vec<_>, _>>()?;
    output_numbers(actions.iter().map(|action| action.output))?;
    Ok(FileOp { actions })
}

fn action(action: pb::FileAction, states: usize) -> Result<FileAction, OpError> {
    let kind = match action.action.ok_or(OpError::UnknownKind)? {
        Action::Copy(copy) => FileActionKind::Copy(copy_action(copy, states)?),
        Action::Mkfile(mkfile) => FileActionKind::Mkfile(MkfileAction {
            path: mkfile.path,
            mode: mkfile.mode as u32,
            data: mkfile.data,
            owner: owner(mkfile.owner, states)?,
            timestamp: timestamp(mkfile.timestamp),
        }),
        Action::Mkdir(mkdir) => FileActionKind::Mkdir(MkdirAction {
            path: mkdir.path,
            mode: mkdir.mode as u32,
            make_parents: mkdir.make_parents,
            owner: owner(mkdir.owner, states)?,
            timestamp: timestamp(mkdir.timestamp),
        }),
        Action::Rm(rm) => FileActionKind::Rm(RmAction {
            path: rm.path,
            allow_not_found: rm.allow_not_found,
            allow_wildcard: rm.allow_wildcard,
        }),
        Action::Symlink(symlink) => FileActionKind::Symlink(SymlinkAction {
            target: symlink.oldpath,
            path: symlink.newpath,
            owner: owner(symlink.owner, states)?,
            timestamp: timestamp(symlink.timestamp),
        }),
    };
    Ok(FileAction {
        input: index("action.input", action.input, states)?,
        secondary_input: index("action.secondaryInput", action.secondary_input, states)?,
        output: index("action.output", action.output, usize::MAX)?,
        kind,
    })
}

fn copy_action(copy: pb::FileActionCopy, states: usize) -> Result<CopyAction, OpError> {
    let mode = match copy.mode {
        -1 => None,
        mode => Some(mode as u32),
    };
    Ok(CopyAction {
        src: copy.src,
        dest: copy.dest,
        owner: owner(copy.owner, states)?,
        mode,
        mode_str: copy.mode_str,
        follow_symlink: copy.follow_symlink,
        dir_copy_contents: copy.dir_copy_contents,
        attempt_unpack: copy.attempt_unpack_docker_compatibility,
        create_dest_path: copy.create_dest_path,
        allow_wildcard: copy.allow_wildcard,
        allow_empty_wildcard: copy.allow_empty_wildcard,
        timestamp: timestamp(copy.timestamp),
        include_patterns: copy.include_patterns,
        exclude_patterns: copy.exclude_patterns,
        always_replace_existing: copy.always_replace_existing_dest_paths,
        required_paths: copy.required_paths,
    })
}

fn timestamp(value: i64) -> Option<i64> {
    (value != NONE).then_some(value)
}

fn owner(owner: Option<pb::ChownOpt>, states: usize) -> Result<Option<ChownSpec>, OpError> {
    let Some(owner) = owner else { return Ok(None) };
    let one = |user: Option<pb::UserOpt>| match user.map(|user| user.user) {
        None => Ok(None),
        Some(Some(User::ById(id))) => Ok(Some(Owner::Id(id))),
        Some(Some(User::ByName(user))) => {
            let input = index("owner.input", user.input, states)?;
            Ok(Some(Owner::Name { name: user.name, input }))
        }
        Some(None) => Err(OpError::Missing("owner.user")),
    };
    Ok(Some(ChownSpec { user: one(owner.user)?, group: one(owner.group)? }))
}

fn merge_op(merge: pb::MergeOp, inputs: usize) -> Result<MergeOp, OpError> {
    let inputs = merge.inputs.iter().map(|input| index("merge.input", input.input, inputs));
    Ok(MergeOp { inputs: inputs.collect::<Result<_, _>>()? })
}

fn diff_op(diff: pb::DiffOp, inputs: usize) -> Result<DiffOp, OpError> {
    let lower = diff.lower.ok_or(OpError::Missing("lower"))?;
    let upper = diff.upper.ok_or(OpError::Missing("upper"))?;
    Ok(DiffOp {
        lower: index("diff.lower", lower.input, inputs)?,
        upper: index("diff.upper", upper.input, inputs)?,
    })
}
