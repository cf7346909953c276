//! Which engine `--load` and `type=docker` give images to.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rbuild_exporter::{DockerEngine, Engine, EnginePlace, Podman};
use rbuild_oci::Digest;
use rbuild_worker::in_user_namespace;

use crate::error::{CommandError, Kind, chain};
use crate::paths::program;

/// Finds the engine: what the environment or Docker's context names, and must be there; else the first that answers of Docker's
/// and podman's sockets, and the program podman.
pub(super) fn find(variable: impl Fn(&str) -> Option<String>) -> Result<Engine, CommandError> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some((place, whose)) = named(&variable)? {
        let engine = DockerEngine::connect(place).map_err(|error| {
            CommandError::caused(Kind::Environment, format!("no engine answers for {whose}"), error)
        })?;
        return Ok(Engine::Docker(engine));
    }
    let mut tried = String::new();
    for socket in sockets(&variable) {
        match DockerEngine::connect(EnginePlace::Unix(socket)) {
            Ok(engine) => return Ok(Engine::Docker(engine)),
            Err(error) => _ = write!(tried, "\n  {}", chain(&error)),
        }
    }
    match program("podman") {
        // Its storage is that of the user that it thinks it is, who is root in our namespace.
        Some(_) if in_user_namespace() => {
            tried.push_str("\n  podman: as an ordinary user only its service can be used (`systemctl --user start podman.socket`)");
        }
        Some(program) => {
            return Ok(Engine::Podman(Podman { program }));
        }
        None => tried.push_str("\n  podman: it is not installed"),
    }
    let message = format!("there is no engine to load the image into; this was tried:{tried}");
    Err(CommandError::new(Kind::Environment, message)
        .hint("DOCKER_HOST=unix:///PATH names its socket; without --load the image goes to rbuild's own store"))
}

/// The engine that the user has named, and how.
fn named(
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Option<(EnginePlace, String)>, CommandError> {
    for name in ["DOCKER_HOST", "CONTAINER_HOST"] {
        let Some(host) = variable(name)
            .filter(|_| name == "DOCKER_HOST" || variable("DOCKER_CONTEXT").is_none())
        else {
            continue;
        };
        let is_tls = name == "DOCKER_HOST" && variable("DOCKER_TLS_VERIFY").is_some();
        return Ok(Some((place(&host, is_tls, name)?, format!("{name}={host}"))));
    }
    let Some(config) = config_folder(variable) else { return Ok(None) };
    let context = variable("DOCKER_CONTEXT").or_else(|| current_context(&config));
    let Some(context) = context.filter(|context| context != "default") else { return Ok(None) };
    let whose = format!("docker's context `{context}`");
    let unreadable =
        |what: String| CommandError::new(Kind::Environment, format!("cannot use {whose}: {what}"));
    let folder = config.join("contexts/meta").join(Digest::of(context.as_bytes()).hex());
    let file = folder.join("meta.json");
    let text = std::fs::read(&file)
        .map_err(|error| unreadable(format!("cannot read `{}`: {error}", file.display())))?;
    let meta: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|error| unreadable(format!("`{}` is not JSON: {error}", file.display())))?;
    let host = meta["Endpoints"]["docker"]["Host"].as_str();
    let host = host.ok_or_else(|| unreadable("it names no host".to_owned()))?;
    let tls = config.join("contexts/tls").join(Digest::of(context.as_bytes()).hex());
    Ok(Some((place(host, tls.exists(), &whose)?, whose)))
}

/// The place that a host's address means.
fn place(host: &str, is_tls: bool, whose: &str) -> Result<EnginePlace, CommandError> {
    let refuse = |what: &str| {
        let message = format!("{whose}: `{host}` {what}");
        Err(CommandError::usage(message)
            .hint("`rbuild save NAME | docker load` goes wherever docker goes"))
    };
    match host.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(EnginePlace::Unix(PathBuf::from(path))),
        Some(("tcp" | "http", _)) if is_tls => {
            refuse("is reached by TLS, which is not supported yet")
        }
        Some(("tcp" | "http", address)) => {
            let address = address.trim_end_matches('/');
            let has_port =
                address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            Ok(EnginePlace::Tcp(if has_port {
                address.to_owned()
            } else {
                format!("{address}:2375")
            }))
        }
        Some((scheme @ ("ssh" | "https" | "npipe" | "fd"), _)) => {
            refuse(&format!("is reached by {scheme}, which is not supported yet"))
        }
        _ => refuse("is not of the form unix:///PATH or tcp://HOST:PORT"),
    }
}

fn config_folder(variable: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let home = || Some(PathBuf::from(variable("HOME")?).join(".docker"));
    variable("DOCKER_CONFIG").map(PathBuf::from).or_else(home)
}

fn current_context(config: &Path) -> Option<String> {
    let text = std::fs::read(config.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
    config["currentContext"].as_str().filter(|context| !context.is_empty()).map(str::to_owned)
}

/// Where engines listen that nobody has configured.
fn sockets(variable: &impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let own = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let mut sockets = vec![PathBuf::from("/var/run/docker.sock")];
    sockets.extend(own.iter().map(|own| own.join("docker.sock")));
    sockets.extend(own.iter().map(|own| own.join("podman/podman.sock")));
    if !in_user_namespace() {
        sockets.push(PathBuf::from("/run/podman/podman.sock"));
    }
    sockets
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn find_with(variables: &[(&str, &str)]) -> String {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        let variable = |name: &str| variables.get(name).map(|value| (*value).to_owned());
        match find(variable) {
            Ok(engine) => engine.to_string(),
            Err(error) => error.reason(),
        }
    }

    #[test]
    fn what_is_named_must_be_there() {
        for (host, expected) in [
            ("unix:///no/such/socket", "no engine answers for DOCKER_HOST=unix:///no/such/socket"),
            ("ssh://me@example.com", "is reached by ssh, which is not supported yet"),
            ("unix://relative", "is not of the form"),
            ("localhost", "is not of the form"),
        ] {
            let error = find_with(&[("DOCKER_HOST", host), ("DOCKER_CONTEXT", "other")]);
            assert!(error.contains(expected), "{host}: {error}");
        }
        let tls = [("DOCKER_HOST", "tcp://example.com"), ("DOCKER_TLS_VERIFY", "1")];
        assert!(find_with(&tls).contains("reached by TLS"), "{}", find_with(&tls));
    }

    #[test]
    fn contexts_name_an_engine() {
        let config = tempfile::tempdir().expect("a folder");
        let folder = config.path().to_str().expect("a plain path");
        let meta = config.path().join("contexts/meta").join(Digest::of(b"mine").hex());
        std::fs::create_dir_all(&meta).expect("a folder");
        let text = r#"{"Name":"mine","Endpoints":{"docker":{"Host":"unix:///no/such"}}}"#;
        std::fs::write(meta.join("meta.json"), text).expect("a file");
        std::fs::write(config.path().join("config.json"), r#"{"currentContext":"mine"}"#)
            .expect("a file");
        let error = find_with(&[("DOCKER_CONFIG", folder)]);
        assert!(error.contains("no engine answers for docker's context `mine`"), "{error}");
        let error = find_with(&[("DOCKER_CONFIG", folder), ("DOCKER_CONTEXT", "other")]);
        assert!(error.contains("cannot use docker's context `other`: cannot read"), "{error}");
    }

    #[test]
    fn hosts_have_a_port() {
        for (host, expected) in [("tcp://a:1", "tcp://a:1"), ("tcp://a/", "tcp://a:2375")] {
            assert_eq!(place(host, false, "").expect("a place").to_string(), expected);
        }
    }
}
