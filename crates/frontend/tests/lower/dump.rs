//! A graph as a few lines of text.

use std::fmt::Write;

use rbuild_frontend::Build;
use rbuild_solver::{
    ChownSpec, CopyAction, ExecOp, FileAction, FileActionKind, FileOp, MountKind, NetworkMode, Op,
    Owner,
};

/// One line a vertex, `number name`, and below it what it does; `=` and a number is the target.
pub(crate) fn graph(build: &Build) -> String {
    let mut text = String::new();
    for id in build.graph.ids() {
        let vertex = build.graph.vertex(id);
        let inputs: Vec<usize> = vertex.inputs.iter().map(|edge| edge.vertex.index()).collect();
        assert!(vertex.inputs.iter().all(|edge| edge.output == 0));
        let no_cache = if vertex.meta.ignore_cache { " (no cache)" } else { "" };
        writeln!(text, "{} {}{no_cache}", id.index(), vertex.meta.name).unwrap();
        let lines = match &vertex.op {
            Op::Source(source) => {
                let attributes =
                    source.attrs.iter().filter(|(name, _)| *name != "local.sharedkeyhint");
                let attributes: Vec<_> =
                    attributes.map(|(name, value)| format!(" {name}={value}")).collect();
                vec![format!("{}{}", source.identifier, attributes.concat())]
            }
            Op::Exec(exec) => execution(exec, &inputs),
            Op::File(file) => files(file, &inputs),
            Op::Merge(merge) => {
                let inputs: Vec<_> =
                    merge.inputs.iter().map(|input| state(*input, &inputs)).collect();
                vec![format!("merge {}", inputs.join(" "))]
            }
            Op::Diff(_) => vec!["diff".to_owned()],
        };
        for line in lines {
            writeln!(text, "    {line}").unwrap();
        }
    }
    let target = build.target.map(|edge| edge.vertex.index().to_string());
    writeln!(text, "= {}", target.as_deref().unwrap_or("nothing")).unwrap();
    text
}

fn execution(exec: &ExecOp, inputs: &[usize]) -> Vec<String> {
    let meta = &exec.meta;
    let env: Vec<&String> = meta.env.iter().filter(|entry| !entry.starts_with("PATH=")).collect();
    let root = exec.mounts.iter().find(|mount| mount.dest == "/");
    let root = state(root.and_then(|root| root.input), inputs);
    let mut line = format!("on {root} in {} run {:?}", meta.cwd, meta.args);
    if !env.is_empty() {
        write!(line, " env {env:?}").unwrap();
    }
    if !meta.user.is_empty() {
        write!(line, " as {}", meta.user).unwrap();
    }
    if exec.network != NetworkMode::Default {
        write!(line, " network {:?}", exec.network).unwrap();
    }
    if let Some(proxy) = &meta.proxy_env {
        write!(line, " proxy {}", proxy.http).unwrap();
    }
    for host in &meta.extra_hosts {
        write!(line, " host {}={}", host.host, host.ip).unwrap();
    }
    if !meta.hostname.is_empty() {
        write!(line, " called {}", meta.hostname).unwrap();
    }
    let mut lines = vec![line];
    for mount in exec.mounts.iter().filter(|mount| mount.dest != "/") {
        let access = if mount.readonly { "ro" } else { "rw" };
        let input = state(mount.input, inputs);
        let kind = match &mount.kind {
            MountKind::Bind => String::new(),
            MountKind::Cache { id, sharing } => format!(" cache {id} {sharing:?}"),
            MountKind::Tmpfs { size } => format!(" memory {size}"),
            MountKind::Secret { id, uid, gid, mode, optional } => {
                format!(" secret {id} {uid}:{gid} {mode:o} optional={optional}")
            }
            MountKind::Ssh { id, uid, gid, mode, optional } => {
                format!(" agent {id} {uid}:{gid} {mode:o} optional={optional}")
            }
        };
        lines.push(format!("{access} {input}{} at {}{kind}", mount.selector, mount.dest));
    }
    for secret in &exec.secret_env {
        lines.push(format!("{} is secret {} optional={}", secret.name, secret.id, secret.optional));
    }
    lines
}

fn files(file: &FileOp, inputs: &[usize]) -> Vec<String> {
    let count = file.actions.len();
    let lines = file.actions.iter().enumerate().map(|(index, action)| {
        assert_eq!(action.output, (index + 1 == count).then_some(0), "only the last is an output");
        action_line(action, inputs)
    });
    lines.collect()
}

fn action_line(action: &FileAction, inputs: &[usize]) -> String {
    let on = state(action.input, inputs);
    match &action.kind {
        FileActionKind::Copy(copy) => {
            let from = state(action.secondary_input, inputs);
            format!("on {on} copy {from}:{} -> {}{}", copy.src, copy.dest, flags(copy, inputs))
        }
        FileActionKind::Mkfile(mkfile) => {
            let data = String::from_utf8(mkfile.data.clone()).unwrap();
            format!("on {on} write {} {:o} {data:?}", mkfile.path, mkfile.mode)
        }
        FileActionKind::Mkdir(mkdir) => {
            let owner = owner(mkdir.owner.as_ref(), inputs);
            let time = mkdir.timestamp.map(|time| format!(" time {time}")).unwrap_or_default();
            format!("on {on} mkdir {} {:o}{owner}{time}", mkdir.path, mkdir.mode)
        }
        other => format!("{other:?}"),
    }
}

fn flags(copy: &CopyAction, inputs: &[usize]) -> String {
    assert!(copy.create_dest_path);
    let mut text = owner(copy.owner.as_ref(), inputs);
    if let Some(mode) = copy.mode {
        write!(text, " mode {mode:o}").unwrap();
    }
    if !copy.mode_str.is_empty() {
        write!(text, " mode {}", copy.mode_str).unwrap();
    }
    // A path of a tree has all of these, a written file none, and a repository only the first.
    let of_path = copy.follow_symlink;
    assert_eq!([copy.allow_wildcard, copy.allow_empty_wildcard], [of_path; 2]);
    let of_repository = copy.dir_copy_contents && !of_path;
    for (flag, name) in [
        (!of_path && !of_repository, "plain"),
        (of_repository, "contents"),
        (copy.attempt_unpack, "unpack"),
    ] {
        if flag {
            write!(text, " {name}").unwrap();
        }
    }
    for (list, name) in [
        (&copy.include_patterns, "include"),
        (&copy.exclude_patterns, "exclude"),
        (&copy.required_paths, "require"),
    ] {
        if !list.is_empty() {
            write!(text, " {name} {}", list.join(",")).unwrap();
        }
    }
    if let Some(time) = copy.timestamp {
        write!(text, " time {time}").unwrap();
    }
    text
}

fn owner(owner: Option<&ChownSpec>, inputs: &[usize]) -> String {
    let Some(owner) = owner else { return String::new() };
    let name = |owner: &Option<Owner>| match owner {
        None => String::new(),
        Some(Owner::Id(id)) => id.to_string(),
        Some(Owner::Name { name, input }) => format!("{name}@{}", state(*input, inputs)),
    };
    format!(" owner {}:{}", name(&owner.user), name(&owner.group))
}

/// An input's vertex; `^` is what the action before left, and `-` nothing.
fn state(input: Option<u32>, inputs: &[usize]) -> String {
    match input {
        None => "-".to_owned(),
        Some(input) => match inputs.get(input as usize) {
            Some(vertex) => vertex.to_string(),
            None => "^".to_owned(),
        },
    }
}
