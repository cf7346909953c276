//! Sources that are no paths, and contexts that are no folders.

use rbuild_solver::{
    CopyAction, Edge, FileAction, FileActionKind, FileOp, Graph, GraphBuilder, Op, SourceOp,
    VertexMeta,
};

use super::lowering::Lowering;
use crate::build::RemoteContext;
use crate::draft::Node;
use crate::git_url::{GitUrl, GitUrlError};

/// The name of a file whose address has none. BuildKit's.
const UNNAMED: &str = "__unnamed__";
/// The name of the file that a context by HTTP comes as.
const ARCHIVE: &str = "context";

/// A source that is no path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remote {
    /// A git repository.
    Git(Box<GitUrl>),
    /// A file behind a URL, by the name that it has when it is copied into a directory.
    Http { file_name: String },
}

/// What kind of address a source is; `None` for a path. `github.com/a/b` cannot be told from one, and is one.
pub(crate) fn remote(source: &str) -> Result<Option<Remote>, GitUrlError> {
    if let Some(git) = GitUrl::parse(source)?.filter(|git| !git.is_ambiguous) {
        return Ok(Some(Remote::Git(Box::new(git))));
    }
    let is_http = source.starts_with("http://") || source.starts_with("https://");
    Ok(is_http.then(|| Remote::Http { file_name: file_name(source) }))
}

/// The last element of a URL's path.
fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    // Escapes that are none stay as they are.
    let decoded = crate::git_url::decode(path, false).unwrap_or(path.into());
    match rbuild_solver::clean_path(&format!("/{decoded}")).rsplit('/').next() {
        None | Some("") => UNNAMED.to_owned(),
        Some(name) => name.to_owned(),
    }
}

impl Lowering<'_> {
    /// The files of a context that is fetched.
    pub(super) fn remote_context(&mut self, name: &str, context: &RemoteContext) -> Node {
        if let Some(node) = self.remotes.get(name) {
            return *node;
        }
        let mut node = None;
        for (op, meta) in context.vertices(name) {
            node = Some(self.draft.add(op, node.into_iter().collect(), None, meta));
        }
        let node = node.expect("a context has a source");
        self.remotes.insert(name.to_owned(), node);
        node
    }
}

impl RemoteContext {
    /// A repository.
    pub fn git(url: &GitUrl) -> Self {
        Self { source: url.source(), unpack: false }
    }

    /// A file by HTTP. If it is an archive, its content is meant.
    pub fn http(url: &str, is_archive: bool) -> Self {
        let mut source = SourceOp::new(url);
        source.attrs.insert("http.filename".to_owned(), ARCHIVE.to_owned());
        Self { source, unpack: is_archive }
    }

    /// The graph of the context alone, which a build that uses it has, too.
    pub fn graph(&self, name: &str) -> (Graph, Edge) {
        let mut builder = GraphBuilder::new();
        let mut edge = None;
        for (op, meta) in self.vertices(name) {
            let vertex = builder.add(op, edge.into_iter().collect(), None, meta);
            edge = Some(Edge { vertex, output: 0 });
        }
        (builder.finish(), edge.expect("a context has a source"))
    }

    /// The source, and what unpacks it; each stands on the one before it.
    fn vertices(&self, name: &str) -> Vec<(Op, VertexMeta)> {
        let address = self.source.shown();
        let is_main = name == super::copy::CONTEXT;
        let fetching = match self.source.split().0 {
            "git" if is_main => format!("[internal] load git source {address}"),
            _ if is_main => format!("[internal] load remote build context {address}"),
            _ => format!("[context {name}] {address}"),
        };
        let meta = |name| VertexMeta { name, ..VertexMeta::default() };
        let mut vertices = vec![(Op::Source(self.source.clone()), meta(fetching))];
        if self.unpack {
            let copy = CopyAction {
                src: format!("/{ARCHIVE}"),
                dest: "/".to_owned(),
                attempt_unpack: true,
                create_dest_path: true,
                ..CopyAction::default()
            };
            let action = FileAction {
                input: None,
                secondary_input: Some(0),
                output: Some(0),
                kind: FileActionKind::Copy(copy),
            };
            let unpacking = match is_main {
                true => "[internal] extract build context".to_owned(),
                false => format!("[context {name}] extract"),
            };
            vertices.push((Op::File(FileOp { actions: vec![action] }), meta(unpacking)));
        }
        vertices
    }

    /// The name of the file in what a source by HTTP yields.
    pub const FILE: &str = ARCHIVE;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let http = |name: &str| Some(Remote::Http { file_name: name.to_owned() });
        for (source, expected) in [
            ("a", None),
            ("github.com/a/b", None),
            ("http://x/y", http("y")),
            ("https://x/a/y.tar?x.git", http("y.tar")),
            ("https://x", http(UNNAMED)),
            ("https://x/?y", http(UNNAMED)),
            ("https://x/a/", http("a")),
            ("https://x/a%20b#f", http("a b")),
            ("https://x/a%2fb", http("b")),
            ("https://x/..", http(UNNAMED)),
            ("https://x/a%", http("a%")),
        ] {
            assert_eq!(remote(source).unwrap(), expected, "{source}");
        }
        for source in ["https://x/y.git", "git://x/y", "ssh://x/y", "git@github.com:a/b"] {
            assert!(matches!(remote(source), Ok(Some(Remote::Git(_)))), "{source}");
        }
        assert!(remote("git@x:y?z=1").is_err());
    }
}
