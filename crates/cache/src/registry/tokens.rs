//! Answering a challenge: with a password, or with a token that a service gives for the login.

use std::collections::HashMap;
use std::sync::PoisonError;

use rbuild_oci::Reference;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode};
use tokio::sync::Mutex;

use super::auth::{Challenge, Token, TokenRequest, Validity};
use super::client::{
    AuthorizationKey, Call, Failure, SMALL_ANSWER, denied, message_of, read_bounded, said,
};
use super::endpoints::Endpoint;
use super::{Credential, RegistryClient, RegistryErrorKind};
use crate::http::{is_transient, retry_after};

/// Identity tokens that their service has replaced, by those that are stored. Held over the exchange: a service may take
/// each one once only.
#[derive(Debug, Default)]
pub(super) struct Identities(Mutex<HashMap<String, String>>);

/// The answer to a challenge.
#[derive(Debug)]
pub(super) struct Authorization {
    pub(super) header: HeaderValue,
    /// What may be stored instead of the password, if the service gives such.
    pub(super) identity: Option<Credential>,
}

impl RegistryClient {
    /// Answers the challenge of a 401 and remembers the answer for the repository.
    pub(super) async fn authorize(
        &self,
        call: &Call<'_>,
        response: &Response,
        endpoint: &Endpoint,
    ) -> Result<HeaderValue, Failure> {
        Ok(self.authorize_for(call, response, endpoint, Validity::Command).await?.header)
    }

    /// As [`RegistryClient::authorize`], for as long as is said.
    pub(super) async fn authorize_for(
        &self,
        call: &Call<'_>,
        response: &Response,
        endpoint: &Endpoint,
        validity: Validity,
    ) -> Result<Authorization, Failure> {
        let of = call.of;
        let challenge = Challenge::parse(response.headers().get_all(WWW_AUTHENTICATE).iter())?;
        let plain = endpoint.api.scheme() == "http";
        let credential = self.credential(of, endpoint).await?;
        let scopes = call.access.scopes(of.repository(), &challenge);
        let ask = |credential: Option<&Credential>| {
            TokenRequest::new(&challenge, &scopes, credential, plain, validity)
        };
        let token = match &credential {
            Some(Credential::IdentityToken(stored)) => {
                let mut replaced = self.0.identities.0.lock().await;
                let current = replaced.get(stored).unwrap_or(stored).clone();
                let request = ask(Some(&Credential::IdentityToken(current)))?;
                let token = self.token_of(of, endpoint, request, true).await?;
                if let Some(new) = token.as_ref().and_then(|token| token.identity.clone()) {
                    replaced.insert(stored.clone(), new);
                }
                token
            }
            other => {
                let request = ask(other.as_ref())?;
                self.token_of(of, endpoint, request, other.is_some()).await?
            }
        };
        let key = match token {
            Some(_) => AuthorizationKey::new(endpoint, of, call.access),
            None => AuthorizationKey::everything(endpoint, of),
        };
        let (value, identity) = match (token, credential) {
            (Some(Token { access, identity }), _) => (format!("Bearer {access}"), identity),
            (None, Some(Credential::Password { name, password })) => {
                (basic(&name, &password), None)
            }
            (None, _) => return Err(Failure::Final(self.login_needed(of, String::new()))),
        };
        let mut header =
            HeaderValue::from_str(&value).map_err(|_| RegistryErrorKind::Challenge {
                challenge: of.registry().to_owned(),
                reason: "the token or password has characters that no header can carry",
            })?;
        header.set_sensitive(true);
        let mut known = self.0.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(key, header.clone());
        Ok(Authorization { header, identity: identity.map(Credential::IdentityToken) })
    }

    /// `None` when the registry wants no token.
    async fn token_of(
        &self,
        of: &Reference,
        endpoint: &Endpoint,
        request: Option<TokenRequest>,
        with_login: bool,
    ) -> Result<Option<Token>, Failure> {
        match request {
            Some(request) => self.token(of, endpoint, request, with_login).await.map(Some),
            None => Ok(None),
        }
    }

    async fn token(
        &self,
        of: &Reference,
        endpoint: &Endpoint,
        request: TokenRequest,
        with_login: bool,
    ) -> Result<Token, Failure> {
        let TokenRequest { url, posted_to, basic: password, form } = request;
        let http = self.0.clients.with(&url, &self.tls(&url, endpoint))?;
        let post = |form: String| {
            let form_type = "application/x-www-form-urlencoded";
            http.post(posted_to.clone()).header(CONTENT_TYPE, form_type).body(form)
        };
        let send = async |builder: reqwest::RequestBuilder| self.answered(&url, builder).await;
        let mut response = match (password, form) {
            (None, Some(form)) => send(post(form)).await?,
            (None, None) => send(http.get(url.clone())).await?,
            (Some((name, password)), form) => {
                let get = http.get(url.clone()).header(AUTHORIZATION, basic(&name, &password));
                let answer = send(get).await?;
                match form.filter(|_| is_no_such_request(answer.status())) {
                    Some(form) => send(post(form)).await?,
                    None => answer,
                }
            }
        };
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
            StatusCode::OK => Token::parse(&answer)
                .ok_or_else(|| Failure::Final(failed(b"there is no token in it"))),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let said = said(&answer);
                let refused =
                    if with_login { denied(of, said) } else { self.login_needed(of, said) };
                Err(Failure::Final(refused))
            }
            status if is_transient(status.as_u16()) => {
                Err(Failure::Transient(failed(&answer), retry_after))
            }
            _ => Err(Failure::Final(failed(&answer))),
        }
    }
}

/// Whether a service knows only the other of the two ways to ask.
fn is_no_such_request(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
}

fn basic(name: &str, password: &str) -> String {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
    format!("Basic {encoded}")
}
