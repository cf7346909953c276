//! `rbuild registry check`: which of name, connection, TLS, login and rights fails.

use std::fmt::Write as _;

use rbuild_cache::{RegistryClient, RegistryError, RegistryErrorKind, Standing, TransportError};
use rbuild_oci::Reference;

use super::build::in_runtime;
use super::images::print;
use super::login::registry;
use crate::args::RegistryCheckArgs;
use crate::error::{CommandError, Kind, chain};
use crate::registry_args::RegistryArgs;
use crate::{printable, wiring};

/// What is checked, in this order: what comes later cannot be known when something earlier fails.
const PARTS: [&str; 6] = ["name", "connection", "TLS", "login", "pull", "push"];

/// Checks a registry, and the rights in a repository if one is named.
pub(crate) fn check(
    args: &RegistryCheckArgs,
    registries: &RegistryArgs,
) -> Result<(), CommandError> {
    let (of, has_repository) = subject(&args.subject)?;
    let client = RegistryClient::new(wiring::registry_options(registries));
    in_runtime(async {
        let mut report = Report::default();
        let failed = report.fill(&client, &of, has_repository).await;
        print(report.0.as_bytes())?;
        match failed {
            None => Ok(()),
            Some(part) => {
                let message = format!("`{}` cannot be used: {part} failed", args.subject);
                let error = CommandError::new(Kind::Environment, message);
                Err(hint(part, of.registry()).into_iter().fold(error, CommandError::hint))
            }
        }
    })
}

/// The registry or repository that is meant.
fn subject(text: &str) -> Result<(Reference, bool), CommandError> {
    if let Ok(of) = registry(Some(text)) {
        return Ok((of, false));
    }
    match Reference::parse(text) {
        Ok(of) => Ok((of, true)),
        Err(error) => {
            let message = format!("`{text}` is neither a registry nor a repository");
            Err(CommandError::caused(Kind::Usage, message, error))
        }
    }
}

/// A line for each part.
#[derive(Default)]
struct Report(String);

impl Report {
    /// Checks all that can be; returns the part that failed.
    async fn fill(
        &mut self,
        client: &RegistryClient,
        of: &Reference,
        has_repository: bool,
    ) -> Option<&'static str> {
        match client.standing(of).await {
            Ok(standing) => {
                PARTS[..3].iter().for_each(|part| self.line(part, "ok"));
                self.line(
                    "login",
                    match standing {
                        Standing::LoggedIn => "ok: the registry accepts the stored login",
                        Standing::Anonymous => {
                            "ok: there is none, and the registry lets anybody in"
                        }
                        Standing::NotAsked => "ok: the registry asks for none",
                    },
                );
            }
            Err(error) => return Some(self.failed(part_of(&error), &error)),
        }
        if !has_repository {
            return None;
        }
        let rights = [("pull", client.may_pull(of).await), ("push", client.may_push(of).await)];
        let mut failed = None;
        for (part, may) in rights {
            match may {
                Ok(()) => self.line(part, "ok"),
                Err(error) => failed = failed.or(Some(self.failed(part, &error))),
            }
        }
        failed
    }

    /// Adds the part that failed, after those before it, which did not.
    fn failed(&mut self, part: &'static str, error: &RegistryError) -> &'static str {
        if !matches!(part, "pull" | "push") {
            PARTS
                .iter()
                .take_while(|before| **before != part)
                .for_each(|part| self.line(part, "ok"));
        }
        self.line(part, &format!("FAILED: {}", chain(error)));
        part
    }

    fn line(&mut self, part: &str, what: &str) {
        let _ = writeln!(self.0, "{part:<12}{}", printable::line(what));
    }
}

/// What an error is about.
fn part_of(error: &RegistryError) -> &'static str {
    match &*error.kind {
        RegistryErrorKind::Transport(TransportError::Resolve { .. }) => "name",
        RegistryErrorKind::Transport(
            TransportError::Handshake { .. }
            | TransportError::Tls { .. }
            | TransportError::Certificates { .. },
        ) => "TLS",
        RegistryErrorKind::Transport(_) => "connection",
        RegistryErrorKind::LoginRefused { .. }
        | RegistryErrorKind::LoginNeeded { .. }
        | RegistryErrorKind::Denied { .. }
        | RegistryErrorKind::Credentials(_)
        | RegistryErrorKind::Challenge { .. }
        | RegistryErrorKind::Token { .. } => "login",
        // It answered, so what was before is fine; but not as a registry does.
        _ => "connection",
    }
}

/// What can be done about it.
fn hint(part: &str, registry: &str) -> Option<String> {
    Some(match part {
        "name" => "check how it is written, and whether this machine has a network".to_owned(),
        "connection" => format!(
            "check the port and the proxies (https_proxy, no_proxy); if it speaks plain HTTP: `server = \"http://{registry}\"` \
             in ~/.config/rbuild/certs.d/{registry}/hosts.toml"
        ),
        "TLS" => format!(
            "if an authority of your own signs for it, put its certificate into ~/.config/rbuild/certs.d/{registry}/ca.crt; \
             if it wants to know who you are, put your certificate and key beside it as us.cert and us.key"
        ),
        "login" => format!("log in with `rbuild login {registry}`"),
        "pull" | "push" => format!(
            "ask the owner of the repository for the right to {part}, or log in as another user with `rbuild login {registry}`"
        ),
        _ => return None,
    })
}
