//! An input of several parts, as a person would write one.
//!
//! ```text
//! Dockerfile NUL options, one a line NUL .dockerignore NUL image config NUL image config ..
//! ```

use std::collections::BTreeMap;

use rbuild_frontend::{
    BuildOptions, GitUrl, ImageQuery, NamedContext, NoCache, RemoteContext, ResolvedImage,
    parse_dockerignore,
};
use rbuild_oci::{ImageConfig, Platform, Reference};
use rbuild_solver::{HostIp, NetworkMode, SourceOp};

/// A file to lower, and what with.
pub(crate) struct Input<'a> {
    pub(crate) dockerfile: &'a [u8],
    pub(crate) options: BuildOptions,
    configs: Vec<ImageConfig>,
}

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        let mut parts = data.split(|byte| *byte == 0);
        let dockerfile = parts.next().unwrap_or_default();
        let mut options = BuildOptions::new(Platform::new("linux", "amd64", ""));
        let text =
            |part: Option<&[u8]>| String::from_utf8_lossy(part.unwrap_or_default()).into_owned();
        for line in text(parts.next()).lines() {
            set(&mut options, line);
        }
        options.context_ignore = parse_dockerignore(&text(parts.next()));
        let config = |part| serde_json::from_slice(part).unwrap_or_default();
        Self { dockerfile, options, configs: parts.map(config).collect() }
    }

    /// What the `number`th image that is asked for turns out to be.
    pub(crate) fn answer(&self, number: usize, query: &ImageQuery) -> ResolvedImage {
        let config = match self.configs.len() {
            0 => ImageConfig::default(),
            count => self.configs[number % count].clone(),
        };
        let source =
            SourceOp::new(format!("docker-image://{:?}@{}", query.location, query.platform));
        ResolvedImage { source, config }
    }
}

/// Sets what a line says; one that makes no sense sets nothing.
fn set(options: &mut BuildOptions, line: &str) {
    let (key, value) = line.split_once(' ').unwrap_or((line, ""));
    let pair = || value.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let add = |map: &mut BTreeMap<String, String>| map.extend(pair());
    match key {
        "arg" => add(&mut options.build_args),
        "label" => add(&mut options.labels),
        "target" => options.target = Some(value.to_owned()),
        "platform" => options.platform = value.parse().ok(),
        "on" => {
            options.build_platform = value.parse().unwrap_or(Platform::new("linux", "arm64", ""));
        }
        "multi" => options.multi_platform = true,
        "no-cache" => options.no_cache = NoCache::All,
        "no-cache-filter" => options.no_cache = NoCache::Stages(vec![value.to_owned()]),
        "host" => {
            options.extra_hosts.extend(pair().map(|(host, ip)| HostIp { host, ip }));
        }
        "network" => {
            options.network = if value == "none" { NetworkMode::None } else { NetworkMode::Host };
        }
        "epoch-time" => options.epoch_time = value.parse().ok(),
        "max-layers" => options.max_layers = value.parse().unwrap_or(options.max_layers),
        "hostname" => value.clone_into(&mut options.hostname),
        "file" => value.clone_into(&mut options.file_name),
        "remote" => options.context = remote(value),
        "context" => {
            let context = pair().and_then(|(name, value)| Some((name, context(&value)?)));
            options.contexts.extend(context);
        }
        _ => {}
    }
}

fn context(value: &str) -> Option<NamedContext> {
    let (kind, value) = value.split_once(':').unwrap_or((value, ""));
    Some(match kind {
        "image" => NamedContext::Image(Reference::parse(value).ok()?),
        "scratch" => NamedContext::Scratch,
        "layout" => NamedContext::OciLayout(value.to_owned()),
        "local" => NamedContext::Local { ignore: parse_dockerignore(value) },
        "remote" => NamedContext::Remote(remote(value)?),
        _ => return None,
    })
}

fn remote(address: &str) -> Option<RemoteContext> {
    let git = GitUrl::parse(address).ok()?;
    let source = git.map_or_else(|| SourceOp::new(address), |git| git.source());
    Some(RemoteContext { source, unpack: address.ends_with(".tar") })
}
