//! A graph as JSON, in the names that BuildKit's Go types of `solver/pb/ops.proto` have there.

use std::collections::HashMap;

use rbuild_oci::{Digest, Platform};
use rbuild_solver::{
    CacheSharing, ChownSpec, Edge, ExecOp, FileAction, FileActionKind, Graph, Mount, MountKind,
    NetworkMode, Op, Owner, SecurityMode, VertexId,
};
use serde_json::{Map, Value, json};

/// The steps that a target needs, with their names in the document.
#[derive(Debug)]
pub(super) struct Steps {
    /// `llbDefinition`.
    pub(super) definition: Vec<Value>,
    /// `digestMapping`.
    pub(super) mapping: Map<String, Value>,
    /// The vertices by their digests.
    pub(super) names: HashMap<Digest, String>,
}

/// Writes down what `target` needs, inputs first.
pub(super) fn steps(graph: &Graph, target: Edge) -> Steps {
    let reachable = graph.reachable(&[target]);
    let mut names: HashMap<VertexId, String> = HashMap::new();
    let mut steps = Steps { definition: Vec::new(), mapping: Map::new(), names: HashMap::new() };
    for id in graph.ids().filter(|id| reachable[id.index()]) {
        let vertex = graph.vertex(id);
        let name = format!("step{}", names.len());
        let mut op = json!({ "Op": operation(&vertex.op), "constraints": {} });
        if let Some(platform) = &vertex.platform {
            op["platform"] = platform_json(platform);
        }
        let mut step = json!({ "id": name, "op": op });
        if !vertex.inputs.is_empty() {
            let input = |edge: &Edge| json!(format!("{}:{}", names[&edge.vertex], edge.output));
            step["inputs"] = vertex.inputs.iter().map(input).collect();
        }
        steps.definition.push(step);
        steps.mapping.insert(vertex.digest.to_string(), json!(name));
        steps.names.insert(vertex.digest, name.clone());
        names.insert(id, name);
    }
    steps
}

fn platform_json(platform: &Platform) -> Value {
    object([
        ("Architecture", text(&platform.architecture)),
        ("OS", text(&platform.os)),
        ("Variant", text(&platform.variant)),
        ("OSVersion", text(&platform.os_version)),
    ])
}

fn operation(op: &Op) -> Value {
    match op {
        Op::Source(source) => {
            let attrs = (!source.attrs.is_empty()).then(|| json!(source.attrs));
            json!({ "source": object([("identifier", text(&source.identifier)), ("attrs", attrs)]) })
        }
        Op::Exec(exec) => json!({ "exec": exec_json(exec) }),
        Op::File(file) => {
            let actions: Vec<_> = file.actions.iter().map(action_json).collect();
            json!({ "file": { "actions": actions } })
        }
        Op::Merge(merge) => {
            let inputs: Vec<_> =
                merge.inputs.iter().map(|input| json!({ "input": index(*input) })).collect();
            json!({ "merge": { "inputs": inputs } })
        }
        Op::Diff(diff) => json!({ "diff": {
            "lower": { "input": index(diff.lower) },
            "upper": { "input": index(diff.upper) },
        } }),
    }
}

fn exec_json(exec: &ExecOp) -> Value {
    let meta = &exec.meta;
    let list = |texts: &[String]| (!texts.is_empty()).then(|| json!(texts));
    let hosts: Vec<_> =
        meta.extra_hosts.iter().map(|host| json!({ "Host": host.host, "IP": host.ip })).collect();
    let ulimits: Vec<_> = meta
        .ulimits
        .iter()
        .map(|limit| json!({ "Name": limit.name, "Soft": limit.soft, "Hard": limit.hard }))
        .collect();
    let meta = object([
        ("args", list(&meta.args)),
        ("env", list(&meta.env)),
        ("cwd", text(&meta.cwd)),
        ("user", text(&meta.user)),
        // Their values may hold passwords.
        ("proxy_env", meta.proxy_env.as_ref().map(|_| json!({}))),
        ("extraHosts", (!hosts.is_empty()).then(|| json!(hosts))),
        ("hostname", text(&meta.hostname)),
        ("ulimit", (!ulimits.is_empty()).then(|| json!(ulimits))),
        ("cgroupParent", text(&meta.cgroup_parent)),
        ("removeMountStubsRecursive", flag(meta.remove_mount_stubs_recursive)),
        (
            "validExitCodes",
            (!meta.valid_exit_codes.is_empty()).then(|| json!(meta.valid_exit_codes)),
        ),
    ]);
    let mounts: Vec<_> = exec.mounts.iter().map(mount_json).collect();
    let secrets: Vec<_> = exec
        .secret_env
        .iter()
        .map(|secret| {
            object([
                ("ID", text(&secret.id)),
                ("name", text(&secret.name)),
                ("optional", flag(secret.optional)),
            ])
        })
        .collect();
    let network = match exec.network {
        NetworkMode::Default => 0,
        NetworkMode::Host => 1,
        NetworkMode::None => 2,
    };
    let security = match exec.security {
        SecurityMode::Sandbox => 0,
        SecurityMode::Insecure => 1,
    };
    object([
        ("meta", Some(meta)),
        ("mounts", Some(json!(mounts))),
        ("network", number(network)),
        ("security", number(security)),
        ("secretenv", (!secrets.is_empty()).then(|| json!(secrets))),
    ])
}

fn mount_json(mount: &Mount) -> Value {
    let owned = |id: &str, uid: u32, gid: u32, mode: u32, optional: bool| {
        object([
            ("ID", text(id)),
            ("uid", number(uid)),
            ("gid", number(gid)),
            ("mode", number(mode)),
            ("optional", flag(optional)),
        ])
    };
    // The numbers of `MountType`.
    let (kind, options) = match &mount.kind {
        MountKind::Bind => (0, ("", None)),
        MountKind::Secret { id, uid, gid, mode, optional } => {
            (1, ("secretOpt", Some(owned(id, *uid, *gid, *mode, *optional))))
        }
        MountKind::Ssh { id, uid, gid, mode, optional } => {
            (2, ("SSHOpt", Some(owned(id, *uid, *gid, *mode, *optional))))
        }
        MountKind::Cache { id, sharing } => {
            let sharing = match sharing {
                CacheSharing::Shared => 0,
                CacheSharing::Private => 1,
                CacheSharing::Locked => 2,
            };
            (3, ("cacheOpt", Some(object([("ID", text(id)), ("sharing", number(sharing))]))))
        }
        MountKind::Tmpfs { size } => {
            (4, ("TmpfsOpt", Some(object([("size", (*size != 0).then(|| json!(size)))]))))
        }
    };
    object([
        ("input", Some(index(mount.input))),
        ("selector", text(&mount.selector)),
        ("dest", text(&mount.dest)),
        ("output", Some(index(mount.output))),
        ("readonly", flag(mount.readonly)),
        ("mountType", number(kind)),
        options,
    ])
}

fn action_json(action: &FileAction) -> Value {
    let time = |time: Option<i64>| json!(time.unwrap_or(-1));
    let owner = |owner: &Option<ChownSpec>| owner.as_ref().map(chown_json);
    let mut written = json!({
        "input": index(action.input),
        "secondaryInput": index(action.secondary_input),
        "output": index(action.output),
    });
    let list = |texts: &[String]| (!texts.is_empty()).then(|| json!(texts));
    let (name, value) = match &action.kind {
        FileActionKind::Copy(copy) => (
            "copy",
            object([
                ("src", text(&copy.src)),
                ("dest", text(&copy.dest)),
                ("owner", owner(&copy.owner)),
                ("mode", Some(copy.mode.map_or(json!(-1), |mode| json!(mode)))),
                ("followSymlink", flag(copy.follow_symlink)),
                ("dirCopyContents", flag(copy.dir_copy_contents)),
                ("attemptUnpackDockerCompatibility", flag(copy.attempt_unpack)),
                ("createDestPath", flag(copy.create_dest_path)),
                ("allowWildcard", flag(copy.allow_wildcard)),
                ("allowEmptyWildcard", flag(copy.allow_empty_wildcard)),
                ("timestamp", Some(time(copy.timestamp))),
                ("include_patterns", list(&copy.include_patterns)),
                ("exclude_patterns", list(&copy.exclude_patterns)),
                ("alwaysReplaceExistingDestPaths", flag(copy.always_replace_existing)),
                ("modeStr", text(&copy.mode_str)),
                ("required_paths", list(&copy.required_paths)),
            ]),
        ),
        FileActionKind::Mkfile(file) => {
            use base64::Engine as _;
            let data = base64::engine::general_purpose::STANDARD.encode(&file.data);
            (
                "mkfile",
                object([
                    ("path", text(&file.path)),
                    ("mode", number(file.mode)),
                    ("data", text(&data)),
                    ("owner", owner(&file.owner)),
                    ("timestamp", Some(time(file.timestamp))),
                ]),
            )
        }
        FileActionKind::Mkdir(folder) => (
            "mkdir",
            object([
                ("path", text(&folder.path)),
                ("mode", number(folder.mode)),
                ("makeParents", flag(folder.make_parents)),
                ("owner", owner(&folder.owner)),
                ("timestamp", Some(time(folder.timestamp))),
            ]),
        ),
        FileActionKind::Rm(rm) => (
            "rm",
            object([
                ("path", text(&rm.path)),
                ("allowNotFound", flag(rm.allow_not_found)),
                ("allowWildcard", flag(rm.allow_wildcard)),
            ]),
        ),
        FileActionKind::Symlink(link) => (
            "symlink",
            object([
                ("oldpath", text(&link.target)),
                ("newpath", text(&link.path)),
                ("owner", owner(&link.owner)),
                ("timestamp", Some(time(link.timestamp))),
            ]),
        ),
    };
    written["Action"] = json!({ name: value });
    written
}

fn chown_json(chown: &ChownSpec) -> Value {
    let one = |owner: &Option<Owner>| {
        owner.as_ref().map(|owner| match owner {
            Owner::Name { name, input } => {
                json!({ "User": { "byName": { "name": name, "input": index(*input) } } })
            }
            Owner::Id(id) => json!({ "User": { "byID": id } }),
        })
    };
    object([("user", one(&chown.user)), ("group", one(&chown.group))])
}

/// An input or output; LLB's number for none is -1.
fn index(index: Option<u32>) -> Value {
    index.map_or(json!(-1), |index| json!(index))
}

fn text(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| json!(text))
}

fn flag(flag: bool) -> Option<Value> {
    flag.then_some(Value::Bool(true))
}

fn number(number: u32) -> Option<Value> {
    (number != 0).then(|| json!(number))
}

/// An object of the fields that have a value.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(fields.collect())
}
