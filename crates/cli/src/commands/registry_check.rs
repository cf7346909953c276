//! `rbuild registry check`: which of name, connection, TLS, answer, login and rights fails.

use rbuild_cache::{
    MirrorStanding, RegistryClient, RegistryError, RegistryErrorKind, Standing, TransportError,
};
use rbuild_oci::Reference;

use super::build::in_runtime;
use super::images::print;
use super::login::registry;
use crate::args::RegistryCheckArgs;
use crate::error::{CommandError, Kind, chain};
use crate::registry_args::RegistryArgs;
use crate::{printable, wiring};

/// What is checked before rights, in this order: what comes later cannot be known when something earlier fails.
const PARTS: [&str; 5] = ["name", "connection", TLS, "answer", "login"];
const TLS: &str = "TLS";
/// What was configured here for the registry.
const CONFIGURATION: &str = "settings";

/// Checks a registry, and the rights in a repository if one is named.
pub(crate) fn check(
    args: &RegistryCheckArgs,
    registries: &RegistryArgs,
) -> Result<(), CommandError> {
    let (of, has_repository) = subject(&args.subject)?;
    let mut options = wiring::registry_options(registries);
    // Who checks wants to see what happens, not what comes of patience.
    options.retry.attempts = 1;
    let client = RegistryClient::new(options);
    in_runtime(async {
        let check = Check { client: &client, of: &of };
        match check.all(has_repository).await? {
            None => Ok(()),
            Some((part, error)) => {
                let message = format!("`{}` cannot be used: {part} failed", args.subject);
                let hint = hint(part, &error.kind, of.registry());
                Err(CommandError::new(Kind::Environment, message).hint(hint))
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

/// Prints a line for each part as soon as it is known.
struct Check<'a> {
    client: &'a RegistryClient,
    of: &'a Reference,
}

impl Check<'_> {
    /// Checks all that can be; returns the first part that failed.
    async fn all(
        &self,
        has_repository: bool,
    ) -> Result<Option<(&'static str, RegistryError)>, CommandError> {
        let Self { client, of } = *self;
        let others = client.mirrors(of).await;
        mirrors(&others)?;
        let is_served = others.iter().any(|mirror| mirror.standing.is_ok());
        match client.standing(of).await {
            Ok(standing) => {
                self.are_fine("login").await?;
                line("login", in_words(standing))?;
            }
            Err(error)
                if is_served && matches!(*error.kind, RegistryErrorKind::NoEndpoint { .. }) =>
            {
                line("registry", "not asked: others are configured in its place")?;
            }
            Err(error) => {
                let part = part_of(&error.kind);
                if part != CONFIGURATION {
                    self.are_fine(part).await?;
                }
                failed(part, &error)?;
                return Ok(Some((part, error)));
            }
        }
        if !has_repository {
            return Ok(None);
        }
        let mut first = None;
        for part in ["pull", "push"] {
            let may = match part {
                "pull" => client.may_pull(of).await,
                _ => client.may_push(of).await,
            };
            match may {
                Ok(()) => line(part, "ok")?,
                Err(error) => {
                    failed(part, &error)?;
                    first = first.or(Some((part, error)));
                }
            }
        }
        Ok(first)
    }

    /// Prints the parts before this one, which are fine.
    async fn are_fine(&self, part: &str) -> Result<(), CommandError> {
        let unencrypted = self.client.is_unencrypted(self.of).await;
        let before = PARTS.iter().take_while(|before| **before != part);
        before.copied().try_for_each(|before| match before {
            TLS if unencrypted => line(TLS, "none: it is spoken to by plain HTTP"),
            before => line(before, "ok"),
        })
    }
}

fn in_words(standing: Standing) -> &'static str {
    match standing {
        Standing::LoggedIn => "ok: the registry accepts the stored login",
        Standing::Anonymous => "ok: there is none, and the registry lets anybody in",
        Standing::NotAsked => "ok: the registry asks for none",
    }
}

/// Prints what can be said of the mirrors, and who is asked because of that.
fn mirrors(mirrors: &[MirrorStanding]) -> Result<(), CommandError> {
    for mirror in mirrors {
        let MirrorStanding { address, name, pull, resolve, push, standing } = mirror;
        let rights = [("pull", pull), ("resolve", resolve), ("push", push)];
        let rights: Vec<_> =
            rights.iter().filter(|(_, has)| **has).map(|(name, _)| *name).collect();
        let rights = rights.join(", ");
        let said = match standing {
            Ok(Standing::LoggedIn) => format!("ok: `{address}` for {rights}, with a login"),
            Ok(Standing::Anonymous | Standing::NotAsked) => format!("ok: `{address}` for {rights}"),
            Err(
                RegistryErrorKind::LoginNeeded { .. }
                | RegistryErrorKind::LoginRefused { .. }
                | RegistryErrorKind::Denied { .. },
            ) => {
                format!("FAILED: `{address}` lets nobody in without a login: `rbuild login {name}`")
            }
            Err(error) => format!("FAILED: `{address}`: {}", chain(error)),
        };
        line("mirror", &said)?;
    }
    if mirrors.is_empty() {
        return Ok(());
    }
    let first = |is_for: fn(&MirrorStanding) -> bool| {
        let found = mirrors.iter().find(|mirror| is_for(mirror) && mirror.standing.is_ok());
        found.map_or("the registry itself".to_owned(), |mirror| format!("`{}`", mirror.name))
    };
    let pushed = mirrors.iter().find(|mirror| mirror.push);
    let pushed = pushed.map_or("the registry itself".to_owned(), |to| format!("`{}`", to.name));
    let (layers, tags) = (first(|mirror| mirror.pull), first(|mirror| mirror.resolve));
    line("in use", &format!("layers come from {layers}, tags from {tags}, pushes go to {pushed}"))
}

fn failed(part: &str, error: &RegistryError) -> Result<(), CommandError> {
    line(part, &format!("FAILED: {}", chain(error)))
}

fn line(part: &str, what: &str) -> Result<(), CommandError> {
    print(format!("{part:<12}{}\n", printable::line(what)).as_bytes())
}

/// What an error is about.
fn part_of(kind: &RegistryErrorKind) -> &'static str {
    match kind {
        RegistryErrorKind::Transport(TransportError::Resolve { .. }) => "name",
        RegistryErrorKind::Transport(
            TransportError::Handshake { .. }
            | TransportError::Tls { .. }
            | TransportError::Certificates { .. },
        )
        | RegistryErrorKind::NotEncrypted { .. } => TLS,
        RegistryErrorKind::Transport(
            TransportError::Connect { .. } | TransportError::Proxied { .. },
        ) => "connection",
        RegistryErrorKind::Hosts(_)
        | RegistryErrorKind::NoEndpoint { .. }
        | RegistryErrorKind::Transport(TransportError::Proxy { .. }) => CONFIGURATION,
        RegistryErrorKind::LoginRefused { .. }
        | RegistryErrorKind::LoginNeeded { .. }
        | RegistryErrorKind::Denied { .. }
        | RegistryErrorKind::Credentials(_)
        | RegistryErrorKind::Challenge { .. }
        | RegistryErrorKind::Token { .. } => "login",
        // There is somebody, who does not answer as a registry does.
        _ => "answer",
    }
}

/// What can be done about it.
fn hint(part: &str, kind: &RegistryErrorKind, registry: &str) -> String {
    match kind {
        RegistryErrorKind::TooManyRequests { .. } => {
            return format!(
                "wait a while; many registries allow more to those who log in with `rbuild login {registry}`"
            );
        }
        RegistryErrorKind::Credentials(_) => {
            return "correct that file: install the helper that it names, or take it out (`credsStore`, `credHelpers`)"
                .to_owned();
        }
        RegistryErrorKind::Status { status: 500.., .. }
        | RegistryErrorKind::Token { status: 500.., .. } => {
            return "the registry itself fails, or a proxy before it: try again later, or tell who runs it"
                .to_owned();
        }
        RegistryErrorKind::Transport(TransportError::NoAnswer { .. }) => {
            return "something takes connections there and says nothing: see whether it is the registry, and its port"
                .to_owned();
        }
        RegistryErrorKind::NotEncrypted { .. } => {
            return "docs/registries.md says how a registry of this machine speaks HTTPS"
                .to_owned();
        }
        _ => {}
    }
    match part {
        CONFIGURATION => "correct what is named; docs/registries.md has its form".to_owned(),
        "name" => "check how it is written, and whether this machine has a network".to_owned(),
        "connection" => format!(
            "check the port and the proxies (https_proxy, no_proxy); if it speaks plain HTTP: `server = \"http://{registry}\"` \
             in ~/.config/rbuild/certs.d/{registry}/hosts.toml"
        ),
        TLS => format!(
            "if an authority of your own signs for it, put its certificate into ~/.config/rbuild/certs.d/{registry}/ca.crt; \
             if it wants to know who you are, put your certificate and key beside it as us.cert and us.key"
        ),
        "answer" => {
            "see whether it is the registry that answers there, and not another server or a proxy"
                .to_owned()
        }
        "login" => format!("log in with `rbuild login {registry}`"),
        _ => format!(
            "ask the owner of the repository for the right to {part}, or log in as another user with `rbuild login {registry}`"
        ),
    }
}
