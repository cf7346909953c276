//! What is different between two operations, and between two lists of files, in the user's words.

use std::collections::BTreeMap;
use std::fmt;

use rbuild_cache::{FileList, ListedFile};
use rbuild_solver::{
    CacheMap, ExecOp, FileActionKind, FileOp, Mount, MountKind, Op, SourceOp, Vertex, redact_url,
};
use serde::Serialize;

/// The longest text that is shown whole.
const LONGEST: usize = 200;

/// Something of an operation that is different.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    /// What it is.
    pub(super) what: String,
    /// What it was; missing when it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<String>,
    /// What it is now; missing when it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) now: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = &self.what;
        match (&self.before, &self.now) {
            (Some(before), Some(now)) => {
                write!(f, "{what} is {}, and was {}", short(now), short(before))
            }
            (None, Some(now)) => write!(f, "{what} is new: {}", short(now)),
            (Some(before), None) => write!(f, "{what} is gone: {}", short(before)),
            (None, None) => write!(f, "{what} is different"),
        }
    }
}

/// A text in quotes, cut where it is long.
fn short(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Collects what differs.
#[derive(Default)]
struct Changes(Vec<Change>);

impl Changes {
    fn add(&mut self, what: &str, before: Option<String>, now: Option<String>) {
        if before != now {
            self.0.push(Change { what: what.to_owned(), before, now });
        }
    }

    fn both(&mut self, what: &str, before: impl ToString, now: impl ToString) {
        self.add(what, Some(before.to_string()), Some(now.to_string()));
    }

    /// Entries by name; those that count for the first ones first.
    fn entries(
        &mut self,
        what: &dyn Fn(&str) -> String,
        before: &BTreeMap<String, String>,
        now: &BTreeMap<String, String>,
    ) {
        let new = now.keys().filter(|name| !before.contains_key(*name));
        for name in before.keys().chain(new) {
            self.add(&what(name), before.get(name).cloned(), now.get(name).cloned());
        }
    }
}

/// What differs between two operations; empty when only their inputs may. The names are those of the steps.
pub(super) fn of_operations(old: &Vertex, new: &Vertex, names: (&str, &str)) -> Vec<Change> {
    let mut changes = Changes::default();
    match (&old.op, &new.op) {
        (Op::Source(old), Op::Source(new)) => {
            of_sources(old, new, &mut changes);
            if changes.0.is_empty() {
                // It is asked for what it is; the same address may have something else.
                changes.0.push(Change {
                    what: format!("the content of {}", new.shown()),
                    before: None,
                    now: None,
                });
            }
            return changes.0;
        }
        _ if CacheMap::of(old) == CacheMap::of(new) => return Vec::new(),
        (Op::Exec(old), Op::Exec(new)) => of_execs(old, new, &mut changes),
        (Op::File(old), Op::File(new)) => of_files_ops(old, new, names, &mut changes),
        _ => changes.both("the instruction", instruction(names.0), instruction(names.1)),
    }
    if let (Op::Exec(_), Op::Exec(_)) = (&old.op, &new.op) {
        let shown = |vertex: &Vertex| vertex.platform.as_ref().map(ToString::to_string);
        changes.add("the platform", shown(old), shown(new));
    }
    if changes.0.is_empty() {
        changes.0.push(Change { what: "the instruction".to_owned(), before: None, now: None });
    }
    changes.0
}

fn instruction(name: &str) -> &str {
    name.split_once("] ").map_or(name, |(_, rest)| rest)
}

fn of_sources(old: &SourceOp, new: &SourceOp, changes: &mut Changes) {
    let what = match new.split().0 {
        "docker-image" | "oci-layout" => "the base image",
        _ => "the source",
    };
    changes.both(what, redact_url(&old.identifier), redact_url(&new.identifier));
    let shown = |source: &SourceOp| {
        let attrs = source.attrs.iter().map(|(name, value)| (name.clone(), redact_url(value)));
        attrs.collect::<BTreeMap<_, _>>()
    };
    changes.entries(&|name| format!("the option {name}"), &shown(old), &shown(new));
}

fn of_execs(old: &ExecOp, new: &ExecOp, changes: &mut Changes) {
    let (before, now) = (&old.meta, &new.meta);
    let command = |args: &[String]| match args {
        [.., flag, command] if flag == "-c" && args.len() > 2 => command.clone(),
        _ => args.join(" "),
    };
    changes.both("the command", command(&before.args), command(&now.args));
    if changes.0.is_empty() {
        changes.both("the shell", before.args.join(" "), now.args.join(" "));
    }
    let variables = |env: &[String]| {
        let pairs = env.iter().map(|entry| entry.split_once('=').unwrap_or((entry, "")));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let had = changes.0.len();
    let what = |name: &str| format!("the variable {name} (ARG or ENV)");
    changes.entries(&what, &variables(&before.env), &variables(&now.env));
    if changes.0.len() == had && before.env != now.env {
        changes.0.push(Change {
            what: "the order of the variables".to_owned(),
            before: None,
            now: None,
        });
    }
    changes.both("the working directory", &before.cwd, &now.cwd);
    changes.both("the user", &before.user, &now.user);
    changes.both("the host name", &before.hostname, &now.hostname);
    let hosts = |hosts: &[rbuild_solver::HostIp]| {
        hosts.iter().map(|line| line.host.as_str()).collect::<Vec<_>>().join(" ")
    };
    changes.both("the list of --add-host", hosts(&before.extra_hosts), hosts(&now.extra_hosts));
    changes.both("the network", lower(old.network), lower(new.network));
    changes.both("the security mode", lower(old.security), lower(new.security));
    changes.both("the limits", lower(&before.ulimits), lower(&now.ulimits));
    let secrets = |op: &ExecOp| {
        op.secret_env
            .iter()
            .map(|secret| {
                (secret.name.clone(), format!("id={} required={}", secret.id, !secret.optional))
            })
            .collect()
    };
    let what = |name: &str| format!("the secret of the variable {name}");
    changes.entries(&what, &secrets(old), &secrets(new));
    let mounts = |op: &ExecOp| {
        op.mounts.iter().map(|mount| (mount.dest.clone(), shown_mount(mount))).collect()
    };
    changes.entries(&|dest| format!("the mount at {dest}"), &mounts(old), &mounts(new));
}

fn lower(value: impl fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

/// The options of a mount that count.
fn shown_mount(mount: &Mount) -> String {
    let mut text = match &mount.kind {
        MountKind::Bind => "type=bind".to_owned(),
        MountKind::Cache { .. } => "type=cache".to_owned(),
        MountKind::Tmpfs { size } => format!("type=tmpfs,size={size}"),
        MountKind::Secret { id, uid, gid, mode, optional } => {
            format!("type=secret,id={id},uid={uid},gid={gid},mode={mode:o},required={}", !optional)
        }
        MountKind::Ssh { id, uid, gid, mode, optional } => {
            format!("type=ssh,id={id},uid={uid},gid={gid},mode={mode:o},required={}", !optional)
        }
    };
    if mount.readonly {
        text.push_str(",readonly");
    }
    if !matches!(mount.selector.as_str(), "" | "/") {
        text.extend([",source=", &mount.selector]);
    }
    text
}

fn of_files_ops(old: &FileOp, new: &FileOp, names: (&str, &str), changes: &mut Changes) {
    changes.both("the instruction", instruction(names.0), instruction(names.1));
    if !changes.0.is_empty() {
        return;
    }
    for (before, now) in old.actions.iter().zip(&new.actions) {
        match (&before.kind, &now.kind) {
            (FileActionKind::Copy(before), FileActionKind::Copy(now)) => {
                changes.both("the source", &before.src, &now.src);
                changes.both("the destination", &before.dest, &now.dest);
                changes.both("the owner", lower(&before.owner), lower(&now.owner));
                changes.both("the mode", lower(before.mode), lower(now.mode));
                let time =
                    |time: Option<i64>| time.filter(|time| *time >= 0).map(|t| t.to_string());
                changes.add("SOURCE_DATE_EPOCH", time(before.timestamp), time(now.timestamp));
                changes.both(
                    "what is left out",
                    before.exclude_patterns.join(" "),
                    now.exclude_patterns.join(" "),
                );
            }
            (FileActionKind::Mkfile(before), FileActionKind::Mkfile(now))
                if before.data != now.data =>
            {
                changes.0.push(Change {
                    what: format!("the text of {}", now.path),
                    before: None,
                    now: None,
                });
            }
            _ => {}
        }
    }
}

/// A file that is different.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct FileChange {
    /// Its path in the folder.
    pub(super) path: String,
    /// What of it.
    pub(super) change: FileDifference,
    /// The permission bits before and now, when they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) modes: Option<(String, String)>,
}

/// What is different about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FileDifference {
    /// It was not there.
    Added,
    /// It is not there.
    Removed,
    /// It is a file and was a folder, or the like.
    Kind,
    /// What is in it, or its attributes.
    Content,
    /// Where the link leads.
    Target,
    /// Only who may do what.
    Mode,
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "." } else { &self.path };
        f.write_str(match self.change {
            FileDifference::Added => "added: ",
            FileDifference::Removed => "removed: ",
            FileDifference::Kind => "of another kind: ",
            FileDifference::Content => "content changed: ",
            FileDifference::Target => "link leads elsewhere: ",
            FileDifference::Mode => "mode changed: ",
        })?;
        f.write_str(path)?;
        match &self.modes {
            Some((before, now)) => write!(f, " (mode {now}, was {before})"),
            None => Ok(()),
        }
    }
}

/// The files that differ, by path.
pub(super) fn of_files(before: &FileList, now: &FileList) -> Vec<FileChange> {
    let mut changes = Vec::new();
    let new = now.0.keys().filter(|path| !before.0.contains_key(*path));
    for path in before.0.keys().chain(new) {
        let (old, new) = (before.0.get(path), now.0.get(path));
        let Some(change) = difference(old, new) else { continue };
        let modes = match (old, new) {
            (Some(old), Some(new)) if old.mode != new.mode => {
                Some((format!("{:o}", old.mode), format!("{:o}", new.mode)))
            }
            _ => None,
        };
        changes.push(FileChange {
            path: String::from_utf8_lossy(path).into_owned(),
            change,
            modes,
        });
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    changes
}

fn difference(old: Option<&ListedFile>, new: Option<&ListedFile>) -> Option<FileDifference> {
    let (old, new) = match (old, new) {
        (None, _) => return Some(FileDifference::Added),
        (_, None) => return Some(FileDifference::Removed),
        (Some(old), Some(new)) => (old, new),
    };
    if old.kind != new.kind {
        Some(FileDifference::Kind)
    } else if old.content != new.content {
        Some(FileDifference::Content)
    } else if old.target != new.target {
        Some(FileDifference::Target)
    } else {
        (old.mode != new.mode).then_some(FileDifference::Mode)
    }
}

#[cfg(test)]
mod tests {
    use rbuild_cache::ListedKind;
    use rbuild_solver::{ExecMeta, GraphBuilder, NetworkMode, SecurityMode, VertexMeta};

    use super::*;

    fn changes(change: impl FnOnce(&mut ExecOp)) -> Vec<String> {
        let vertex = |op: ExecOp| {
            let mut builder = GraphBuilder::new();
            let op = Op::Exec(Box::new(op));
            let id = builder.add(op, Vec::new(), None, VertexMeta::default());
            builder.graph().vertex(id).clone()
        };
        let args = ["/bin/sh", "-c", "make"].map(str::to_owned).to_vec();
        let env = vec!["A=1".to_owned(), "B=2".to_owned()];
        let old = ExecOp {
            meta: ExecMeta { args, env, ..ExecMeta::default() },
            mounts: vec![Mount { input: None, ..Mount::root() }],
            network: NetworkMode::Default,
            security: SecurityMode::Sandbox,
            secret_env: Vec::new(),
        };
        let mut new = old.clone();
        change(&mut new);
        let changes = of_operations(&vertex(old), &vertex(new), ("[1/1] RUN a", "[1/1] RUN b"));
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn operations_differ_in_words() {
        assert_eq!(changes(|_| {}), [""; 0]);
        assert_eq!(
            changes(|op| op.meta.args[2] = "make all".to_owned()),
            [r#"the command is "make all", and was "make""#]
        );
        assert_eq!(
            changes(|op| op.meta.args[0] = "/bin/bash".to_owned()),
            [r#"the shell is "/bin/bash -c make", and was "/bin/sh -c make""#]
        );
        assert_eq!(
            changes(|op| op.meta.env = vec!["A=3".to_owned(), "C=4".to_owned()]),
            [
                r#"the variable A (ARG or ENV) is "3", and was "1""#,
                r#"the variable B (ARG or ENV) is gone: "2""#,
                r#"the variable C (ARG or ENV) is new: "4""#,
            ]
        );
        assert_eq!(
            changes(|op| op.meta.env.swap(0, 1)),
            ["the order of the variables is different"]
        );
        assert_eq!(
            changes(|op| op.network = NetworkMode::None),
            [r#"the network is "none", and was "default""#]
        );
        let kind =
            MountKind::Secret { id: "s".to_owned(), uid: 0, gid: 0, mode: 0o400, optional: true };
        let mount =
            Mount { input: None, output: None, dest: "/s".to_owned(), kind, ..Mount::root() };
        assert_eq!(
            changes(|op| op.mounts.push(mount)),
            [r#"the mount at /s is new: "type=secret,id=s,uid=0,gid=0,mode=400,required=false""#]
        );
    }

    #[test]
    fn files_differ_in_words() {
        let file = |content, mode| ListedFile {
            kind: ListedKind::File,
            mode,
            content: Some([content; 32]),
            target: Vec::new(),
        };
        let list = |files: &[(&str, ListedFile)]| {
            let files = files.iter().map(|(path, file)| (path.as_bytes().to_vec(), file.clone()));
            FileList(files.collect())
        };
        let before = list(&[
            ("a", file(1, 0o644)),
            ("b", file(1, 0o644)),
            ("c", file(1, 0o644)),
            ("d", file(1, 0o644)),
        ]);
        let now = list(&[
            ("a", file(2, 0o644)),
            ("b", file(1, 0o755)),
            ("d", file(1, 0o644)),
            ("e", file(1, 0o644)),
        ]);
        let changes: Vec<_> = of_files(&before, &now).iter().map(ToString::to_string).collect();
        assert_eq!(
            changes,
            ["content changed: a", "mode changed: b (mode 755, was 644)", "removed: c", "added: e"]
        );
    }
}
