//! Graphs as strangers may read them.

use std::collections::HashMap;
use std::fmt;

use rbuild_oci::Digest;

use crate::redact::{rebuilt, redacted_op};
use crate::{
    ChownSpec, Edge, ExecOp, FileActionKind, FileOp, Graph, MountKind, Op, Owner, SourceOp,
    redact_url,
};

/// What stands for a text that is nobody's business.
const HIDDEN: &str = "xxxxx";
/// The shortest value that is looked for in other texts. Shorter ones are in too many words that say nothing of them.
const SHORTEST_GIVEN: usize = 4;
/// The same of values that the user has not given: most of them are settings.
const SHORTEST_FOUND: usize = 8;

/// Texts that strangers may not read, and the names of the variables that have such texts.
#[derive(Clone)]
pub struct Secrets {
    is_secret_name: fn(&str) -> bool,
    /// The longest first, so that none is hidden in part only.
    texts: Vec<String>,
}

impl Secrets {
    /// None yet but the values of variables whose names are secrets' to `is_secret_name`.
    pub fn new(is_secret_name: fn(&str) -> bool) -> Self {
        Self { is_secret_name, texts: Vec::new() }
    }

    /// Hides the value of a secret's argument wherever it occurs, if it has four characters at least.
    pub fn add_argument(&mut self, name: &str, value: &str) {
        if (self.is_secret_name)(name) {
            self.add(value, SHORTEST_GIVEN);
        }
    }

    /// Hides the values that steps of a graph have in secrets' variables, wherever they occur.
    pub fn add_variables(&mut self, graph: &Graph) {
        for vertex in graph.vertices() {
            let Op::Exec(exec) = &vertex.op else { continue };
            for (name, value) in exec.meta.env.iter().filter_map(|both| both.split_once('=')) {
                if (self.is_secret_name)(name) {
                    self.add(value, SHORTEST_FOUND);
                }
            }
        }
    }

    fn add(&mut self, value: &str, shortest: usize) {
        if value.len() >= shortest && !self.texts.iter().any(|text| text == value) {
            let before = |text: &String| text.len() >= value.len();
            self.texts.insert(self.texts.partition_point(before), value.to_owned());
        }
    }

    /// A text without secrets, and without the passwords of the addresses in it.
    pub fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.texts {
            if text.contains(secret) {
                text = text.replace(secret, HIDDEN);
            }
        }
        without_passwords(&text)
    }

    /// The value of a variable: nothing of it if the name is a secret's.
    pub fn hide_value(&self, name: &str, value: &str) -> String {
        if (self.is_secret_name)(name) && !value.is_empty() {
            return HIDDEN.to_owned();
        }
        let is_proxy = name.to_ascii_lowercase().ends_with("_proxy");
        match value.rsplit_once('@') {
            // Proxies are addresses without a scheme, too.
            Some((_, host)) if is_proxy && !value.contains("://") => format!("{HIDDEN}@{host}"),
            _ => self.hide(&redact_url(value)),
        }
    }

    fn hide_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return self.hide(text).into_bytes();
        }
        let mut rest = bytes;
        let mut hidden = Vec::with_capacity(bytes.len());
        while let Some(first) = rest.first() {
            match self.texts.iter().find(|text| rest.starts_with(text.as_bytes())) {
                Some(text) => {
                    hidden.extend_from_slice(HIDDEN.as_bytes());
                    rest = &rest[text.len()..];
                }
                None => {
                    hidden.push(*first);
                    rest = &rest[1..];
                }
            }
        }
        hidden
    }
}

/// Says only how many there are.
impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Secrets").field("count", &self.texts.len()).finish_non_exhaustive()
    }
}

/// [`redacted`](crate::redacted), and without secrets in any text, without the paths of image layouts, and with nothing
/// but digests of vertices that are without them.
pub fn published(
    graph: &Graph,
    target: Edge,
    secrets: &Secrets,
) -> (Graph, Edge, HashMap<Digest, Digest>) {
    rebuilt(graph, target, |op| {
        let mut op = redacted_op(op);
        match &mut op {
            Op::Source(source) => hide_in_source(source, secrets),
            Op::Exec(exec) => hide_in_exec(exec, secrets),
            Op::File(file) => hide_in_file(file, secrets),
            Op::Merge(_) | Op::Diff(_) => {}
        }
        op
    })
}

fn hide_in_source(source: &mut SourceOp, secrets: &Secrets) {
    let (scheme, place) = source.split();
    let (name, digest) = match (scheme, place.split_once('@')) {
        // A digest that has the letters of a secret by chance stays what it is.
        ("docker-image" | "oci-layout", Some((name, digest))) => (name, format!("@{digest}")),
        _ => (place, String::new()),
    };
    source.identifier = match scheme {
        "oci-layout" => format!("{scheme}://{HIDDEN}{digest}"),
        "docker-image" => format!("{scheme}://{}{digest}", secrets.hide(name)),
        _ => secrets.hide(&source.identifier),
    };
    source.attrs.values_mut().for_each(|value| *value = secrets.hide(value));
}

fn hide_in_exec(exec: &mut ExecOp, secrets: &Secrets) {
    let hide = |text: &mut String| *text = secrets.hide(text);
    let meta = &mut exec.meta;
    for variable in &mut meta.env {
        if let Some((name, value)) = variable.split_once('=') {
            *variable = format!("{name}={}", secrets.hide_value(name, value));
        }
    }
    meta.args.iter_mut().for_each(hide);
    [&mut meta.cwd, &mut meta.user, &mut meta.hostname, &mut meta.cgroup_parent]
        .into_iter()
        .for_each(hide);
    for host in &mut meta.extra_hosts {
        hide(&mut host.host);
        hide(&mut host.ip);
    }
    for secret in &mut exec.secret_env {
        hide(&mut secret.id);
        hide(&mut secret.name);
    }
    for mount in &mut exec.mounts {
        hide(&mut mount.selector);
        hide(&mut mount.dest);
        match &mut mount.kind {
            MountKind::Cache { id, .. }
            | MountKind::Secret { id, .. }
            | MountKind::Ssh { id, .. } => hide(id),
            MountKind::Bind | MountKind::Tmpfs { .. } => {}
        }
    }
}

fn hide_in_file(file: &mut FileOp, secrets: &Secrets) {
    let hide = |text: &mut String| *text = secrets.hide(text);
    for action in &mut file.actions {
        let owner = match &mut action.kind {
            FileActionKind::Copy(copy) => {
                [&mut copy.src, &mut copy.dest, &mut copy.mode_str].into_iter().for_each(hide);
                let patterns = copy.include_patterns.iter_mut();
                let patterns = patterns.chain(&mut copy.exclude_patterns);
                patterns.chain(&mut copy.required_paths).for_each(hide);
                copy.owner.as_mut()
            }
            FileActionKind::Mkfile(made) => {
                hide(&mut made.path);
                made.data = secrets.hide_bytes(&made.data);
                made.owner.as_mut()
            }
            FileActionKind::Mkdir(made) => {
                hide(&mut made.path);
                made.owner.as_mut()
            }
            FileActionKind::Rm(removed) => {
                hide(&mut removed.path);
                None
            }
            FileActionKind::Symlink(link) => {
                hide(&mut link.target);
                hide(&mut link.path);
                link.owner.as_mut()
            }
        };
        let Some(ChownSpec { user, group }) = owner else { continue };
        for owner in [user, group] {
            if let Some(Owner::Name { name, .. }) = owner {
                hide(name);
            }
        }
    }
}

/// A text with [`redact_url`] done to each address in it.
fn without_passwords(text: &str) -> String {
    let mut hidden = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (scheme, address) = rest.split_at(at + 3);
        let is_end = |char: char| "/?#\"`<>".contains(char) || char.is_whitespace();
        let (authority, after) = address.split_at(address.find(is_end).unwrap_or(address.len()));
        hidden.push_str(scheme);
        let host = match authority.rsplit_once('@') {
            Some((user, host)) => {
                let user = if user.contains(':') { "xxxxx:xxxxx@" } else { "xxxxx@" };
                hidden.push_str(user);
                host
            }
            None => authority,
        };
        hidden.push_str(host);
        rest = after;
    }
    hidden.push_str(rest);
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CacheSharing, CopyAction, ExecMeta, FileAction, GraphBuilder, MkdirAction, MkfileAction,
        Mount, NetworkMode, SecurityMode, VertexMeta,
    };

    fn secrets() -> Secrets {
        let mut secrets = Secrets::new(|name| name.ends_with("TOKEN"));
        secrets.add_argument("A_TOKEN", "hunter2");
        secrets.add_argument("LONG_TOKEN", "hunter2long");
        secrets.add_argument("SHORT_TOKEN", "1");
        secrets.add_argument("VERSION", "public");
        secrets
    }

    fn file(kind: FileActionKind) -> Op {
        let action = FileAction { input: None, secondary_input: None, output: Some(0), kind };
        Op::File(FileOp { actions: vec![action] })
    }

    #[test]
    fn texts_without_secrets() {
        let secrets = secrets();
        for (text, shown) in [
            ("a hunter2long b hunter2", "a xxxxx b xxxxx"),
            (
                "git clone https://me:pw@h/x 'ssh://git@h' 1",
                "git clone https://xxxxx:xxxxx@h/x 'ssh://xxxxx@h' 1",
            ),
            ("--url=http://h/a@b public", "--url=http://h/a@b public"),
        ] {
            assert_eq!(secrets.hide(text), shown);
        }
        assert_eq!(secrets.hide_value("B_TOKEN", "anything"), "xxxxx");
        assert_eq!(secrets.hide_value("B_TOKEN", ""), "");
        assert_eq!(secrets.hide_value("http_proxy", "me:pw@proxy:1"), "xxxxx@proxy:1");
        assert_eq!(secrets.hide_value("URL", "http://m\"e:pw@h"), "http://xxxxx:xxxxx@h");
        assert_eq!(secrets.hide_bytes(b"\xffhunter2long\xfehunter2"), b"\xffxxxxx\xfexxxxx");
        assert!(!format!("{secrets:?}").contains("hunter2"));
    }

    #[test]
    fn no_operation_tells_a_secret() {
        let data = b"//r/:_authToken=hunter2\n\xff".to_vec();
        let copy = CopyAction {
            src: "/hunter2".to_owned(),
            exclude_patterns: vec!["hunter2*".to_owned()],
            owner: Some(ChownSpec {
                user: Some(Owner::Name { name: "hunter2".to_owned(), input: None }),
                group: None,
            }),
            ..CopyAction::default()
        };
        let mount = Mount {
            kind: MountKind::Cache { id: "c-hunter2".to_owned(), sharing: CacheSharing::Shared },
            dest: "/c".to_owned(),
            ..Mount::root()
        };
        let exec = ExecOp {
            meta: ExecMeta {
                env: ["A_TOKEN=hunter2", "LINE=_x=hunter2", "FOUND_TOKEN=as in the file"]
                    .map(str::to_owned)
                    .into(),
                cwd: "/w/hunter2".to_owned(),
                args: vec!["as in the file".to_owned()],
                ..ExecMeta::default()
            },
            mounts: vec![Mount::root(), mount],
            network: NetworkMode::Default,
            security: SecurityMode::Sandbox,
            secret_env: Vec::new(),
        };
        let mkfile =
            MkfileAction { path: "/f".to_owned(), mode: 0o644, data, owner: None, timestamp: None };
        let mkdir = MkdirAction {
            path: "/w/hunter2".to_owned(),
            mode: 0o755,
            make_parents: true,
            owner: None,
            timestamp: None,
        };
        let mut layout = SourceOp::new("oci-layout:///srv/hunter1:1@sha256:hunter2");
        layout.attrs.insert("a".to_owned(), "hunter2".to_owned());
        let mut builder = GraphBuilder::new();
        let mut last = Vec::new();
        for op in [
            Op::Source(layout),
            Op::Source(SourceOp::new("http://h/f?token=hunter2")),
            file(FileActionKind::Copy(copy)),
            file(FileActionKind::Mkfile(mkfile)),
            file(FileActionKind::Mkdir(mkdir)),
            Op::Exec(Box::new(exec)),
        ] {
            let vertex = builder.add(op, last, None, VertexMeta::default());
            last = vec![Edge { vertex, output: 0 }];
        }
        let graph = builder.finish();
        let mut secrets = secrets();
        secrets.add_variables(&graph);
        let (shown, target, changed) = published(&graph, last[0], &secrets);
        assert_eq!(changed.len(), graph.vertices().len());
        let bytes = crate::llb::to_bytes(&shown, target);
        let text = String::from_utf8_lossy(&bytes);
        let digest = "oci-layout://xxxxx@sha256:hunter2";
        assert!(text.contains(digest), "{text}");
        let text = text.replace(digest, "");
        for secret in ["hunter", "as in the file"] {
            assert!(!text.contains(secret), "{text}");
        }
        for said in ["LINE=_x=xxxxx", "c-xxxxx", "_authToken=xxxxx", "?token=xxxxx"] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }
}
