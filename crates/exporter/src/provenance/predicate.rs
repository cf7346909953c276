//! The predicate, field by field (BuildKit's `docs/attestations/slsa-definitions.md`).

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use rbuild_oci::{Descriptor, Digest, Platform};
use rbuild_solver::{Edge, Graph, MountKind, NetworkMode, Op};
use serde_json::{Map, Value, json};

use super::dependencies::{ResolvedSource, SourceDigest, commit_digest, dependencies, locals};
use super::layer_map::layer_map;
use super::llb_json::steps;
use crate::attestation::{Attestation, PROVENANCE_V1};
use crate::image::rfc3339_of_seconds;

const BUILD_TYPE: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvenanceMode {
    /// What was built of what.
    Min,
    /// Also with which arguments, the whole graph, and the Dockerfile.
    Max,
}

/// How it is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenanceOptions {
    /// How much.
    pub mode: ProvenanceMode,
    /// Who builds, as an address; may be empty.
    pub builder_id: String,
    /// How it is called as a file.
    pub file_name: String,
    /// Whether the user says that the build gives the same bytes each time.
    pub reproducible: bool,
}

/// Where the build is described.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigSource {
    /// The address of the context, if it is fetched, without passwords.
    pub uri: Option<String>,
    /// What it is.
    pub digest: Option<SourceDigest>,
    /// The Dockerfile.
    pub path: String,
}

/// The text that the steps are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    /// The file's name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What is known of a build.
#[derive(Clone, Debug)]
pub struct BuildFacts {
    /// What was done, without passwords and values of secrets.
    pub graph: Graph,
    /// Its result; `None` is one without files.
    pub target: Option<Edge>,
    /// Where it is described.
    pub config_source: ConfigSource,
    /// The frontend; `None` for a graph that came as one.
    pub frontend: Option<&'static str>,
    /// What the frontend was asked, such as `build-arg:A`, `label:a`, `target`.
    pub args: BTreeMap<String, String>,
    /// Whether values were left out of `args`.
    pub is_redacted: bool,
    /// What the build ran on.
    pub builder_platform: Platform,
    /// What sources have turned out to be.
    pub resolved: Vec<ResolvedSource>,
    /// The text that the steps are of.
    pub source: Option<SourceText>,
    /// What only this build is called.
    pub invocation: String,
    /// When it began and ended, seconds since 1970.
    pub times: (i64, i64),
}

/// The provenance of a result with these layers; none are known of files.
pub fn provenance(
    facts: &BuildFacts,
    options: &ProvenanceOptions,
    layers: &[Descriptor],
) -> Attestation {
    let is_max = options.mode == ProvenanceMode::Max;
    let locals = locals(&facts.graph);
    let is_complete = locals.is_empty();
    let mut args = facts.args.clone();
    if !is_max {
        args.retain(|name, _| !name.starts_with("build-arg:") && !name.starts_with("label:"));
    }
    let has_all_args =
        facts.frontend.is_some() && args.len() == facts.args.len() && !facts.is_redacted;
    let mut request = json!({ "args": args, "locals": locals });
    if let Some(frontend) = facts.frontend {
        request["frontend"] = json!(frontend);
    }
    let mut internal = json!({ "builderPlatform": facts.builder_platform.to_string() });
    let mut extension = Map::new();
    if is_max {
        let (secrets, ssh) = provided(&facts.graph);
        request["secrets"] = secrets;
        request["ssh"] = ssh;
        if let Some(target) = facts.target {
            add_definition(facts, target, layers, &mut internal, &mut extension);
        }
    }
    let mut metadata = json!({
        "invocationID": facts.invocation,
        "startedOn": rfc3339_of_seconds(facts.times.0),
        "finishedOn": rfc3339_of_seconds(facts.times.1),
        "buildkit_hermetic": is_complete && !uses_network(&facts.graph),
        "buildkit_completeness": {
            "request": has_all_args,
            "resolvedDependencies": is_complete,
        },
        "buildkit_reproducible": options.reproducible,
    });
    if !extension.is_empty() {
        metadata["buildkit_metadata"] = Value::Object(extension);
    }
    let predicate = json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": { "configSource": config_source(&facts.config_source), "request": request },
            "internalParameters": internal,
            "resolvedDependencies": dependencies(&facts.graph, &facts.resolved),
        },
        "runDetails": {
            "builder": { "id": options.builder_id },
            "metadata": metadata,
        },
    });
    Attestation { predicate_type: PROVENANCE_V1, predicate, file_name: options.file_name.clone() }
}

fn config_source(source: &ConfigSource) -> Value {
    let mut value = json!({ "path": source.path });
    if let Some(uri) = &source.uri {
        value["uri"] = json!(uri);
    }
    match &source.digest {
        Some(SourceDigest::Commit(commit)) => value["digest"] = commit_digest(commit),
        Some(SourceDigest::Content(digest)) => {
            value["digest"] = json!({ digest.algorithm().name(): digest.hex() });
        }
        None => {}
    }
    value
}

/// Adds the graph, the layers that its steps have made, and the text that they are of.
fn add_definition(
    facts: &BuildFacts,
    target: Edge,
    layers: &[Descriptor],
    internal: &mut Value,
    extension: &mut Map<String, Value>,
) {
    let steps = steps(&facts.graph, target);
    let made: BTreeMap<String, Value> = layer_map(&facts.graph, target, layers)
        .into_iter()
        .filter_map(|((vertex, output), layers)| {
            let name = steps.names.get(&vertex)?;
            Some((format!("{name}:{output}"), json!([layers])))
        })
        .collect();
    if !made.is_empty() {
        extension.insert("layers".to_owned(), json!(made));
    }
    if let Some(source) = &facts.source {
        let name_of = |digest: &Digest| steps.names.get(digest).cloned();
        let locations: Map<String, Value> = facts
            .graph
            .vertices()
            .iter()
            .filter_map(|vertex| {
                let location = vertex.meta.location.as_ref()?;
                let range = json!({ "start": { "line": location.first_line }, "end": { "line": location.last_line } });
                Some((name_of(&vertex.digest)?, json!({ "locations": [{ "ranges": [range] }] })))
            })
            .collect();
        let text = base64::engine::general_purpose::STANDARD.encode(&source.text);
        let infos = json!([{ "filename": source.name, "language": "Dockerfile", "data": text }]);
        extension.insert("source".to_owned(), json!({ "locations": locations, "infos": infos }));
    }
    internal["buildConfig"] =
        json!({ "llbDefinition": steps.definition, "digestMapping": steps.mapping });
}

/// The secrets and agents that steps may use, by their names.
fn provided(graph: &Graph) -> (Value, Value) {
    let (mut secrets, mut agents) = (BTreeSet::new(), BTreeSet::new());
    for vertex in graph.vertices() {
        let Op::Exec(exec) = &vertex.op else { continue };
        for mount in &exec.mounts {
            let (ids, id, optional) = match &mount.kind {
                MountKind::Secret { id, optional, .. } => (&mut secrets, id, optional),
                MountKind::Ssh { id, optional, .. } => (&mut agents, id, optional),
                _ => continue,
            };
            ids.insert((id.clone(), *optional));
        }
        secrets.extend(exec.secret_env.iter().map(|secret| (secret.id.clone(), secret.optional)));
    }
    let list = |found: BTreeSet<(String, bool)>| {
        let entries = found.into_iter().map(|(id, optional)| match optional {
            true => json!({ "id": id, "optional": true }),
            false => json!({ "id": id }),
        });
        entries.collect()
    };
    (list(secrets), list(agents))
}

fn uses_network(graph: &Graph) -> bool {
    graph.vertices().iter().any(|vertex| match &vertex.op {
        Op::Exec(exec) => exec.network != NetworkMode::None,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use rbuild_oci::MediaType;
    use rbuild_solver::{
        ExecMeta, ExecOp, GraphBuilder, Mount, SecurityMode, SourceLocation, SourceOp, VertexMeta,
    };

    use super::*;

    fn facts() -> BuildFacts {
        let mut builder = GraphBuilder::new();
        let digest = Digest::of(b"x");
        let image = SourceOp::new(format!("docker-image://docker.io/library/a:1@{digest}"));
        let platform = Platform::new("linux", "amd64", "");
        let base = builder.add(
            Op::Source(image),
            Vec::new(),
            Some(platform.clone()),
            VertexMeta::default(),
        );
        let secret = Mount {
            input: None,
            selector: String::new(),
            dest: "/run/secrets/s".to_owned(),
            output: None,
            readonly: false,
            kind: MountKind::Secret {
                id: "s".to_owned(),
                uid: 0,
                gid: 0,
                mode: 0o400,
                optional: true,
            },
        };
        let exec = ExecOp {
            meta: ExecMeta {
                args: vec!["make".to_owned()],
                cwd: "/".to_owned(),
                ..ExecMeta::default()
            },
            mounts: vec![Mount::root(), secret],
            network: NetworkMode::None,
            security: SecurityMode::Sandbox,
            secret_env: Vec::new(),
        };
        let location =
            SourceLocation { file: "Dockerfile".to_owned(), first_line: 2, last_line: 3 };
        let meta = VertexMeta { location: Some(location), ..VertexMeta::default() };
        let inputs = vec![Edge { vertex: base, output: 0 }];
        let step = builder.add(Op::Exec(Box::new(exec)), inputs, Some(platform.clone()), meta);
        BuildFacts {
            graph: builder.finish(),
            target: Some(Edge { vertex: step, output: 0 }),
            config_source: ConfigSource {
                path: "Dockerfile".to_owned(),
                ..ConfigSource::default()
            },
            frontend: Some("dockerfile.v0"),
            args: BTreeMap::from([
                ("build-arg:A".to_owned(), "1".to_owned()),
                ("target".to_owned(), "t".to_owned()),
            ]),
            is_redacted: false,
            builder_platform: platform,
            resolved: Vec::new(),
            source: Some(SourceText {
                name: "Dockerfile".to_owned(),
                text: "FROM a:1\n".to_owned(),
            }),
            invocation: "i".to_owned(),
            times: (0, 60),
        }
    }

    fn predicate(mode: ProvenanceMode) -> Value {
        let options = ProvenanceOptions {
            mode,
            builder_id: "https://ci.example/1".to_owned(),
            file_name: "provenance.json".to_owned(),
            reproducible: false,
        };
        let layer = |size| Descriptor::new(MediaType::OciLayerGzip, Digest::of(b"l"), size);
        provenance(&facts(), &options, &[layer(1), layer(2)]).predicate
    }

    #[test]
    fn the_little_that_min_says() {
        let found = predicate(ProvenanceMode::Min);
        let definition = &found["buildDefinition"];
        assert_eq!(definition["externalParameters"]["request"]["args"], json!({ "target": "t" }));
        assert_eq!(
            definition["resolvedDependencies"][0]["uri"],
            "pkg:docker/a@1?platform=linux%2Famd64"
        );
        assert_eq!(definition["internalParameters"], json!({ "builderPlatform": "linux/amd64" }));
        let details = &found["runDetails"];
        assert_eq!(details["builder"]["id"], "https://ci.example/1");
        assert_eq!(details["metadata"]["finishedOn"], "1970-01-01T00:01:00Z");
        assert_eq!(details["metadata"]["buildkit_hermetic"], true);
        assert_eq!(details["metadata"]["buildkit_completeness"]["request"], false);
        assert_eq!(details["metadata"].get("buildkit_metadata"), None);
    }

    #[test]
    fn all_that_max_says() {
        let found = predicate(ProvenanceMode::Max);
        let request = &found["buildDefinition"]["externalParameters"]["request"];
        assert_eq!(request["args"]["build-arg:A"], "1");
        assert_eq!(request["secrets"], json!([{ "id": "s", "optional": true }]));
        let steps = &found["buildDefinition"]["internalParameters"]["buildConfig"]["llbDefinition"];
        assert_eq!(steps[1]["inputs"], json!(["step0:0"]));
        let exec = &steps[1]["op"]["Op"]["exec"];
        assert_eq!(exec["meta"]["args"], json!(["make"]));
        assert_eq!(exec["network"], 2);
        assert_eq!(
            exec["mounts"],
            json!([
                { "input": 0, "dest": "/", "output": 0 },
                {
                    "input": -1, "dest": "/run/secrets/s", "output": -1, "mountType": 1,
                    "secretOpt": { "ID": "s", "mode": 0o400, "optional": true },
                },
            ])
        );
        let metadata = &found["runDetails"]["metadata"];
        assert_eq!(metadata["buildkit_completeness"]["request"], true);
        let extension = &metadata["buildkit_metadata"];
        assert_eq!(extension["layers"]["step0:0"][0][0]["size"], 1);
        assert_eq!(extension["layers"]["step1:0"][0].as_array().unwrap().len(), 2);
        assert_eq!(
            extension["source"]["locations"]["step1"]["locations"][0]["ranges"][0]["start"]["line"],
            2
        );
        assert_eq!(extension["source"]["infos"][0]["filename"], "Dockerfile");
    }
}
