//! Operations as LLB messages.

use bollard_buildkit_proto::pb;
use pb::file_action::Action;
use pb::user_opt::User;
use prost::Message;
use prost::encoding::{bytes, string};
use rbuild_oci::{Digest, Platform};

use crate::{
    CacheSharing, ChownSpec, CopyAction, DiffOp, ExecMeta, ExecOp, FileAction, FileActionKind,
    FileOp, MergeOp, Mount, MountKind, NetworkMode, Op, Owner, SecurityMode, SourceOp,
};

/// What LLB says for "no input", "no output" and "keep what it has".
pub(super) const NONE: i64 = -1;

/// The digest of a vertex: SHA-256 of its operation's LLB encoding, inputs by digest included.
pub fn vertex_digest(
    op: &Op,
    inputs: impl Iterator<Item = (Digest, u32)>,
    platform: Option<&Platform>,
) -> Digest {
    Digest::of(&encode_op(op, inputs, platform))
}

/// The canonical encoding of an operation.
pub(crate) fn encode_op(
    op: &Op,
    inputs: impl Iterator<Item = (Digest, u32)>,
    platform: Option<&Platform>,
) -> Vec<u8> {
    let inputs =
        inputs.map(|(digest, index)| pb::Input { digest: digest.to_string(), index: index.into() });
    let inputs = inputs.collect();
    let platform = platform.map(platform_message);
    // BuildKit's client never leaves the constraints out, even when there are none.
    let constraints = Some(pb::WorkerConstraints::default());
    let op = match op {
        Op::Source(source) => {
            let source = Some(SourceMessage::from(source));
            return SourceOpMessage { inputs, source, platform, constraints }.encode_to_vec();
        }
        Op::Exec(exec) => return encode_exec(exec, inputs, platform, constraints),
        Op::File(file) => pb::op::Op::File(file_message(file)),
        Op::Merge(merge) => pb::op::Op::Merge(merge_message(merge)),
        Op::Diff(diff) => pb::op::Op::Diff(diff_message(diff)),
    };
    pb::Op { inputs, op: Some(op), platform, constraints }.encode_to_vec()
}

/// [`pb::Op`] with a command. Its words and variables are most of a graph: they are written as they are, and no
/// message is made that holds copies of them.
fn encode_exec(
    exec: &ExecOp,
    inputs: Vec<pb::Input>,
    platform: Option<pb::Platform>,
    constraints: Option<pb::WorkerConstraints>,
) -> Vec<u8> {
    let texts = exec.meta.args.iter().chain(&exec.meta.env);
    let mut meta = Vec::with_capacity(256 + texts.map(|text| text.len() + 4).sum::<usize>());
    string::encode_repeated(1, &exec.meta.args, &mut meta);
    string::encode_repeated(2, &exec.meta.env, &mut meta);
    meta.extend(rest_of_meta(&exec.meta).encode_to_vec());
    let mut message = Vec::with_capacity(meta.len() + 256);
    bytes::encode(1, &meta, &mut message);
    message.extend(exec_without_meta(exec).encode_to_vec());
    let mut op = pb::Op { inputs, ..pb::Op::default() }.encode_to_vec();
    op.reserve(message.len() + 128);
    bytes::encode(2, &message, &mut op);
    op.extend(pb::Op { platform, constraints, ..pb::Op::default() }.encode_to_vec());
    op
}

/// [`pb::Op`] with a source, as Go encodes it: entries of a map have key and value even where those are
/// empty, which prost leaves out.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SourceOpMessage {
    #[prost(message, repeated, tag = "1")]
    inputs: Vec<pb::Input>,
    #[prost(message, optional, tag = "3")]
    source: Option<SourceMessage>,
    #[prost(message, optional, tag = "10")]
    platform: Option<pb::Platform>,
    #[prost(message, optional, tag = "11")]
    constraints: Option<pb::WorkerConstraints>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SourceMessage {
    #[prost(string, tag = "1")]
    identifier: String,
    #[prost(message, repeated, tag = "2")]
    attrs: Vec<AttrMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AttrMessage {
    #[prost(string, optional, tag = "1")]
    key: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

impl From<&SourceOp> for SourceMessage {
    fn from(source: &SourceOp) -> Self {
        let attrs = source.attrs.iter();
        let attrs = attrs
            .map(|(key, value)| AttrMessage { key: Some(key.clone()), value: Some(value.clone()) });
        Self { identifier: source.identifier.clone(), attrs: attrs.collect() }
    }
}

fn platform_message(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

fn index(number: Option<u32>) -> i64 {
    number.map_or(NONE, i64::from)
}

fn exec_without_meta(exec: &ExecOp) -> pb::ExecOp {
    let network = match exec.network {
        NetworkMode::Default => pb::NetMode::Unset,
        NetworkMode::Host => pb::NetMode::Host,
        NetworkMode::None => pb::NetMode::None,
    };
    let security = match exec.security {
        SecurityMode::Sandbox => pb::SecurityMode::Sandbox,
        SecurityMode::Insecure => pb::SecurityMode::Insecure,
    };
    let secretenv = exec.secret_env.iter().map(|secret| pb::SecretEnv {
        id: secret.id.clone(),
        name: secret.name.clone(),
        optional: secret.optional,
    });
    pb::ExecOp {
        meta: None,
        mounts: exec.mounts.iter().map(mount_message).collect(),
        network: network.into(),
        security: security.into(),
        secretenv: secretenv.collect(),
        cdi_devices: Vec::new(),
    }
}

/// All but the words and the variables, which come first.
fn rest_of_meta(meta: &ExecMeta) -> pb::Meta {
    let proxy_env = meta.proxy_env.as_ref().map(|proxy| pb::ProxyEnv {
        http_proxy: proxy.http.clone(),
        https_proxy: proxy.https.clone(),
        ftp_proxy: proxy.ftp.clone(),
        no_proxy: proxy.no.clone(),
        all_proxy: proxy.all.clone(),
    });
    let extra_hosts = meta
        .extra_hosts
        .iter()
        .map(|line| pb::HostIp { host: line.host.clone(), ip: line.ip.clone() });
    let ulimit = meta.ulimits.iter().map(|limit| pb::Ulimit {
        name: limit.name.clone(),
        soft: limit.soft,
        hard: limit.hard,
    });
    pb::Meta {
        args: Vec::new(),
        env: Vec::new(),
        cwd: meta.cwd.clone(),
        user: meta.user.clone(),
        proxy_env,
        extra_hosts: extra_hosts.collect(),
        hostname: meta.hostname.clone(),
        ulimit: ulimit.collect(),
        cgroup_parent: meta.cgroup_parent.clone(),
        remove_mount_stubs_recursive: meta.remove_mount_stubs_recursive,
        valid_exit_codes: meta.valid_exit_codes.clone(),
    }
}

fn mount_message(mount: &Mount) -> pb::Mount {
    let mut message = pb::Mount {
        input: index(mount.input),
        selector: mount.selector.clone(),
        dest: mount.dest.clone(),
        output: index(mount.output),
        readonly: mount.readonly,
        ..pb::Mount::default()
    };
    let kind = match &mount.kind {
        MountKind::Bind => pb::MountType::Bind,
        MountKind::Cache { id, sharing } => {
            let sharing = match sharing {
                CacheSharing::Shared => pb::CacheSharingOpt::Shared,
                CacheSharing::Private => pb::CacheSharingOpt::Private,
                CacheSharing::Locked => pb::CacheSharingOpt::Locked,
            };
            message.cache_opt = Some(pb::CacheOpt { id: id.clone(), sharing: sharing.into() });
            pb::MountType::Cache
        }
        MountKind::Tmpfs { size } => {
            message.tmpfs_opt = Some(pb::TmpfsOpt { size: *size });
            pb::MountType::Tmpfs
        }
        MountKind::Secret { id, uid, gid, mode, optional } => {
            let (id, uid, gid, mode, optional) = (id.clone(), *uid, *gid, *mode, *optional);
            message.secret_opt = Some(pb::SecretOpt { id, uid, gid, mode, optional });
            pb::MountType::Secret
        }
        MountKind::Ssh { id, uid, gid, mode, optional } => {
            let (id, uid, gid, mode, optional) = (id.clone(), *uid, *gid, *mode, *optional);
            message.ssh_opt = Some(pb::SshOpt { id, uid, gid, mode, optional });
            pb::MountType::Ssh
        }
    };
    message.mount_type = kind.into();
    message
}

fn file_message(file: &FileOp) -> pb::FileOp {
    pb::FileOp { actions: file.actions.iter().map(action_message).collect() }
}

fn action_message(action: &FileAction) -> pb::FileAction {
    // Modes are bit patterns: what does not fit the signed field keeps its bits, and is read back with them.
    let mode_bits = |mode: u32| mode as i32;
    let message = match &action.kind {
        FileActionKind::Copy(copy) => Action::Copy(copy_message(copy)),
        FileActionKind::Mkfile(mkfile) => Action::Mkfile(pb::FileActionMkFile {
            path: mkfile.path.clone(),
            mode: mode_bits(mkfile.mode),
            data: mkfile.data.clone(),
            owner: mkfile.owner.as_ref().map(owner_message),
            timestamp: mkfile.timestamp.unwrap_or(NONE),
        }),
        FileActionKind::Mkdir(mkdir) => Action::Mkdir(pb::FileActionMkDir {
            path: mkdir.path.clone(),
            mode: mode_bits(mkdir.mode),
            make_parents: mkdir.make_parents,
            owner: mkdir.owner.as_ref().map(owner_message),
            timestamp: mkdir.timestamp.unwrap_or(NONE),
        }),
        FileActionKind::Rm(rm) => Action::Rm(pb::FileActionRm {
            path: rm.path.clone(),
            allow_not_found: rm.allow_not_found,
            allow_wildcard: rm.allow_wildcard,
        }),
        FileActionKind::Symlink(symlink) => Action::Symlink(pb::FileActionSymlink {
            oldpath: symlink.target.clone(),
            newpath: symlink.path.clone(),
            owner: symlink.owner.as_ref().map(owner_message),
            timestamp: symlink.timestamp.unwrap_or(NONE),
        }),
    };
    pb::FileAction {
        input: index(action.input),
        secondary_input: index(action.secondary_input),
        output: index(action.output),
        action: Some(message),
    }
}

fn copy_message(copy: &CopyAction) -> pb::FileActionCopy {
    pb::FileActionCopy {
        src: copy.src.clone(),
        dest: copy.dest.clone(),
        owner: copy.owner.as_ref().map(owner_message),
        mode: copy.mode.map_or(-1, |mode| mode as i32),
        follow_symlink: copy.follow_symlink,
        dir_copy_contents: copy.dir_copy_contents,
        attempt_unpack_docker_compatibility: copy.attempt_unpack,
        create_dest_path: copy.create_dest_path,
        allow_wildcard: copy.allow_wildcard,
        allow_empty_wildcard: copy.allow_empty_wildcard,
        timestamp: copy.timestamp.unwrap_or(NONE),
        include_patterns: copy.include_patterns.clone(),
        exclude_patterns: copy.exclude_patterns.clone(),
        always_replace_existing_dest_paths: copy.always_replace_existing,
        mode_str: copy.mode_str.clone(),
        required_paths: copy.required_paths.clone(),
    }
}

fn owner_message(owner: &ChownSpec) -> pb::ChownOpt {
    let user = |owner: &Owner| {
        let user = match owner {
            Owner::Name { name, input } => {
                User::ByName(pb::NamedUserOpt { name: name.clone(), input: index(*input) })
            }
            Owner::Id(id) => User::ById(*id),
        };
        pb::UserOpt { user: Some(user) }
    };
    pb::ChownOpt { user: owner.user.as_ref().map(user), group: owner.group.as_ref().map(user) }
}

fn merge_message(merge: &MergeOp) -> pb::MergeOp {
    let inputs = merge.inputs.iter().map(|input| pb::MergeInput { input: index(*input) });
    pb::MergeOp { inputs: inputs.collect() }
}

fn diff_message(diff: &DiffOp) -> pb::DiffOp {
    pb::DiffOp {
        lower: Some(pb::LowerDiffInput { input: index(diff.lower) }),
        upper: Some(pb::UpperDiffInput { input: index(diff.upper) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn encodes_as_buildkit_does() {
        // Worked out by hand from ops.proto: field numbers ascend, the empty constraints (5a00) are there.
        let mut source = SourceOp::new("local://context");
        source.attrs.insert("a".to_owned(), String::new());
        let platform = Platform::new("linux", "amd64", "");
        let expected = [
            "1a18",                               // op.source
            "0a0f6c6f63616c3a2f2f636f6e74657874", // identifier
            "12050a01611200",                     // attrs, with its empty value
            "520e",                               // platform
            "0a05616d643634",                     // architecture
            "12056c696e7578",                     // os
            "5a00",
        ];
        let bytes = encode_op(&Op::Source(source), std::iter::empty(), Some(&platform));
        assert_eq!(hex(&bytes), expected.concat());

        let merge = Op::Merge(MergeOp { inputs: vec![Some(0), None] });
        let digest = Digest::of(b"");
        let bytes = encode_op(&merge, std::iter::once((digest, 1)), None);
        let input = format!("0a4b0a47{}1001", hex(digest.to_string().as_bytes()));
        assert_eq!(hex(&bytes), format!("{input}320f0a000a0b08ffffffffffffffffff015a00"));
        assert_eq!(pb::Op::decode(bytes.as_slice()).unwrap().encode_to_vec(), bytes);
    }

    #[test]
    fn a_command_is_written_in_parts_as_in_one() {
        let meta = ExecMeta {
            args: vec!["make".to_owned(), String::new()],
            env: vec!["A=1".to_owned()],
            cwd: "/src".to_owned(),
            ..ExecMeta::default()
        };
        for meta in [meta, ExecMeta::default()] {
            let exec = ExecOp {
                meta: meta.clone(),
                mounts: vec![Mount::root()],
                network: NetworkMode::Host,
                security: SecurityMode::Sandbox,
                secret_env: Vec::new(),
            };
            let input = std::iter::once((Digest::of(b""), 0));
            let platform = Platform::new("linux", "amd64", "");
            let bytes = encode_op(&Op::Exec(Box::new(exec)), input, Some(&platform));
            let message = pb::Op::decode(bytes.as_slice()).unwrap();
            assert_eq!(message.encode_to_vec(), bytes);
            assert_eq!(message.inputs.len(), 1);
            let Some(pb::op::Op::Exec(exec)) = message.op else { panic!("{message:?}") };
            let read = exec.meta.unwrap();
            assert_eq!((read.args, read.env, read.cwd), (meta.args, meta.env, meta.cwd));
            assert_eq!(exec.mounts.len(), 1);
        }
    }
}
