//! Graphs to LLB and back, and LLB that is refused.

use std::error::Error as _;

use proptest::prelude::*;
use prost::Message;
use rbuild_oci::{Digest, Platform};
use rbuild_solver::llb::{self, DefinitionError, pb};
use rbuild_solver::{
    CacheSharing, ChownSpec, CopyAction, ExecMeta, ExecOp, FileAction, FileActionKind, FileOp,
    GraphBuilder, HostIp, MkdirAction, MkfileAction, Mount, MountKind, NetworkMode, Op, Owner,
    ProxyEnv, RmAction, SecretEnv, SecurityMode, SourceOp, SymlinkAction, Ulimit, VertexMeta,
};

use crate::support::{Build, edge};

fn text(text: &str) -> String {
    text.to_owned()
}

/// Operations that use every field.
fn rich_ops() -> Vec<Op> {
    let bind = |kind: MountKind, dest: &str| Mount {
        input: None,
        selector: text("sub"),
        dest: text(dest),
        output: None,
        readonly: true,
        kind,
    };
    let secret = MountKind::Secret { id: text("s"), uid: 1, gid: 2, mode: 0o400, optional: true };
    let ssh = MountKind::Ssh { id: text("default"), uid: 3, gid: 4, mode: 0o600, optional: false };
    let cache = |sharing| MountKind::Cache { id: text("c"), sharing };
    let exec = ExecOp {
        meta: ExecMeta {
            args: vec![text("/bin/sh"), text("-c"), text("true")],
            env: vec![text("A=b"), text("A=c")],
            cwd: text("/work"),
            user: text("1000:1000"),
            proxy_env: Some(ProxyEnv { http: text("h"), all: text("a"), ..ProxyEnv::default() }),
            extra_hosts: vec![HostIp { host: text("x"), ip: text("10.0.0.1") }],
            hostname: text("builder"),
            ulimits: vec![Ulimit { name: text("nofile"), soft: -1, hard: 1024 }],
            cgroup_parent: text("p"),
            remove_mount_stubs_recursive: true,
            valid_exit_codes: vec![0, 3, -1],
        },
        mounts: vec![
            Mount { output: Some(1), ..Mount::root() },
            Mount { output: Some(0), input: Some(0), ..bind(MountKind::Bind, "/out") },
            bind(cache(CacheSharing::Shared), "/c1"),
            bind(cache(CacheSharing::Private), "/c2"),
            bind(cache(CacheSharing::Locked), "/c3"),
            bind(MountKind::Tmpfs { size: 4096 }, "/tmp"),
            bind(secret, "/run/secrets/s"),
            bind(ssh, "/ssh"),
        ],
        network: NetworkMode::None,
        security: SecurityMode::Insecure,
        secret_env: vec![SecretEnv { id: text("s"), name: text("S"), optional: true }],
    };
    let owner = ChownSpec {
        user: Some(Owner::Name { name: text("app"), input: Some(0) }),
        group: Some(Owner::Id(0)),
    };
    let copy = CopyAction {
        src: text("/*.c"),
        dest: text("/src/"),
        owner: Some(owner.clone()),
        mode: Some(0o644),
        mode_str: text("u=rw"),
        follow_symlink: true,
        dir_copy_contents: true,
        attempt_unpack: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        timestamp: Some(0),
        include_patterns: vec![text("*.c")],
        exclude_patterns: vec![text("x.c")],
        always_replace_existing: true,
        required_paths: vec![text("a.c")],
    };
    let kinds = vec![
        FileActionKind::Copy(copy),
        FileActionKind::Copy(CopyAction::default()),
        FileActionKind::Mkfile(MkfileAction {
            path: text("/f"),
            mode: 0o600,
            data: vec![0, 255],
            owner: Some(ChownSpec::default()),
            timestamp: None,
        }),
        FileActionKind::Mkdir(MkdirAction {
            path: text("/d"),
            mode: 0o755,
            make_parents: true,
            owner: None,
            timestamp: Some(7),
        }),
        FileActionKind::Symlink(SymlinkAction {
            target: text("t"),
            path: text("/l"),
            owner: Some(ChownSpec { user: Some(Owner::Id(5)), group: None }),
            timestamp: None,
        }),
        FileActionKind::Rm(RmAction {
            path: text("/x*"),
            allow_not_found: true,
            allow_wildcard: true,
        }),
    ];
    let last = kinds.len() as u32 - 1;
    let actions = (0..).zip(kinds).map(|(number, kind)| FileAction {
        // Each works on what the one before it left: inputs count first, of which there is one.
        input: (number > 0).then_some(number),
        secondary_input: matches!(kind, FileActionKind::Copy(_)).then_some(0),
        output: (number == last).then_some(0),
        kind,
    });
    vec![Op::Exec(Box::new(exec)), Op::File(FileOp { actions: actions.collect() })]
}

#[test]
fn every_field_goes_both_ways() {
    for op in rich_ops() {
        let mut builder = GraphBuilder::new();
        let mut source = SourceOp::new("docker-image://docker.io/library/busybox");
        source.attrs.insert(text("image.recordtype"), String::new());
        let mut platform = Platform::new("linux", "arm", "v7");
        platform.os_features = vec![text("f")];
        let meta = || VertexMeta { name: text("x"), ..VertexMeta::default() };
        let source = builder.add(Op::Source(source), Vec::new(), Some(platform.clone()), meta());
        let vertex = builder.add(op.clone(), vec![edge(source)], Some(platform), meta());
        let graph = builder.finish();
        let bytes = llb::to_bytes(&graph, edge(vertex));
        let (read, target) = llb::from_bytes(&bytes).unwrap();
        assert_eq!(read.vertex(target.vertex).op, op);
        assert_eq!(read.vertex(target.vertex).platform, graph.vertex(vertex).platform);
        assert_eq!(read.vertex(target.vertex).digest, graph.vertex(vertex).digest);
        assert_eq!(llb::to_bytes(&read, target), bytes);
        // Vertices are named by the digest of their bytes.
        let definition = llb::to_definition(&graph, edge(vertex));
        assert_eq!(Digest::of(&definition.def[1]), graph.vertex(vertex).digest);
    }
}

#[test]
fn a_definition_of_another_writer_is_read() {
    // Without constraints, with a name of its own, and a vertex that nobody needs.
    let source = |identifier: &str| pb::Op {
        op: Some(pb::op::Op::Source(pb::SourceOp {
            identifier: text(identifier),
            ..Default::default()
        })),
        ..Default::default()
    };
    let (image, other) =
        (source("docker-image://x").encode_to_vec(), source("local://y").encode_to_vec());
    let terminal = terminal(&image, 0);
    let definition = pb::Definition { def: vec![other, image, terminal], ..Default::default() };
    let (graph, target) = llb::from_definition(&definition).unwrap();
    assert_eq!(graph.vertices().len(), 1);
    assert_eq!(graph.vertex(target.vertex).meta.name, "docker-image://x");
    assert_eq!(graph.vertex(target.vertex).meta.location, None);
}

fn input(of: &[u8], index: i64) -> pb::Input {
    pb::Input { digest: Digest::of(of).to_string(), index }
}

fn terminal(of: &[u8], index: i64) -> Vec<u8> {
    pb::Op { inputs: vec![input(of, index)], ..Default::default() }.encode_to_vec()
}

/// Why a definition whose result is `op` on one image is refused, with what caused it.
fn refusal(op: impl FnOnce(pb::Input) -> Vec<u8>) -> String {
    let image = pb::SourceOp { identifier: text("docker-image://x"), ..Default::default() };
    let image = pb::Op { op: Some(pb::op::Op::Source(image)), ..Default::default() };
    let image = image.encode_to_vec();
    let op = op(input(&image, 0));
    let terminal = terminal(&op, 0);
    let definition = pb::Definition { def: vec![image, op, terminal], ..Default::default() };
    let error = llb::from_definition(&definition).unwrap_err();
    let message = error.to_string();
    assert!(!message.is_empty());
    match (&error, error.source()) {
        (DefinitionError::Unusable { .. }, Some(source)) => source.to_string(),
        _ => message.split('`').step_by(2).collect::<String>().trim().to_owned(),
    }
}

fn op(input: pb::Input, op: pb::op::Op) -> Vec<u8> {
    pb::Op { inputs: vec![input], op: Some(op), ..Default::default() }.encode_to_vec()
}

fn exec_with(change: impl FnOnce(&mut pb::ExecOp)) -> String {
    refusal(|input| {
        let root = pb::Mount { dest: text("/"), ..Default::default() };
        let meta = Some(pb::Meta::default());
        let mut exec = pb::ExecOp { meta, mounts: vec![root], ..Default::default() };
        change(&mut exec);
        op(input, pb::op::Op::Exec(exec))
    })
}

fn file_with(change: impl FnOnce(&mut pb::FileAction)) -> String {
    refusal(|input| {
        let rm = pb::FileActionRm { path: text("/x"), ..Default::default() };
        let action = Some(pb::file_action::Action::Rm(rm));
        let mut action = pb::FileAction { input: 0, secondary_input: -1, output: 0, action };
        change(&mut action);
        op(input, pb::op::Op::File(pb::FileOp { actions: vec![action] }))
    })
}

#[test]
fn what_is_not_understood_is_refused() {
    insta::assert_snapshot!(
        [
            refusal(|input| op(input, pb::op::Op::Build(pb::BuildOp::default()))),
            refusal(|input| pb::Op { inputs: vec![input], ..Default::default() }.encode_to_vec()),
            refusal(|input| op(input, pb::op::Op::Source(pb::SourceOp::default()))),
            refusal(|input| {
                let merge = pb::MergeOp { inputs: vec![pb::MergeInput { input: 1 }] };
                op(input, pb::op::Op::Merge(merge))
            }),
            refusal(|input| op(input, pb::op::Op::Diff(pb::DiffOp::default()))),
            refusal(|input| op(pb::Input { index: 1, ..input }, pb::op::Op::Merge(pb::MergeOp::default()))),
            refusal(|_| op(pb::Input::default(), pb::op::Op::Merge(pb::MergeOp::default()))),
            refusal(|input| {
                let filter = vec![text("platform==x")];
                let constraints = Some(pb::WorkerConstraints { filter });
                let op = Some(pb::op::Op::Merge(pb::MergeOp::default()));
                pb::Op { inputs: vec![input], constraints, op, platform: None }.encode_to_vec()
            }),
            refusal(|input| {
                let mut bytes = op(input, pb::op::Op::Merge(pb::MergeOp::default()));
                bytes.extend([0x98, 0x06, 1]);
                bytes
            }),
            refusal(|_| vec![0xff]),
            exec_with(|exec| exec.meta = None),
            exec_with(|exec| exec.mounts.clear()),
            exec_with(|exec| exec.mounts[0].input = -2),
            exec_with(|exec| exec.mounts[0].input = 1),
            exec_with(|exec| exec.mounts[0].output = 1),
            exec_with(|exec| exec.mounts[0].output = i64::MAX),
            exec_with(|exec| exec.mounts[0].mount_type = 9),
            exec_with(|exec| exec.mounts[0].mount_type = pb::MountType::Secret as i32),
            exec_with(|exec| exec.mounts[0].content_cache = 1),
            exec_with(|exec| exec.mounts[0].result_id = text("x")),
            exec_with(|exec| exec.network = 3),
            exec_with(|exec| exec.security = -1),
            exec_with(|exec| exec.cdi_devices = vec![pb::CdiDevice::default()]),
            file_with(|action| action.action = None),
            file_with(|action| action.input = 1),
            file_with(|action| action.secondary_input = 2),
            file_with(|action| action.output = 1),
            refusal(|input| op(input, pb::op::Op::File(pb::FileOp::default()))),
        ]
        .join("\n"),
        @"
        `build` is not supported
        its kind, or that of an action, is not known to this version
        `inputs` is not supported
        `merge.input` is 1, which is out of range
        it has no `lower`
        operation  needs output 1 of , which does not have it
        operation  needs , which is not in the definition
        `constraints` is not supported
        operation  has fields that are not known to this version
        cannot decode operation
        it has no `meta`
        it has 0 mounts on `/` instead of one
        `mount.input` is -2, which is out of range
        `mount.input` is 1, which is out of range
        its outputs are not numbered 0, 1, 2, ...
        `mount.output` is 9223372036854775807, which is out of range
        `mount.mountType` has the unknown value 9
        it has no `mount.secretOpt`
        `mount.contentCache` is not supported
        `mount.resultID` is not supported
        `network` has the unknown value 3
        `security` has the unknown value -1
        `cdiDevices` is not supported
        its kind, or that of an action, is not known to this version
        `action.input` is 1, which is out of range
        `action.secondaryInput` is 2, which is out of range
        its outputs are not numbered 0, 1, 2, ...
        it has no `actions`
        "
    );
}

#[test]
fn a_definition_must_name_its_result() {
    let refused = |def: Vec<Vec<u8>>| {
        let definition = pb::Definition { def, ..Default::default() };
        llb::from_definition(&definition).unwrap_err().to_string()
    };
    assert_eq!(refused(Vec::new()), "the LLB definition is empty");
    let terminal_is_missing =
        "the last operation of the LLB definition is not one that names the result";
    assert_eq!(refused(vec![Vec::new()]), terminal_is_missing);
    let mut build = Build::new();
    let image = build.source("docker-image://x");
    let mut def = llb::to_definition(&build.finish(), image).def;
    assert!(refused(vec![def[1].clone()]).contains("which is not in the definition"));
    def.pop();
    assert_eq!(refused(def), terminal_is_missing);
    assert!(llb::from_bytes(b"\xff\xff").is_err());
    // {metadata: {"x": {linux_resources: {}}}}, which the types of the messages do not have.
    let limited = b"\x12\x07\x0a\x01x\x12\x02\x3a\x00";
    let refused = llb::from_bytes(limited).unwrap_err().to_string();
    assert!(
        refused.starts_with("operation `x` limits what it may use of the machine"),
        "{refused}"
    );
}

#[test]
fn long_chains_are_read() {
    let mut build = Build::new();
    let base = build.source("docker-image://base");
    let last = (0..10_000).fold(base, |base, number| build.run(&number.to_string(), base));
    let bytes = llb::to_bytes(&build.finish(), last);
    assert_eq!(llb::from_bytes(&bytes).unwrap().0.vertices().len(), 10_001);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        def in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
    ) {
        let _ = llb::from_bytes(&bytes);
        let _ = llb::from_definition(&pb::Definition { def, ..Default::default() });
    }
}
