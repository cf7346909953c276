//! What there is to say of how a build was made.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_exporter::{BuildFacts, ConfigSource, ResolvedSource, SourceDigest, SourceText};
use rbuild_frontend::{BuildOptions, NamedContext, NoCache, is_private_name};
use rbuild_oci::{Digest, Platform};
use rbuild_solver::{Edge, Graph, NetworkMode, Op, Progress, Secrets, SourceOp, published};
use rbuild_worker::SourceIdentity;

use crate::error::{CommandError, Kind};
use crate::wiring::Session;

/// What the user asked a build for, as its provenance says it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// In BuildKit's words; values of secrets are hidden.
    args: BTreeMap<String, String>,
    /// Whether any is.
    is_redacted: bool,
    /// The Dockerfile's name.
    path: String,
    /// The context, if it is fetched.
    context: Option<SourceOp>,
    /// What must be nowhere.
    secrets: Secrets,
}

impl Asked {
    /// Of a graph that came as one.
    pub(crate) fn for_graph() -> Self {
        Self {
            args: BTreeMap::new(),
            is_redacted: false,
            path: String::new(),
            context: None,
            secrets: Secrets::new(is_private_name),
        }
    }

    /// Of a Dockerfile.
    pub(crate) fn new(options: &BuildOptions, path: &str) -> Self {
        let mut secrets = Secrets::new(is_private_name);
        for (name, value) in &options.build_args {
            secrets.add_argument(name, value);
        }
        let mut asked = Self {
            path: secrets.hide(&SourceOp::new(path).shown_to_all()),
            context: options.context.as_ref().map(|context| context.source.clone()),
            secrets,
            ..Self::for_graph()
        };
        for (name, value) in &options.build_args {
            if name.starts_with("BUILDKIT_ATTEST_") {
                continue;
            }
            let shown = asked.secrets.hide_value(name, value);
            asked.is_redacted |= shown != *value;
            asked.args.insert(format!("build-arg:{name}"), shown);
        }
        for (name, value) in &options.labels {
            let shown = asked.secrets.hide(value);
            asked.is_redacted |= shown != *value;
            asked.args.insert(format!("label:{name}"), shown);
        }
        for (name, context) in &options.contexts {
            let value = match context {
                NamedContext::Image(image) => format!("docker-image://{image}"),
                NamedContext::Scratch => "docker-image://scratch".to_owned(),
                NamedContext::Remote(remote) => remote.source.shown_to_all(),
                NamedContext::Stage(stage) => format!("target:{stage}"),
                // Where they are on this machine says nothing to others.
                NamedContext::OciLayout(_) => "oci-layout://".to_owned() + name,
                NamedContext::Local { .. } => format!("local:{name}"),
            };
            asked.args.insert(format!("context:{name}"), asked.secrets.hide(&value));
        }
        let hosts: Vec<_> =
            options.extra_hosts.iter().map(|host| format!("{}={}", host.host, host.ip)).collect();
        let mut add = |name: &str, value: String| {
            asked.args.insert(name.to_owned(), value);
        };
        if !hosts.is_empty() {
            add("add-hosts", hosts.join(","));
        }
        if let Some(target) = &options.target {
            add("target", target.clone());
        }
        match &options.no_cache {
            NoCache::All => add("no-cache", String::new()),
            NoCache::Stages(stages) if stages.is_empty() => {}
            NoCache::Stages(stages) => add("no-cache", stages.join(",")),
        }
        match options.network {
            NetworkMode::Default => {}
            NetworkMode::Host => add("force-network-mode", "host".to_owned()),
            NetworkMode::None => add("force-network-mode", "none".to_owned()),
        }
        asked
    }
}

/// A build that is done, as far as its provenance needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) asked: &'a Asked,
    /// The Dockerfile; a graph that came as one has none.
    pub(crate) source: Option<&'a rbuild_frontend::Source>,
    pub(crate) started: SystemTime,
    /// The build's name.
    pub(crate) id: &'a str,
}

/// What is known of the build of one platform.
pub(crate) async fn facts(
    session: &Session,
    done: Done<'_>,
    target: Option<Edge>,
    epoch: Option<i64>,
    progress: &Progress,
) -> Result<BuildFacts, CommandError> {
    let asked = done.asked;
    let resolved = resolved(session, done.graph, target, progress).await?;
    let mut secrets = asked.secrets.clone();
    secrets.add_variables(done.graph);
    let config_source = ConfigSource {
        uri: asked.context.as_ref().map(|context| secrets.hide(&context.shown_to_all())),
        digest: asked.context.as_ref().and_then(|context| {
            let found = resolved.iter().find(|(source, _)| source.shown() == context.shown());
            found.map(|(_, resolved)| resolved.digest.clone())
        }),
        path: asked.path.clone(),
    };
    let mut resolved: Vec<_> = resolved.into_iter().map(|(_, resolved)| resolved).collect();
    let (graph, target) = match target {
        Some(target) => {
            let (graph, target, changed) = published(done.graph, target, &secrets);
            for source in &mut resolved {
                source.vertex = changed.get(&source.vertex).copied().unwrap_or(source.vertex);
            }
            (graph, Some(target))
        }
        None => (Graph::default(), None),
    };
    let seconds = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs().cast_signed())
    };
    // With an epoch, nothing may differ from one build to the next.
    let (times, invocation) = match epoch {
        Some(epoch) => {
            let what = target.map(|target| graph.vertex(target.vertex).digest.to_string());
            let name = Digest::of(what.unwrap_or_default().as_bytes()).hex();
            ((epoch, epoch), name[..32].to_owned())
        }
        None => ((seconds(done.started), seconds(SystemTime::now())), done.id.to_owned()),
    };
    Ok(BuildFacts {
        graph,
        target,
        config_source,
        frontend: done.source.map(|_| "dockerfile.v0"),
        args: asked.args.clone(),
        is_redacted: asked.is_redacted,
        builder_platform: Platform::host(),
        resolved,
        source: done.source.map(|source| SourceText {
            name: source.name().to_owned(),
            text: source.text().to_owned(),
        }),
        invocation,
        times,
    })
}

/// What sources by git and HTTP were. The build has asked for all of them, so that they are known, and nobody is asked again.
async fn resolved<'a>(
    session: &Session,
    graph: &'a Graph,
    target: Option<Edge>,
    progress: &Progress,
) -> Result<Vec<(&'a SourceOp, ResolvedSource)>, CommandError> {
    let needed = graph.reachable(target.as_slice());
    let mut resolved = Vec::new();
    for (vertex, _) in graph.vertices().iter().zip(needed).filter(|(_, needed)| *needed) {
        let Op::Source(source) = &vertex.op else { continue };
        if !matches!(source.split().0, "git" | "http" | "https") {
            continue;
        }
        let identity = session.remotes.identity(source, &session.reporting(progress)).await;
        let digest = match identity.map_err(|error| {
            CommandError::caused(Kind::Environment, "cannot tell what a source was", error)
        })? {
            SourceIdentity::Commit(commit) => SourceDigest::Commit(commit),
            SourceIdentity::Content(digest) => SourceDigest::Content(digest),
        };
        resolved.push((source, ResolvedSource { vertex: vertex.digest, digest }));
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_among_the_arguments() {
        let mut options = BuildOptions::new(Platform::host());
        for (name, value) in [
            ("VERSION", "1"),
            ("API_TOKEN", "hunter2"),
            ("HTTP_PROXY", "http://me:hunter2@proxy"),
            ("BUILDKIT_ATTEST_SBOM", "true"),
            ("LINE", "//r/:_authToken=hunter2"),
        ] {
            options.build_args.insert(name.to_owned(), value.to_owned());
        }
        options.target = Some("app".to_owned());
        let asked = Asked::new(&options, "Dockerfile");
        assert!(asked.is_redacted);
        let shown: Vec<_> =
            asked.args.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            shown,
            [
                "build-arg:API_TOKEN=xxxxx",
                "build-arg:HTTP_PROXY=http://xxxxx:xxxxx@proxy",
                "build-arg:LINE=//r/:_authToken=xxxxx",
                "build-arg:VERSION=1",
                "target=app"
            ]
        );
    }
}
