//! One request: where it goes, with which authorization, through which redirects, and how often.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rbuild_oci::Reference;
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use tokio::sync::Semaphore;

use super::auth::{Access, Challenge};
use super::endpoints::{self, Endpoint, HostFiles, Rights};
use super::mirrors::{Answer, Mirror, MirrorFault};
use super::tokens::Identities;
use super::{Credential, Credentials, RegistryError, RegistryErrorKind};
use crate::http::{
    BodyStream, HttpClients, HttpOptions, MOST_REDIRECTS, Proxies, RetryPolicy, TlsFiles,
    TransportError, broken, is_transient, location, retry_after, shorten,
};

/// Tokens have some kilobytes, error texts should.
pub(super) const SMALL_ANSWER: u64 = 256 * 1024;

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
    /// Registries that are believed to be who they say, and spoken to without encryption if they have none.
    pub insecure: Vec<String>,
    /// Where mirrors and certificates of single registries are configured.
    pub hosts: HostFiles,
    /// What is tried again, and when.
    pub retry: RetryPolicy,
}

/// Blobs that are sent to one registry at a time. Registries begin to refuse beyond that.
const PARALLEL_UPLOADS: usize = 5;

/// Fetches from registries and writes to them. Clones share connections and tokens.
#[derive(Clone, Debug)]
pub struct RegistryClient(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) options: RegistryOptions,
    pub(super) clients: HttpClients,
    pub(super) authorizations: Mutex<HashMap<AuthorizationKey, HeaderValue>>,
    pub(super) identities: Identities,
    /// The ways to each registry that was asked.
    endpoints: Mutex<HashMap<String, Arc<Vec<Endpoint>>>>,
    /// Of each registry that something was sent to.
    uploads: Mutex<HashMap<String, Arc<Semaphore>>>,
    pub(super) mirror_faults: Mutex<Vec<MirrorFault>>,
}

/// What an authorization is good for.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct AuthorizationKey {
    /// The only server that gets it.
    at: String,
    /// `registry/repository`.
    name: String,
    /// `None` for everything: a name and password.
    access: Option<String>,
}

impl AuthorizationKey {
    pub(super) fn new(at: &Endpoint, of: &Reference, access: Access<'_>) -> Self {
        let access = match access {
            Access::Nothing => "nothing".to_owned(),
            Access::Pull => "pull".to_owned(),
            Access::Push => "push".to_owned(),
            Access::Mount { from } => format!("mount {from}"),
        };
        Self { access: Some(access), ..Self::everything(at, of) }
    }

    pub(super) fn everything(at: &Endpoint, of: &Reference) -> Self {
        let at = at.api.origin().ascii_serialization();
        Self { at, name: of.name(), access: None }
    }
}

/// A request to a repository.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) of: &'a Reference,
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) access: Access<'a>,
    pub(super) headers: HeaderMap,
    pub(super) body: CallBody<'a>,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// `/v2/`, which is there to say who may speak to the registry at all.
    Base,
    /// Below `/v2/<repository>/`.
    Below(String),
    /// To an address that the registry named.
    Named(Url),
}

/// What a request carries. It can be sent again, after a challenge or a redirect.
#[derive(Debug)]
pub(super) enum CallBody<'a> {
    None,
    Bytes(&'a [u8]),
    /// Bytes that are read while they are sent.
    Stream(&'a BodyStream),
}

impl<'a> Call<'a> {
    /// A request without headers and body.
    pub(super) fn new(
        method: Method,
        of: &'a Reference,
        access: Access<'a>,
        target: Target,
    ) -> Self {
        let (headers, body) = (HeaderMap::new(), CallBody::None);
        Self { of, method, target, access, headers, body }
    }

    pub(super) fn get(of: &'a Reference, path: String) -> Self {
        Self::new(Method::GET, of, Access::Pull, Target::Below(path))
    }

    /// Whether an endpoint is asked this.
    fn is_for(&self, endpoint: &Endpoint) -> bool {
        let Rights { pull, resolve, push } = endpoint.rights;
        match (&self.target, self.access) {
            (Target::Base, _) => !endpoint.is_mirror,
            (_, Access::Push | Access::Mount { .. }) => push,
            (Target::Below(path), _) if path.starts_with("manifests/") && !path.contains(':') => {
                resolve
            }
            _ => pull,
        }
    }

    /// Whether the answer needs no work of the registry to begin, such as fetching a blob from elsewhere or checking a document.
    fn is_small(&self) -> bool {
        match &self.target {
            Target::Named(_) => false,
            Target::Base => true,
            Target::Below(path) => match self.method {
                Method::GET => path.starts_with("manifests/"),
                Method::PUT | Method::PATCH => false,
                _ => true,
            },
        }
    }

    /// Where it goes at an endpoint.
    pub(super) fn url(&self, to: &Endpoint) -> Option<Url> {
        let registry = self.of.registry();
        match &self.target {
            Target::Base => to.url(registry, "/"),
            Target::Below(path) => to.url(registry, &format!("/{}/{path}", self.of.repository())),
            Target::Named(url) => Some(url.clone()),
        }
    }

    /// The path, as errors name it.
    fn path(&self) -> String {
        match &self.target {
            Target::Base => "/v2/".to_owned(),
            Target::Below(path) => format!("/v2/{}/{path}", self.of.repository()),
            Target::Named(url) => url.path().to_owned(),
        }
    }

    fn method_name(&self) -> &'static str {
        match self.method {
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            _ => "GET",
        }
    }
}

/// A failed attempt.
#[derive(Debug)]
pub(super) enum Failure {
    Final(RegistryErrorKind),
    Transient(RegistryErrorKind, Option<Duration>),
}

impl Failure {
    /// What went wrong, in words.
    pub(super) fn reason(&self) -> String {
        let (Self::Final(kind) | Self::Transient(kind, _)) = self;
        kind.to_string()
    }

    /// Whether there was nobody to talk to.
    pub(super) fn is_unreachable(&self) -> bool {
        let (Self::Final(kind) | Self::Transient(kind, _)) = self;
        matches!(
            kind,
            RegistryErrorKind::Transport(
                TransportError::Connect { .. }
                    | TransportError::Proxied { .. }
                    | TransportError::Handshake { .. }
                    | TransportError::Resolve { .. }
            )
        )
    }
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
        // Who says nothing at all seldom does the next time, and each time is long.
        let is_silent =
            matches!(kind, RegistryErrorKind::Transport(TransportError::NoAnswer { .. }));
        if is_silent && self.attempt > 1 {
            return Err(kind);
        }
        let Some(delay) = self.policy.delay(self.attempt, retry_after) else { return Err(kind) };
        self.attempt += 1;
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// All attempts are left: what was tried goes on.
    pub(super) fn begin_again(&mut self) {
        self.attempt = 1;
    }
}

impl RegistryClient {
    /// A client that has not connected to anything yet.
    pub fn new(options: RegistryOptions) -> Self {
        let http = HttpOptions {
            proxies: options.proxies.clone(),
            certificates: options.certificates.clone(),
            idle_limit: options.retry.idle_limit,
        };
        Self(Arc::new(Inner {
            options,
            clients: HttpClients::new(http),
            authorizations: Mutex::default(),
            identities: Identities::default(),
            endpoints: Mutex::default(),
            uploads: Mutex::default(),
            mirror_faults: Mutex::default(),
        }))
    }

    pub(super) fn retries(&self) -> Retries {
        Retries { policy: self.0.options.retry.clone(), attempt: 1 }
    }

    /// Limits what is sent to the registry of `of` at a time.
    pub(super) fn uploads(&self, of: &Reference) -> Arc<Semaphore> {
        let mut uploads = self.0.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = || Arc::new(Semaphore::new(PARALLEL_UPLOADS));
        Arc::clone(uploads.entry(of.registry().to_owned()).or_insert_with(limit))
    }

    /// Makes one attempt at each of the registry's endpoints that is good for this, until one gives an answer. Its status is a
    /// success.
    pub(super) async fn try_send(&self, call: &Call<'_>) -> Result<Response, Failure> {
        Ok(self.try_send_from(call, 0).await?.response)
    }

    /// As [`RegistryClient::try_send`], without the endpoints before `first` where there are others.
    pub(super) async fn try_send_from(
        &self,
        call: &Call<'_>,
        first: usize,
    ) -> Result<Answer, Failure> {
        let endpoints = self.endpoints(call.of).await?;
        let is_fit = |(_, endpoint): &(usize, &Endpoint)| {
            call.is_for(endpoint) && !endpoint.is_down.load(Ordering::Relaxed)
        };
        let mut fit: Vec<(usize, &Endpoint)> =
            endpoints.iter().enumerate().filter(is_fit).collect();
        // A mirror may be all there is.
        if fit.iter().any(|(number, _)| *number >= first) {
            fit.retain(|(number, _)| *number >= first);
        }
        let mut fit = fit.into_iter().peekable();
        let mut passed_over = Vec::new();
        while let Some((number, endpoint)) = fit.next() {
            let is_last = fit.peek().is_none();
            let failed = match self.try_send_to(call, endpoint).await {
                Ok(response) => {
                    let mirror = (endpoint.is_mirror && !is_last)
                        .then(|| Mirror { authority: endpoint.authority(), next: number + 1 });
                    return Ok(Answer { response, mirror });
                }
                Err(failed) => failed,
            };
            let is_unreachable = failed.is_unreachable();
            // What is written goes to one server only.
            let goes_on = match endpoint.is_mirror {
                true => call.access == Access::Pull,
                false => is_unreachable,
            };
            if !goes_on || is_last {
                // What the last one says is the error; the others may be why it was asked.
                let what = format!("`{} {}`", call.method_name(), call.path());
                for (mirror, reason) in passed_over {
                    self.note_fault(&mirror, call.of.registry(), &what, reason);
                }
                return Err(failed);
            }
            if endpoint.is_mirror {
                let mirror = Mirror { authority: endpoint.authority(), next: number + 1 };
                passed_over.push((mirror, failed.reason()));
            }
            endpoint.is_down.store(is_unreachable, Ordering::Relaxed);
        }
        let registry = call.of.registry().to_owned();
        Err(Failure::Final(RegistryErrorKind::NoEndpoint { registry }))
    }

    /// The ways to a registry, as configured when it was first asked.
    pub(super) async fn endpoints(&self, of: &Reference) -> Result<Arc<Vec<Endpoint>>, Failure> {
        let registry = of.registry().to_owned();
        let known = |endpoints: &Mutex<HashMap<String, Arc<Vec<Endpoint>>>>| {
            endpoints.lock().unwrap_or_else(PoisonError::into_inner).get(&registry).cloned()
        };
        if let Some(endpoints) = known(&self.0.endpoints) {
            return Ok(endpoints);
        }
        // A few small files of this machine; a thread to read them would cost more.
        let found = endpoints::find(&registry, &self.0.options)
            .map_err(|error| Failure::Final(RegistryErrorKind::Hosts(error)))?;
        // Another task may have found the same meanwhile, and knows by now who is down.
        let mut all = self.0.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(all.entry(registry).or_insert_with(|| Arc::new(found))))
    }

    /// Makes one attempt: follows redirects and answers one challenge.
    async fn try_send_to(&self, call: &Call<'_>, to: &Endpoint) -> Result<Response, Failure> {
        let refuse = |location: &str, reason: &'static str| {
            let location = shorten(location);
            Failure::Final(RegistryErrorKind::Redirect { location, reason })
        };
        let not_http = |location: &str| refuse(location, "it is not an HTTP address");
        let mut url = call.url(to).ok_or_else(|| not_http(to.api.as_str()))?;
        let mut secure = to.api.scheme() == "https";
        let mut authorization = self.known_authorization(call, to);
        let mut challenged = false;
        for _ in 0..=MOST_REDIRECTS {
            if secure && url.scheme() == "http" {
                return Err(refuse(url.as_str(), "it leads from HTTPS to HTTP"));
            }
            secure = url.scheme() == "https";
            let at_home = url.origin() == to.api.origin();
            let response = self.send_once(call, &url, to, authorization.as_ref()).await?;
            match response.status() {
                status if status.is_success() => return Ok(response),
                StatusCode::UNAUTHORIZED if at_home && !challenged => {
                    challenged = true;
                    authorization = Some(self.authorize(call, &response, to).await?);
                }
                status if status.is_redirection() && follows(&call.method, status) => {
                    let Some(next) = location(&url, &response) else {
                        let written = response.headers().get(LOCATION);
                        let written = written.and_then(|value| value.to_str().ok());
                        return Err(not_http(written.unwrap_or_default()));
                    };
                    url = next;
                }
                _ => return Err(self.refused(call, response, to).await),
            }
        }
        Err(refuse(url.as_str(), "there were ten redirects before it"))
    }

    /// Sends a request. What is meant for the endpoint, `authorization` above all, is not sent to another server.
    pub(super) async fn send_once(
        &self,
        call: &Call<'_>,
        url: &Url,
        endpoint: &Endpoint,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        let at_home = url.origin() == endpoint.api.origin();
        let tls = self.tls(url, endpoint);
        let client = match call.body {
            CallBody::Stream(_) => self.0.clients.for_uploads(url, &tls)?,
            _ => self.0.clients.with(url, &tls)?,
        };
        let mut request =
            client.request(call.method.clone(), url.clone()).headers(call.headers.clone());
        if at_home {
            request = request.headers(endpoint.headers.clone());
        }
        if let Some(authorization) = authorization.filter(|_| at_home) {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let request = match call.body {
            // Some registries refuse a POST that does not say that it carries nothing.
            CallBody::None if matches!(call.method, Method::POST | Method::PUT) => {
                request.header(CONTENT_LENGTH, "0")
            }
            CallBody::None => request,
            CallBody::Bytes(bytes) => request.body(bytes.to_vec()),
            CallBody::Stream(stream) => request.body(stream.body()),
        };
        match call.body {
            CallBody::Stream(stream) => {
                let idle = self.0.options.retry.idle_limit;
                Ok(stream
                    .watch(url, idle, request.send())
                    .await
                    .map_err(RegistryErrorKind::from)?)
            }
            _ if call.is_small() => self.answered(url, request).await,
            _ => Ok(request.send().await.map_err(|error| self.0.clients.broken(url, error))?),
        }
    }

    /// The answer to a small request, which has to begin soon.
    pub(super) async fn answered(
        &self,
        url: &Url,
        request: RequestBuilder,
    ) -> Result<Response, Failure> {
        let limit = self.0.options.retry.answer_limit;
        match tokio::time::timeout(limit, request.send()).await {
            Ok(answer) => Ok(answer.map_err(|error| self.0.clients.broken(url, error))?),
            Err(_) => {
                let host = url.host_str().unwrap_or_default().to_owned();
                Err(TransportError::NoAnswer { host, seconds: limit.as_secs() }.into())
            }
        }
    }

    /// How a server is known, and we to it, that has to do with an endpoint. Its authorities may sign for others, such as its token
    /// service; all else is for itself.
    pub(super) fn tls(&self, url: &Url, endpoint: &Endpoint) -> TlsFiles {
        match url.origin() == endpoint.api.origin() {
            true => endpoint.tls.clone(),
            false => {
                TlsFiles { authorities: endpoint.tls.authorities.clone(), ..TlsFiles::default() }
            }
        }
    }

    fn known_authorization(&self, call: &Call<'_>, to: &Endpoint) -> Option<HeaderValue> {
        let known = self.0.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |access| AuthorizationKey::new(to, call.of, access);
        let of_push = || known.get(&key(Access::Push)).filter(|_| call.access == Access::Pull);
        known
            .get(&key(call.access))
            .or_else(|| known.get(&AuthorizationKey::everything(to, call.of)))
            .or_else(of_push)
            .cloned()
    }

    /// The login for an endpoint: a mirror's is that under its own name.
    pub(super) async fn credential(
        &self,
        of: &Reference,
        endpoint: &Endpoint,
    ) -> Result<Option<Credential>, RegistryErrorKind> {
        let of = match endpoint.is_mirror {
            true => Reference::parse(&format!("{}/{}", endpoint.authority(), of.repository())).ok(),
            false => Some(of.clone()),
        };
        let Some(of) = of else { return Ok(None) };
        let credentials = self.0.options.credentials.clone();
        tokio::task::spawn_blocking(move || credentials.find(&of))
            .await
            .expect("looking up a login does not panic")
            .map_err(RegistryErrorKind::Credentials)
    }

    /// Nobody knows who we are, and that is not enough.
    pub(super) fn login_needed(&self, of: &Reference, said: String) -> RegistryErrorKind {
        let helpers = self.0.options.credentials.failed_helpers();
        RegistryErrorKind::LoginNeeded { registry: of.registry().to_owned(), helpers, said }
    }

    /// What a refusal means.
    pub(super) async fn refused(
        &self,
        call: &Call<'_>,
        mut response: Response,
        endpoint: &Endpoint,
    ) -> Failure {
        let status = response.status();
        let retry_after = retry_after(&response);
        let headers = response.headers();
        let challenge = Challenge::parse(headers.get_all(WWW_AUTHENTICATE).iter());
        let is_registry = headers.contains_key("Docker-Distribution-Api-Version");
        // The registry's words are a courtesy: without them the status still says enough.
        let body = read_bounded(&mut response, SMALL_ANSWER, "an error").await.unwrap_or_default();
        let said = said(&body);
        let registry = || call.of.registry().to_owned();
        let is_refused_login =
            status == StatusCode::UNAUTHORIZED && matches!(challenge, Ok(Challenge::Basic));
        let kind = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                match self.credential(call.of, endpoint).await {
                    Ok(Some(_)) if is_refused_login => {
                        RegistryErrorKind::LoginRefused { registry: registry() }
                    }
                    Ok(Some(_)) if call.access != Access::Pull => {
                        RegistryErrorKind::PushDenied { registry: registry(), said }
                    }
                    Ok(Some(_)) => denied(call.of, said),
                    Ok(None) => self.login_needed(call.of, said),
                    Err(kind) => kind,
                }
            }
            // Go's servers answer so, and nginx, to what is no TLS.
            StatusCode::BAD_REQUEST
                if endpoint.api.scheme() == "http"
                    && !is_registry
                    && (body.is_empty() || String::from_utf8_lossy(&body).contains("HTTPS")) =>
            {
                RegistryErrorKind::NotEncrypted { registry: endpoint.authority() }
            }
            StatusCode::TOO_MANY_REQUESTS => {
                RegistryErrorKind::TooManyRequests { registry: call.of.registry().to_owned() }
            }
            status => RegistryErrorKind::Status {
                status: status.as_u16(),
                method: call.method_name(),
                path: call.path(),
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

/// Whether a redirect is followed with this method: the old ones turn whatever was sent into a GET.
fn follows(method: &Method, status: StatusCode) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
        || matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT)
}

/// Puts an error where it belongs.
pub(super) fn at(of: &Reference, kind: RegistryErrorKind) -> RegistryError {
    RegistryError {
        registry: of.registry().to_owned(),
        repository: of.repository().to_owned(),
        kind: Box::new(kind),
    }
}

/// As [`at`], for what no repository is to blame for.
pub(super) fn at_registry(of: &Reference, kind: RegistryErrorKind) -> RegistryError {
    RegistryError { repository: String::new(), ..at(of, kind) }
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
pub(super) fn message_of(body: &[u8]) -> String {
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

/// The messages of a registry's error document; nothing where there is none.
pub(super) fn said(body: &[u8]) -> String {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match document["errors"].is_array() {
        true => message_of(body),
        false => String::new(),
    }
}

pub(super) fn denied(of: &Reference, said: String) -> RegistryErrorKind {
    RegistryErrorKind::Denied { registry: of.registry().to_owned(), said }
}
