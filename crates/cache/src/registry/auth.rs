//! Answering a registry's challenge: Basic (RFC 7617) and Docker's token protocol
//! (<https://distribution.github.io/distribution/spec/auth/token/>).

use reqwest::Url;
use reqwest::header::HeaderValue;
use serde::Deserialize;

use super::challenge::split_challenges;
use super::{Credential, RegistryErrorKind};
use crate::http::{is_loopback, shorten};

/// What a request does to a repository, which is what a token must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access<'a> {
    /// Nothing with any repository.
    Nothing,
    /// Reads.
    Pull,
    /// Reads and writes.
    Push,
    /// The same, and reads another repository of the registry.
    Mount {
        /// The other repository.
        from: &'a str,
    },
}

impl Access<'_> {
    /// The scopes of a token for this. What the registry itself asks for is asked for, too.
    pub(super) fn scopes(self, repository: &str, challenge: &Challenge) -> Vec<String> {
        let asked = match challenge {
            Challenge::Bearer { scope: Some(scope), .. } => scope.as_str(),
            _ => "",
        };
        let pull = |repository: &str| format!("repository:{repository}:pull");
        let mut scopes = match self {
            Self::Nothing => return Vec::new(),
            // A registry knows best what its repositories are called at its token service.
            Self::Pull if !asked.is_empty() => return vec![asked.to_owned()],
            Self::Pull => vec![pull(repository)],
            Self::Push => vec![pull(repository) + ",push"],
            Self::Mount { from } => vec![pull(repository) + ",push", pull(from)],
        };
        for asked in asked.split_whitespace() {
            if !scopes.iter().any(|scope| scope_covers(scope, asked)) {
                scopes.push(asked.to_owned());
            }
        }
        scopes
    }
}

/// Whether `scope` (`type:name:action,action`) allows all that `asked` does.
fn scope_covers(scope: &str, asked: &str) -> bool {
    let (Some((of, actions)), Some((asked_of, asked_actions))) =
        (scope.rsplit_once(':'), asked.rsplit_once(':'))
    else {
        return scope == asked;
    };
    of == asked_of
        && asked_actions.split(',').all(|asked| actions.split(',').any(|action| action == asked))
}

/// What a `WWW-Authenticate` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and password with each request.
    Basic,
    /// A token from another service.
    Bearer {
        /// The service's address.
        realm: String,
        /// What the service calls the registry.
        service: Option<String>,
        /// What the token must allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Picks the strongest known challenge of all `WWW-Authenticate` headers (RFC 9110, section 11.6.1).
    pub(super) fn parse<'a>(
        headers: impl Iterator<Item = &'a HeaderValue>,
    ) -> Result<Self, RegistryErrorKind> {
        let texts: Vec<&str> = headers.filter_map(|header| header.to_str().ok()).collect();
        let challenges: Vec<(String, Vec<(String, String)>)> =
            texts.iter().flat_map(|text| split_challenges(text)).collect();
        let fail =
            |reason| RegistryErrorKind::Challenge { challenge: shorten(&texts.join(", ")), reason };
        if let Some((_, parameters)) = challenges.iter().find(|(scheme, _)| scheme == "bearer") {
            let value = |name: &str| {
                parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
            };
            let realm = value("realm").ok_or_else(|| fail("it names no token service"))?;
            return Ok(Self::Bearer { realm, service: value("service"), scope: value("scope") });
        }
        match challenges.iter().any(|(scheme, _)| scheme == "basic") {
            true => Ok(Self::Basic),
            false => Err(fail("it is neither Basic nor Bearer")),
        }
    }
}

/// A request to a token service, ready to be sent.
#[derive(Debug)]
pub(super) struct TokenRequest {
    pub(super) url: Url,
    /// For GET: the name and password to send along.
    pub(super) basic: Option<(String, String)>,
    /// For POST: the form. GET when there is none.
    pub(super) form: Option<String>,
}

impl TokenRequest {
    /// The request for a token with these scopes. `plain` says that the registry itself is spoken to without
    /// encryption, so that its token service may be too.
    pub(super) fn new(
        challenge: &Challenge,
        scopes: &[String],
        credential: Option<&Credential>,
        plain: bool,
    ) -> Result<Option<Self>, RegistryErrorKind> {
        let Challenge::Bearer { realm, service, .. } = challenge else { return Ok(None) };
        let fail = |reason| RegistryErrorKind::Challenge { challenge: shorten(realm), reason };
        let mut url = Url::parse(realm).map_err(|_| fail("its token service is no URL"))?;
        let safe = match url.scheme() {
            "https" => true,
            "http" => plain || url.host_str().is_some_and(is_loopback),
            _ => return Err(fail("its token service is not an HTTP address")),
        };
        if !safe && credential.is_some() {
            return Err(fail("its token service would get the login without encryption"));
        }
        // The token protocol repeats the parameter; OAuth's form, which has one, lists them.
        let listed = scopes.join(" ");
        let mut pairs: Vec<(&str, &str)> = match credential {
            Some(Credential::IdentityToken(_)) => vec![("scope", &listed)],
            _ => scopes.iter().map(|scope| ("scope", scope.as_str())).collect(),
        };
        pairs.extend(service.as_deref().map(|service| ("service", service)));
        let (mut basic, mut form) = (None, None);
        match credential {
            Some(Credential::IdentityToken(token)) => {
                pairs.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", "rbuild"),
                    ("refresh_token", token),
                ]);
                let mut encoder = url.clone();
                encoder.query_pairs_mut().clear().extend_pairs(pairs);
                form = Some(encoder.query().unwrap_or_default().to_owned());
            }
            Some(Credential::Password { name, password }) => {
                pairs.push(("account", name));
                url.query_pairs_mut().extend_pairs(pairs);
                basic = Some((name.clone(), password.clone()));
            }
            None => {
                url.query_pairs_mut().extend_pairs(pairs);
            }
        }
        Ok(Some(Self { url, basic, form }))
    }
}

/// The token in a token service's answer.
pub(super) fn parse_token(answer: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: String,
        #[serde(default)]
        access_token: String,
    }
    let Answer { token, access_token } = serde_json::from_slice(answer).ok()?;
    [token, access_token].into_iter().find(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(headers: &[&str]) -> Result<Challenge, RegistryErrorKind> {
        let headers: Vec<HeaderValue> =
            headers.iter().map(|text| HeaderValue::from_str(text).unwrap()).collect();
        Challenge::parse(headers.iter())
    }

    #[test]
    fn reads_challenges() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        };
        for (headers, expected) in [
            (&["Basic realm=\"x\""][..], Challenge::Basic),
            (
                &["Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:x:pull,push\""],
                bearer("https://a/t", Some("s"), Some("repository:x:pull,push")),
            ),
            (&["bearer realm=r , SERVICE = s"], bearer("r", Some("s"), None)),
            (&["Basic realm=\"a, b\", Bearer realm=\"r\\\"q\""], bearer("r\"q", None, None)),
            (&["Negotiate", "Basic"], Challenge::Basic),
        ] {
            assert_eq!(parse(headers).unwrap(), expected);
        }
        for bad in [&[][..], &["Negotiate abc="], &["Bearer service=x"], &["=,=\"", "\"\\"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn asks_for_tokens() {
        let challenge = parse(&["Bearer realm=\"https://a/t?x=1\",service=\"s&s\""]).unwrap();
        let password = Credential::Password { name: "n".to_owned(), password: "p".to_owned() };
        let scopes = ["repository:a/b:pull".to_owned()];
        let request =
            TokenRequest::new(&challenge, &scopes, Some(&password), false).unwrap().unwrap();
        assert_eq!(
            request.url.as_str(),
            "https://a/t?x=1&scope=repository%3Aa%2Fb%3Apull&service=s%26s&account=n"
        );
        assert_eq!(request.basic, Some(("n".to_owned(), "p".to_owned())));
        let token = Credential::IdentityToken("t/t".to_owned());
        let scopes = ["repository:a:pull".to_owned(), "repository:b:pull".to_owned()];
        let request = TokenRequest::new(&challenge, &scopes, Some(&token), false).unwrap().unwrap();
        assert_eq!(request.url.as_str(), "https://a/t?x=1");
        assert_eq!(
            request.form.unwrap(),
            "scope=repository%3Aa%3Apull+repository%3Ab%3Apull&service=s%26s&grant_type=refresh_token&client_id=rbuild&refresh_token=t%2Ft"
        );
        let plain = parse(&["Bearer realm=\"http://a/t\""]).unwrap();
        assert!(TokenRequest::new(&plain, &scopes, Some(&token), false).is_err());
        assert!(TokenRequest::new(&plain, &scopes, Some(&token), true).is_ok());
        assert!(TokenRequest::new(&plain, &scopes, None, false).is_ok());
    }

    #[test]
    fn asks_for_what_the_request_does() {
        let challenge = |scope: &str| Challenge::Bearer {
            realm: String::new(),
            service: None,
            scope: Some(scope.to_owned()).filter(|scope| !scope.is_empty()),
        };
        let (push, mount) = (Access::Push, Access::Mount { from: "c" });
        for (access, asked, expected) in [
            (Access::Pull, "", "repository:a/b:pull"),
            (Access::Pull, "repository:x/a/b:pull", "repository:x/a/b:pull"),
            (push, "", "repository:a/b:pull,push"),
            (push, "repository:a/b:pull", "repository:a/b:pull,push"),
            (push, "repository:a/b:push,pull", "repository:a/b:pull,push"),
            (push, "repository:z:pull", "repository:a/b:pull,push repository:z:pull"),
            (mount, "repository:a/b:push", "repository:a/b:pull,push repository:c:pull"),
            (mount, "registry:*", "repository:a/b:pull,push repository:c:pull registry:*"),
        ] {
            assert_eq!(access.scopes("a/b", &challenge(asked)).join(" "), expected);
        }
    }

    #[test]
    fn finds_the_token() {
        assert_eq!(parse_token(br#"{"token":"a"}"#).unwrap(), "a");
        assert_eq!(parse_token(br#"{"access_token":"b","token":""}"#).unwrap(), "b");
        assert_eq!(parse_token(b"{}"), None);
        assert_eq!(parse_token(b"<html>"), None);
    }
}
