//! What git may use of the user's to reach a repository and its submodules.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rbuild_cache::Layers;

use super::redirect::Redirect;
use super::{GitErrorKind, GitRequest};
use crate::agent::{Agent, SocketOwner};
use crate::logins::Login;
use crate::secrets::{Provided, SshAgent};

/// The most redirects that are followed for one repository and its submodules.
const MOST_REDIRECTS: usize = 10;

/// Logins by address, and the agent for ssh.
#[derive(Debug)]
pub(super) struct Access {
    /// Addresses without a path, and what is said to what is below them.
    pub(super) logins: Vec<(String, Login)>,
    agent: Option<AgentSocket>,
    /// Where hosts with a login have sent git, to be asked there.
    moved: Mutex<Vec<Redirect>>,
}

#[derive(Debug)]
enum AgentSocket {
    Users(PathBuf),
    Ours(Agent),
}

impl Access {
    /// Finds what of `provided` is meant for a repository and for hosts that are named.
    pub(super) fn new(
        request: &GitRequest,
        provided: &Provided,
        layers: &Layers,
    ) -> Result<Self, GitErrorKind> {
        let mut logins = Vec::new();
        let names = &request.secret_names;
        if let Some((scheme, host)) = request.web_host() {
            let login = match &request.login {
                Some(login) => Some(login.clone()),
                None => names.login(&provided.secrets, host)?,
            };
            // A host may send to itself, encrypted.
            for scheme in [scheme, "https"].iter().take(if scheme == "https" { 1 } else { 2 }) {
                logins.extend(login.clone().map(|login| (format!("{scheme}://{host}/"), login)));
            }
        }
        for host in names.hosts(&provided.secrets) {
            let Some(login) = names.login_of(&provided.secrets, host)? else { continue };
            for scheme in ["https", "http"] {
                let address = format!("{scheme}://{host}/");
                if logins.iter().all(|(known, _)| *known != address) {
                    logins.push((address, login.clone()));
                }
            }
        }
        let agent = match provided.agents.get(&request.agent) {
            None => None,
            Some(SshAgent::Socket(path)) => Some(AgentSocket::Users(path.clone())),
            Some(keys @ SshAgent::Keys(_)) => {
                let owner = SocketOwner { uid: 0, gid: 0, mode: 0o600 };
                let made = Agent::new(keys, layers.begin()?, owner);
                Some(AgentSocket::Ours(made.map_err(GitErrorKind::Agent)?.0))
            }
        };
        Ok(Self { logins, agent, moved: Mutex::default() })
    }

    /// The socket of the agent.
    pub(super) fn agent_path(&self) -> Option<PathBuf> {
        Some(match self.agent.as_ref()? {
            AgentSocket::Users(path) => path.clone(),
            AgentSocket::Ours(agent) => agent.path(),
        })
    }

    /// Serves the agent as long as something runs that may use it.
    pub(super) async fn serving<T>(
        &self,
        work: impl Future<Output = Result<T, GitErrorKind>>,
    ) -> Result<T, GitErrorKind> {
        match &self.agent {
            Some(AgentSocket::Ours(agent)) => tokio::select! {
                done = work => done,
                Err(error) = agent.serve() => Err(GitErrorKind::Agent(error)),
            },
            _ => work.await,
        }
    }

    /// Has git go where a host sends it, from now on; whether it may.
    pub(super) fn follow(&self, redirect: &Redirect) -> bool {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = moved.iter().any(|known| known.from == redirect.from);
        if is_known || moved.len() >= MOST_REDIRECTS || !redirect.is_within_host() {
            return false;
        }
        // git replaces an address once, so it is told the last one.
        for known in moved.iter_mut().filter(|known| known.to == redirect.from) {
            known.to.clone_from(&redirect.to);
        }
        moved.push(redirect.clone());
        true
    }

    /// Where hosts have sent git so far.
    pub(super) fn moved(&self) -> Vec<Redirect> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes out of a text what it must not repeat.
    pub(super) fn hide_in(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (_, login) in &self.logins {
            let value = login.value();
            let bare = value.split_once(' ').map_or(value, |(_, bare)| bare);
            for secret in [value, bare].into_iter().filter(|secret| !secret.is_empty()) {
                text = text.replace(secret, "****");
            }
        }
        text
    }

    /// Whether there is an agent at this path; for messages.
    pub(super) fn has_agent(&self) -> bool {
        self.agent_path().as_deref().is_some_and(Path::exists)
    }
}
