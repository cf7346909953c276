//! From arguments to what the frontend is asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild_frontend::{BuildOptions, NamedContext, NoCache, parse_dockerignore};
use rbuild_oci::{Platform, Reference};
use rbuild_solver::{HostIp, NetworkMode};

use super::attest::AttestPlan;
use super::input::{IgnoreFile, Input, ignore_file};
use super::limits;
use super::remote::Address;
use super::special_args;
use crate::args::BuildArgs;
use crate::error::CommandError;

/// A build as the frontend and the worker see it.
#[derive(Debug)]
pub(crate) struct Request {
    /// For the frontend.
    pub(crate) options: BuildOptions,
    /// The platforms that were asked for, each once; `options` is for the first of them.
    pub(crate) platforms: Vec<Platform>,
    /// Folders of local sources beside the main context, by name.
    pub(crate) folders: BTreeMap<String, PathBuf>,
}

impl Request {
    /// Puts together what was typed. `environment` looks up a variable.
    pub(crate) fn new(
        args: &BuildArgs,
        input: &Input,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, CommandError> {
        let mut options = BuildOptions::new(Platform::host());
        options.file_name.clone_from(&input.name);
        // As in scripts whose variable is empty.
        options.target = args.target.clone().filter(|target| !target.is_empty());
        options.max_layers = rbuild_cache::MAX_LAYERS;
        options.build_args = build_args(&args.build_arg, &environment);
        // As buildx does: the variable counts unless the argument is given.
        if let Some(epoch) = environment("SOURCE_DATE_EPOCH") {
            options.build_args.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert(epoch);
        }
        special_args::check(&options.build_args)?;
        options.labels = args.label.iter().map(|label| pair(label)).collect();
        let platforms = platforms(&args.platform)?;
        options.platform = platforms.first().cloned();
        options.multi_platform =
            platforms.len() > 1 || special_args::is_multi_platform(&options.build_args);
        options.scans = AttestPlan::new(args, &options.build_args)?.has_sbom();
        options.no_cache = if args.no_cache {
            NoCache::All
        } else {
            NoCache::Stages(args.no_cache_filter.clone())
        };
        options.context.clone_from(&input.remote);
        options.context_ignore =
            input.ignore.as_ref().map(patterns).transpose()?.unwrap_or_default();
        options.extra_hosts =
            args.add_host.iter().map(|host| extra_host(host)).collect::<Result<_, _>>()?;
        options.network = match args.network.as_str() {
            "host" => NetworkMode::Host,
            "none" => NetworkMode::None,
            _ => NetworkMode::Default,
        };
        options.ulimits = limits::ulimits(&args.limits)?;
        options.shm_size = limits::shm_size(&args.limits)?;
        options.cgroup_parent = args.limits.cgroup_parent.clone().unwrap_or_default();
        let mut folders = BTreeMap::new();
        for context in &args.build_context {
            let (name, context, folder) = named_context(context)?;
            folders.extend(folder.map(|folder| (name.clone(), folder)));
            options.contexts.insert(name, context);
        }
        Ok(Self { options, platforms, folders })
    }

    /// The options for each platform.
    pub(crate) fn each(&self) -> Vec<BuildOptions> {
        if self.platforms.is_empty() {
            return vec![self.options.clone()];
        }
        let platforms = self.platforms.iter().cloned().map(Some);
        platforms.map(|platform| BuildOptions { platform, ..self.options.clone() }).collect()
    }
}

/// Which attestations are wanted, also by build arguments.
pub(super) fn attest_plan(args: &BuildArgs) -> Result<AttestPlan, CommandError> {
    AttestPlan::new(args, &build_args(&args.build_arg, |name| std::env::var(name).ok()))
}

/// `NAME=VALUE`; without `=` an empty value.
fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

/// `NAME=VALUE`, or `NAME` for the environment's value; a name that is not set is left out.
fn build_args(
    args: &[String],
    environment: impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let value = |arg: &String| match arg.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => environment(arg).map(|value| (arg.clone(), value)),
    };
    args.iter().filter_map(value).collect()
}

/// The platforms of `--platform`, which may be repeated and hold commas; each once.
pub(super) fn platforms(texts: &[String]) -> Result<Vec<Platform>, CommandError> {
    let names = texts.iter().flat_map(|text| text.split(',')).map(str::trim);
    let mut platforms = Vec::new();
    // As in scripts whose variable is empty.
    for name in names.filter(|name| !name.is_empty()) {
        let platform = match name {
            // As with buildx.
            "local" => Platform::host(),
            name => name.parse().map_err(|error| {
                CommandError::caused(crate::error::Kind::Usage, "invalid --platform", error)
            })?,
        };
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

/// `HOST:IP` or `HOST=IP`; an IPv6 address may stand in brackets, and `host-gateway` for the address of this machine, which a step
/// gets when it runs.
fn extra_host(text: &str) -> Result<HostIp, CommandError> {
    let (host, ip) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((text, ""));
    let address = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    let is_address = ip == "host-gateway" || address.parse::<std::net::IpAddr>().is_ok();
    if host.is_empty() || !is_address {
        return Err(CommandError::usage(format!("`--add-host {text}` is not of the form HOST:IP")));
    }
    Ok(HostIp { host: host.to_owned(), ip: address.to_owned() })
}

/// `NAME=SOURCE`, and the folder when the source is one.
fn named_context(text: &str) -> Result<(String, NamedContext, Option<PathBuf>), CommandError> {
    let wrong = |reason: &str| CommandError::usage(format!("`--build-context {text}`: {reason}"));
    let Some((name, source)) = text.split_once('=') else {
        return Err(wrong("write it as NAME=SOURCE"));
    };
    if name.is_empty() || source.is_empty() {
        return Err(wrong("write it as NAME=SOURCE"));
    }
    let name = name.to_owned();
    if let Some(image) = source.strip_prefix("docker-image://") {
        if image == "scratch" {
            return Ok((name, NamedContext::Scratch, None));
        }
        let image = Reference::parse(image).map_err(|error| wrong(&error.to_string()))?;
        return Ok((name, NamedContext::Image(image), None));
    }
    if let Some(layout) = source.strip_prefix("oci-layout://") {
        // What the image source reads is relative to nothing.
        let layout = std::path::absolute(layout).map_err(|error| wrong(&error.to_string()))?;
        return Ok((name, NamedContext::OciLayout(layout.display().to_string()), None));
    }
    if let Some(address) = Address::of(source)? {
        return Ok((name, NamedContext::Remote(address.context()), None));
    }
    if let Some(stage) = source.strip_prefix("target:") {
        return Ok((name, NamedContext::Stage(stage.to_owned()), None));
    }
    if let Some((scheme, _)) = source.split_once("://") {
        return Err(wrong(&format!("unsupported context source {scheme} for {name}")));
    }
    if let Some(kind) = ["local", "input", "service"]
        .iter()
        .find(|kind| source.strip_prefix(**kind).is_some_and(|rest| rest.starts_with(':')))
    {
        let reason = format!(
            "`{kind}:` is for programs; name the folder, the image or the stage (`target:`) itself"
        );
        return Err(wrong(&reason));
    }
    let folder = Path::new(source).canonicalize().map_err(|error| wrong(&error.to_string()))?;
    if !folder.is_dir() {
        return Err(wrong("it is not a folder"));
    }
    let ignore =
        ignore_file(None, &folder)?.as_ref().map(patterns).transpose()?.unwrap_or_default();
    Ok((name, NamedContext::Local { ignore }, Some(folder)))
}

/// The patterns of an ignore file, checked: a bad one is an error that names the file.
fn patterns(file: &IgnoreFile) -> Result<Vec<String>, CommandError> {
    let patterns = parse_dockerignore(&file.text);
    rbuild_solver::PatternMatcher::new(&patterns).map_err(|error| {
        CommandError::caused(
            crate::error::Kind::Build,
            format!("failed to build: failed to solve: cannot use `{}`", file.path.display()),
            error,
        )
    })?;
    Ok(patterns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_all_forms() {
        for (text, host, ip) in [
            ("a:1.2.3.4", "a", "1.2.3.4"),
            ("a=1.2.3.4", "a", "1.2.3.4"),
            ("a:::1", "a", "::1"),
            ("a=[::1]", "a", "::1"),
            ("a:[::1]", "a", "::1"),
            ("a:host-gateway", "a", "host-gateway"),
        ] {
            assert_eq!(
                extra_host(text).unwrap(),
                HostIp { host: host.to_owned(), ip: ip.to_owned() },
                "{text}"
            );
        }
        for bad in ["a", ":1.2.3.4", "a:b", "a:[host-gateway]", ":host-gateway"] {
            assert!(extra_host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn platforms_are_built_once_each() {
        let texts = ["linux/amd64, linux/arm64/v8".to_owned(), "arm64,linux/arm".to_owned()];
        let names: Vec<String> =
            platforms(&texts).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["linux/amd64", "linux/arm64", "linux/arm/v7"]);
        assert!(platforms(&[String::new()]).unwrap().is_empty());
        assert_eq!(platforms(&["local".to_owned()]).unwrap(), [Platform::host()]);
        assert!(platforms(&["linux/amd64,nonsense".to_owned()]).is_err());
    }

    #[test]
    fn arguments_from_the_environment() {
        let environment = |name: &str| (name == "SET").then(|| "x".to_owned());
        let args = ["A=1".to_owned(), "SET".to_owned(), "UNSET".to_owned(), "B=".to_owned()];
        let args = build_args(&args, environment);
        assert_eq!(
            args.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            ["A=1", "B=", "SET=x"]
        );
    }

    #[test]
    fn contexts_that_are_not_there_are_refused() {
        for (text, reason) in [
            ("x", "NAME=SOURCE"),
            ("x=/no/such/folder", "No such file"),
            ("x=https://example.com/a.git?y=1", "cannot use the git repository"),
            ("x=s3://b", "unsupported context source s3 for x"),
            ("x=input:other", "`input:` is for programs"),
            ("x=docker-image://UPPER/case:", "invalid reference"),
        ] {
            let error = named_context(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
