//! What a build has taken from elsewhere.

use std::collections::BTreeMap;

use rbuild_oci::{Digest, Platform, Reference};
use rbuild_solver::{Graph, Op, SourceOp, Vertex};
use serde_json::{Value, json};

use crate::attestation::image_purl;

/// What a source has turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceDigest {
    /// The commit of a git repository.
    Commit(String),
    /// The content of a file.
    Content(Digest),
}

/// A source whose identifier does not say what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedSource {
    /// Its vertex in the graph.
    pub vertex: Digest,
    /// What it is.
    pub digest: SourceDigest,
}

/// `resolvedDependencies`, each once, sorted by address.
pub(super) fn dependencies(graph: &Graph, resolved: &[ResolvedSource]) -> Vec<Value> {
    let mut found = BTreeMap::new();
    for vertex in graph.vertices() {
        let Op::Source(source) = &vertex.op else { continue };
        for entry in entries(source, vertex, resolved) {
            // Addresses that differ in what is not said can be of several contents.
            found.insert((entry["uri"].to_string(), entry["digest"].to_string()), entry);
        }
    }
    found.into_values().collect()
}

/// The names of local folders.
pub(super) fn locals(graph: &Graph) -> Vec<Value> {
    let names = graph.vertices().iter().filter_map(|vertex| match &vertex.op {
        Op::Source(source) => source.local_name(),
        _ => None,
    });
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| json!({ "name": name })).collect()
}

fn entries(source: &SourceOp, vertex: &Vertex, resolved: &[ResolvedSource]) -> Vec<Value> {
    let (scheme, place) = source.split();
    match scheme {
        "local" => Vec::new(),
        "docker-image" | "oci-layout" => {
            let (uri, digest) = image(scheme, place, vertex.platform.as_ref());
            let mut entry = json!({ "uri": uri });
            if let Some(digest) = digest {
                entry["digest"] = json!({ digest.algorithm().name(): digest.hex() });
            }
            vec![entry]
        }
        _ => {
            let uri = source.shown_to_all();
            let found = resolved.iter().filter(|found| found.vertex == vertex.digest);
            let entry = |found: &ResolvedSource| {
                let digest = match &found.digest {
                    SourceDigest::Commit(commit) => commit_digest(commit),
                    SourceDigest::Content(digest) => {
                        json!({ digest.algorithm().name(): digest.hex() })
                    }
                };
                json!({ "uri": uri, "digest": digest })
            };
            let entries: Vec<_> = found.map(entry).collect();
            if entries.is_empty() { vec![json!({ "uri": uri })] } else { entries }
        }
    }
}

/// The digest of a commit, by the hash that its length is of.
pub(super) fn commit_digest(commit: &str) -> Value {
    let kind = if commit.len() == 64 { "sha256" } else { "sha1" };
    json!({ kind: commit })
}

fn image(scheme: &str, place: &str, platform: Option<&Platform>) -> (String, Option<Digest>) {
    let parsed = Reference::parse(place).ok();
    let digest = parsed.as_ref().and_then(|name| name.digest().copied());
    let digest = digest
        .or_else(|| place.rsplit_once('@').and_then(|(_, digest)| Digest::parse(digest).ok()));
    let uri = match parsed {
        Some(name) if scheme == "docker-image" => {
            // The digest stands beside it.
            let plain = Reference::parse(place.split('@').next().unwrap_or(place)).unwrap_or(name);
            image_purl(&plain, platform)
        }
        // A folder's path is of interest to nobody else.
        _ => {
            let id = digest.map_or_else(String::new, |digest| format!("?digest={digest}"));
            format!("pkg:oci/image{id}")
        }
    };
    (uri, digest)
}

#[cfg(test)]
mod tests {
    use rbuild_solver::{GraphBuilder, VertexMeta};

    use super::*;

    #[test]
    fn sources_of_all_kinds() {
        let digest = Digest::of(b"x");
        let mut builder = GraphBuilder::new();
        let platform = Some(Platform::new("linux", "amd64", ""));
        let mut resolved = Vec::new();
        for (identifier, found) in [
            (format!("docker-image://docker.io/library/busybox:1@{digest}"), None),
            (format!("oci-layout:///srv/secret-place:1@{digest}"), None),
            ("local://context".to_owned(), None),
            (
                "git://example.com/a.git#main".to_owned(),
                Some(SourceDigest::Commit("ab".repeat(20))),
            ),
            ("https://me@example.com/f?sig=1".to_owned(), Some(SourceDigest::Content(digest))),
            (
                "https://me@example.com/f?sig=2".to_owned(),
                Some(SourceDigest::Content(Digest::of(b"y"))),
            ),
        ] {
            let op = Op::Source(SourceOp::new(identifier));
            let id = builder.add(op, Vec::new(), platform.clone(), VertexMeta::default());
            let vertex = builder.graph().vertex(id).digest;
            resolved.extend(found.map(|digest| ResolvedSource { vertex, digest }));
        }
        let graph = builder.finish();
        let hex = digest.hex();
        assert_eq!(
            Value::from(dependencies(&graph, &resolved)),
            json!([
                { "uri": "git://example.com/a.git#main", "digest": { "sha1": "ab".repeat(20) } },
                { "uri": "https://xxxxx@example.com/f", "digest": { "sha256": hex } },
                { "uri": "https://xxxxx@example.com/f", "digest": { "sha256": Digest::of(b"y").hex() } },
                { "uri": "pkg:docker/busybox@1?platform=linux%2Famd64", "digest": { "sha256": hex } },
                { "uri": format!("pkg:oci/image?digest={digest}"), "digest": { "sha256": hex } },
            ])
        );
        assert_eq!(Value::from(locals(&graph)), json!([{ "name": "context" }]));
    }
}
