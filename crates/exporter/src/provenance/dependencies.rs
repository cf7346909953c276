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
    /// Where it is, as people may see it ([`SourceOp::shown`]).
    pub shown: String,
    /// What it is.
    pub digest: SourceDigest,
}

/// `resolvedDependencies`, each once, sorted by address.
pub(super) fn dependencies(graph: &Graph, resolved: &[ResolvedSource]) -> Vec<Value> {
    let sources = graph.vertices().iter().filter_map(|vertex| match &vertex.op {
        Op::Source(source) => dependency(source, vertex, resolved),
        _ => None,
    });
    let by_uri: BTreeMap<String, Value> = sources.collect();
    by_uri.into_values().collect()
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

fn dependency(
    source: &SourceOp,
    vertex: &Vertex,
    resolved: &[ResolvedSource],
) -> Option<(String, Value)> {
    let (scheme, place) = source.split();
    match scheme {
        "local" => None,
        "docker-image" | "oci-layout" => {
            let (uri, digest) = image(scheme, place, vertex.platform.as_ref());
            let mut entry = json!({ "uri": uri });
            if let Some(digest) = digest {
                entry["digest"] = json!({ digest.algorithm().name(): digest.hex() });
            }
            Some((uri, entry))
        }
        _ => {
            let uri = source.shown();
            let mut entry = json!({ "uri": uri });
            if let Some(found) = resolved.iter().find(|found| found.shown == uri) {
                entry["digest"] = match &found.digest {
                    SourceDigest::Commit(commit) => commit_digest(commit),
                    SourceDigest::Content(digest) => {
                        json!({ digest.algorithm().name(): digest.hex() })
                    }
                };
            }
            Some((uri, entry))
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
        for identifier in [
            format!("docker-image://docker.io/library/busybox:1@{digest}"),
            format!("oci-layout:///srv/secret-place:1@{digest}"),
            "local://context".to_owned(),
            "git://example.com/a.git#main".to_owned(),
            "https://example.com/f".to_owned(),
        ] {
            let op = Op::Source(SourceOp::new(identifier));
            builder.add(op, Vec::new(), platform.clone(), VertexMeta::default());
        }
        let graph = builder.finish();
        let resolved = [
            ResolvedSource {
                shown: "git://example.com/a.git#main".to_owned(),
                digest: SourceDigest::Commit("ab".repeat(20)),
            },
            ResolvedSource {
                shown: "https://example.com/f".to_owned(),
                digest: SourceDigest::Content(digest),
            },
        ];
        let hex = digest.hex();
        assert_eq!(
            Value::from(dependencies(&graph, &resolved)),
            json!([
                { "uri": "git://example.com/a.git#main", "digest": { "sha1": "ab".repeat(20) } },
                { "uri": "https://example.com/f", "digest": { "sha256": hex } },
                { "uri": "pkg:docker/busybox@1?platform=linux%2Famd64", "digest": { "sha256": hex } },
                { "uri": format!("pkg:oci/image?digest={digest}"), "digest": { "sha256": hex } },
            ])
        );
        assert_eq!(Value::from(locals(&graph)), json!([{ "name": "context" }]));
    }
}
