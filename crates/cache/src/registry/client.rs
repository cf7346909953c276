//! One request: where it goes, with which authorization, through which redirects, and how often.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rbuild_oci::Reference;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RANGE, WWW_AUTHENTICATE,
};
use reqwest::{Response, StatusCode, Url};

use super::auth::{Challenge, TokenRequest, parse_token};
use super::host::base_url;
use super::{Credential, Credentials, RegistryError, RegistryErrorKind};
use crate::http::{
    HttpClients, HttpOptions, MOST_REDIRECTS, Proxies, RetryPolicy, TransportError, broken,
    is_transient, location, retry_after, shorten,
};

/// Tokens have some kilobytes, error texts should.
const SMALL_ANSWER: u64 = 256 * 1024;

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// Logins.
    pub credentials: Credentials,
    /// Proxies, never used for the loopback.
    pub proxies: Proxies,
    /// PEM files with authorities to trust besides the system's.
    pub certificates: Vec<PathBuf>,
    /// Registries (`host[:port]`) outside the loopback that speak plain HTTP.
    pub plain_http: Vec<String>,
    /// Registries on the loopback that speak HTTPS.
    pub https: Vec<String>,
    /// What is tried again, and when.
    pub retry: RetryPolicy,
}

/// Fetches from registries. Clones share connections and tokens.
#[derive(Clone, Debug)]
pub struct RegistryClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: RegistryOptions,
    clients: HttpClients,
    /// What a repository (`registry/repository`) accepted as authorization.
    authorizations: Mutex<HashMap<String, HeaderValue>>,
}

/// A `GET` below a repository.
#[derive(Clone, Debug)]
pub(super) struct Get<'a> {
    pub(super) of: &'a Reference,
    /// Below `/v2/<repository>/`.
    pub(super) path: String,
    pub(super) accept: Option<&'static str>,
    /// How many bytes at the start are already there.
    pub(super) offset: u64,
}

/// A failed attempt.
#[derive(Debug)]
pub(super) enum Failure {
    Final(RegistryErrorKind),
    Transient(RegistryErrorKind, Option<Duration>),
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        RegistryErrorKind::from(error).into()
    }
}

impl From<RegistryErrorKind> for Failure {
    fn from(kind: RegistryErrorKind) -> Self {
        match kind {
            RegistryErrorKind::Transport(error) if error.is_transient() => {
                Self::Transient(RegistryErrorKind::Transport(error), None)
            }
            kind => Self::Final(kind),
        }
    }
}

/// The attempts that one operation has made.
#[derive(Debug)]
pub(super) struct Retries {
    policy: RetryPolicy,
    attempt: u32,
}

impl Retries {
    /// Waits before the next attempt, or gives up with the failure's error.
    pub(super) async fn wait(&mut self, failure: Failure) -> Result<(), RegistryErrorKind> {
        let (kind, retry_after) = match failure {
            Failure::Final(kind) => return Err(kind),
            Failure::Transient(kind, retry_after) => (kind, retry_after),
        };
        let Some(delay) = self.policy.delay(self.attempt, retry_after) else { return Err(kind) };
        self.attempt += 1;
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

impl RegistryClient {
    /// A client that has not connected to anything yet.
    pub fn new(options: RegistryOptions) -> Self {
        let http = HttpOptions {
            proxies: options.proxies.clone(),
            certificates: options.certificates.clone(),
        };
        Self(Arc::new(Inner {
            options,
            clients: HttpClients::new(http),
            authorizations: Mutex::default(),
        }))
    }

    pub(super) fn retries(&self) -> Retries {
        Retries { policy: self.0.options.retry.clone(), attempt: 1 }
    }

    /// Makes one attempt: follows redirects and answers one challenge. The answer's status is 200 or 206.
    pub(super) async fn try_get(&self, get: &Get<'_>) -> Result<Response, Failure> {
        let base = base_url(get.of.registry(), &self.0.options.plain_http, &self.0.options.https);
        let path = format!("/v2/{}/{}", get.of.repository(), get.path);
        let bad_url = |location: &str| RegistryErrorKind::Redirect {
            location: shorten(location),
            reason: "it is not an HTTP address",
        };
        let mut url = Url::parse(&format!("{base}{path}")).map_err(|_| bad_url(&base))?;
        let home = url.origin();
        let plain_home = url.scheme() == "http";
        let mut authorization = self.known_authorization(get.of);
        let mut challenged = false;
        for _ in 0..=MOST_REDIRECTS {
            let at_home = url.origin() == home;
            let mut request = self.0.clients.of(&url)?.get(url.clone());
            if let Some(accept) = get.accept {
                request = request.header(ACCEPT, accept);
            }
            if get.offset > 0 {
                request = request.header(RANGE, format!("bytes={}-", get.offset));
            }
            if let Some(authorization) = authorization.as_ref().filter(|_| at_home) {
                request = request.header(AUTHORIZATION, authorization.clone());
            }
            let response = request.send().await.map_err(|error| broken(&url, error))?;
            match response.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(response),
                StatusCode::UNAUTHORIZED if at_home && !challenged => {
                    challenged = true;
                    authorization = Some(self.authorize(get.of, &response, plain_home).await?);
                }
                status if status.is_redirection() => {
                    let Some(next) = location(&url, &response) else {
                        let written = response.headers().get(LOCATION);
                        let written = written.and_then(|value| value.to_str().ok());
                        return Err(Failure::Final(bad_url(written.unwrap_or_default())));
                    };
                    if url.scheme() == "https" && next.scheme() == "http" {
                        return Err(Failure::Final(RegistryErrorKind::Redirect {
                            location: shorten(next.as_str()),
                            reason: "it leads from HTTPS to HTTP",
                        }));
                    }
                    url = next;
                }
                _ => return Err(self.refused(get, response).await),
            }
        }
        Err(Failure::Final(RegistryErrorKind::Redirect {
            location: shorten(url.as_str()),
            reason: "there were ten redirects before it",
        }))
    }

    fn known_authorization(&self, of: &Reference) -> Option<HeaderValue> {
        let known = self.0.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&of.name()).cloned()
    }

    /// Answers the challenge of a 401 and remembers the answer for the repository.
    async fn authorize(
        &self,
        of: &Reference,
        response: &Response,
        plain: bool,
    ) -> Result<HeaderValue, Failure> {
        let challenge = Challenge::parse(response.headers().get_all(WWW_AUTHENTICATE).iter())?;
        let credential = self.credential(of).await?;
        let request = TokenRequest::new(&challenge, of.repository(), credential.as_ref(), plain)?;
        let value = match (request, credential) {
            (Some(request), credential) => {
                format!("Bearer {}", self.token(of, request, credential.is_some()).await?)
            }
            (None, Some(Credential::Password { name, password })) => basic(&name, &password),
            (None, _) => return Err(Failure::Final(login_needed(of))),
        };
        let mut value =
            HeaderValue::from_str(&value).map_err(|_| RegistryErrorKind::Challenge {
                challenge: of.registry().to_owned(),
                reason: "the token or password has characters that no header can carry",
            })?;
        value.set_sensitive(true);
        let mut known = self.0.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(of.name(), value.clone());
        Ok(value)
    }

    async fn credential(&self, of: &Reference) -> Result<Option<Credential>, RegistryErrorKind> {
        let (credentials, of) = (self.0.options.credentials.clone(), of.clone());
        tokio::task::spawn_blocking(move || credentials.find(&of))
            .await
            .expect("looking up a login does not panic")
            .map_err(RegistryErrorKind::Credentials)
    }

    async fn token(
        &self,
        of: &Reference,
        request: TokenRequest,
        with_login: bool,
    ) -> Result<String, Failure> {
        let TokenRequest { url, basic: password, form } = request;
        let http = self.0.clients.of(&url)?;
        let builder = match form {
            Some(form) => http
                .post(url.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form),
            None => http.get(url.clone()),
        };
        let builder = match password {
            Some((name, password)) => builder.header(AUTHORIZATION, basic(&name, &password)),
            None => builder,
        };
        let mut response = builder.send().await.map_err(|error| broken(&url, error))?;
        let status = response.status();
        let retry_after = retry_after(&response);
        let answer =
            read_bounded(&mut response, SMALL_ANSWER, "the token service's answer").await?;
        let failed = |answer: &[u8]| RegistryErrorKind::Token {
            service: url.origin().ascii_serialization(),
            status: status.as_u16(),
            message: message_of(answer),
        };
        match status {
            StatusCode::OK => parse_token(&answer)
                .ok_or_else(|| Failure::Final(failed(b"there is no token in it"))),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Failure::Final(if with_login { denied(of) } else { login_needed(of) }))
            }
            status if is_transient(status.as_u16()) => {
                Err(Failure::Transient(failed(&answer), retry_after))
            }
            _ => Err(Failure::Final(failed(&answer))),
        }
    }

    /// What a refusal means.
    async fn refused(&self, get: &Get<'_>, mut response: Response) -> Failure {
        let status = response.status();
        let retry_after = retry_after(&response);
        // The registry's words are a courtesy: without them the status still says enough.
        let body = read_bounded(&mut response, SMALL_ANSWER, "an error").await.unwrap_or_default();
        let kind = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                match self.credential(get.of).await {
                    Ok(Some(_)) => denied(get.of),
                    Ok(None) => login_needed(get.of),
                    Err(kind) => kind,
                }
            }
            StatusCode::TOO_MANY_REQUESTS => {
                RegistryErrorKind::TooManyRequests { registry: get.of.registry().to_owned() }
            }
            status => RegistryErrorKind::Status {
                status: status.as_u16(),
                method: "GET",
                path: format!("/v2/{}/{}", get.of.repository(), get.path),
                message: message_of(&body),
            },
        };
        if is_transient(status.as_u16()) {
            Failure::Transient(kind, retry_after)
        } else {
            Failure::Final(kind)
        }
    }
}

/// Puts an error where it belongs.
pub(super) fn at(of: &Reference, kind: RegistryErrorKind) -> RegistryError {
    RegistryError {
        registry: of.registry().to_owned(),
        repository: of.repository().to_owned(),
        kind: Box::new(kind),
    }
}

/// Reads an answer that must be small.
pub(super) async fn read_bounded(
    response: &mut Response,
    limit: u64,
    what: &str,
) -> Result<Vec<u8>, Failure> {
    let too_large = || RegistryErrorKind::TooLarge { what: what.to_owned(), limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(Failure::Final(too_large()));
    }
    let mut bytes = Vec::new();
    let url = response.url().clone();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(&url, error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > limit {
            return Err(Failure::Final(too_large()));
        }
    }
    Ok(bytes)
}

/// The messages of a registry's error document, or what it said otherwise.
fn message_of(body: &[u8]) -> String {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let errors = document["errors"].as_array().into_iter().flatten();
    let messages: Vec<&str> =
        errors.filter_map(|error| error["message"].as_str().or(error["code"].as_str())).collect();
    if messages.is_empty() {
        shorten(String::from_utf8_lossy(body).trim())
    } else {
        shorten(&messages.join("; "))
    }
}

fn basic(name: &str, password: &str) -> String {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
    format!("Basic {encoded}")
}

fn denied(of: &Reference) -> RegistryErrorKind {
    RegistryErrorKind::Denied { registry: of.registry().to_owned() }
}

fn login_needed(of: &Reference) -> RegistryErrorKind {
    RegistryErrorKind::LoginNeeded { registry: of.registry().to_owned() }
}
