//! Who a registry takes us for.

use std::sync::atomic::Ordering;

use rbuild_oci::Reference;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response, StatusCode};

use super::auth::{Access, Validity};
use super::client::{Call, Failure, Target, at, at_registry};
use super::endpoints::{Endpoint, Rights};
use super::tokens::Authorization;
use super::{Credential, RegistryClient, RegistryError, RegistryErrorKind};
use crate::http::location;

/// What a registry made of the configured login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It accepted the login.
    LoggedIn,
    /// It wants to know who is asking; there is no login, and it has some rights for everybody.
    Anonymous,
    /// It did not ask, so nothing is known of the login.
    NotAsked,
}

/// What a mirror is good for.
#[derive(Debug)]
pub struct MirrorStanding {
    /// The address of its API.
    pub address: String,
    /// The name that logins for it have.
    pub name: String,
    /// Whether it is asked for blobs.
    pub pull: bool,
    /// Whether it is asked what tags mean.
    pub resolve: bool,
    /// Whether it is sent what is pushed.
    pub push: bool,
    /// What it makes of us, or why it cannot be used.
    pub standing: Result<Standing, RegistryErrorKind>,
}

/// What came of logging in.
#[derive(Debug)]
pub struct LoggedIn {
    /// What the registry made of the login.
    pub standing: Standing,
    /// An identity token, which is stored instead of the password, if the registry's token service gives such.
    pub identity: Option<Credential>,
}

impl RegistryClient {
    /// Asks the registry of `of` whether it accepts the configured login, without asking for any repository.
    ///
    /// # Errors
    ///
    /// [`RegistryErrorKind::LoginRefused`] when it does not.
    pub async fn standing(&self, of: &Reference) -> Result<Standing, RegistryError> {
        Ok(self.logged_in(of, Validity::Command).await?.standing)
    }

    /// As [`RegistryClient::standing`], and asks for what may be stored of the login.
    pub async fn log_in(&self, of: &Reference) -> Result<LoggedIn, RegistryError> {
        self.logged_in(of, Validity::Lasting).await
    }

    async fn logged_in(
        &self,
        of: &Reference,
        validity: Validity,
    ) -> Result<LoggedIn, RegistryError> {
        let mut retries = self.retries();
        loop {
            match self.try_log_in(of, validity).await {
                Ok(logged_in) => return Ok(logged_in),
                Err(failure) => {
                    retries.wait(failure).await.map_err(|kind| at_registry(of, kind))?;
                }
            }
        }
    }

    /// Asks the mirrors of a registry who we are to them, in the order in which they are asked for what it has. None when it cannot be
    /// known which there are.
    pub async fn mirrors(&self, of: &Reference) -> Vec<MirrorStanding> {
        let Ok(endpoints) = self.endpoints(of).await else { return Vec::new() };
        let call = Call::new(Method::GET, of, Access::Nothing, Target::Base);
        let mut found = Vec::new();
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.is_mirror) {
            let standing = match self.log_in_at(&call, endpoint, Validity::Command).await {
                Ok(LoggedIn { standing, .. }) => Ok(standing),
                Err(Failure::Final(kind) | Failure::Transient(kind, _)) => Err(kind),
            };
            let Rights { pull, resolve, push } = endpoint.rights;
            let (address, name) = (endpoint.api.to_string(), endpoint.authority());
            found.push(MirrorStanding { address, name, pull, resolve, push, standing });
        }
        found
    }

    /// Asks the registry whether the configured login may read a repository, which need not exist.
    pub async fn may_pull(&self, of: &Reference) -> Result<(), RegistryError> {
        let target = || Target::Below("manifests/latest".to_owned());
        self.asked(of, || Call::new(Method::HEAD, of, Access::Pull, target())).await.map(drop)
    }

    /// Asks the registry whether the configured login may write to a repository, by beginning to send a blob, and no more.
    pub async fn may_push(&self, of: &Reference) -> Result<(), RegistryError> {
        let target = || Target::Below("blobs/uploads/".to_owned());
        let begun = self.asked(of, || Call::new(Method::POST, of, Access::Push, target())).await?;
        let refused = |status: u16, message: &str| {
            let (path, message) =
                (format!("/v2/{}/blobs/uploads/", of.repository()), message.to_owned());
            at(of, RegistryErrorKind::Status { status, method: "POST", path, message })
        };
        let Some(begun) = begun else {
            return Err(refused(404, "there is no such repository, and a push does not make it"));
        };
        let session = location(&begun.url().clone(), &begun);
        let Some(url) = session.filter(|_| begun.status() == StatusCode::ACCEPTED) else {
            let status = begun.status().as_u16();
            return Err(refused(
                status,
                "that begins no upload, so it is no registry that answers",
            ));
        };
        let call = Call::new(Method::DELETE, of, Access::Push, Target::Named(url));
        // Sessions that nobody uses run out by themselves.
        let _ = self.try_send(&call).await;
        Ok(())
    }

    /// Whether the registry itself is spoken to without encryption, as was found out by asking it.
    pub async fn is_unencrypted(&self, of: &Reference) -> bool {
        let Ok(endpoints) = self.endpoints(of).await else { return false };
        let is_up =
            |endpoint: &&Endpoint| !endpoint.is_mirror && !endpoint.is_down.load(Ordering::Relaxed);
        endpoints.iter().find(is_up).is_some_and(|endpoint| endpoint.api.scheme() == "http")
    }

    /// The answer to a question; `None` when there is no such thing.
    async fn asked<'a>(
        &self,
        of: &Reference,
        question: impl Fn() -> Call<'a>,
    ) -> Result<Option<Response>, RegistryError> {
        let mut retries = self.retries();
        loop {
            match self.try_send(&question()).await {
                Ok(response) => return Ok(Some(response)),
                Err(Failure::Final(RegistryErrorKind::Status { status: 404, .. })) => {
                    return Ok(None);
                }
                Err(failure) => retries.wait(failure).await.map_err(|kind| at(of, kind))?,
            }
        }
    }

    async fn try_log_in(&self, of: &Reference, validity: Validity) -> Result<LoggedIn, Failure> {
        let call = Call::new(Method::GET, of, Access::Nothing, Target::Base);
        let endpoints = self.endpoints(of).await?;
        let mut origins = endpoints.iter().filter(|endpoint| !endpoint.is_mirror).peekable();
        while let Some(endpoint) = origins.next() {
            match self.log_in_at(&call, endpoint, validity).await {
                Err(failure) if failure.is_unreachable() && origins.peek().is_some() => {
                    endpoint.is_down.store(true, Ordering::Relaxed);
                }
                done => return done,
            }
        }
        let registry = of.registry().to_owned();
        Err(Failure::Final(RegistryErrorKind::NoEndpoint { registry }))
    }

    async fn log_in_at(
        &self,
        call: &Call<'_>,
        endpoint: &Endpoint,
        validity: Validity,
    ) -> Result<LoggedIn, Failure> {
        let of = call.of;
        let Some(url) = call.url(endpoint) else {
            let (location, reason) = (endpoint.api.to_string(), "it is not an HTTP address");
            return Err(Failure::Final(RegistryErrorKind::Redirect { location, reason }));
        };
        let response = self.send_once(call, &url, endpoint, None).await?;
        if response.status().is_success() {
            let content_type = response.headers().get(CONTENT_TYPE);
            let is_page = content_type.is_some_and(|of| of.as_bytes().starts_with(b"text/html"));
            return match is_page {
                false => Ok(LoggedIn { standing: Standing::NotAsked, identity: None }),
                true => Err(Failure::Final(RegistryErrorKind::Status {
                    status: response.status().as_u16(),
                    method: "GET",
                    path: "/v2/".to_owned(),
                    message: "that is a page for people, so it is no registry that answers"
                        .to_owned(),
                })),
            };
        }
        if response.status() != StatusCode::UNAUTHORIZED {
            return Err(self.refused(call, response, endpoint).await);
        }
        let refused = || {
            let registry = of.registry().to_owned();
            Failure::Final(RegistryErrorKind::LoginRefused { registry })
        };
        let authorized = self.authorize_for(call, &response, endpoint, validity).await;
        let Authorization { header, identity } = match authorized {
            Ok(authorization) => authorization,
            Err(Failure::Final(RegistryErrorKind::Denied { .. })) => return Err(refused()),
            Err(failure) => return Err(failure),
        };
        let response = self.send_once(call, &url, endpoint, Some(&header)).await?;
        match response.status() {
            status if status.is_success() => match self.credential(of, endpoint).await? {
                Some(_) => Ok(LoggedIn { standing: Standing::LoggedIn, identity }),
                None => Ok(LoggedIn { standing: Standing::Anonymous, identity: None }),
            },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(refused()),
            _ => Err(self.refused(call, response, endpoint).await),
        }
    }
}
